//! The place of one child of an instance, whichever process is there.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::child_process::ChildProcess;
use super::listeners::{Listener, Reserved};
use crate::backoff::Backoff;
use crate::observe::stats::ChildState;

/// A child that lived for so long was well: its death is no repetition of earlier ones.
const LONG_LIFE: Duration = Duration::from_secs(30);
/// The pause before a child is started again that has died twice in a row; the first death costs none.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause before a child is started again.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The place of one child.
pub(crate) struct ChildSlot {
    /// The child; none while it waits to be started again.
    pub(crate) process: Option<ChildProcess>,
    /// The child of the next generation, while a reload is under way.
    pub(crate) successor: Option<ChildProcess>,
    /// The listener of the child's own. It stays open when the child dies.
    pub(crate) own: Option<OwnListener>,
    /// The listener of the successor's own.
    pub(crate) successor_own: Option<OwnListener>,
    /// When to start the child again, if it died.
    pub(crate) retry_at: Option<Instant>,
    failures: Failures,
    /// How often a child was started here in the place of one that had died.
    pub(crate) restarts: u64,
    /// Why the last child here died.
    pub(crate) last_exit: Option<String>,
}

/// Deaths in a row, each soon after the child's start.
struct Failures {
    count: u32,
    backoff: Backoff,
}

/// A listener of a child's own, and the port that it takes.
#[derive(Clone)]
pub(crate) struct OwnListener {
    pub(crate) listener: Rc<Listener>,
    pub(crate) reserved: Reserved,
}

impl Failures {
    /// The state after a number of failures. The pauses are exact: children of one master need not be spread.
    fn after(count: u32) -> Self {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE).never_below(1.0);
        // After a few more the pause is the longest one anyway.
        for _ in 1..count.min(32) {
            backoff.pause();
        }
        Self { count, backoff }
    }

    /// Counts a failure, and returns the pause after it. The first failure costs none.
    fn add(&mut self) -> Duration {
        self.count = self.count.saturating_add(1);
        match self.count {
            1 => Duration::ZERO,
            _ => self.backoff.pause(),
        }
    }
}

impl ChildSlot {
    /// A slot without a child, after a number of failures in a row.
    pub(crate) fn new(failures: u32) -> Self {
        Self {
            process: None,
            successor: None,
            own: None,
            successor_own: None,
            retry_at: None,
            failures: Failures::after(failures),
            restarts: 0,
            last_exit: None,
        }
    }

    /// How often in a row a child died here soon after its start.
    pub(crate) fn failures(&self) -> u32 {
        self.failures.count
    }

    /// Forgets all failures.
    pub(crate) fn forget_failures(&mut self) {
        self.failures = Failures::after(0);
    }

    /// Whether the child has died and waits to be started again.
    pub(crate) fn backs_off(&self) -> bool {
        self.process.is_none() && self.retry_at.is_some()
    }

    /// Notes that the child has died. Returns the pause after which it is to be started again.
    pub(crate) fn died(&mut self, process: &ChildProcess, reason: &str, now: Instant) -> Duration {
        if process.state == ChildState::Starting || now - process.started < LONG_LIFE {
            return self.failed(reason, now);
        }
        self.forget_failures();
        self.last_exit = Some(reason.into());
        self.retry_at = Some(now);
        Duration::ZERO
    }

    /// Notes that the child did not come to serve, or did not serve for long. Returns the pause before the next attempt.
    pub(crate) fn failed(&mut self, reason: &str, now: Instant) -> Duration {
        self.last_exit = Some(reason.into());
        let pause = self.failures.add();
        self.retry_at = Some(now + pause);
        pause
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use nix::unistd::Pid;

    use super::*;

    #[test]
    fn only_a_long_life_ends_a_row_of_failures() {
        let now = Instant::now();
        let mut slot = ChildSlot::new(0);
        let mut die_after = |seconds| {
            let process = ChildProcess {
                pid: Pid::from_raw(1),
                index: 0,
                state: ChildState::Serving,
                entry: 0,
                started: now,
                deadline: None,
                failure: None,
                address: None,
                reserved: None,
                socket: UnixStream::pair().unwrap().0,
                unread: Vec::new(),
                closed: false,
                killed_by_master: false,
            };
            slot.died(&process, "test", now + Duration::from_secs(seconds))
                .as_millis()
        };
        let pauses = [1, 2, 2, 29, 30, 2, 2].map(&mut die_after);
        assert_eq!(pauses, [0, 500, 1000, 2000, 0, 0, 500]);
    }

    #[test]
    fn pauses_grow_to_half_a_minute() {
        let mut slot = ChildSlot::new(0);
        let mut pause = || slot.failed("test", Instant::now());
        let pauses = [(); 11].map(|()| pause().as_millis());
        assert_eq!(
            pauses,
            [0, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000, 30000]
        );
        let pauses = [1, 2, 7, u32::MAX].map(|count| ChildSlot::new(count).failed("test", Instant::now()).as_millis());
        assert_eq!(pauses, [500, 1000, 30000, LONGEST_PAUSE.as_millis()]);
    }
}
