//! The section `[gateway]` as limits: checked, and in the units in which they are compared.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How long a child that drains waits for workers while it has no link: longer than the pauses between their attempts.
pub(crate) const DRAIN_WITHOUT_WORKERS: Duration = Duration::from_secs(3);

/// The limits of a child. Each is documented where it is declared, in `GatewaySettings`.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub(crate) max_message: usize,
    pub(crate) handshake_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) max_requests: usize,
    pub(crate) request_memory: usize,
    pub(crate) ping_interval: Duration,
    pub(crate) heartbeat_timeout: Duration,
    pub(crate) close_timeout: Duration,
    pub(crate) send_buffer: usize,
    pub(crate) slow_client: SlowClient,
    pub(crate) max_session: usize,
    pub(crate) max_groups: usize,
    pub(crate) client_in_flight: usize,
    pub(crate) link_in_flight: usize,
    pub(crate) client_waiting: usize,
    pub(crate) waiting: usize,
    pub(crate) reload_spread: Duration,
    pub(crate) stop_spread: Duration,
}

/// What happens to a slow client: one whose send buffer is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SlowClient {
    /// It is closed (1008).
    Close,
    /// Messages to it are dropped while its send buffer is full.
    Drop,
}
