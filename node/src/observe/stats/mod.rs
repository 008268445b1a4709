//! Figures of all children, in memory that the master shares with them.
//!
//! One shared mapping is made before the first fork. A child has a slot in it; the master reads the slot for `status`, and adds it
//! to the totals of its instance when the child has died. Any child can read all of it, for the metrics of the whole node.
//! What the figures are called and how they are shown, the instances say in their tables.

mod board;
mod figure;
mod reading;
mod table;

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use serde::{Deserialize, Serialize};

use crate::sys::{self, RowOf};

#[cfg(test)]
pub(crate) use board::ChildSnapshot;
pub(crate) use board::{Board, InstanceSnapshot, NodeSnapshot};
pub use figure::Figure;
use figure::MOST_FIGURES;
pub use reading::Figures;
pub(crate) use reading::Reading;
pub(crate) use table::{COMMON, FigureKind, FigureUnit, InstanceTable, keys};
pub use table::{CommonFigures, FigureInfo};

/// How many children, former generations that still drain among them, can have an entry.
pub(crate) const ENTRIES: usize = 1024;
/// How many instances a master can run.
pub(crate) const INSTANCES: usize = 16;

/// The figures of one child.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub struct Slot([Figure; MOST_FIGURES]);

impl Slot {
    /// The figures by their names, as declared with [`figures!`](crate::figures).
    ///
    /// # Panics
    ///
    /// If these are more figures than a child can have.
    pub fn view<F: RowOf<Figure>>(&self) -> &F {
        sys::view(&self.0)
    }

    /// The figures that every child has.
    pub fn common(&self) -> &CommonFigures {
        self.view()
    }

    /// All figures as they are now.
    pub(crate) fn read(&self) -> Reading {
        Reading::of(&self.0)
    }

    fn clear(&self) {
        self.0.iter().for_each(Figure::clear);
    }

    /// Makes this thread the owner of the slot: its counting costs next to nothing. A slot has one owner until it is cleared,
    /// and a thread owns one slot.
    pub(crate) fn own(&'static self) {
        figure::own(&self.0);
    }

    /// Adds the counters of a child that has died, but not its gauges.
    fn add_counters(&self, dead: &Reading, table: &InstanceTable) {
        for (index, info) in table.figures() {
            if info.kind == FigureKind::Counter {
                self.0[index].add(dead.at(index));
            }
        }
    }
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
    /// The instances, in the order of their numbers.
    tables: Rc<[InstanceTable]>,
    /// Kept so that the memory can be handed to a later binary of the master.
    pub(crate) file: OwnedFd,
}

impl Stats {
    /// Makes the mapping, all zero.
    pub(crate) fn new(tables: &[InstanceTable]) -> io::Result<Self> {
        let file = nix::sys::memfd::memfd_create(c"meepo-stats", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)?;
        nix::unistd::ftruncate(
            &file,
            i64::try_from(size_of::<SharedMemory>()).map_err(io::Error::other)?,
        )?;
        Self::map(file, tables)
    }

    /// Maps memory that was made before.
    pub(crate) fn map(file: OwnedFd, tables: &[InstanceTable]) -> io::Result<Self> {
        let start = sys::map_shared(&file, size_of::<SharedMemory>())?;
        let shared = sys::shared_at(start, size_of::<SharedMemory>(), 0);
        Ok(Self {
            shared,
            tables: tables.into(),
            file,
        })
    }

