//! What the master knows of an instance and of its children.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::listeners::{Listener, Reserved};
use crate::process::instance::Plan;

/// A child that lived for so long was well: that it dies then is no repetition of what was before.
const LONG_LIFE: Duration = Duration::from_secs(30);
/// The longest pause before a child is started again.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What a child is told to have less than it has, at most, so that it can give up by itself before it is ended by force.
const MARGIN: Duration = Duration::from_millis(500);

/// An instance that runs.
pub(crate) struct Group {
    pub(crate) name: &'static str,
    pub(crate) stop_order: u8,
    pub(crate) plan: Rc<Plan>,
    pub(crate) listeners: Vec<Rc<Listener>>,
    /// One for each child that there is to be, in the order of their indexes.
    pub(crate) places: Vec<Place>,
    /// Children of former generations, which drain, or serve on for a moment.
    pub(crate) leaving: Vec<Process>,
    pub(crate) restarts: u64,
    pub(crate) last_exit: Option<String>,
}

/// Where a child is to be.
#[derive(Default)]
pub(crate) struct Place {
    pub(crate) process: Option<Process>,
    /// The child of the next generation, while a reload is under way.
    pub(crate) successor: Option<Process>,
    /// The listener of the child's own; it stays open when the child dies.
    pub(crate) own: Option<Own>,
    pub(crate) successor_own: Option<Own>,
    /// When to start the child again, if it died.
    pub(crate) retry_at: Option<Instant>,
    /// How often in a row it died soon after its start.
    pub(crate) failures: u32,
    pub(crate) restarts: u64,
    pub(crate) last_exit: Option<String>,
}

/// A listener of a child's own, and the port that it takes.
#[derive(Clone)]
pub(crate) struct Own {
    pub(crate) listener: Rc<Listener>,
    pub(crate) reserved: Reserved,
}

/// A child.
pub(crate) struct Process {
    pub(crate) pid: Pid,
    pub(crate) index: usize,
    pub(crate) life: Life,
    /// Its slot of the statistics.
    pub(crate) slot: usize,
    pub(crate) started: Instant,
    /// When it is ended by force: it starts or drains, and takes too long. Or when it is to drain.
    pub(crate) deadline: Option<Instant>,
    /// What it said of why it cannot serve.
    pub(crate) failure: Option<String>,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) reserved: Option<Reserved>,
    pub(crate) socket: UnixStream,
    pub(crate) heard: Vec<u8>,
    /// Its end of the socket is closed: it is about to be reaped.
    pub(crate) silent: bool,
    /// It was ended by its master.
    pub(crate) condemned: bool,
}

/// What a child does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Life {
    Starting,
    Serving,
    Draining,
}

impl Group {
    /// All its children.
    pub(crate) fn processes(&self) -> impl Iterator<Item = &Process> {
        self.places
            .iter()
            .flat_map(|place| place.process.iter().chain(&place.successor))
            .chain(&self.leaving)
    }

    /// All its children.
    pub(crate) fn processes_mut(&mut self) -> impl Iterator<Item = &mut Process> {
        let places = self
            .places
            .iter_mut()
            .flat_map(|place| place.process.iter_mut().chain(&mut place.successor));
        places.chain(&mut self.leaving)
    }

    /// The ports that children, or places for them, have.
    pub(crate) fn reserved(&self) -> HashSet<Reserved> {
        let kept = self
            .places
            .iter()
            .flat_map(|place| place.own.iter().chain(&place.successor_own));
        kept.map(|own| own.reserved)
            .chain(self.processes().filter_map(|process| process.reserved))
            .collect()
    }
}

impl Place {
    /// Whether its child has died and waits to be started again.
    pub(crate) fn backs_off(&self) -> bool {
        self.process.is_none() && self.retry_at.is_some()
    }

    /// Notes that its child has died, and says after which pause it is to be started again.
    pub(crate) fn died(&mut self, process: &Process, reason: &str, now: Instant) -> Duration {
        if process.life == Life::Starting || now - process.started < LONG_LIFE {
            return self.failed(reason, now);
        }
        self.failures = 0;
        self.last_exit = Some(reason.into());
        self.retry_at = Some(now);
        Duration::ZERO
    }

