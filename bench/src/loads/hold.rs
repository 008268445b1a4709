//! The command that `holders` starts: it opens connections and holds them for a run.

use std::io::{Write, stdin, stdout};
use std::sync::mpsc::{TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::joining::join_room;
use crate::args::Hold;
use crate::connections::pool::{OPENING, Pool};
use crate::error::Error;

/// The line that says that all connections are open.
pub(super) const READY: &str = "ready";
/// How long members may take to get messages that were published before the end.
const LATE: Duration = Duration::from_secs(10);
/// Between two checks whether the run has ended.
const PAUSE: Duration = Duration::from_millis(250);

/// Holds connections until the standard input ends, or has a line with the number of messages that each connection was sent.
/// The standard output gets a line when all connections are open, and at the end the number of messages that have come and
/// of connections that have ended.
pub fn run(hold: &Hold) -> Result<(), Error> {
    let common = &hold.common;
    let mut pool = Pool::numbered(common, hold.first)?;
    pool.open(common, OPENING)?;
    if hold.join {
        join_room(&mut pool, common.connect_timeout)?;
    }
    println!("{READY}");
    stdout().flush()?;
    let (tell, told) = channel();
    thread::spawn(move || tell.send(stdin().lines().next()));
    let mut received = 0;
    let each: u64 = loop {
        pool.turn(Instant::now() + PAUSE, |_, _, _| received += 1)?;
        match told.try_recv() {
            Ok(Some(Ok(line))) => break line.trim().parse().unwrap_or_default(),
            Ok(_) | Err(TryRecvError::Disconnected) => return Ok(()),
            Err(TryRecvError::Empty) => {}
        }
    };
    let deadline = Instant::now() + LATE;
    while received < each * common.conns as u64 && Instant::now() < deadline {
        pool.turn(deadline, |_, _, _| received += 1)?;
    }
    println!("{received} {}", pool.ended);
    Ok(())
}
