//! How a child learns that it is to drain.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

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
    reason: Arc<OnceLock<StopReason>>,
    /// How long a drain may take before the master ends the child by force.
    pub timeout: Duration,
}

impl Stop {
    /// A signal that has not come yet.
    pub fn new(timeout: Duration) -> Self {
        Self {
            token: CancellationToken::new(),
            reason: Arc::default(),
            timeout,
        }
    }

    /// Gives the signal. Only the first reason counts.
    pub fn request(&self, reason: StopReason) {
        let _ = self.reason.set(reason);
        self.token.cancel();
    }

    /// Waits for the signal. Cancel safe.
    pub async fn requested(&self) {
        self.token.cancelled().await;
    }

    /// Why the signal was given, if it was.
    pub fn reason(&self) -> Option<StopReason> {
        self.reason.get().copied()
    }

    /// The token behind the signal, for those who want to derive others from it.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }
}
