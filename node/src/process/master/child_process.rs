//! A child as its master sees it: a process, and the socket to it.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;

use super::listeners::Reserved;
use crate::observe::stats::ChildState;
use crate::process::dialogue::{Order, Report};
use crate::stop::StopReason;

/// How much less time than it has a child is told to have, at most, so that it can give up by itself before it is ended by
/// force.
const MARGIN: Duration = Duration::from_millis(500);

/// A child.
pub(crate) struct ChildProcess {
    pub(crate) pid: Pid,
    /// Its number among the children of its instance, counted from 0.
    pub(crate) index: usize,
    pub(crate) state: ChildState,
    /// The number of its entry in the statistics.
    pub(crate) entry: usize,
    pub(crate) started: Instant,
    /// When it is ended by force, if it starts or drains; when it is to drain, if it serves on for a moment.
    pub(crate) deadline: Option<Instant>,
    /// Why it cannot serve, as it reported.
    pub(crate) failure: Option<String>,
    /// Where the listener of its own is bound.
    pub(crate) address: Option<SocketAddr>,
    /// The port that the listener of its own takes.
    pub(crate) reserved: Option<Reserved>,
    pub(crate) socket: UnixStream,
    /// The begin of a report whose end has not come yet.
    pub(crate) unread: Vec<u8>,
    /// The child's end of the socket is closed: it is about to be reaped.
    pub(crate) closed: bool,
    /// The master has ended it, so its exit needs no reason.
    pub(crate) killed_by_master: bool,
}

impl ChildProcess {
    /// Gives the child an order. A child that does not read its orders is ended by force in time.
    pub(crate) fn order(&mut self, order: Order) {
        if let Err(error) = self.socket.write_all(format!("{order}\n").as_bytes()) {
            tracing::debug!(%error, pid = self.pid.as_raw(), "a child does not hear its master");
        }
    }

    /// Orders the child to drain, and gives it time for that. A child that drains already keeps its time.
    pub(crate) fn drain(&mut self, reason: StopReason, limit: Duration) {
        if self.state != ChildState::Draining {
            self.state = ChildState::Draining;
            self.deadline = Some(Instant::now() + limit);
            self.order(Order::drain(reason, limit - MARGIN.min(limit / 10)));
        }
    }

    /// Ends the child at once. Its pid is its own until it is reaped, which only the master does.
    pub(crate) fn kill(&mut self) {
        self.killed_by_master = true;
        if let Err(error) = nix::sys::signal::kill(self.pid, Signal::SIGKILL) {
            tracing::error!(%error, pid = self.pid.as_raw(), "cannot end a child");
        }
    }

    /// Reads the child's reports. Returns whether it has become ready.
    pub(crate) fn read_reports(&mut self) -> bool {
        let mut ready = false;
        let mut buffer = [0; 4096];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => {
                    self.closed = true;
                    break;
                }
                Ok(n) => self.unread.extend(&buffer[..n]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        while let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.unread.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line[..end]);
            match Report::parse(&line) {
                Some(Report::Ready) => ready = true,
                Some(Report::Failed(reason)) => self.failure = Some(reason),
                None => tracing::warn!(pid = self.pid.as_raw(), "a child gave an unknown report"),
            }
        }
        ready
    }

    /// Why the child has ended, in words. `None` if it ended as it was ordered.
    pub(crate) fn exit_reason(&self, status: WaitStatus) -> Option<String> {
        let end = match status {
            WaitStatus::Exited(_, 0) => None,
            WaitStatus::Exited(_, code) => Some(format!("exit code {code}")),
            WaitStatus::Signaled(_, signal, _) => Some(format!("signal {} ({signal})", signal as i32)),
            _ => Some("unknown".into()),
        };
        match (&self.failure, end) {
            (Some(failure), _) => Some(failure.clone()),
            (None, _) if self.killed_by_master => None,
            (None, None) if self.state != ChildState::Draining => Some("exit code 0".into()),
            (None, end) => end,
        }
    }
}
