//! One member of etcd: the connection to it, and what was logged about it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use meepo_node::rpc;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint, Error};

use super::error::EtcdError;

/// etcd ends connections that are probed more often than every 5 s, or while no call is under way.
const KEEP_ALIVE: Duration = Duration::from_secs(6);
/// How long after a log line about a member that stays away the next one is written.
const REMIND: Duration = Duration::from_secs(300);

/// One member of etcd.
#[derive(Debug)]
pub(crate) struct Member {
    address: String,
    endpoint: Endpoint,
    channel: Mutex<Channel>,
    /// When the last log line about its failures was written; `None` as long as it answers.
    failing: Mutex<Option<Instant>>,
}

impl Member {
    /// The member at an address, host and port. It is connected when it is first asked, which may take `connect_timeout`.
    pub(crate) fn new(address: &str, connect_timeout: Duration) -> Result<Self, Error> {
        let endpoint = rpc::endpoint(address)?
            .connect_timeout(connect_timeout)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_while_idle(false);
        Ok(Self {
            address: address.into(),
            channel: Mutex::new(endpoint.connect_lazy()),
            endpoint,
            failing: Mutex::default(),
        })
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Begins a new connection: on the old one, no answer may ever come again.
    pub(crate) fn reconnect(&self) {
        *self.channel.lock().unwrap_or_else(PoisonError::into_inner) = self.endpoint.connect_lazy();
    }

    /// Logs that the member has failed, unless that was logged a short while ago.
    pub(crate) fn failed(&self, error: &EtcdError) {
        let now = Instant::now();
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        if failing.is_none_or(|logged| now - logged >= REMIND) {
            *failing = Some(now);
            tracing::warn!(etcd = self.address, %error, "cannot use a member of etcd, still trying");
        }
    }

    /// The member answers.
    pub(crate) fn answered(&self) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        if failing.take().is_some() {
            tracing::info!(etcd = self.address, "the member of etcd is back");
        }
    }
}
