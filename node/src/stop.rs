//! How a child learns that it is to drain.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// Why a child is to drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The node stops.
    Stop,
    /// A successor serves already.
    Reload,
    /// The master has died.
    MasterGone,
}

/// A signal that comes once: drain and end. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Stop {
    token: CancellationToken,
    /// Why, and until when, once the signal has come.
    given: Arc<OnceLock<(StopReason, Instant)>>,
    timeout: Duration,
}

impl Stop {
    /// A signal that has not come yet. A drain may take this long unless the signal comes with another time.
    pub fn new(timeout: Duration) -> Self {
        Self {
            token: CancellationToken::new(),
            given: Arc::default(),
            timeout,
        }
    }

    /// Gives the signal. Only the first reason counts.
    pub fn request(&self, reason: StopReason) {
        self.request_within(reason, self.timeout);
    }

    /// Gives the signal, with the time that is left for the drain. Only the first reason and its time count.
    pub fn request_within(&self, reason: StopReason, time: Duration) {
        let _ = self.given.set((reason, Instant::now() + time));
        self.token.cancel();
    }

    /// How long the drain may still take before the master ends the child by force. The instances of a node share the time
    /// for a stop, so it can be much less than `stop_timeout`.
    pub fn timeout(&self) -> Duration {
        self.given.get().map_or(self.timeout, |(_, deadline)| {
            deadline.saturating_duration_since(Instant::now())
        })
    }

    /// Waits for the signal. Cancel safe.
    pub async fn requested(&self) {
        self.token.cancelled().await;
    }

    /// Why the signal was given, if it was.
    pub fn reason(&self) -> Option<StopReason> {
        self.given.get().map(|(reason, _)| *reason)
    }

    /// The token behind the signal, to derive other tokens from.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_that_is_left_runs_out() {
        let stop = Stop::new(Duration::from_secs(30));
        assert_eq!(stop.timeout(), Duration::from_secs(30));
        let told = stop.clone();
        stop.request_within(StopReason::Stop, Duration::from_secs(10));
        stop.request(StopReason::MasterGone);
        assert_eq!(told.reason(), Some(StopReason::Stop));
        let left = told.timeout();
        assert!(
            left <= Duration::from_secs(10) && left > Duration::from_secs(5),
            "{left:?}"
        );
        let stop = Stop::new(Duration::ZERO);
        stop.request(StopReason::Reload);
        assert_eq!(stop.timeout(), Duration::ZERO);
    }
}
