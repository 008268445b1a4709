//! Two holders never have one lease: tried in a simulated world of registries, holders and a network, driven by random events.
//!
//! The rules of both sides, [`Leases`] and [`Claim`], are the real ones. The world simulates the time, clocks that run at
//! different rates, messages that take long or are lost, holders that freeze, and registries that restart and forget all.

use std::collections::BTreeSet;
use std::time::Duration;

use meepo_node::claim::{Claim, ClaimPhase as Phase, SentRequest as Asked};
use meepo_proto::registry::{Grant, HoldReply, HolderId, Term};

use crate::store::LEASE_TIME;
use crate::store::memory::leases::Leases;

const NAME: &str = "name";
const HOLDERS: usize = 4;
/// How much time passes in one step of the world.
const STEP: Duration = Duration::from_millis(100);
/// How often a holder asks for its lease to be extended.
const RENEWAL: Duration = Duration::from_millis(1600);
/// How long a holder waits for the grants of a majority before it releases those that it got.
const MAJORITY_TIMEOUT: Duration = Duration::from_millis(2500);

struct World {
    now: Duration,
    registries: Vec<Registry>,
    holders: Vec<Holder>,
    messages: Vec<(Duration, Message)>,
    /// Whether faults happen.
    faults: bool,
    /// The last id that a holder was given.
    last_id: u64,
    /// The largest term with which a holder has begun to work.
    largest_term: u64,
    /// The ids of all holders that have begun to work.
    begun: BTreeSet<u64>,
    random: fastrand::Rng,
}

struct Registry {
    /// `None` while the registry is down.
    leases: Option<Leases>,
    clock: Clock,
    /// How far the registry's wall clock is ahead of the world's; `None` if it shows random times.
    wall: Option<Duration>,
}

struct Holder {
    clock: Clock,
    id: u64,
    claim: Claim,
    /// When it asks for the lease first.
    begins: Duration,
    /// The phase in which it asked last, and when that was.
    round: Option<Phase>,
    asked_at: Duration,
    /// How many replies are still to come.
    pending: usize,
    /// Until when it is frozen: replies wait.
    frozen_until: Duration,
    /// Until when all its requests are lost.
    cut_off_until: Duration,
    /// Replies that it has not read yet.
    waiting: Vec<Message>,
}

