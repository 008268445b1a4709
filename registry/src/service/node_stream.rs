//! The stream by which one node registers: from its first announcement until it leaves, or falls silent.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::figures::RegistryFigures;
use meepo_node::quota::REFUSALS;
use meepo_proto::registry::{Ack, Announce, Node};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::{Status, Streaming};
use tracing::Instrument;

use super::check;
use super::context::Context;
use super::status::status;
use crate::store::{Registration, Store, StoreError};

/// The stream of one node, as the registry sees it.
pub(crate) struct NodeStream<S> {
    pub(crate) context: Arc<Context<S>>,
    pub(crate) announcements: Streaming<Announce>,
    pub(crate) acks: mpsc::Sender<Result<Ack, Status>>,
    /// Where the node's connection comes from.
    pub(crate) peer: Option<SocketAddr>,
}

impl<S: Store> NodeStream<S> {
    /// Keeps the node registered as long as its heartbeats come, or until the child drains. Then the stream ends.
    pub(crate) async fn run(mut self) {
        let context = Arc::clone(&self.context);
        if let Some(Err(status)) = context.stop.run_until_cancelled(self.register()).await {
            // An error means that the node does not read, or has gone.
            let _ = self.acks.try_send(Err(status));
        }
    }

    /// Registers the node; `Ok` when it has left.
    async fn register(&mut self) -> Result<(), Status> {
        let Some(node) = self.next_announcement().await? else {
            return Ok(());
        };
        let span = tracing::info_span!(
            "node",
            id = %node.node_id(),
            kind = node.kind().as_str_name(),
            address = node.address(),
            name = node.name,
            pid = node.pid,
            peer = self.peer.map(tracing::field::display),
        );
        self.keep_registered(node).instrument(span).await
    }

    async fn keep_registered(&mut self, node: Node) -> Result<(), Status> {
        let registration = match self.context.store.join(node).await {
            Ok(registration) => registration,
            Err(error) => {
                if let Some(unlogged) = REFUSALS.take() {
                    tracing::warn!(%error, unlogged, "refused a node");
                }
                return Err(status(error));
            }
        };
        tracing::info!("node joined");
        let _counted = CountedNode::new(self.context.stats);
        let ended = self.take_heartbeats(registration).await;
        // Nothing happens if another registration has taken this one's place.
        self.context.store.leave(registration).await;
        match &ended {
            Ok(()) => tracing::info!("node left"),
            Err(status) => tracing::warn!(error = status.message(), "node lost"),
        }
        ended
    }

    /// Acknowledges announcements until no more come.
    async fn take_heartbeats(&mut self, registration: Registration) -> Result<(), Status> {
        let heartbeat = self.context.settings.heartbeat.as_millis();
        let ack = Ack {
            heartbeat_ms: u32::try_from(heartbeat).unwrap_or(u32::MAX),
        };
        loop {
            // An error means that the node does not read: earlier acks wait for it.
            let _ = self.acks.try_send(Ok(ack));
            let Some(node) = self.next_announcement().await? else {
                return Ok(());
            };
            if node.node_id() != registration.node {
                return Err(Status::invalid_argument("a stream registers one node only"));
            }
            match self.context.store.renew(registration, node).await {
                // The node is alive, and the store hears of a change when it can be reached.
                Ok(()) | Err(StoreError::Unavailable(_)) => {}
                Err(error) => return Err(status(error)),
            }
        }
    }

    /// The next announcement, or `None` when the node leaves.
    async fn next_announcement(&mut self) -> Result<Option<Node>, Status> {
        match timeout(self.context.settings.expiry, self.announcements.message()).await {
            Ok(Ok(Some(announce))) => check::node(announce).map(Some),
            Ok(Ok(None)) => Ok(None),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Status::deadline_exceeded("no heartbeat in time")),
        }
    }
}

/// Counts a node as long as it is registered.
struct CountedNode(&'static RegistryFigures);

impl CountedNode {
    fn new(stats: &'static RegistryFigures) -> Self {
        stats.connections.add(1);
        stats.connections_total.add(1);
        Self(stats)
    }
}

impl Drop for CountedNode {
    fn drop(&mut self) {
        self.0.connections.sub(1);
    }
}
