//! A bound on log lines that a stranger can cause.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines that may come at once.
const BURST: u32 = 20;
/// After that, one line in this time.
const PERIOD: Duration = Duration::from_secs(10);

/// The quota for all peers that are refused, for whatever reason.
pub static REFUSALS: LogQuota = LogQuota::new();

/// Lets a burst of lines through, then one now and then.
#[derive(Debug)]
pub struct LogQuota(Mutex<State>);

#[derive(Debug)]
struct State {
    left: u32,
    refilled: Option<Instant>,
    unlogged: u64,
}

impl LogQuota {
    /// A quota of which nothing is used.
    pub const fn new() -> Self {
        Self(Mutex::new(State {
            left: BURST,
            refilled: None,
            unlogged: 0,
        }))
    }

    /// Asks to log a line. Returns how many lines before it were not logged, or `None` if this line is not to be logged either.
    pub fn take(&self) -> Option<u64> {
        self.take_at(Instant::now())
    }

    fn take_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let refilled = *state.refilled.get_or_insert(now);
        let periods = now.saturating_duration_since(refilled).as_secs() / PERIOD.as_secs();
        let periods = u32::try_from(periods).unwrap_or(u32::MAX);
        if periods > 0 {
            state.left = state.left.saturating_add(periods).min(BURST);
            state.refilled = Some(now);
        }
        if state.left == 0 {
            state.unlogged += 1;
            return None;
        }
        state.left -= 1;
        Some(std::mem::take(&mut state.unlogged))
    }
}

impl Default for LogQuota {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_one_line_a_period() {
        let quota = LogQuota::new();
        let start = Instant::now();
        for _ in 0..BURST {
            assert_eq!(quota.take_at(start), Some(0));
        }
        assert_eq!(quota.take_at(start), None);
        assert_eq!(quota.take_at(start + PERIOD / 2), None);
        assert_eq!(quota.take_at(start + PERIOD), Some(2));
        assert_eq!(quota.take_at(start + PERIOD), None);
    }
}
