//! The gRPC calls over a store.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::figures::RegistryFigures;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use meepo_node::quota::REFUSALS;
use meepo_proto::registry::registry_server::Registry;
use meepo_proto::registry::{
    Ack, Announce, Change, HoldAnswer, HoldRequest, Kind, ListRequest, Node, ReleaseAnswer, ReleaseRequest, Snapshot,
    State, WatchRequest,
};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument;

use crate::settings::RegistrySection;
use crate::store::{Lease, Refused, Store, TIME};

/// The longest text that a node may have.
const MAX_TEXT: usize = 512;
/// The longest name that can be held.
const MAX_NAME: usize = 128;

/// The service over a store.
pub(crate) struct Service<S> {
    shared: Arc<Shared<S>>,
}

struct Shared<S> {
    store: S,
    settings: RegistrySection,
    stop: CancellationToken,
    stats: &'static RegistryFigures,
}

/// A registration's stream, as the registry sees it.
struct Registration<S> {
    shared: Arc<Shared<S>>,
    beats: Streaming<Announce>,
    acks: mpsc::Sender<Result<Ack, Status>>,
    peer: Option<SocketAddr>,
}

impl<S: Store> Service<S> {
    pub(crate) fn new(
        store: S,
        settings: RegistrySection,
        stop: CancellationToken,
        stats: &'static RegistryFigures,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                store,
                settings,
                stop,
                stats,
            }),
        }
    }
}

#[tonic::async_trait]
impl<S: Store> Registry for Service<S> {
    type RegisterStream = ReceiverStream<Result<Ack, Status>>;
    type WatchStream = BoxStream<'static, Result<Change, Status>>;

    async fn register(&self, request: Request<Streaming<Announce>>) -> Result<Response<Self::RegisterStream>, Status> {
        let peer = request.remote_addr();
        let (acks, answer) = mpsc::channel(4);
        let registration = Registration {
            shared: Arc::clone(&self.shared),
            beats: request.into_inner(),
            acks,
            peer,
        };
        // The task ends with the connection or with the stop, whichever is first.
        tokio::spawn(registration.run());
        Ok(Response::new(ReceiverStream::new(answer)))
    }

    async fn watch(&self, _request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let changes = self.shared.store.watch().await.map_err(status)?;
        let stop = self.shared.stop.clone().cancelled_owned();
        let changes = changes
            .map(|change| Ok(Change { change: Some(change) }))
            .take_until(stop)
            .boxed();
        Ok(Response::new(changes))
    }

    async fn list(&self, _request: Request<ListRequest>) -> Result<Response<Snapshot>, Status> {
        let mut nodes = self.shared.store.list().await.map_err(status)?;
        nodes.retain(|node| node.state() == State::Serving);
        Ok(Response::new(Snapshot { nodes }))
    }

    async fn hold(&self, request: Request<HoldRequest>) -> Result<Response<HoldAnswer>, Status> {
        let HoldRequest { name, holder, term } = request.into_inner();
        check_name(&name, holder)?;
        // It is the largest that a database can keep.
        if i64::try_from(term).is_err() {
            return Err(Status::invalid_argument("the term is too large"));
        }
        // A successor may have begun: it counts on it that nothing which was asked for later is granted here.
        if self.shared.stop.is_cancelled() {
            return Err(Status::unavailable("the registry stops"));
        }
        let grant = self.shared.store.hold(&name, holder, term).await.map_err(status)?;
        Ok(Response::new(HoldAnswer {
            granted: grant.granted,
            term: grant.term,
            time_ms: u32::try_from(TIME.as_millis()).unwrap_or(u32::MAX),
            shared: grant.shared,
        }))
    }

    async fn release(&self, request: Request<ReleaseRequest>) -> Result<Response<ReleaseAnswer>, Status> {
        let ReleaseRequest { name, holder } = request.into_inner();
        check_name(&name, holder)?;
        self.shared.store.release(&name, holder).await.map_err(status)?;
        Ok(Response::new(ReleaseAnswer {}))
    }
}

fn check_name(name: &str, holder: u64) -> Result<(), Status> {
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(Status::invalid_argument("a name must have from 1 to 128 bytes"));
    }
    if holder == 0 {
        return Err(Status::invalid_argument("a holder's id must not be 0"));
    }
    Ok(())
}

