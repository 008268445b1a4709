//! Joins connections to the one room or to groups, and waits until the server has done so.

use std::time::{Duration, Instant};

use super::rooms::Rooms;
use crate::connections::pool::Pool;
use crate::error::Error;
use crate::measure::stamp::{self, Kind, Payload, Stamp};

const JOIN: &[u8] = b"J";
/// Connections that join at the same time.
const JOINING: usize = 1000;

/// Joins the one room on every connection.
pub(super) fn join_room(pool: &mut Pool, timeout: Duration) -> Result<(), Error> {
    join(pool, timeout, |pool, member| pool.send(member, JOIN))
}

/// Joins each connection to its groups.
pub(super) fn join_groups(pool: &mut Pool, rooms: Rooms, timeout: Duration) -> Result<(), Error> {
    join(pool, timeout, |pool, member| {
        for group in rooms.of(member) {
            pool.send(member, format!("J{group:08x}").as_bytes());
        }
    })
}

/// Joins on every connection. An echo says that the server has done what was sent before it.
fn join(pool: &mut Pool, timeout: Duration, send: impl Fn(&mut Pool, usize)) -> Result<(), Error> {
    // Where there is no echo, a connection is in the room as soon as it is open.
    if !pool.echoes() {
        return Ok(());
    }
    let members = pool.len();
    let mut payload = Payload::new(stamp::SIZE);
    let stamp = Stamp {
        kind: Kind::Echo,
        group: 0,
        number: 0,
        at: Duration::ZERO,
    };
    let mut joined = vec![false; members];
    let (mut sent, mut missing) = (0, members);
    let mut deadline = Instant::now() + timeout;
    while missing > 0 {
        while sent < members && sent - (members - missing) < JOINING {
            send(pool, sent);
            pool.send(sent, payload.stamped(stamp));
            sent += 1;
        }
        let before = missing;
        pool.turn(deadline, |member, answer, _| {
            if payload.read(Kind::Echo, answer) == Some(stamp) && !joined[member] {
                joined[member] = true;
                missing -= 1;
            }
        })?;
        if missing < before {
            deadline = Instant::now() + timeout;
        } else if Instant::now() >= deadline || pool.ended > 0 {
            return Err(Error::Join { missing, members });
        }
    }
    Ok(())
}
