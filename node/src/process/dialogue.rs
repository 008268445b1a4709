//! What a master and its child say to each other over their socket: one line each.
//!
//! A master that replaces its binary keeps the children of the former one, so a change here needs another
//! `master::exec::exec_state::VERSION`.

use std::fmt;
use std::time::Duration;

use crate::stop::StopReason;

/// What a master tells a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Drain and end, since the node stops.
    DrainForStop {
        /// The time that is left for it, in whole milliseconds.
        left: Duration,
    },
    /// Drain and end, since a successor serves.
    DrainForReload {
        /// The time that is left for it, in whole milliseconds.
        left: Duration,
    },
    /// Open the log file again by its name.
    ReopenLogs,
}

/// What a child tells its master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Report {
    /// It serves.
    Ready,
    /// It cannot serve, for this reason.
    Failed(String),
}

impl Order {
    /// The order on a line, without the line's end. `None` for a line that is none.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let left = |text: &str| text.parse().ok().map(Duration::from_millis);
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["drain", "stop", text] => Some(Self::DrainForStop { left: left(text)? }),
            ["drain", "reload", text] => Some(Self::DrainForReload { left: left(text)? }),
            ["reopen"] => Some(Self::ReopenLogs),
            _ => None,
        }
    }

    /// The order to drain for a reason, within a time.
    pub(crate) fn drain(reason: StopReason, left: Duration) -> Self {
        match reason {
            StopReason::Reload => Self::DrainForReload { left },
            StopReason::Stop | StopReason::MasterGone => Self::DrainForStop { left },
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DrainForStop { left } => write!(f, "drain stop {}", left.as_millis()),
            Self::DrainForReload { left } => write!(f, "drain reload {}", left.as_millis()),
            Self::ReopenLogs => f.write_str("reopen"),
        }
    }
}

impl Report {
    /// The report on a line, without the line's end. `None` for a line that is none.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        match line.split_once(' ') {
            None if line == "ready" => Some(Self::Ready),
            Some(("failed", reason)) => Some(Self::Failed(reason.into())),
            _ => None,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("ready"),
            Self::Failed(reason) => write!(f, "failed {}", reason.replace('\n', " ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_read_as_it_was_written() {
        let left = Duration::from_millis(1500);
        for (order, line) in [
            (Order::drain(StopReason::Stop, left), "drain stop 1500"),
            (Order::drain(StopReason::Reload, left), "drain reload 1500"),
            (Order::ReopenLogs, "reopen"),
        ] {
            assert_eq!((order.to_string().as_str(), Order::parse(line)), (line, Some(order)));
        }
        assert_eq!(Report::Failed("two\nlines".into()).to_string(), "failed two lines");
        assert_eq!(
            Report::parse("failed two lines"),
            Some(Report::Failed("two lines".into()))
        );
        assert_eq!(Report::parse(&Report::Ready.to_string()), Some(Report::Ready));
        assert_eq!((Order::parse("drain"), Order::parse("drain stop soon")), (None, None));
        assert_eq!(Report::parse("ready now"), None);
    }
}
