//! A handle of a node that runs, for commands: the lock names its master, and a descriptor of that process reaches it.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde::de::DeserializeOwned;

use crate::config::NodeSection;
use crate::process::control::{self, ControlAnswer, ControlRequest};
use crate::process::pid_fd::PidFd;
use crate::process::pid_file::{self, PidFile};
use crate::process::terminal::complain;

/// How long a master may take to answer before it counts as hung.
pub(crate) const ANSWER_TIME: Duration = Duration::from_secs(5);
/// How long the kernel may take to remove a process that was killed.
const END_TIME: Duration = Duration::from_secs(10);

/// A node that runs. Its master cannot be mistaken for another process.
pub(crate) struct NodeHandle {
    pub(crate) node: NodeSection,
    pid: Pid,
    master: PidFd,
}

/// The answer of the pid file's lock.
pub(crate) enum Found {
    Running(NodeHandle),
    NotRunning(NodeSection),
}

/// Finds the master of a node.
pub(crate) fn find(node: NodeSection) -> Result<Found, String> {
    let path = node.pid_path();
    loop {
        let Some(pid) = holder(&path)? else {
            return Ok(Found::NotRunning(node));
        };
        // The number could have gone to another process before the descriptor was opened: the lock decides again.
        match PidFd::open(pid) {
            Ok(master) if holder(&path)? == Some(pid) => {
                return Ok(Found::Running(NodeHandle { node, pid, master }));
            }
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
                return Err(format!("{}, pid {pid}, cannot be reached: {error}", node.name));
            }
            _ => {}
        }
    }
}

fn holder(path: &Path) -> Result<Option<Pid>, String> {
    pid_file::holder(path).map_err(|error| error.to_string())
}

impl NodeHandle {
    /// Sends a request to the master. Without a limit this waits for the answer as long as the master lives.
    pub(crate) fn ask<T: DeserializeOwned>(&self, request: ControlRequest, limit: Option<Duration>) -> io::Result<T> {
        use io::ErrorKind::{ConnectionRefused, ConnectionReset, NotFound, UnexpectedEof};
        let give_up = Instant::now() + limit.unwrap_or(ANSWER_TIME);
        loop {
            match control::ask(&self.node.socket_path(), request, limit) {
                // The master has the lock and is about to open its socket, or replaces its binary just now.
                Err(error)
                    if matches!(
                        error.kind(),
                        NotFound | ConnectionRefused | ConnectionReset | UnexpectedEof
                    ) && Instant::now() < give_up
                        && !self.master.wait(Duration::from_millis(20)) => {}
                result => return result,
            }
        }
    }

    /// Whether the master has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.master.wait(Duration::ZERO)
    }

    /// Stops gracefully; by force when the master does not keep its time.
    pub(crate) fn stop(&self) -> Result<(), String> {
        // A request and not a signal, as a second signal means haste.
        let asked: Result<ControlAnswer, _> = self.ask(ControlRequest::Stop, Some(ANSWER_TIME));
        if asked.is_err() && !self.master.wait(Duration::ZERO) {
            self.signal(Signal::SIGTERM)?;
        }
        // The master's own limit comes first: the settings may have changed since it read them.
        let limit = asked.ok().and_then(|answer| answer.limit);
        if self.master.wait(limit.unwrap_or(self.node.stop_timeout) + ANSWER_TIME) {
            return Ok(());
        }
        complain(&format!(
            "{} does not stop in time and is ended by force",
            self.node.name
        ));
        self.kill()
    }

    /// Ends master and children.
    pub(crate) fn kill(&self) -> Result<(), String> {
        let asked: Result<ControlAnswer, _> = self.ask(ControlRequest::Kill, Some(ANSWER_TIME / 2));
        if asked.is_ok() && self.master.wait(END_TIME) {
            return Ok(());
        }
        // The master hangs. Once it is stopped by a signal, it starts no more children, and its list of children holds still.
        if self.master.wait(Duration::ZERO) {
            return Ok(());
        }
        self.signal(Signal::SIGSTOP)?;
        let children = children_of(self.pid);
        self.signal(Signal::SIGKILL)?;
        for child in &children {
            // A child that has ended in the meantime is no failure.
            let _ = child.signal(Signal::SIGKILL);
        }
        let deadline = Instant::now() + END_TIME;
        let gone = std::iter::once(&self.master)
            .chain(&children)
            .all(|process| process.wait(deadline.saturating_duration_since(Instant::now())));
        if !gone {
            return Err(format!("{}: some processes cannot be ended", self.node.name));
        }
        // The files that the master would have removed. If a new master runs already, they are that one's.
        if let Ok(pid_file) = PidFile::take(&self.node.pid_path()) {
            let _ = std::fs::remove_file(self.node.socket_path());
            pid_file.remove();
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<(), String> {
        if holder(&self.node.pid_path())? != Some(self.pid) {
            return Ok(());
        }
        self.master
            .signal(signal)
            .map_err(|error| format!("{}, pid {}: {error}", self.node.name, self.pid))
    }

    /// The error text for a master that does not answer.
    pub(crate) fn no_answer(&self, error: &std::io::Error) -> String {
        format!("{}, pid {}, does not answer: {error}", self.node.name, self.pid)
    }
}

/// The children of a process that has been stopped.
fn children_of(parent: Pid) -> Vec<PidFd> {
    let list = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    let pids = list
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .map(Pid::from_raw);
    pids.filter_map(|pid| PidFd::open(pid).ok()).collect()
}