    /// The layout of the memory in words. A binary with another layout must not use the memory.
    pub(crate) fn layout(tables: &[InstanceTable]) -> String {
        let names = |table: &InstanceTable| {
            let names: Vec<&str> = table.figures().map(|(_, info)| info.name).collect();
            format!("{}:{}", table.name, names.join(","))
        };
        let instances: Vec<String> = tables.iter().map(names).collect();
        let size = size_of::<SharedMemory>();
        format!("{size} {ENTRIES} {INSTANCES} {}", instances.join(" "))
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
        let totals = &self.shared.instances[instance].totals;
        totals.add_counters(&entry.slot.read(), self.table(instance));
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
    pub(crate) fn totals(&self, instance: usize) -> Reading {
        self.shared.instances[instance].totals.read()
    }

    /// The tables of all instances, in the order of their numbers.
    pub(crate) fn tables(&self) -> &[InstanceTable] {
        &self.tables
    }

    /// The table of an instance.
    pub(crate) fn table(&self, instance: usize) -> &InstanceTable {
        self.tables.get(instance).unwrap_or(&COMMON)
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

    crate::figures! {
        /// Figures as an instance has them.
        pub(crate) struct TestFigures {
            messages_in: FigureInfo::counter("test_messages_total", "Messages."),
            connections: FigureInfo::gauge("test_connections", "Connections."),
            links: FigureInfo::gauge("test_links", "Links."),
        }
    }

    /// Statistics of several instances that count the same.
    pub(super) fn stats() -> Stats {
        let table = InstanceTable {
            name: "test",
            own: TestFigures::TABLE,
        };
        Stats::new(&[table; 5]).unwrap()
    }

    /// A reading of these figures.
    pub(super) trait Named {
        fn value(&self, name: &str) -> u64;

        fn messages_in(&self) -> u64 {
            self.value("messages_in")
        }

        fn lost_log_lines(&self) -> u64 {
            self.value("lost_log_lines")
        }
    }

    impl Named for Reading {
        fn value(&self, name: &str) -> u64 {
            self.named(stats().table(0)).get(name).unwrap()
        }
    }

    fn view(slot: &Slot) -> &TestFigures {
        slot.view()
    }

    #[test]
    fn siblings_are_those_of_the_instance_that_serve() {
        let stats = stats();
        let [a, b, other, draining] = [0, 0, 1, 0].map(|instance| stats.claim(instance, 0).unwrap());
        assert_eq!(stats.siblings(0).iter().count(), 0);
        for slot in [a, b, other, draining] {
            stats.mark(slot, ChildState::Serving);
        }
        stats.mark(draining, ChildState::Draining);
        view(stats.slot(a)).connections.add(2);
        view(stats.slot(b)).connections.add(3);
        view(stats.slot(other)).connections.add(100);
        assert_eq!(
            stats
                .siblings(0)
                .iter()
                .map(|slot| view(slot).connections.get())
                .sum::<u64>(),
            5
        );
    }

    #[test]
    fn the_dead_leave_their_counts_and_a_clean_slot() {
        let stats = stats();
        for _ in 0..3 {
            let slot = stats.claim(4, 0).unwrap();
            assert_eq!(stats.slot(slot).read(), Reading::default());
            view(stats.slot(slot)).messages_in.add(10);
            view(stats.slot(slot)).connections.add(1);
            stats.retire(slot);
        }
        let totals = stats.totals(4);
        assert_eq!((totals.messages_in(), totals.value("connections")), (30, 0));
    }

    #[test]
    fn slots_can_run_out() {
        let stats = stats();
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
        let [slot, other] = [slot, other].map(view);
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
        assert_eq!([slot, other].map(|slot| slot.links.counts_by_owner()), [true, false]);
    }

    #[test]
    fn one_child_alone() {
        let slot: &'static Slot = Box::leak(Box::default());
        assert_eq!(Siblings::alone(slot).iter().count(), 1);
    }

    #[test]
    fn each_figure_has_a_place_of_its_own() {
        let slot = Slot::default();
        view(&slot).links.add(3);
        view(&slot).common.log_fails.add(2);
        assert_eq!((slot.common().log_fails.get(), view(&slot).connections.get()), (2, 0));
        let named = slot.read().named(stats().table(0));
        assert_eq!(
            [named.get("links"), named.get("log_fails"), named.get("other")],
            [Some(3), Some(2), None]
        );
        assert_eq!(size_of::<TestFigures>(), 7 * size_of::<Figure>());
    }
}
