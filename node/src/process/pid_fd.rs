//! A descriptor of a process.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{self, PidfdFlags};

/// A descriptor that stands for a process, and for no later one with the same number.
#[derive(Debug)]
pub(crate) struct PidFd(OwnedFd);

impl PidFd {
    /// Opens the descriptor of a process that runs.
    pub(crate) fn open(pid: Pid) -> io::Result<Self> {
        let pid = process::Pid::from_raw(pid.as_raw()).ok_or(Errno::SRCH)?;
        Ok(Self(process::pidfd_open(pid, PidfdFlags::empty())?))
    }

    /// Sends a signal to that process, or fails if it is gone.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        let signal = process::Signal::from_named_raw(signal as i32).ok_or(Errno::INVAL)?;
        Ok(process::pidfd_send_signal(&self.0, signal)?)
    }

    /// Waits until that process has ended. `false` if the time is over first.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // One that is too long for the system is cut short, and waited for again.
            let timeout = Timespec::try_from(left).ok();
            match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], timeout.as_ref()) {
                Ok(0) if left.is_zero() => return false,
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return true,
                Err(_) => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_descriptor_tells_of_the_end() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let pidfd = PidFd::open(Pid::from_raw(child.id().cast_signed())).unwrap();
        assert!(!pidfd.wait(Duration::ZERO));
        pidfd.signal(Signal::SIGKILL).unwrap();
        assert!(pidfd.wait(Duration::from_secs(10)));
        child.wait().unwrap();
        assert!(pidfd.signal(Signal::SIGKILL).is_err());
    }
}
