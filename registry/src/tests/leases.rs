//! Who believes to hold a name, in a world of registries, holders and a network that a random sequence of events drives.
//!
//! Real are the rules of both sides, [`Grants`] and [`Claim`]. The world has the time, clocks that run unlike, messages that
//! take long or are lost, holders that are frozen, and registries that forget all.

use std::collections::BTreeSet;
use std::time::Duration;

use meepo_node::claim::{Claim, ClaimPhase as Phase, SentRequest as Asked};
use meepo_proto::registry::HoldAnswer;

use crate::grants::Grants;
use crate::store::TIME;

const NAME: &str = "name";
const HOLDERS: usize = 4;
/// One step of the world.
const STEP: Duration = Duration::from_millis(100);
/// How often a holder asks.
const ASKED: Duration = Duration::from_millis(1600);
/// How long it waits for a majority before it gives back what it got.
const PATIENCE: Duration = Duration::from_millis(2500);

struct World {
    now: Duration,
    registries: Vec<Registry>,
    holders: Vec<Holder>,
    messages: Vec<(Duration, Message)>,
    /// Something may go wrong.
    faults: bool,
    ids: u64,
    /// The largest term that anybody began with.
    last: u64,
    begun: BTreeSet<u64>,
    random: fastrand::Rng,
}

struct Registry {
    grants: Option<Grants>,
    clock: Clock,
    /// Of the wall, ahead of the world's; none is wild.
    wall: Option<Duration>,
}

struct Holder {
    clock: Clock,
    id: u64,
    claim: Claim,
    /// It asks nobody before this.
    begins: Duration,
    /// How far it was when it asked last, and when that was.
    round: Option<Phase>,
    since: Duration,
    /// Answers that are still to come.
    pending: usize,
    /// Nothing that comes is looked at before this.
    frozen: Duration,
    /// What it sends before this is lost.
    cut: Duration,
    waiting: Vec<Message>,
}

/// A clock that does not run as the world's does.
#[derive(Clone, Copy)]
struct Clock {
    ahead: Duration,
    /// Of a thousand.
    rate: u32,
}

#[derive(Clone)]
enum Message {
    Hold {
        from: usize,
        id: u64,
        to: usize,
        asked: Asked,
    },
    Answer {
        from: usize,
        to: usize,
        id: u64,
        asked: Asked,
        answer: HoldAnswer,
    },
    Release {
        id: u64,
        to: usize,
    },
}

impl Clock {
    fn at(self, now: Duration) -> Duration {
        self.ahead + now * self.rate / 1000
    }
}

impl World {
    /// With wild clocks at the walls registries never forget, since terms then depend on what they know.
    fn new(registries: usize, wild: bool, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut clock = || Clock {
            ahead: Duration::from_secs(random.u64(1..1000)),
            rate: random.u32(985..=1015),
        };
        let registries = (0..registries).map(|number| Registry {
            grants: None,
            clock: clock(),
            // Clocks of walls differ by less than a registry is silent for when it starts.
            wall: (!wild).then_some(Duration::from_millis(700 * number as u64)),
        });
        let registries: Vec<_> = registries.collect();
        let holders = (0..HOLDERS).map(|number| Holder {
            clock: clock(),
            id: number as u64 + 1,
            claim: Claim::new(registries.len()),
            begins: Duration::ZERO,
            round: None,
            since: Duration::ZERO,
            pending: 0,
            frozen: Duration::ZERO,
            cut: Duration::ZERO,
            waiting: Vec::new(),
        });
        Self {
            now: Duration::ZERO,
            holders: holders.collect(),
            registries,
            messages: Vec::new(),
            faults: true,
            ids: HOLDERS as u64,
            last: 0,
            begun: BTreeSet::new(),
            random,
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += STEP;
            if self.faults {
                self.fault();
            }
            self.deliver();
            for holder in 0..HOLDERS {
                self.turn(holder);
            }
            self.check();
        }
    }

    fn fault(&mut self) {
        match self.random.u32(0..60) {
            0 => {
                let which = self.random.usize(..self.registries.len());
                let registry = &mut self.registries[which];
                if registry.wall.is_some() {
                    registry.grants = None;
                }
            }
            1 => {
                let which = self.random.usize(..HOLDERS);
                self.holders[which].frozen = self.now + STEP * self.random.u32(1..120);
            }
            // It dies, and another comes in its place.
            2 => {
                let which = self.random.usize(..HOLDERS);
                self.renew_id(which);
            }
            3 | 4 => {
                let which = self.random.usize(..HOLDERS);
                self.holders[which].cut = self.now + STEP * self.random.u32(1..120);
            }
            // Those that are away come back.
            _ => self.begin(0.1),
        }
    }

    fn begin(&mut self, chance: f64) {
        for registry in &mut self.registries {
            if registry.grants.is_none() && self.random.f64() < chance {
                let mut grants = Grants::default();
                grants.begin(registry.clock.at(self.now));
                registry.grants = Some(grants);
            }
        }
    }