impl<S: Store> Registration<S> {
    /// Keeps the node registered, and ends the stream when it no longer is.
    async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        if let Some(Err(status)) = shared.stop.run_until_cancelled(self.keep()).await {
            // Full or closed: the node does not read, or has gone.
            let _ = self.acks.try_send(Err(status));
        }
    }

    /// Ends well when the node leaves.
    async fn keep(&mut self) -> Result<(), Status> {
        let Some(node) = self.beat().await? else {
            return Ok(());
        };
        let span = tracing::info_span!(
            "node",
            id = %format_args!("{:016x}", node.id),
            kind = node.kind().as_str_name(),
            address = node.address,
            name = node.name,
            pid = node.pid,
            peer = self.peer.map(tracing::field::display),
        );
        self.keep_node(node).instrument(span).await
    }

    async fn keep_node(&mut self, node: Node) -> Result<(), Status> {
        let lease = match self.shared.store.join(node).await {
            Ok(lease) => lease,
            Err(error) => {
                if let Some(unlogged) = REFUSALS.take() {
                    tracing::warn!(%error, unlogged, "refused a node");
                }
                return Err(status(error));
            }
        };
        tracing::info!("node joined");
        let _counted = Counted::new(self.shared.stats);
        let ended = self.listen(lease).await;
        // Nothing happens if another registration has taken this one's place.
        self.shared.store.leave(lease).await;
        match &ended {
            Ok(()) => tracing::info!("node left"),
            Err(status) => tracing::warn!(error = status.message(), "node lost"),
        }
        ended
    }

    /// Takes heartbeats until there are no more.
    async fn listen(&mut self, lease: Lease) -> Result<(), Status> {
        loop {
            let heartbeat = self.shared.settings.heartbeat.as_millis();
            let ack = Ack {
                heartbeat_ms: u32::try_from(heartbeat).unwrap_or(u32::MAX),
            };
            // A node that does not read has others waiting.
            let _ = self.acks.try_send(Ok(ack));
            let Some(node) = self.beat().await? else {
                return Ok(());
            };
            if node.id != lease.node {
                return Err(Status::invalid_argument("a registration is for one node"));
            }
            match self.shared.store.renew(lease, node).await {
                // The node is alive, and the store will hear of it when it is back.
                Ok(()) | Err(Refused::Unavailable(_)) => {}
                Err(error) => return Err(status(error)),
            }
        }
    }

    /// The next heartbeat, or `None` when the node leaves.
    async fn beat(&mut self) -> Result<Option<Node>, Status> {
        let silent = |_| Status::deadline_exceeded("no heartbeat in time");
        match timeout(self.shared.settings.expiry, self.beats.message())
            .await
            .map_err(silent)?
        {
            Ok(Some(announce)) => checked(announce).map(Some),
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Counts a node as long as it lives.
struct Counted(&'static RegistryFigures);

impl Counted {
    fn new(stats: &'static RegistryFigures) -> Self {
        stats.connections.add(1);
        stats.connections_total.add(1);
        Self(stats)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.sub(1);
    }
}

/// Refuses a node that others could not use.
fn checked(announce: Announce) -> Result<Node, Status> {
    let node = announce.node.ok_or_else(|| Status::invalid_argument("no node"))?;
    if node.id == 0 {
        return Err(Status::invalid_argument("a node's id must not be 0"));
    }
    match node.kind() {
        Kind::Gateway if node.address.is_empty() => Err(Status::invalid_argument("a gateway needs an address")),
        Kind::Gateway | Kind::Worker => Ok(()),
        Kind::Unspecified => Err(Status::invalid_argument("unknown kind of node")),
    }?;
    if [&node.address, &node.name, &node.version]
        .iter()
        .any(|text| text.len() > MAX_TEXT)
    {
        return Err(Status::invalid_argument("a text of the node is too long"));
    }
    Ok(node)
}

fn status(refused: Refused) -> Status {
    let text = refused.to_string();
    match refused {
        Refused::Superseded => Status::already_exists(text),
        Refused::Replaced => Status::aborted(text),
        Refused::Full => Status::resource_exhausted(text),
        Refused::Unavailable(_) => Status::unavailable(text),
    }
}
