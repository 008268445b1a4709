//! A lock that one child of a listener has at a time, also while a reload has both generations there.

use std::io;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use tokio::time::sleep;

/// How often a child that waits looks again.
const PAUSE: Duration = Duration::from_millis(50);

/// The lock, in the one child that has it. It ends when this is dropped, or when the process closes the listener in any other
/// way.
///
/// It is a record lock on the listening socket: all generations of children have the same socket, also those of an
/// earlier binary of the master, and such a lock belongs to one process and goes with it.
#[derive(Debug)]
pub struct ElectionLock {
    _listener: TcpListener,
}

impl ElectionLock {
    /// Waits until no other process has the lock of this listener. Cancel safe. An error if the listener cannot be locked at
    /// all.
    pub async fn acquire(listener: TcpListener) -> io::Result<Self> {
        loop {
            match lock(&listener) {
                Ok(()) => return Ok(Self { _listener: listener }),
                Err(Errno::EAGAIN | Errno::EACCES) => sleep(PAUSE).await,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn lock(listener: &TcpListener) -> nix::Result<()> {
    let whole = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(listener.as_fd(), FcntlArg::F_SETLK(&whole)).map(drop)
}

#[cfg(test)]
mod tests {
    use std::io::{self, BufRead, BufReader};
    use std::os::fd::OwnedFd;
    use std::process::{Command, Stdio};

    use tokio::time::timeout;

    use super::*;

    /// Set in the other process, which says when its input is locked.
    const OTHER: &str = "MEEPO_TEST_ELECTION_LOCK";

    #[tokio::test]
    async fn another_process_has_it_until_that_is_gone() {
        if std::env::var_os(OTHER).is_some() {
            let listener = TcpListener::from(io::stdin().as_fd().try_clone_to_owned().unwrap());
            let _lock = ElectionLock::acquire(listener).await.unwrap();
            println!("\nlocked");
            std::future::pending::<()>().await;
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut other = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("cluster::election_lock::tests::another_process_has_it_until_that_is_gone")
            .env(OTHER, "1")
            .stdin(OwnedFd::from(listener.try_clone().unwrap()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(other.stdout.take().unwrap());
        assert!(output.lines().any(|line| line.unwrap() == "locked"));
        let lock = timeout(PAUSE * 4, ElectionLock::acquire(listener.try_clone().unwrap())).await;
        assert!(lock.is_err(), "{lock:?}");
        other.kill().unwrap();
        other.wait().unwrap();
        timeout(Duration::from_secs(30), ElectionLock::acquire(listener))
            .await
            .unwrap()
            .unwrap();
    }
}
