//! The other end of `holders`: this program again, which opens connections and holds them for a run.

use std::io::{Write, stdin, stdout};
use std::sync::mpsc::{TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::joining::join_room;
use crate::args::Hold;
use crate::connections::pool::{OPENING, Pool};
use crate::error::Error;

/// What it says once all its connections are open.
pub(super) const READY: &str = "ready";
/// How long members may take to get what was published before the end.
const LATE: Duration = Duration::from_secs(10);
/// How often to look whether the end has come.
const LOOK: Duration = Duration::from_millis(250);

/// Holds connections until the standard input says how many messages there were for each, or ends. Says on the standard
/// output when all are open, and at the end how many messages have come, and how many connections have ended.
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
        pool.turn(Instant::now() + LOOK, |_, _, _| received += 1)?;
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