/// A clock that runs at another rate than the world's.
#[derive(Clone, Copy)]
struct Clock {
    ahead: Duration,
    /// Its rate in thousandths of the world's.
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
    Reply {
        from: usize,
        to: usize,
        id: u64,
        asked: Asked,
        reply: HoldReply,
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
    /// With `wild` wall clocks registries never restart: terms then grow only by what the registries remember.
    fn new(registries: usize, wild: bool, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut clock = || Clock {
            ahead: Duration::from_secs(random.u64(1..1000)),
            rate: random.u32(985..=1015),
        };
        let registries = (0..registries).map(|number| Registry {
            leases: None,
            clock: clock(),
            // Wall clocks differ by less than the time for which a registry grants nothing when it starts.
            wall: (!wild).then_some(Duration::from_millis(700 * number as u64)),
        });
        let registries: Vec<_> = registries.collect();
        let holders = (0..HOLDERS).map(|number| Holder {
            clock: clock(),
            id: number as u64 + 1,
            claim: Claim::new(registries.len()),
            begins: Duration::ZERO,
            round: None,
            asked_at: Duration::ZERO,
            pending: 0,
            frozen_until: Duration::ZERO,
            cut_off_until: Duration::ZERO,
            waiting: Vec::new(),
        });
        Self {
            now: Duration::ZERO,
            holders: holders.collect(),
            registries,
            messages: Vec::new(),
            faults: true,
            last_id: HOLDERS as u64,
            largest_term: 0,
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
                self.act(holder);
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
                    registry.leases = None;
                }
            }
            1 => {
                let which = self.random.usize(..HOLDERS);
                self.holders[which].frozen_until = self.now + STEP * self.random.u32(1..120);
            }
            // The holder dies, and another one comes in its place.
            2 => {
                let which = self.random.usize(..HOLDERS);
                self.replace_holder(which);
            }
            3 | 4 => {
                let which = self.random.usize(..HOLDERS);
                self.holders[which].cut_off_until = self.now + STEP * self.random.u32(1..120);
            }
            // Registries that are down restart.
            _ => self.restart(0.1),
        }
    }

    fn restart(&mut self, chance: f64) {
        for registry in &mut self.registries {
            if registry.leases.is_none() && self.random.f64() < chance {
                let mut leases = Leases::default();
                leases.begin_to_grant(registry.clock.at(self.now));
                registry.leases = Some(leases);
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
                    let Some(leases) = &mut registry.leases else { continue };
                    let term = asked.term.map(Term);
                    let granted = leases
                        .hold(NAME, HolderId(id), term, clock, wall)
                        .expect("there is room");
                    let reply = HoldReply {
                        grant: granted.map(|term| Grant {
                            term: term.0,
                            time_ms: LEASE_TIME.as_millis() as u32,
                        }),
                        shared: false,
                    };
                    let (from, to) = (to, from);
                    self.send(Message::Reply {
                        from,
                        to,
                        id,
                        asked,
                        reply,
                    });
                }
                Message::Reply { to, .. } => self.holders[to].waiting.push(message),
                Message::Release { id, to } => {
                    if let Some(leases) = &mut self.registries[to].leases {
                        leases.release(NAME, HolderId(id));
                    }
                }
            }
        }
    }

    /// Has a holder act, unless it is frozen.
    fn act(&mut self, which: usize) {
        let now = self.now;
        let holder = &mut self.holders[which];
        if now < holder.frozen_until {
            return;
        }
        for message in std::mem::take(&mut holder.waiting) {
            if let Message::Reply {
                from, id, asked, reply, ..
            } = message
                && id == holder.id
            {
                holder.pending = holder.pending.saturating_sub(1);
                holder.claim.answer(from, holder.clock.at(now), asked, &reply);
            }
        }
        let phase = holder.claim.phase(holder.clock.at(now));
        let (id, term) = (holder.id, holder.claim.term());
        let over = holder.pending == 0 || now > holder.asked_at + MAJORITY_TIMEOUT;
        let failed = phase == Phase::Lost || (phase != Phase::Held && holder.round == Some(phase) && over);
        let due = holder.round != Some(phase) || (phase == Phase::Held && now > holder.asked_at + RENEWAL);
        if phase == Phase::Held {
            let term = term.expect("a name that is held has a term");
            if self.begun.insert(id) {
                assert!(
                    term > self.largest_term,
                    "the term {term} comes after {}",
                    self.largest_term
                );
                self.largest_term = term;
            }
            assert_eq!(term, self.largest_term, "a later holder has worked since");
        }
        // A holder drains now and then.
        if failed || (phase == Phase::Held && self.random.u32(0..60) == 0) {
            for to in self.holders[which].claim.open() {
                self.send(Message::Release { id, to });
            }
            self.replace_holder(which);
        } else if due && now >= self.holders[which].begins {
            self.ask_all(which, phase);
        }
    }

    fn ask_all(&mut self, which: usize, phase: Phase) {
        let now = self.now;
        let holder = &mut self.holders[which];
        holder.round = Some(phase);
        holder.asked_at = now;
        holder.pending = self.registries.len();
        for to in 0..self.registries.len() {
            let holder = &mut self.holders[which];
            let (id, asked) = (holder.id, holder.claim.ask(to, holder.clock.at(now)));
            let from = which;
            if self.faults && now < holder.cut_off_until {
                continue;
            }
            self.send(Message::Hold { from, id, to, asked });
        }
    }

    /// Has a new holder begin in the place of this one, after a pause.
    fn replace_holder(&mut self, which: usize) {
        self.last_id += 1;
        let pause = STEP * self.random.u32(5..10);
        let holder = &mut self.holders[which];
        holder.id = self.last_id;
        holder.claim = Claim::new(self.registries.len());
        holder.begins = self.now + pause;
        holder.round = None;
    }

    /// The holders that may work at this moment, frozen or not.
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
        assert!(
            holding.len() < 2,
            "two holders have the lease at {:?}: {holding:?}",
            self.now
        );
    }
}

#[test]
fn two_holders_never_have_one_lease_and_it_moves_on() {
    for seed in 0..60 {
        for (registries, wild) in [(1, false), (2, false), (3, false), (3, true), (5, false), (5, true)] {
            let mut world = World::new(registries, wild, seed);
            world.run(Duration::from_secs(120));
            // Without further faults a holder begins to work before long.
            world.faults = false;
            world.restart(1.0);
            let before = world.begun.len();
            world.run(LEASE_TIME * 6);
            let begun = world.begun.len() > before || !world.holding().is_empty();
            assert!(
                begun,
                "no holder has the lease, of {registries} registries with seed {seed}"
            );
        }
    }
}
