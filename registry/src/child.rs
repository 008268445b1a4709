//! One child of a registry, from its listener to its drain.

use std::os::fd::AsFd;
use std::time::Duration;

use meepo_node::election_lock::ElectionLock;
use meepo_node::secret::{SecretCheck, warn_if_open};
use meepo_node::{BoxError, Child, rpc};
use meepo_proto::registry::registry_server::RegistryServer;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::service::InterceptorLayer;

use crate::figures::RegistryFigures;
use crate::service::RegistryService;
use crate::settings::{RegistrySettings, StoreSettings};
use crate::store::Store;
use crate::store::etcd::EtcdStore;
use crate::store::memory::MemoryStore;

/// How long connections may take to close once their streams have ended.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest message that a node may send, in bytes.
const MAX_MESSAGE: usize = 16 << 10;

/// Runs a child until it is told to drain.
pub(crate) async fn run(mut child: Child, settings: RegistrySettings) -> Result<(), BoxError> {
    let listener = child
        .shared
        .pop()
        .ok_or("the master opened no listener for the registry")?;
    let listener = TcpListener::from_std(listener)?;
    let secret = &child.node.secret;
    warn_if_open("registry", listener.local_addr()?, secret);
    let serving = serve(
        listener,
        settings,
        secret,
        child.stop.token().clone(),
        child.stats.view(),
    );
    child.ready();
    serving.await
}

/// Serves a listener until the token is cancelled. Then all streams end, and the listener is closed.
pub(crate) async fn serve(
    listener: TcpListener,
    settings: RegistrySettings,
    secret: &str,
    stop: CancellationToken,
    stats: &'static RegistryFigures,
) -> Result<(), BoxError> {
    match &settings.store {
        StoreSettings::Memory => {
            let store = MemoryStore::new();
            // The lock is that of the listening socket, so it ends when the server closes the listener to drain.
            let locked = listener.as_fd().try_clone_to_owned()?;
            let granting = grant_when_alone(store.clone(), locked.into(), stop.clone());
            let _granting = AbortOnDropHandle::new(tokio::spawn(granting));
            serve_store(store, listener, settings, secret, stop, stats).await
        }
        StoreSettings::Etcd(etcd) => {
            let store = EtcdStore::start(etcd, settings.expiry)?;
            serve_store(store, listener, settings, secret, stop, stats).await
        }
    }
}

/// Has the store grant leases once no child of an earlier generation at this address does.
async fn grant_when_alone(store: MemoryStore, listener: std::net::TcpListener, stop: CancellationToken) {
    match stop.run_until_cancelled(ElectionLock::acquire(listener)).await {
        Some(Ok(_lock)) => {
            store.begin_to_grant();
            stop.cancelled().await;
        }
        Some(Err(error)) => tracing::error!(%error, "cannot lock the listener, so this registry grants no lease"),
        None => {}
    }
}

async fn serve_store(
    store: impl Store,
    listener: TcpListener,
    settings: RegistrySettings,
    secret: &str,
    stop: CancellationToken,
    stats: &'static RegistryFigures,
) -> Result<(), BoxError> {
    let service = RegistryService::new(store, settings, stop.clone(), stats);
    let service = RegistryServer::new(service).max_decoding_message_size(MAX_MESSAGE);
    let incoming = rpc::incoming(listener, &stats.common);
    let server = rpc::server()
        .layer(InterceptorLayer::new(SecretCheck::new(secret)))
        .serve_with_incoming_shutdown(service, incoming, stop.clone().cancelled_owned());
    // A peer that does not close its connection must not hold up the drain.
    let timeout = async {
        stop.cancelled().await;
        tokio::time::sleep(CLOSE_TIMEOUT).await;
    };
    tokio::select! {
        served = server => Ok(served?),
        () = timeout => Ok(()),
    }
}
