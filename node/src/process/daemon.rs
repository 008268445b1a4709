//! A start in the background: a process of its own, and a shell that waits until it serves.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::process::ExitCode;

use nix::sys::stat::{Mode, umask};
use nix::unistd::{ForkResult, chdir, setsid};

use crate::process::cli;
use crate::sys;

/// Where the outcome of a start is told.
pub(crate) enum Terminal {
    /// To the terminal itself, as the master stays there. It is set once the outcome was told.
    Foreground(bool),
    /// To the process that waits at the terminal. It is gone once the outcome was told.
    Daemon(Option<PipeWriter>),
}

/// Which side of the fork this is.
pub(crate) enum Side {
    /// The process at the terminal, with what it is to end with.
    Shell(ExitCode),
    /// The process in the background.
    Daemon(Terminal),
}

const UP: u8 = b'+';
const FAILED: u8 = b'-';

/// Splits off the process that becomes the daemon, and waits for the outcome in the other.
pub(crate) fn split(name: &str) -> io::Result<Side> {
    let (reader, writer) = io::pipe()?;
    match sys::fork()? {
        ForkResult::Parent { child } => {
            drop(writer);
            let code = report(reader, name);
            // The one in the middle has ended long ago.
            let _ = nix::sys::wait::waitpid(child, None);
            Ok(Side::Shell(code))
        }
        ForkResult::Child => {
            drop(reader);
            setsid()?;
            // The second fork: a process that leads no session never gets a terminal by opening one.
            if let ForkResult::Parent { .. } = sys::fork()? {
                sys::exit_now(0);
            }
            sys::close_inherited();
            chdir("/")?;
            umask(Mode::from_bits_truncate(0o027));
            nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
            Ok(Side::Daemon(Terminal::Daemon(Some(writer))))
        }
    }
}

fn report(mut reader: PipeReader, name: &str) -> ExitCode {
    let mut told = Vec::new();
    let read = reader.read_to_end(&mut told);
    match (read, told.split_first()) {
        (Ok(_), Some((&UP, text))) => {
            cli::print(&String::from_utf8_lossy(text));
            ExitCode::SUCCESS
        }
        (Ok(_), Some((_, text))) => {
            cli::complain(&String::from_utf8_lossy(text));
            ExitCode::from(cli::FAILURE)
        }
        _ => {
            cli::complain(&format!("{name}: the master ended before it served"));
            ExitCode::from(cli::FAILURE)
        }
    }
}

impl Terminal {
    /// What it has open.
    pub(crate) fn descriptor(&self) -> Option<RawFd> {
        match self {
            Self::Daemon(Some(pipe)) => Some(pipe.as_raw_fd()),
            _ => None,
        }
    }

    /// Where all has been told already.
    pub(crate) fn told(daemon: bool) -> Self {
        if daemon {
            Self::Daemon(None)
        } else {
            Self::Foreground(true)
        }
    }

    pub(crate) fn is_daemon(&self) -> bool {
        matches!(self, Self::Daemon(_))
    }

    /// All children serve.
    pub(crate) fn up(&mut self, text: &str) {
        match self {
            Self::Foreground(told) => {
                *told = true;
                cli::print(text);
            }
            Self::Daemon(pipe) => tell(pipe, UP, text),
        }
    }

    /// The start has failed. Nothing is said if it succeeded before.
    pub(crate) fn failed(&mut self, reason: &str) {
        match self {
            Self::Foreground(true) => {}
            Self::Foreground(told) => {
                *told = true;
                cli::complain(reason);
            }
            Self::Daemon(pipe) => tell(pipe, FAILED, reason),
        }
    }
}

/// Who waited may have given up: that is no matter.
fn tell(pipe: &mut Option<PipeWriter>, kind: u8, text: &str) {
    if let Some(mut pipe) = pipe.take() {
        let _ = pipe.write_all(&[&[kind], text.as_bytes()].concat());
    }
}
