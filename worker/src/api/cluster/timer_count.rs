//! How many timers a client or a child has.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// How many timers there are. Nothing is allocated before the first timer.
#[derive(Debug, Default)]
pub(crate) struct TimerCount(OnceLock<Arc<AtomicUsize>>);

/// A timer that is counted until this value is dropped.
pub(crate) struct CountedTimer(Arc<AtomicUsize>);

impl TimerCount {
    /// Counts one more timer, if there are fewer than the limit.
    pub(crate) fn one_more(&self, limit: usize) -> Option<CountedTimer> {
        let more = |count| (count < limit).then_some(count + 1);
        let count = self.0.get_or_init(Arc::default);
        let counted = count.fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        counted.is_ok().then(|| CountedTimer(count.clone()))
    }
}

impl Drop for CountedTimer {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
