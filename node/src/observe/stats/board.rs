//! The figures of a whole node, as any of its processes reads them.

use std::fmt;
use std::sync::atomic::{Ordering, fence};

use super::{ChildEntry, ChildState, ENTRIES, InstanceEntry, Reading, SharedMemory};

/// The figures of a whole node, for any of its processes.
#[derive(Clone, Copy)]
pub(crate) struct Board(pub(super) &'static SharedMemory);

/// A node at one moment.
#[derive(Debug, Default)]
pub(crate) struct NodeSnapshot {
    /// When the master started, in seconds of Unix time.
    pub(crate) started: u64,
    pub(crate) master: Reading,
    /// In the order of the node's instances; some that it does not run may follow.
    pub(crate) instances: Vec<InstanceSnapshot>,
    pub(crate) children: Vec<ChildSnapshot>,
}

/// An instance at one moment.
#[derive(Debug, Default, Clone)]
pub(crate) struct InstanceSnapshot {
    pub(crate) restarts: u64,
    pub(crate) backing_off: u64,
    /// The counters of children that are gone.
    pub(crate) totals: Reading,
}

/// A child at one moment.
#[derive(Debug, Clone)]
pub(crate) struct ChildSnapshot {
    pub(crate) instance: usize,
    pub(crate) index: usize,
    pub(crate) pid: u32,
    pub(crate) state: ChildState,
    pub(crate) figures: Reading,
}

impl Board {
    /// Reads all figures, so that those of a dying child count once, not twice or never.
    pub(crate) fn read(&self) -> NodeSnapshot {
        let moves = &self.0.moves;
        // The master moves a child's figures in a moment. A master that died during that is not waited for.
        for _ in 0..10_000 {
            let before = moves.load(Ordering::Acquire);
            if before.is_multiple_of(2) {
                let seen = self.read_once();
                fence(Ordering::Acquire);
                if moves.load(Ordering::Relaxed) == before {
                    return seen;
                }
            }
            std::thread::yield_now();
        }
        self.read_once()
    }

    fn read_once(&self) -> NodeSnapshot {
        let high = self.0.high.load(Ordering::Relaxed) as usize;
        let instance = |of: &InstanceEntry| InstanceSnapshot {
            restarts: of.restarts.load(Ordering::Relaxed),
            backing_off: of.backing_off.load(Ordering::Relaxed),
            totals: of.totals.read(),
        };
        let child = |entry: &ChildEntry| {
            Some(ChildSnapshot {
                state: ChildState::of(entry.state.load(Ordering::Acquire))?,
                instance: entry.instance.load(Ordering::Relaxed) as usize,
                index: entry.index.load(Ordering::Relaxed) as usize,
                pid: entry.pid.load(Ordering::Relaxed),
                figures: entry.slot.read(),
            })
        };
        NodeSnapshot {
            started: self.0.started.load(Ordering::Relaxed),
            master: self.0.master.read(),
            instances: self.0.instances.iter().map(instance).collect(),
            children: self.0.entries[..high.min(ENTRIES)].iter().filter_map(child).collect(),
        }
    }
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Board").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Named, TestFigures, stats};
    use super::*;

    #[test]
    fn what_a_dying_child_counted_is_read_once() {
        const EACH: u64 = 7;
        let stats = stats();
        let board = stats.board();
        let reader = std::thread::spawn(move || {
            let mut before = 0;
            while before < 2000 * EACH {
                let seen = board.read();
                let alive = seen.children.iter().map(|child| child.figures.messages_in());
                let now = alive.sum::<u64>() + seen.instances[0].totals.messages_in();
                assert!(now >= before && now <= 2000 * EACH, "from {before} to {now}");
                before = now;
            }
        });
        for _ in 0..2000 {
            let slot = stats.claim(0, 0).unwrap();
            stats.slot(slot).view::<TestFigures>().messages_in.add(EACH);
            stats.retire(slot);
        }
        reader.join().unwrap();
    }

    #[test]
    fn the_board_shows_who_is_there() {
        let stats = stats();
        let (gone, slot) = (stats.claim(0, 0).unwrap(), stats.claim(2, 5).unwrap());
        stats.set_pid(slot, 77);
        stats.mark(slot, ChildState::Serving);
        stats.retire(gone);
        stats.publish_instance(2, 3, 1);
        stats.master().common().lost_log_lines.add(4);
        let seen = stats.board().read();
        let [child] = &seen.children[..] else {
            panic!("{seen:?}");
        };
        assert_eq!(
            (child.instance, child.index, child.pid, child.state),
            (2, 5, 77, ChildState::Serving)
        );
        assert_eq!((seen.instances[2].restarts, seen.instances[2].backing_off), (3, 1));
        assert_eq!(seen.master.lost_log_lines(), 4);
    }
}
