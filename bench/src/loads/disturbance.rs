//! A command that disturbs the servers while they are under load, and the latencies meanwhile.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::error::Error;
use crate::measure::meter::Latencies;
use crate::report::{Disturbed, rounded};

/// Effects of a command may last this much longer than the command.
const AFTER: Duration = Duration::from_secs(1);

/// A shell command that runs once, in the middle of the measured time.
#[derive(Debug)]
pub(crate) struct Disturbance {
    command: String,
    child: Option<Child>,
    /// When the command was started, and when it had ended.
    began: Option<Duration>,
    ended: Option<Duration>,
    quiet: Latencies,
    during: Latencies,
}

impl Disturbance {
    pub(crate) fn new(command: &str) -> Self {
        Self {
            command: command.into(),
            child: None,
            began: None,
            ended: None,
            quiet: Latencies::new(),
            during: Latencies::new(),
        }
    }

    /// Starts the command if it is due, and checks whether it has ended.
    pub(crate) fn advance(&mut self, now: Duration, is_due: bool) -> Result<(), Error> {
        if is_due && self.began.is_none() {
            self.began = Some(now);
            let mut shell = Command::new("sh");
            let shell = shell.args(["-c", &self.command]);
            // The standard output is for the report alone.
            let shell = shell.stdin(Stdio::null()).stdout(std::io::stderr());
            self.child = Some(shell.spawn()?);
        }
        if let Some(child) = &mut self.child
            && let Some(status) = child.try_wait()?
        {
            self.child = None;
            self.ended = Some(now);
            if !status.success() {
                return Err(self.failed(status.to_string()));
            }
        }
        Ok(())
    }

    /// Counts a message that was due at this time: as disturbed by when it was due, however late it came.
    pub(crate) fn record(&mut self, due: Duration, latency: Duration) {
        let before = self.began.is_none_or(|began| due < began);
        let after = self.ended.is_some_and(|ended| due > ended + AFTER);
        match (before, after) {
            (true, _) => self.quiet.record(latency),
            (_, false) => self.during.record(latency),
            (_, true) => {}
        }
    }

    /// The latencies before and during the command. An error if the command has not ended.
    pub(crate) fn report(&self) -> Result<Disturbed, Error> {
        let (Some(began), Some(ended)) = (self.began, self.ended) else {
            return Err(self.failed("it has not ended within the measured time".into()));
        };
        let ratio = self.during.percentile(99.0).zip(self.quiet.percentile(99.0));
        Ok(Disturbed {
            command_s: rounded((ended - began).as_secs_f64()),
            quiet_p50_ms: self.quiet.percentile(50.0).map(rounded),
            quiet_p99_ms: self.quiet.percentile(99.0).map(rounded),
            quiet_max_ms: self.quiet.max().map(rounded),
            disturbed_p50_ms: self.during.percentile(50.0).map(rounded),
            disturbed_p99_ms: self.during.percentile(99.0).map(rounded),
            disturbed_max_ms: self.during.max().map(rounded),
            disturbed_p99_times: ratio.map(|(during, quiet)| rounded(during / quiet)),
        })
    }

    fn failed(&self, reason: String) -> Error {
        Error::Command {
            command: self.command.clone(),
            reason,
        }
    }
}

impl Drop for Disturbance {
    fn drop(&mut self) {
        // A run that fails leaves nothing behind.
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn messages_count_by_the_time_at_which_they_were_due() {
        let mut disturbance = Disturbance::new("true");
        disturbance.record(1000 * MS, MS);
        disturbance.began = Some(2000 * MS);
        // Due before, and late because of it.
        disturbance.record(1999 * MS, 2 * MS);
        disturbance.record(2000 * MS, 30 * MS);
        assert!(disturbance.report().is_err(), "the command still runs");
        disturbance.ended = Some(3000 * MS);
        disturbance.record(4000 * MS, 40 * MS);
        disturbance.record(4001 * MS, 500 * MS);
        let report = disturbance.report().unwrap();
        let shown = [report.quiet_max_ms, report.disturbed_max_ms];
        assert_eq!(shown.map(|ms| ms.map(f64::round)), [Some(2.0), Some(40.0)]);
        assert_eq!(report.command_s, 1.0);
        assert_eq!(report.disturbed_p99_times.map(f64::round), Some(20.0));
    }

    #[test]
    fn the_command_runs_once_and_its_failure_is_told() {
        for (command, fine) in [("exit 0", true), ("exit 3", false)] {
            let mut disturbance = Disturbance::new(command);
            disturbance.advance(MS, false).unwrap();
            assert!(disturbance.began.is_none());
            let ended = loop {
                match disturbance.advance(2 * MS, true) {
                    Ok(()) if disturbance.ended.is_none() => std::thread::sleep(MS),
                    other => break other,
                }
            };
            match ended {
                Ok(()) => assert!(fine),
                Err(error) => assert!(!fine && error.to_string().contains("exit 3"), "{error}"),
            }
        }
    }
}
