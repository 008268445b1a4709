//! Every connection joins one room, and the first of them publishes to all, or several talkers publish in turn to all others;
//! or there are many groups, which publishes go to in turn.

use std::time::{Duration, Instant};

use super::holders::Holders;
use super::joining::{join_groups, join_room};
use super::rooms::{Deliveries, Rooms};
use crate::args;
use crate::connections::pool::{OPENING, Pool};
use crate::error::Error;
use crate::measure::meter::{Meter, Pace};
use crate::measure::processes::Processes;
use crate::measure::stamp::{Clock, Kind, Payload, Stamp};
use crate::report::{Faults, Offered, Report};

struct Fanout {
    clock: Clock,
    rooms: Rooms,
    kind: Kind,
    payload: Payload,
    deliveries: Deliveries,
    meter: Meter,
    corrupt: u64,
}

/// Runs the load. Errors: connections that cannot be opened, members that do not join, groups that do not fit.
pub fn run(args: &args::Fanout) -> Result<Report, Error> {
    let load = &args.load;
    let common = &load.common;
    let processes = Processes::watch(&common.pids)?;
    let mut pool = Pool::new(common)?;
    let holders = Holders::open(common, args.held, true)?;
    pool.open(common, OPENING)?;
    let rooms = Rooms {
        conns: common.conns,
        // Each talker's messages have an order of their own, so each talker counts as a group of all members.
        groups: args.groups.or(args.talkers).unwrap_or(1),
        members: args.members.unwrap_or(common.conns),
        others: args.talkers.is_some(),
    };
    if rooms.members > rooms.conns {
        return Err(Error::TooManyMembers(rooms.members));
    }
    if rooms.others && rooms.conns < 2 {
        return Err(Error::NobodyElse);
    }
    let kind = match args {
        args::Fanout { groups: Some(_), .. } => Kind::Group,
        args::Fanout { talkers: Some(_), .. } => Kind::Others,
        _ => Kind::Publish,
    };
    match kind {
        Kind::Group => join_groups(&mut pool, rooms, common.connect_timeout)?,
        _ => join_room(&mut pool, common.connect_timeout)?,
    }

    let clock = Clock::start();
    let mut fanout = Fanout {
        clock,
        rooms,
        kind,
        payload: Payload::new(load.size),
        deliveries: Deliveries::new(rooms),
        meter: Meter::new(processes, load.warmup, common.secs),
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
                    fanout.publish(&mut pool, at);
                }
                until = until.min(clock.at(pace.next()));
            }
            None => {
                while fanout.deliveries.in_flight() < load.inflight {
                    fanout.publish(&mut pool, clock.now());
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
    let missed = holders.close(u64::from(deliveries.next()))?;
    let faults = Faults::of(&pool, deliveries.lost(), deliveries.reordered, fanout.corrupt).and(&missed);
    let mut measured = fanout.meter.measured().expect("the loop ends with the window");
    // Members in other processes get what members here get.
    measured.messages += measured.messages * args.held as u64 / common.conns as u64;
    let mut report = Report::new("fanout", common, &measured, faults);
    report.load = Some(Offered::from(load));
    report.publishes = Some(u64::from(published.1.saturating_sub(published.0)));
    Ok(report)
}

impl Fanout {
    fn publish(&mut self, pool: &mut Pool, at: Duration) {
        let number = self.deliveries.next();
        let group = self.rooms.group(number);
        self.deliveries.publish();
        let payload = self.payload.stamped(Stamp {
            kind: self.kind,
            group: group as u32,
            number,
            at,
        });
        pool.send(self.rooms.publisher(group), payload);
    }

    fn receive(&mut self, member: usize, payload: &[u8]) {
        match self.payload.read(self.kind, payload) {
            Some(stamp) => {
                self.meter.record(self.clock.now().saturating_sub(stamp.at));
                self.deliveries.deliver(member, stamp.number);
            }
            None => self.corrupt += 1,
        }
    }
}
