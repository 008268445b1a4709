//! The gRPC calls of a registry, over any store. A child serves them; nothing here knows which store it is.

mod check;
mod context;
mod node_stream;
mod status;

use std::sync::Arc;

use crate::figures::RegistryFigures;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use meepo_proto::registry::registry_server::Registry;
use meepo_proto::registry::{
    Ack, Announce, Change, Grant, HoldReply, HoldRequest, ListRequest, ReleaseReply, ReleaseRequest, Snapshot, State,
    WatchRequest,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::settings::RegistrySettings;
use crate::store::{LEASE_TIME, Store};
use context::Context;
use node_stream::NodeStream;
use status::status;

/// The service over a store.
pub(crate) struct RegistryService<S> {
    context: Arc<Context<S>>,
}

impl<S: Store> RegistryService<S> {
    pub(crate) fn new(
        store: S,
        settings: RegistrySettings,
        stop: CancellationToken,
        stats: &'static RegistryFigures,
    ) -> Self {
        let context = Arc::new(Context {
            store,
            settings,
            stop,
            stats,
        });
        Self { context }
    }
}

#[tonic::async_trait]
impl<S: Store> Registry for RegistryService<S> {
    type RegisterStream = ReceiverStream<Result<Ack, Status>>;
    type WatchStream = BoxStream<'static, Result<Change, Status>>;

    async fn register(&self, request: Request<Streaming<Announce>>) -> Result<Response<Self::RegisterStream>, Status> {
        let peer = request.remote_addr();
        let (acks, replies) = mpsc::channel(4);
        let stream = NodeStream {
            context: Arc::clone(&self.context),
            announcements: request.into_inner(),
            acks,
            peer,
        };
        // The task ends with the connection or with the drain, whichever is first.
        tokio::spawn(stream.run());
        Ok(Response::new(ReceiverStream::new(replies)))
    }

    async fn watch(&self, _request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let changes = self.context.store.watch().await.map_err(status)?;
        let stop = self.context.stop.clone().cancelled_owned();
        let changes = changes
            .map(|change| Ok(Change { change: Some(change) }))
            .take_until(stop)
            .boxed();
        Ok(Response::new(changes))
    }

    async fn list(&self, _request: Request<ListRequest>) -> Result<Response<Snapshot>, Status> {
        let mut nodes = self.context.store.list().await.map_err(status)?;
        nodes.retain(|node| node.state() == State::Serving);
        Ok(Response::new(Snapshot { nodes }))
    }

    async fn hold(&self, request: Request<HoldRequest>) -> Result<Response<HoldReply>, Status> {
        let HoldRequest { name, holder, term } = request.into_inner();
        let (holder, term) = (check::lease(&name, holder)?, check::term(term)?);
        // The next generation may have begun: it relies on it that no request that comes later is granted here.
        if self.context.stop.is_cancelled() {
            return Err(Status::unavailable("the registry drains"));
        }
        let granted = self.context.store.hold(&name, holder, term).await.map_err(status)?;
        Ok(Response::new(HoldReply {
            grant: granted.map(|term| Grant {
                term: term.0,
                time_ms: u32::try_from(LEASE_TIME.as_millis()).unwrap_or(u32::MAX),
            }),
            shared: S::SHARES_LEASES,
        }))
    }

    async fn release(&self, request: Request<ReleaseRequest>) -> Result<Response<ReleaseReply>, Status> {
        let ReleaseRequest { name, holder } = request.into_inner();
        let holder = check::lease(&name, holder)?;
        self.context.store.release(&name, holder).await.map_err(status)?;
        Ok(Response::new(ReleaseReply {}))
    }
}