    fn send(&mut self, message: Message) {
        let faulty = self.faults;
        if faulty && self.random.u32(0..6) == 0 {
            return;
        }
        let delay = match faulty && self.random.u32(0..4) == 0 {
            true => STEP * self.random.u32(1..100),
            false => Duration::from_millis(self.random.u64(0..150)),
        };
        self.messages.push((self.now + delay, message));
    }

    fn deliver(&mut self) {
        let now = self.now;
        let mut due: Vec<_> = self.messages.extract_if(.., |(at, _)| *at <= now).collect();
        due.sort_by_key(|(at, _)| *at);
        for (_, message) in due {
            match message {
                Message::Hold { from, id, to, asked } => {
                    let registry = &mut self.registries[to];
                    let wall = match registry.wall {
                        Some(ahead) => (self.now + ahead).as_millis() as u64 + 1_000_000,
                        None => self.random.u64(..100),
                    };
                    let clock = registry.clock.at(self.now);
                    let Some(grants) = &mut registry.grants else { continue };
                    let grant = grants.hold(NAME, id, asked.term, clock, wall).expect("there is room");
                    let answer = HoldAnswer {
                        granted: grant.granted,
                        term: grant.term,
                        time_ms: TIME.as_millis() as u32,
                        shared: grant.shared,
                    };
                    let (from, to) = (to, from);
                    self.send(Message::Answer {
                        from,
                        to,
                        id,
                        asked,
                        answer,
                    });
                }
                Message::Answer { to, .. } => self.holders[to].waiting.push(message),
                Message::Release { id, to } => {
                    if let Some(grants) = &mut self.registries[to].grants {
                        grants.release(NAME, id);
                    }
                }
            }
        }
    }

    /// What a holder does when it is not frozen.
    fn turn(&mut self, which: usize) {
        let now = self.now;
        let holder = &mut self.holders[which];
        if now < holder.frozen {
            return;
        }
        for message in std::mem::take(&mut holder.waiting) {
            if let Message::Answer {
                from,
                id,
                asked,
                answer,
                ..
            } = message
                && id == holder.id
            {
                holder.pending = holder.pending.saturating_sub(1);
                holder.claim.answer(from, holder.clock.at(now), asked, &answer);
            }
        }
        let phase = holder.claim.phase(holder.clock.at(now));
        let (id, term) = (holder.id, holder.claim.term());
        let over = holder.pending == 0 || now > holder.since + PATIENCE;
        let failed = phase == Phase::Lost || (phase != Phase::Held && holder.round == Some(phase) && over);
        let due = holder.round != Some(phase) || (phase == Phase::Held && now > holder.since + ASKED);
        if phase == Phase::Held {
            if self.begun.insert(id) {
                assert!(term > self.last, "the term {term} comes after {}", self.last);
                self.last = term;
            }
            assert_eq!(term, self.last, "another has worked since");
        }
        // It drains now and then.
        if failed || (phase == Phase::Held && self.random.u32(0..60) == 0) {
            for to in self.holders[which].claim.open() {
                self.send(Message::Release { id, to });
            }
            self.renew_id(which);
        } else if due && now >= self.holders[which].begins {
            self.ask_all(which, phase);
        }
    }

    fn ask_all(&mut self, which: usize, phase: Phase) {
        let now = self.now;
        let holder = &mut self.holders[which];
        holder.round = Some(phase);
        holder.since = now;
        holder.pending = self.registries.len();
        for to in 0..self.registries.len() {
            let holder = &mut self.holders[which];
            let (id, asked) = (holder.id, holder.claim.ask(to, holder.clock.at(now)));
            let from = which;
            if self.faults && now < holder.cut {
                continue;
            }
            self.send(Message::Hold { from, id, to, asked });
        }
    }

    /// Begins anew after a pause.
    fn renew_id(&mut self, which: usize) {
        self.ids += 1;
        let pause = STEP * self.random.u32(5..10);
        let holder = &mut self.holders[which];
        holder.id = self.ids;
        holder.claim = Claim::new(self.registries.len());
        holder.begins = self.now + pause;
        holder.round = None;
    }

    /// Those who may work at this moment, be they frozen or not.
    fn holding(&self) -> Vec<usize> {
        let holds = |which: &usize| {
            let holder = &self.holders[*which];
            let now = holder.clock.at(self.now);
            now < holder.claim.until() && holder.claim.clone().phase(now) == Phase::Held
        };
        (0..HOLDERS).filter(holds).collect()
    }

    fn check(&self) {
        let holding = self.holding();
        assert!(holding.len() < 2, "two hold it at {:?}: {holding:?}", self.now);
    }
}

#[test]
fn there_are_never_two_and_it_moves_on() {
    for seed in 0..60 {
        for (registries, wild) in [(1, false), (2, false), (3, false), (3, true), (5, false), (5, true)] {
            let mut world = World::new(registries, wild, seed);
            world.run(Duration::from_secs(120));
            // From now on all goes well; then somebody begins before long.
            world.faults = false;
            world.begin(1.0);
            let before = world.begun.len();
            world.run(TIME * 6);
            let begun = world.begun.len() > before || !world.holding().is_empty();
            assert!(begun, "nobody has it, of {registries} registries with seed {seed}");
        }
    }
}
