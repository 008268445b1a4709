//! A counted number in memory that several processes share.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many figures a child can have, those that every child has among them.
pub(crate) const MOST_FIGURES: usize = 32;

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

    /// Whether the owner has counted.
    #[cfg(test)]
    pub(super) fn counts_by_owner(&self) -> bool {
        self.own.load(Ordering::Relaxed) > 0
    }

    pub(super) fn clear(&self) {
        self.own.store(0, Ordering::Relaxed);
        self.others.store(0, Ordering::Relaxed);
    }

    fn is_own(&self) -> bool {
        std::ptr::from_ref(self).addr().wrapping_sub(OWNED.get()) < size_of::<[Self; MOST_FIGURES]>()
    }
}

/// Makes this thread the owner of the figures that begin here: its counting costs next to nothing. Figures have one owner until
/// they are cleared, and a thread owns the figures of one child.
pub(super) fn own(figures: &'static [Figure; MOST_FIGURES]) {
    OWNED.set(figures.as_ptr().addr());
}
