//! The clients that a worker child serves, as far as a cluster needs them. The runtime implements them.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use meepo_proto::ClientId;

use super::gateway_copy::HasGatewayCopy;
use crate::api::error::HandlerError;

/// The clients that this child serves.
pub(crate) trait ServedClients: Send + Sync {
    /// A client, if this child serves it.
    fn served(&self, id: ClientId) -> Option<Arc<dyn HasGatewayCopy>>;

    /// Has a run of a timer wait for its turn among the events of its client. The run is dropped if this child does not
    /// serve the client.
    fn queue_run(self: Arc<Self>, id: ClientId, run: TimerRun);

    /// How many clients have a queue.
    #[cfg(test)]
    fn len(&self) -> usize;

    /// A client, if this child serves it, for a test that knows its type.
    #[cfg(test)]
    fn served_client(&self, id: ClientId) -> Option<Arc<dyn std::any::Any + Send + Sync>>;
}

/// One run of a client's timer. Dropping it ends the timer.
///
/// The lock is never taken: queues are shared between threads, and a timer's closure need not be.
pub(crate) struct TimerRun(Mutex<BoxFuture<'static, Result<(), HandlerError>>>);

impl TimerRun {
    /// The run begins when the future is polled first.
    pub(crate) fn new(run: impl Future<Output = Result<(), HandlerError>> + Send + 'static) -> Self {
        Self(Mutex::new(Box::pin(run)))
    }

    /// The run itself.
    pub(crate) fn into_future(self) -> BoxFuture<'static, Result<(), HandlerError>> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}
