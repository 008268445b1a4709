//! The control socket beside the pid file: one line of JSON asks, one line answers.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The longest request, in bytes.
const LONGEST_LINE: usize = 4096;
/// Callers at a time; further ones are turned away.
const MOST_CALLERS: usize = 64;
/// How long a caller may take to send its request, or to read the answer.
const CALLER_TIME: Duration = Duration::from_secs(5);

/// A request to a master.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ControlRequest {
    /// Tell the status. Answered with a `NodeStatus`.
    Status,
    /// Tell the options of the start. Answered with `Options`.
    Options,
    /// Reload. The [`ControlAnswer`] comes when the reload is done or refused.
    Reload,
    /// Stop gracefully, unless that is under way already.
    Stop,
    /// End all children at once, and go.
    Kill,
}

/// The answer to a request for an action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ControlAnswer {
    pub(crate) ok: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// Of a stop: the time after which children that are left are ended by force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<Duration>,
}

impl ControlAnswer {
    pub(crate) fn from(result: Result<(), String>) -> Self {
        Self {
            ok: result.is_ok(),
            reason: result.err(),
            limit: None,
        }
    }
}

/// The caller of a request, to be named with the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CallerId(u64);

/// The master's side.
pub(crate) struct ControlServer {
    path: PathBuf,
    listener: UnixListener,
    callers: Vec<Caller>,
    next: u64,
}

struct Caller {
    id: CallerId,
    stream: UnixStream,
    asked: Vec<u8>,
    answer: Vec<u8>,
    /// Until when it must have sent its request, or read the answer. None while it waits for the master.
    until: Option<Instant>,
}

impl ControlServer {
    /// Opens the socket. The caller holds the lock of the pid file, so a socket that is there already is a left-over.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Self::over(path, listener))
    }

    /// Goes on with a socket that is open already.
    pub(crate) fn over(path: &Path, listener: UnixListener) -> Self {
        Self {
            path: path.into(),
            listener,
            callers: Vec::new(),
            next: 0,
        }
    }

    /// The descriptors to wait for.
    pub(crate) fn poll_fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        let callers = self.callers.iter().map(|caller| {
            let wanted = if caller.answer.is_empty() {
                PollFlags::POLLIN
            } else {
                PollFlags::POLLOUT
            };
            PollFd::new(caller.stream.as_fd(), wanted)
        });
        std::iter::once(PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)).chain(callers)
    }

    /// When the first caller's time is over.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.callers.iter().filter_map(|caller| caller.until).min()
    }

    /// Accepts callers, reads and writes, and returns the requests that have come.
    pub(crate) fn serve(&mut self) -> Vec<(CallerId, ControlRequest)> {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.callers.len() < MOST_CALLERS && trusted(&stream) && stream.set_nonblocking(true).is_ok() {
                self.next += 1;
                let until = Some(Instant::now() + CALLER_TIME);
                let id = CallerId(self.next);
                self.callers.push(Caller {
                    id,
                    stream,
                    asked: Vec::new(),
                    answer: Vec::new(),
                    until,
                });
            }
        }
        let now = Instant::now();
        let mut requests = Vec::new();
        self.callers.retain_mut(|caller| {
            let keep = if caller.answer.is_empty() {
                caller.read(&mut requests)
            } else {
                caller.write()
            };
            keep && caller.until.is_none_or(|until| until > now)
        });
        requests
    }

    /// Answers a caller, if it still waits.
    pub(crate) fn answer(&mut self, id: CallerId, answer: &impl Serialize) {
        let Some(at) = self.callers.iter().position(|caller| caller.id == id) else {
            return;
        };
        let caller = &mut self.callers[at];
        caller.answer = serde_json::to_vec(answer).expect("answers have plain keys");
        caller.answer.push(b'\n');
        caller.until = Some(Instant::now() + CALLER_TIME);
        if !caller.write() {
            self.callers.swap_remove(at);
        }
    }

    /// The socket on which callers come.
    pub(crate) fn listener(&self) -> &UnixListener {
        &self.listener
    }

    /// All descriptors that the server has open.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let callers = self.callers.iter().map(|caller| caller.stream.as_raw_fd());
        std::iter::once(self.listener.as_raw_fd()).chain(callers)
    }

    /// The connections of callers that wait for an answer.
    pub(crate) fn waiting(&self, callers: &[CallerId]) -> Vec<&UnixStream> {
        self.callers
            .iter()
            .filter(|caller| callers.contains(&caller.id))
            .map(|caller| &caller.stream)
            .collect()
    }

    /// Takes up a caller that waits for an answer.
    pub(crate) fn adopt(&mut self, stream: UnixStream) -> CallerId {
        self.next += 1;
        let id = CallerId(self.next);
        self.callers.push(Caller {
            id,
            stream,
            asked: Vec::new(),
            answer: Vec::new(),
            until: None,
        });
        id
    }

    /// Removes the socket.
    pub(crate) fn remove(self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Caller {
    /// Reads on. `false` if the caller has gone, or has sent no request but something else.
    fn read(&mut self, requests: &mut Vec<(CallerId, ControlRequest)>) -> bool {
        let mut buffer = [0; 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(n) => self.asked.extend(&buffer[..n]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
            if self.asked.len() > LONGEST_LINE {
                return false;
            }
        }
        if self.asked.ends_with(b"\n") {
            let Ok(request) = serde_json::from_slice(&self.asked) else {
                return false;
            };
            self.asked.clear();
            self.until = None;
            requests.push((self.id, request));
        }
        true
    }

    /// Writes on. `false` when the answer is written or cannot be written.
    fn write(&mut self) -> bool {
        while !self.answer.is_empty() {
            match self.stream.write(&self.answer) {
                Ok(n) => drop(self.answer.drain(..n)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        false
    }
}

/// Whether the caller is root or this user. As a rule the directory lets no other in; this holds where it does.
fn trusted(stream: &UnixStream) -> bool {
    let user = nix::unistd::geteuid().as_raw();
    getsockopt(stream, PeerCredentials).is_ok_and(|peer| peer.uid() == 0 || peer.uid() == user)
}

/// Sends a request to a master. Without a limit this waits for the answer as long as the master lives.
pub(crate) fn ask<T: DeserializeOwned>(path: &Path, request: ControlRequest, limit: Option<Duration>) -> io::Result<T> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(limit)?;
    stream.set_write_timeout(limit)?;
    let mut line = serde_json::to_vec(&request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    if answer.is_empty() {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_str(&answer)?)
}
