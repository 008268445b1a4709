//! A start in the background: a process of its own, and a shell that waits until it serves.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::process::ExitCode;

use nix::sys::stat::{Mode, umask};
use nix::unistd::{ForkResult, chdir, setsid};

use crate::process::terminal::{FAILURE, complain, print};
use crate::sys;

/// How the outcome of a start is told, which happens once.
pub(crate) enum StartOutcome {
    /// Not told yet, by a master that stays at the terminal.
    ForTerminal,
    /// Not told yet, by a daemon, to the process that waits at the terminal.
    ForShell(PipeWriter),
    /// Told.
    Told,
}

/// Which side of the fork this is.
pub(crate) enum Side {
    /// The process at the terminal, with its exit code.
    Shell(ExitCode),
    /// The process in the background, which is to tell the outcome.
    Daemon(StartOutcome),
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
            // The process between the two forks has ended long ago.
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
            Ok(Side::Daemon(StartOutcome::ForShell(writer)))
        }
    }
}

fn report(mut reader: PipeReader, name: &str) -> ExitCode {
    let mut told = Vec::new();
    let read = reader.read_to_end(&mut told);
    match (read, told.split_first()) {
        (Ok(_), Some((&UP, text))) => {
            print(&String::from_utf8_lossy(text));
            ExitCode::SUCCESS
        }
        (Ok(_), Some((_, text))) => {
            complain(&String::from_utf8_lossy(text));
            ExitCode::from(FAILURE)
        }
        _ => {
            complain(&format!("{name}: the master ended before it served"));
            ExitCode::from(FAILURE)
        }
    }
}

impl StartOutcome {
    /// The descriptor that it has open, if any.
    pub(crate) fn descriptor(&self) -> Option<RawFd> {
        match self {
            Self::ForShell(pipe) => Some(pipe.as_raw_fd()),
            Self::ForTerminal | Self::Told => None,
        }
    }

    /// Tells that all children serve, with a text for the terminal.
    pub(crate) fn succeeded(&mut self, text: &str) {
        match std::mem::replace(self, Self::Told) {
            Self::ForTerminal => print(text),
            Self::ForShell(pipe) => tell(pipe, UP, text),
            Self::Told => {}
        }
    }

    /// Tells that the start has failed. Nothing is said after a success.
    pub(crate) fn failed(&mut self, reason: &str) {
        match std::mem::replace(self, Self::Told) {
            Self::ForTerminal => complain(reason),
            Self::ForShell(pipe) => tell(pipe, FAILED, reason),
            Self::Told => {}
        }
    }
}

/// Writes the outcome to the shell's process. One that has given up waiting is no failure.
fn tell(mut pipe: PipeWriter, kind: u8, text: &str) {
    let _ = pipe.write_all(&[&[kind], text.as_bytes()].concat());
}