    /// Notes that its child could not begin to serve, or did not for long.
    pub(crate) fn failed(&mut self, reason: &str, now: Instant) -> Duration {
        self.last_exit = Some(reason.into());
        self.failures += 1;
        let pause = pause(self.failures);
        self.retry_at = Some(now + pause);
        pause
    }
}

/// The first failure costs nothing; then half a second, doubled each time.
fn pause(failures: u32) -> Duration {
    match failures {
        0 | 1 => Duration::ZERO,
        n => Duration::from_millis(500)
            .saturating_mul(1 << (n - 2).min(16))
            .min(LONGEST_PAUSE),
    }
}

impl Process {
    /// Sends a command to the child. One that does not read its commands is ended by force in time.
    pub(crate) fn tell(&mut self, command: &str) {
        if let Err(error) = self.socket.write_all(format!("{command}\n").as_bytes()) {
            tracing::debug!(%error, pid = self.pid.as_raw(), "a child does not hear its master");
        }
    }

    /// Tells the child to drain, and gives it time for that.
    pub(crate) fn drain(&mut self, why: &str, limit: Duration) {
        if self.life != Life::Draining {
            self.life = Life::Draining;
            self.deadline = Some(Instant::now() + limit);
            let told = limit - MARGIN.min(limit / 10);
            self.tell(&format!("drain {why} {}", told.as_millis()));
        }
    }

    /// Ends the child at once. Its pid is its own until it is reaped, which only we do.
    pub(crate) fn kill(&mut self) {
        self.condemned = true;
        if let Err(error) = nix::sys::signal::kill(self.pid, Signal::SIGKILL) {
            tracing::error!(%error, pid = self.pid.as_raw(), "cannot end a child");
        }
    }

    /// Reads what the child says: whether it has become ready.
    pub(crate) fn hear(&mut self) -> bool {
        let mut ready = false;
        let mut buffer = [0; 4096];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => {
                    self.silent = true;
                    break;
                }
                Ok(n) => self.heard.extend(&buffer[..n]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        while let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.heard.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line[..end]);
            match line.split_once(' ') {
                None if line == "ready" => ready = true,
                Some(("failed", reason)) => self.failure = Some(reason.into()),
                _ => tracing::warn!(pid = self.pid.as_raw(), "a child said what its master does not know"),
            }
        }
        ready
    }

    /// In words, why the child has ended; nothing if it ended as it was told.
    pub(crate) fn exit_reason(&self, status: WaitStatus) -> Option<String> {
        let end = match status {
            WaitStatus::Exited(_, 0) => None,
            WaitStatus::Exited(_, code) => Some(format!("exit code {code}")),
            WaitStatus::Signaled(_, signal, _) => Some(format!("signal {} ({signal})", signal as i32)),
            _ => Some("unknown".into()),
        };
        match (&self.failure, end) {
            (Some(failure), _) => Some(failure.clone()),
            (None, _) if self.condemned => None,
            (None, None) if self.life != Life::Draining => Some("exit code 0".into()),
            (None, end) => end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_long_life_ends_a_row_of_failures() {
        let now = Instant::now();
        let mut place = Place::default();
        let mut die_after = |seconds| {
            let process = Process {
                pid: Pid::from_raw(1),
                index: 0,
                life: Life::Serving,
                slot: 0,
                started: now,
                deadline: None,
                failure: None,
                address: None,
                reserved: None,
                socket: UnixStream::pair().unwrap().0,
                heard: Vec::new(),
                silent: false,
                condemned: false,
            };
            place
                .died(&process, "test", now + Duration::from_secs(seconds))
                .as_millis()
        };
        let pauses = [1, 2, 2, 29, 30, 2, 2].map(&mut die_after);
        assert_eq!(pauses, [0, 500, 1000, 2000, 0, 0, 500]);
    }

    #[test]
    fn pauses_grow_to_half_a_minute() {
        let pauses: Vec<u64> = (0..12).map(|n| pause(n).as_millis() as u64).collect();
        assert_eq!(
            pauses,
            [0, 0, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000, 30000]
        );
        assert_eq!(pause(u32::MAX), LONGEST_PAUSE);
    }
}
