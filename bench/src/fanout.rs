//! Every connection joins one room, and the first of them publishes to all.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::args::Load;
use crate::echo::OPENING;
use crate::error::Error;
use crate::pool::Pool;
use crate::procs::Procs;
use crate::report::{Faults, Offered, Report};
use crate::stamp::{Clock, Kind, Payload, Stamp};
use crate::stats::{Meter, Pace};

const JOIN: &[u8] = b"J";
const PUBLISHER: usize = 0;

/// Which members have what.
#[derive(Debug)]
struct Deliveries {
    /// The number of the next message of each member.
    expected: Vec<u32>,
    /// How many members do not have it yet: of the publishes from `first` on.
    missing: VecDeque<u32>,
    first: u32,
    reordered: u64,
}

impl Deliveries {
    fn new(members: usize) -> Self {
        Self {
            expected: vec![0; members],
            missing: VecDeque::new(),
            first: 0,
            reordered: 0,
        }
    }

    /// Publishes that some member does not have.
    fn in_flight(&self) -> usize {
        self.missing.len()
    }

    /// The number of a new publish.
    fn publish(&mut self) -> u32 {
        self.missing.push_back(self.expected.len() as u32);
        self.first + self.missing.len() as u32 - 1
    }

    /// A member has got a message.
    fn deliver(&mut self, member: usize, number: u32) {
        let expected = &mut self.expected[member];
        if number != *expected {
            self.reordered += 1;
        }
        *expected = (*expected).max(number.saturating_add(1));
        let place = number.wrapping_sub(self.first) as usize;
        if let Some(missing) = self.missing.get_mut(place) {
            *missing = missing.saturating_sub(1);
        }
        while self.missing.front() == Some(&0) {
            self.missing.pop_front();
            self.first += 1;
        }
    }

    /// Deliveries that have not come.
    fn lost(&self) -> u64 {
        self.missing.iter().map(|missing| u64::from(*missing)).sum()
    }
}

struct Fanout {
    clock: Clock,
    payload: Payload,
    deliveries: Deliveries,
    meter: Meter,
    corrupt: u64,
}

/// Runs the load.
pub fn run(load: &Load) -> Result<Report, Error> {
    let common = &load.common;
    let procs = Procs::watch(&common.pids)?;
    let mut pool = Pool::new(common)?;
    pool.open(common, OPENING)?;
    let mut payload = Payload::new(load.size);
    join(&mut pool, &mut payload, common.connect_timeout)?;

    let clock = Clock::start();
    let mut fanout = Fanout {
        clock,
        payload,
        deliveries: Deliveries::new(common.conns),
        meter: Meter::new(procs, load.warmup, common.secs),
        corrupt: 0,
    };
    let mut pace = load.rate.map(|rate| Pace::new(clock.now(), rate));
    let mut published = (0, 0);
    while fanout.meter.goes_on()? {
        let mut until = fanout.meter.until();
        match &mut pace {
            Some(pace) => {
                let now = clock.now();
                while let Some(at) = pace.due(now) {
                    pool.send(PUBLISHER, fanout.publish(at));
                }
                until = until.min(clock.at(pace.next()));
            }
            None => {
                while fanout.deliveries.in_flight() < load.inflight {
                    pool.send(PUBLISHER, fanout.publish(clock.now()));
                }
            }
        }
        if !fanout.meter.in_window() {
            published.0 = fanout.deliveries.first;
        }
        pool.turn(until, |member, payload, _| fanout.receive(member, payload))?;
        if fanout.meter.in_window() {
            published.1 = fanout.deliveries.first;
        }
    }
    let deadline = Instant::now() + load.drain;
    while fanout.deliveries.in_flight() > 0 && Instant::now() < deadline {
        pool.turn(deadline, |member, payload, _| fanout.receive(member, payload))?;
    }

    let deliveries = &fanout.deliveries;
    let faults = Faults::of(&pool, deliveries.lost(), deliveries.reordered, fanout.corrupt);
    let measured = fanout.meter.measured().expect("the loop ends with the window");
    let mut report = Report::new("fanout", common, &measured, faults);
    report.load = Some(Offered::from(load));
    report.publishes = Some(u64::from(published.1.saturating_sub(published.0)));
    Ok(report)
}

/// Joins the room on every connection. A message that comes back says that what was sent before it is done.
fn join(pool: &mut Pool, payload: &mut Payload, timeout: Duration) -> Result<(), Error> {
    // Who cannot be echoed is in the room as soon as it has connected.
    if !pool.echoes() {
        return Ok(());
    }
    let members = pool.len();
    let stamp = Stamp {
        kind: Kind::Echo,
        number: 0,
        at: Duration::ZERO,
    };
    for member in 0..members {
        pool.send(member, JOIN);
        pool.send(member, payload.stamped(stamp));
    }
    let mut joined = vec![false; members];
    let mut missing = members;
    let mut deadline = Instant::now() + timeout;
    while missing > 0 {
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

impl Fanout {
    fn publish(&mut self, at: Duration) -> &[u8] {
        self.payload.stamped(Stamp {
            kind: Kind::Publish,
            number: self.deliveries.publish(),
            at,
        })
    }

    fn receive(&mut self, member: usize, payload: &[u8]) {
        match self.payload.read(Kind::Publish, payload) {
            Some(stamp) => {
                self.meter.record(self.clock.now().saturating_sub(stamp.at));
                self.deliveries.deliver(member, stamp.number);
            }
            None => self.corrupt += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_is_done_when_all_members_have_it() {
        let mut deliveries = Deliveries::new(2);
        assert_eq!((deliveries.publish(), deliveries.publish()), (0, 1));
        for (member, number, in_flight, lost) in [(0, 0, 2, 3), (0, 1, 2, 2), (1, 0, 1, 1), (1, 1, 0, 0)] {
            deliveries.deliver(member, number);
            assert_eq!((deliveries.in_flight(), deliveries.lost()), (in_flight, lost));
        }
        assert_eq!(deliveries.publish(), 2);
        assert_eq!(deliveries.reordered, 0);
    }

    #[test]
    fn gaps_and_repetitions_are_seen() {
        let mut deliveries = Deliveries::new(1);
        for _ in 0..3 {
            deliveries.publish();
        }
        deliveries.deliver(0, 1);
        assert_eq!((deliveries.reordered, deliveries.lost()), (1, 2));
        deliveries.deliver(0, 2);
        deliveries.deliver(0, 2);
        deliveries.deliver(0, u32::MAX);
        assert_eq!((deliveries.reordered, deliveries.lost()), (3, 1));
    }
}
