//! Every connection sends messages and gets each back.

use std::time::{Duration, Instant};

use super::disturbance::Disturbance;
use super::holders::Holders;
use crate::args;
use crate::connections::connection::Outbox;
use crate::connections::pool::{OPENING, Pool};
use crate::error::Error;
use crate::measure::meter::{Meter, Pace};
use crate::measure::processes::Processes;
use crate::measure::stamp::{Clock, Kind, Payload, Stamp};
use crate::report::{Faults, Offered, Report};

/// Between two checks whether the command has ended.
const PAUSE: Duration = Duration::from_millis(10);

/// The messages and answers of one connection.
#[derive(Debug, Clone, Copy, Default)]
struct Talk {
    sent: u32,
    received: u32,
    /// The number of the next answer.
    expected: u32,
}

struct Echo {
    clock: Clock,
    payload: Payload,
    talks: Vec<Talk>,
    meter: Meter,
    disturbance: Option<Disturbance>,
    /// Each answer is followed by the next message.
    closed_loop: bool,
    /// Messages without an answer.
    waiting: u64,
    reordered: u64,
    corrupt: u64,
}

/// Runs the load. Errors: connections that cannot be opened, processes that cannot be watched.
pub fn run(args: &args::Echo) -> Result<Report, Error> {
    let load = &args.load;
    let common = &load.common;
    let processes = Processes::watch(&common.pids)?;
    let mut pool = Pool::new(common)?;
    if !pool.echoes() {
        return Err(Error::NoEcho);
    }
    let held = Holders::open(common, args.held, false)?;
    pool.open(common, OPENING)?;

    let clock = Clock::start();
    let mut echo = Echo {
        clock,
        payload: Payload::new(load.size),
        talks: vec![Talk::default(); common.conns],
        meter: Meter::new(processes, load.warmup, common.secs),
        disturbance: args.halfway.as_deref().map(Disturbance::new),
        closed_loop: load.rate.is_none(),
        waiting: 0,
        reordered: 0,
        corrupt: 0,
    };
    let mut pace = load.rate.map(|rate| Pace::new(clock.now(), rate));
    if pace.is_none() {
        for number in (0..common.conns).cycle().take(common.conns * load.inflight) {
            pool.send(number, echo.next(number, clock.now()));
        }
    }
    let mut turns = (0..common.conns).cycle();
    while echo.meter.goes_on()? {
        let mut until = echo.meter.until();
        if let Some(disturbance) = &mut echo.disturbance {
            disturbance.advance(clock.now(), echo.meter.is_halfway())?;
            until = until.min(Instant::now() + PAUSE);
        }
        if let Some(pace) = &mut pace {
            let now = clock.now();
            while let Some(at) = pace.due(now) {
                let number = turns.next().expect("there is a connection at least");
                pool.send(number, echo.next(number, at));
            }
            until = until.min(clock.at(pace.next()));
        }
        pool.turn(until, |number, payload, outbox| echo.answer(number, payload, outbox))?;
    }
    echo.closed_loop = false;
    let deadline = Instant::now() + load.drain;
    while echo.waiting > 0 && Instant::now() < deadline {
        pool.turn(deadline, |number, payload, outbox| echo.answer(number, payload, outbox))?;
    }

    let lost = echo
        .talks
        .iter()
        .map(|talk| u64::from(talk.sent.saturating_sub(talk.received)))
        .sum();
    let faults = Faults::of(&pool, lost, echo.reordered, echo.corrupt).and(&held.close(0)?);
    let measured = echo.meter.measured().expect("the loop ends with the window");
    let mut report = Report::new("echo", common, &measured, faults);
    report.load = Some(Offered::from(load));
    report.disturbed = echo.disturbance.as_ref().map(Disturbance::report).transpose()?;
    Ok(report)
}

impl Echo {
    /// The next message of a connection.
    fn next(&mut self, number: usize, at: Duration) -> &[u8] {
        let talk = &mut self.talks[number];
        let stamp = Stamp {
            kind: Kind::Echo,
            group: 0,
            number: talk.sent,
            at,
        };
        talk.sent += 1;
        self.waiting += 1;
        self.payload.stamped(stamp)
    }

    fn answer(&mut self, number: usize, payload: &[u8], outbox: &mut Outbox) {
        let now = self.clock.now();
        let talk = &mut self.talks[number];
        talk.received += 1;
        self.waiting = self.waiting.saturating_sub(1);
        match self.payload.read(Kind::Echo, payload) {
            Some(stamp) => {
                if stamp.number != talk.expected {
                    self.reordered += 1;
                }
                talk.expected = talk.expected.max(stamp.number + 1);
                let latency = now.saturating_sub(stamp.at);
                self.meter.record(latency);
                if self.meter.in_window()
                    && let Some(disturbance) = &mut self.disturbance
                {
                    disturbance.record(stamp.at, latency);
                }
            }
            None => {
                self.corrupt += 1;
                talk.expected += 1;
            }
        }
        if self.closed_loop {
            outbox.push(self.next(number, now));
        }
    }
}
