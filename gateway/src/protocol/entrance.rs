//! What client protocols need of this child to let clients in and to serve them.

use std::sync::Arc;

use meepo_node::quota::LogQuota;
use meepo_node::stats::Slot;
use meepo_proto::ClientId;
use meepo_proto::link::Message;
use tokio_util::sync::CancellationToken;

use crate::client::close::ClientClose;
use crate::client::handle::Client;
use crate::client::host::Host;
use crate::config::limits::Limits;
use crate::router::dispatch::Dispatch;
use crate::router::request_budget::RequestBudget;

/// The side of this child that clients come in by.
#[derive(Debug)]
pub(crate) struct Entrance {
    pub(crate) limits: Limits,
    /// Where the events of clients and their requests go.
    pub(crate) dispatch: Arc<Dispatch>,
    /// What forwarded requests may take.
    pub(crate) budget: Arc<RequestBudget>,
    /// Log lines that clients can cause.
    pub(crate) refusals: LogQuota,
    /// Cancelled when the child drains: HTTP connections end.
    pub(crate) stopping: CancellationToken,
    pub(crate) stats: &'static Slot,
}

impl Entrance {
    /// The entrance of a child.
    pub(crate) fn new(limits: Limits, dispatch: Arc<Dispatch>, stats: &'static Slot) -> Arc<Self> {
        Arc::new(Self {
            budget: RequestBudget::new(limits.max_requests, limits.request_memory),
            limits,
            dispatch,
            refusals: LogQuota::new(),
            stopping: CancellationToken::new(),
            stats,
        })
    }

    /// The entrance of a child that is not there.
    #[cfg(test)]
    pub(crate) fn for_test(limits: Limits) -> Arc<Self> {
        let stats = Box::leak(Box::<Slot>::default());
        let dispatch = Dispatch::new(&limits, stats);
        Self::new(limits, dispatch, stats)
    }
}

impl Host for Entrance {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn client_id(&self, client: &Client) -> ClientId {
        self.dispatch.clients.id(client.number)
    }

    fn refusals(&self) -> &LogQuota {
        &self.refusals
    }

    fn push_messages(&self, client: &Client, first: Message, next: impl FnMut() -> Option<Message>) {
        self.dispatch.push_messages(client, first, next);
    }

    fn push_send_buffer(&self, client: &Client) {
        self.dispatch.push_send_buffer(client);
    }

    fn hold_back_if_full(&self, client: &Client) {
        self.dispatch.hold_back_if_full(client);
    }

    fn is_settled(&self, client: &Client) -> bool {
        self.dispatch.is_settled(client)
    }

    fn close(&self, client: &Arc<Client>, close: ClientClose) -> bool {
        self.dispatch.close(client, close)
    }

    fn close_slow(&self, client: &Arc<Client>) {
        self.dispatch.close_slow(client);
    }
}
