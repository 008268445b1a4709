//! Figures of all children, in memory that the master shares with them.
//!
//! One shared mapping is made before the first fork. A child has a slot; the master reads it for `status`, and adds it to
//! the totals of its instance when the child has died. Any child can read all of it, for the metrics of the whole node.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use serde::{Deserialize, Serialize};

use crate::sys;

mod board;

#[cfg(test)]
pub(crate) use board::ChildSnapshot;
pub(crate) use board::{Board, InstanceSnapshot, NodeSnapshot};

/// How many children, former generations that still drain among them, can have an entry.
pub(crate) const ENTRIES: usize = 1024;
/// How many instances a master can run.
pub(crate) const INSTANCES: usize = 16;

/// A counted number that a child changes and any process of the node may read.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Figure {
    /// What the thread that owns the slot has counted. No other thread writes it, so it needs no locked instruction.
    own: AtomicU64,
    /// What all other threads have counted.
    others: AtomicU64,
}

thread_local! {
    /// Where the slot begins that this thread owns.
    static OWNED: Cell<usize> = const { Cell::new(0) };
}

impl Figure {
    /// Adds to the figure.
    pub fn add(&self, n: u64) {
        if self.is_own() {
            let before = self.own.load(Ordering::Relaxed);
            self.own.store(before.wrapping_add(n), Ordering::Relaxed);
        } else {
            self.others.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// Subtracts from the figure.
    pub fn sub(&self, n: u64) {
        self.add(n.wrapping_neg());
    }

    /// Sets the figure. Of several threads that do it at the same time, the last is not sure to win.
    pub fn set(&self, n: u64) {
        let (mine, other) = match self.is_own() {
            true => (&self.own, &self.others),
            false => (&self.others, &self.own),
        };
        mine.store(n.wrapping_sub(other.load(Ordering::Relaxed)), Ordering::Relaxed);
    }

    /// The figure now.
    pub fn get(&self) -> u64 {
        let (own, others) = (self.own.load(Ordering::Relaxed), self.others.load(Ordering::Relaxed));
        match own.wrapping_add(others) {
            // An addition by one thread and a subtraction by another may be seen in the other order for a moment.
            below_zero if own != 0 && below_zero > i64::MAX as u64 => 0,
            sum => sum,
        }
    }

    fn clear(&self) {
        self.own.store(0, Ordering::Relaxed);
        self.others.store(0, Ordering::Relaxed);
    }

    fn is_own(&self) -> bool {
        std::ptr::from_ref(self).addr().wrapping_sub(OWNED.get()) < size_of::<Slot>()
    }
}

macro_rules! figures {
    ($($(#[$doc:meta])* $name:ident: $kind:ident,)*) => {
        /// The figures of one child. A node type leaves at 0 what it has none of.
        #[derive(Debug, Default)]
        #[repr(C, align(128))]
        pub struct Slot { $($(#[$doc])* pub $name: Figure,)* }

        /// The figures of a child, or of several together, at one moment.
        #[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct Figures { $($(#[$doc])* pub $name: u64,)* }

        /// The figures' names, in the order in which they lie in memory.
        const NAMES: &[&str] = &[$(stringify!($name)),*];

        impl Slot {
            /// All figures as they are now.
            pub fn read(&self) -> Figures {
                Figures { $($name: self.$name.get(),)* }
            }

            fn clear(&self) {
                $(self.$name.clear();)*
            }

            /// Makes this thread the owner of the slot: its counting costs next to nothing. A slot has one owner until it is
            /// cleared, and a thread owns one slot.
            pub(crate) fn own(&'static self) {
                OWNED.set(std::ptr::from_ref(self).addr());
            }

            /// Adds the counters of a child that has died, but not its gauges.
            fn add_counters(&self, dead: &Figures) {
                $(figures!(@$kind self.$name, dead.$name);)*
            }
        }

        impl Figures {
            /// Adds figures of others.
            pub fn add(&mut self, other: &Figures) {
                $(self.$name = self.$name.wrapping_add(other.$name);)*
            }
        }
    };
    (@counter $to:expr, $from:expr) => { $to.add($from) };
    (@gauge $to:expr, $from:expr) => {};
}

figures! {
    /// Clients (gateway), links (worker) or nodes (registry) that are connected now.
    connections: gauge,
    /// Connections since the child started.
    connections_total: counter,
    /// Messages received from clients.
    messages_in: counter,
    /// Messages sent to clients.
    messages_out: counter,
    /// Payload bytes received from clients.
    bytes_in: counter,
    /// Payload bytes sent to clients.
    bytes_out: counter,
    /// Sends that did not reach their client: gone, slow, refused.
    failed_sends: counter,
    /// Handlers and jobs that returned an error or panicked.
    handler_errors: counter,
    /// Links between gateways and workers that are up.
    links: gauge,
    /// Jobs that run here, each nowhere else in the cluster.
    jobs: gauge,
    /// Events that wait for a worker.
    events_waiting: gauge,
    /// Events that a worker has and has not finished.
    events_in_flight: gauge,
    /// Connections that could not be accepted when they were there: no descriptor was free.
    failed_accepts: counter,
    /// Listeners that accept nobody for now, since no descriptor is free.
    blocked_listeners: gauge,
    /// Clients that were closed because they did not read.
    slow_clients: counter,
    /// Messages that were not queued because the client's send buffer was full.
    dropped_sends: counter,
    /// Events that were given up because several workers ended with them.
    given_up_events: counter,
    /// HTTP requests that workers were to answer (gateway) or were given (worker).
    requests: counter,
    /// Those of them that the gateway answered itself with a 5xx: no worker, no room, no answer in time.
    failed_requests: counter,
    /// Gateway: clients that are not read because too much waits for workers. Worker: clients whose events wait because
    /// too much is to be sent to their gateway, or because an endpoint is away.
    held_back: gauge,
    /// Gateway: 1 while so much waits for workers that nobody is read. Worker: outgoing queues that are full.
    full_queues: gauge,
    /// Log lines that could not be written.
    lost_log_lines: counter,
    /// 1 while log lines cannot be written.
    log_fails: gauge,
}

/// What a child does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u32)]
pub(crate) enum ChildState {
    /// It is not ready yet.
    Starting = 1,
    /// It is ready.
    Serving = 2,
    /// It finishes and takes nothing new.
    Draining = 3,
}

/// In place of a [`ChildState`]: the entry has no child.
const FREE: u32 = 0;

impl ChildState {
    /// The state's name in `status` and in metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
        }
    }

    /// The state of an entry. `None` if the entry is free.
    fn of(number: u32) -> Option<Self> {
        [Self::Starting, Self::Serving, Self::Draining]
            .into_iter()
            .find(|state| *state as u32 == number)
    }
}

/// One child in the shared memory.
#[repr(C, align(128))]
struct ChildEntry {
    instance: AtomicU32,
    state: AtomicU32,
    index: AtomicU32,
    pid: AtomicU32,
    slot: Slot,
}

/// One instance in the shared memory, as only the master knows it.
#[repr(C, align(128))]
struct InstanceEntry {
    /// Children that were started in the place of one that had died.
    restarts: AtomicU64,
    /// Children that wait to be started again.
    backing_off: AtomicU64,
    /// The counters of children that are gone.
    totals: Slot,
}

/// All figures of a node.
#[repr(C)]
struct SharedMemory {
    /// All entries from here on have never been used.
    high: AtomicU32,
    /// Odd while a child's figures move to the totals.
    moves: AtomicU32,
    /// When the master started, in seconds of Unix time.
    started: AtomicU64,
    /// The master's own figures.
    master: Slot,
    instances: [InstanceEntry; INSTANCES],
    entries: [ChildEntry; ENTRIES],
}

impl sys::Zeroed for SharedMemory {}

/// The master's hold on the shared memory.
pub(crate) struct Stats {
    shared: &'static SharedMemory,
    /// Kept so that the memory can be handed to a later binary of the master.
    pub(crate) file: OwnedFd,
}

impl Stats {
    /// Makes the mapping, all zero.
    pub(crate) fn new() -> io::Result<Self> {
        let file = nix::sys::memfd::memfd_create(c"meepo-stats", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)?;
        nix::unistd::ftruncate(
            &file,
            i64::try_from(size_of::<SharedMemory>()).map_err(io::Error::other)?,
        )?;
        Self::map(file)
    }

    /// Maps memory that was made before.
    pub(crate) fn map(file: OwnedFd) -> io::Result<Self> {
        let start = sys::map_shared(&file, size_of::<SharedMemory>())?;
        let shared = sys::shared_at(start, size_of::<SharedMemory>(), 0);
        Ok(Self { shared, file })
    }

    /// The layout of the memory in words. A binary with another layout must not use the memory.
    pub(crate) fn layout(instances: &[&str]) -> String {
        let size = size_of::<SharedMemory>();
        format!(
            "{size} {ENTRIES} {INSTANCES} {} {}",
            NAMES.join(","),
            instances.join(",")
        )
    }

    /// Takes a free entry for a child that starts. `None` if there is none.
    pub(crate) fn claim(&self, instance: usize, index: usize) -> Option<usize> {
        let number = self
            .shared
            .entries
            .iter()
            .position(|entry| entry.state.load(Ordering::Relaxed) == FREE)?;
        let entry = &self.shared.entries[number];
        entry.slot.clear();
        entry.instance.store(instance as u32, Ordering::Relaxed);
        entry.index.store(index as u32, Ordering::Relaxed);
        entry.pid.store(0, Ordering::Relaxed);
        entry.state.store(ChildState::Starting as u32, Ordering::Release);
        self.shared.high.fetch_max(number as u32 + 1, Ordering::Relaxed);
        Some(number)
    }

    /// Gives an entry back of which no child has come to use.
    pub(crate) fn free(&self, number: usize) {
        self.shared.entries[number].state.store(FREE, Ordering::Release);
    }

    /// Notes what the child of an entry does now.
    pub(crate) fn mark(&self, number: usize, state: ChildState) {
        self.shared.entries[number].state.store(state as u32, Ordering::Release);
    }

    /// Gives an entry back, and adds its counters to the totals of its instance.
    pub(crate) fn retire(&self, number: usize) {
        let entry = &self.shared.entries[number];
        let instance = entry.instance.load(Ordering::Relaxed) as usize;
        let moves = &self.shared.moves;
        let before = moves.load(Ordering::Relaxed);
        moves.store(before.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        self.shared.instances[instance].totals.add_counters(&entry.slot.read());
        self.free(number);
        moves.store(before.wrapping_add(2), Ordering::Release);
    }

    /// Notes which process an entry's child is.
    pub(crate) fn set_pid(&self, number: usize, pid: u32) {
        self.shared.entries[number].pid.store(pid, Ordering::Relaxed);
    }

    /// Notes when the master started.
    pub(crate) fn started(&self, unix_seconds: u64) {
        self.shared.started.store(unix_seconds, Ordering::Relaxed);
    }

    /// Publishes of an instance what only the master knows.
    pub(crate) fn publish_instance(&self, instance: usize, restarts: u64, backing_off: u64) {
        let of = &self.shared.instances[instance];
        of.restarts.store(restarts, Ordering::Relaxed);
        of.backing_off.store(backing_off, Ordering::Relaxed);
    }

    /// The master's own figures.
    pub(crate) fn master(&self) -> &'static Slot {
        &self.shared.master
    }

    /// The figures of an entry.
    pub(crate) fn slot(&self, number: usize) -> &'static Slot {
        &self.shared.entries[number].slot
    }

    /// The counters of an instance's children that are gone.
    pub(crate) fn totals(&self, instance: usize) -> Figures {
        self.shared.instances[instance].totals.read()
    }

    /// The figures of the whole node, for any of its processes.
    pub(crate) fn board(&self) -> Board {
        Board(self.shared)
    }

    /// The figures of an instance's children.
    pub(crate) fn siblings(&self, instance: usize) -> Siblings {
        Siblings(Scope::Instance(self.shared, instance as u32))
    }
}

impl fmt::Debug for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stats").finish_non_exhaustive()
    }
}

/// The slots of an instance's children that serve, this child's own among them.
#[derive(Clone)]
pub struct Siblings(Scope);

#[derive(Clone, Copy)]
enum Scope {
    Instance(&'static SharedMemory, u32),
    Alone(&'static Slot),
}

impl Siblings {
    /// A child that has no siblings, for tests.
    pub fn alone(slot: &'static Slot) -> Self {
        Self(Scope::Alone(slot))
    }

    /// The figures of each child that serves.
    pub fn iter(&self) -> impl Iterator<Item = &'static Slot> + '_ {
        let (alone, entries, instance) = match self.0 {
            Scope::Alone(slot) => (Some(slot), &[][..], 0),
            Scope::Instance(shared, instance) => {
                let high = shared.high.load(Ordering::Relaxed) as usize;
                (None, &shared.entries[..high.min(ENTRIES)], instance)
            }
        };
        let serves = move |entry: &&'static ChildEntry| {
            entry.state.load(Ordering::Acquire) == ChildState::Serving as u32
                && entry.instance.load(Ordering::Relaxed) == instance
        };
        alone
            .into_iter()
            .chain(entries.iter().filter(serves).map(|entry| &entry.slot))
    }
}

impl fmt::Debug for Siblings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn siblings_are_those_of_the_instance_that_serve() {
        let stats = Stats::new().unwrap();
        let [a, b, other, draining] = [0, 0, 1, 0].map(|instance| stats.claim(instance, 0).unwrap());
        assert_eq!(stats.siblings(0).iter().count(), 0);
        for slot in [a, b, other, draining] {
            stats.mark(slot, ChildState::Serving);
        }
        stats.mark(draining, ChildState::Draining);
        stats.slot(a).connections.add(2);
        stats.slot(b).connections.add(3);
        stats.slot(other).connections.add(100);
        assert_eq!(
            stats.siblings(0).iter().map(|slot| slot.connections.get()).sum::<u64>(),
            5
        );
    }

    #[test]
    fn the_dead_leave_their_counts_and_a_clean_slot() {
        let stats = Stats::new().unwrap();
        for _ in 0..3 {
            let slot = stats.claim(4, 0).unwrap();
            assert_eq!(stats.slot(slot).read(), Figures::default());
            stats.slot(slot).messages_in.add(10);
            stats.slot(slot).connections.add(1);
            stats.retire(slot);
        }
        let totals = stats.totals(4);
        assert_eq!((totals.messages_in, totals.connections), (30, 0));
    }

    #[test]
    fn slots_can_run_out() {
        let stats = Stats::new().unwrap();
        for _ in 0..ENTRIES {
            assert!(stats.claim(0, 0).is_some());
        }
        assert_eq!(stats.claim(0, 0), None);
        stats.retire(7);
        assert_eq!(stats.claim(1, 0), Some(7));
    }

    #[test]
    fn a_figure_is_what_its_owner_and_all_others_count() {
        const EACH: u64 = 10_000;
        let [slot, other]: [&'static Slot; 2] = [Box::leak(Box::default()), Box::leak(Box::default())];
        slot.own();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..EACH {
                        slot.messages_in.add(2);
                        slot.links.sub(1);
                    }
                });
            }
            for _ in 0..EACH {
                slot.messages_in.add(1);
                slot.links.add(1);
            }
        });
        assert_eq!(slot.messages_in.get(), 5 * EACH);
        slot.links.add(EACH + 7);
        assert_eq!(slot.links.get(), 7);
        for figure in [&slot.links, &other.links] {
            figure.set(3);
            std::thread::scope(|scope| scope.spawn(|| figure.sub(1)).join().unwrap());
            assert_eq!(figure.get(), 2);
            figure.set(9);
            std::thread::scope(|scope| scope.spawn(|| figure.set(4)).join().unwrap());
            assert_eq!(figure.get(), 4);
        }
        assert_eq!(
            [slot, other].map(|slot| slot.links.own.load(Ordering::Relaxed) > 0),
            [true, false]
        );
    }

    #[test]
    fn one_child_alone() {
        let slot: &'static Slot = Box::leak(Box::default());
        assert_eq!(Siblings::alone(slot).iter().count(), 1);
    }
}
