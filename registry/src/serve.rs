//! A child, from its listener to its drain.

use std::os::fd::AsFd;
use std::time::Duration;

use crate::figures::RegistryFigures;
use meepo_node::election_lock::ElectionLock;
use meepo_node::secret::{SecretCheck, warn_if_open};
use meepo_node::{BoxError, Child, rpc};
use meepo_proto::registry::registry_server::RegistryServer;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::service::InterceptorLayer;

use crate::etcd::Etcd;
use crate::memory::Memory;
use crate::service::Service;
use crate::settings::{RegistrySection, StoreKind};
use crate::store::Store;

/// How long connections may take to close once their streams have ended.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// No announcement is longer.
const MAX_ANNOUNCE: usize = 16 << 10;

/// Runs a child until it is told to stop.
pub(crate) async fn child(mut child: Child, settings: RegistrySection) -> Result<(), BoxError> {
    let listener = child
        .shared
        .pop()
        .ok_or("the master opened no listener for the registry")?;
    let listener = TcpListener::from_std(listener)?;
    let secret = &child.node.secret;
    warn_if_open("registry", listener.local_addr()?, secret);
    let running = run(
        listener,
        settings,
        secret,
        child.stop.token().clone(),
        child.stats.view(),
    );
    child.ready();
    running.await
}

/// Serves a listener until the token is cancelled. Then all streams end, and the listener is closed.
pub(crate) async fn run(
    listener: TcpListener,
    settings: RegistrySection,
    secret: &str,
    stop: CancellationToken,
    stats: &'static RegistryFigures,
) -> Result<(), BoxError> {
    match settings.store {
        StoreKind::Memory => {
            let store = Memory::new();
            // With its own descriptor: when the server closes the listener, because it stops, the turn is over.
            let mine = listener.as_fd().try_clone_to_owned()?;
            let granting = grant_in_turn(store.clone(), mine.into(), stop.clone());
            let _granting = AbortOnDropHandle::new(tokio::spawn(granting));
            run_over(store, listener, settings, secret, stop, stats).await
        }
        StoreKind::Etcd => {
            let store = Etcd::start(&settings.etcd, settings.expiry)?;
            run_over(store, listener, settings, secret, stop, stats).await
        }
    }
}

/// Has the store grant names once no earlier child at this address does.
async fn grant_in_turn(store: Memory, listener: std::net::TcpListener, stop: CancellationToken) {
    match stop.run_until_cancelled(ElectionLock::acquire(listener)).await {
        Some(Ok(_turn)) => {
            store.begin_to_grant();
            stop.cancelled().await;
        }
        Some(Err(error)) => tracing::error!(%error, "cannot lock the listener, so no lease is granted here"),
        None => {}
    }
}

async fn run_over(
    store: impl Store,
    listener: TcpListener,
    settings: RegistrySection,
    secret: &str,
    stop: CancellationToken,
    stats: &'static RegistryFigures,
) -> Result<(), BoxError> {
    let service = Service::new(store, settings, stop.clone(), stats);
    let server = rpc::server()
        .layer(InterceptorLayer::new(SecretCheck::new(secret)))
        .add_service(RegistryServer::new(service).max_decoding_message_size(MAX_ANNOUNCE))
        .serve_with_incoming_shutdown(rpc::incoming(listener, &stats.common), stop.clone().cancelled_owned());
    // A connection that does not answer must not hold the child up.
    let late = async {
        stop.cancelled().await;
        tokio::time::sleep(CLOSE_TIMEOUT).await;
    };
    tokio::select! {
        served = server => Ok(served?),
        () = late => Ok(()),
    }
}
