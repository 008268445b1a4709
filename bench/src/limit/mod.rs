//! The limit server: as little as can be done for the loads on this machine, to compare real servers with.
//!
//! The front holds the clients' sockets and the groups; with two hops it hands each message to the back, another process,
//! over a Unix socket and carries out the back's answers. There is one thread and one poll in each process. Nothing is checked, and
//! nothing has a bound: it is there to be measured, not to serve.
//!
//! Echoes of one client that are ready together go out in one write. A publish is one write for each member, so a server
//! that joins several publishes for a member can use less processor time.

mod back;
mod client;
mod front;
mod record;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use crate::args;
use crate::error::Error;

/// Serves until a signal ends it. Prints its URL. Errors: the address cannot be bound, the link has ended.
pub fn run(args: &args::Limit) -> Result<(), Error> {
    if args.back {
        return Ok(back::run()?);
    }
    let back = (args.hops == 2).then(spawn_back).transpose()?;
    Ok(front::run(args.address, back)?)
}

/// The back is this program again, with the link as its standard input. It ends when the link does.
fn spawn_back() -> Result<UnixStream, Error> {
    let (ours, theirs) = UnixStream::pair()?;
    Command::new(std::env::current_exe()?)
        .args(["limit", "--back"])
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()?;
    Ok(ours)
}
