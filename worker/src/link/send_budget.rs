//! The send budget: bytes that may wait in the queues towards the gateways, which bounds the memory of a worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::figures::WorkerFigures;

/// Counts the bytes that are queued. No command is refused: a send never waits and never fails because a queue is long, but
/// no client queue starts its next task before there is room.
#[derive(Debug)]
pub(crate) struct SendBudget {
    queued: AtomicUsize,
    limit: usize,
    freed: Notify,
    /// The budget of the whole child, in which the bytes of a link are counted as well.
    whole: Option<Arc<SendBudget>>,
    stats: &'static WorkerFigures,
}

/// Counts a client whose event waits for room in a budget, or for an endpoint, for as long as this value lives.
pub(crate) struct HeldBack(&'static WorkerFigures);

/// Bytes that a budget counts for as long as this value lives.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Arc<SendBudget>,
    bytes: usize,
}

impl SendBudget {
    pub(crate) fn new(limit: usize, whole: Option<Arc<SendBudget>>, stats: &'static WorkerFigures) -> Arc<Self> {
        Arc::new(Self {
            queued: AtomicUsize::new(0),
            limit,
            freed: Notify::new(),
            whole,
            stats,
        })
    }

    /// Counts bytes that are queued from now on, until they are [freed](Self::free).
    pub(crate) fn charge(&self, bytes: usize) {
        for budget in self.budgets() {
            let before = budget.queued.fetch_add(bytes, Ordering::AcqRel);
            if before < budget.limit && before + bytes >= budget.limit {
                budget.stats.full_queues.add(1);
            }
        }
    }

    /// Counts bytes no longer.
    pub(crate) fn free(&self, bytes: usize) {
        for budget in self.budgets() {
            let before = budget.queued.fetch_sub(bytes, Ordering::AcqRel);
            if before >= budget.limit && before - bytes < budget.limit {
                budget.stats.full_queues.sub(1);
                budget.freed.notify_waiters();
            }
        }
    }

    /// Frees bytes that are counted already once the value is dropped.
    pub(crate) fn until_dropped(self: &Arc<Self>, bytes: usize) -> Charge {
        Charge {
            budget: self.clone(),
            bytes,
        }
    }

    /// This budget, and that of the whole child.
    fn budgets(&self) -> impl Iterator<Item = &Self> {
        [Some(self), self.whole.as_deref()].into_iter().flatten()
    }

    /// Whether half of the limit is free, here and in the whole child: the push API takes no more, so that handlers always
    /// have the rest.
    pub(crate) fn has_half(&self) -> bool {
        self.budgets().all(|budget| budget.queued() < budget.limit / 2)
    }

    pub(crate) fn queued(&self) -> usize {
        self.queued.load(Ordering::Acquire)
    }

    /// Whether less than the limit is queued here and in the whole child.
    pub(crate) fn is_available(&self) -> bool {
        self.budgets().all(|budget| budget.queued() < budget.limit)
    }

    /// Waits until less than the limit is queued here and in the whole child. Cancel safe.
    pub(crate) async fn available(&self) {
        self.below_limit().await;
        if let Some(whole) = &self.whole {
            whole.below_limit().await;
        }
    }

    async fn below_limit(&self) {
        while self.queued() >= self.limit {
            let freed = self.freed.notified();
            // Looked at again now that a notification cannot be missed.
            if self.queued() >= self.limit {
                let _held_back = HeldBack::new(self.stats);
                freed.await;
            }
        }
    }
}

impl HeldBack {
    pub(crate) fn new(stats: &'static WorkerFigures) -> Self {
        stats.held_back.add(1);
        Self(stats)
    }
}

impl Drop for HeldBack {
    fn drop(&mut self) {
        self.0.held_back.sub(1);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.free(self.bytes);
    }
}
