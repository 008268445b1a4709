//! A registry to test, nodes that register with it, and its log.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use crate::figures::RegistryFigures;
use meepo_node::config::NodeSection;
use meepo_node::{BoxError, Membership, rpc};
use meepo_proto::registry::registry_client::RegistryClient;
use meepo_proto::registry::{Kind, ListRequest, Node, State};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::child;
use crate::settings::{RegistrySection, RegistrySettings};

/// When a wait has failed: nothing in these tests takes this long.
pub(super) const DEADLINE: Duration = Duration::from_secs(40);

/// A registry with a runtime of its own, so that it can be killed.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) stats: &'static RegistryFigures,
    pub(super) stop: CancellationToken,
    pub(super) ended: oneshot::Receiver<Result<(), BoxError>>,
    runtime: Option<Runtime>,
}

/// Settings with heartbeats and an expiry that a test has time for.
pub(super) fn brisk() -> RegistrySettings {
    let section = RegistrySection {
        heartbeat: Duration::from_millis(100),
        expiry: Duration::from_millis(500),
        ..RegistrySection::default()
    };
    section.check().unwrap()
}

/// Settings by which no node expires.
pub(super) fn patient() -> RegistrySettings {
    RegistrySettings {
        expiry: Duration::from_secs(3600),
        ..brisk()
    }
}

impl Server {
    pub(super) async fn start(settings: RegistrySettings, secret: &str) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), settings, secret).await
    }

    pub(super) async fn start_at(address: SocketAddr, settings: RegistrySettings, secret: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = {
            let _entered = runtime.enter();
            let listener = std::net::TcpListener::bind(address).unwrap();
            listener.set_nonblocking(true).unwrap();
            TcpListener::from_std(listener).unwrap()
        };
        let address = listener.local_addr().unwrap();
        let stats: &'static RegistryFigures = Box::leak(Box::default());
        let stop = CancellationToken::new();
        let (end, ended) = oneshot::channel();
        let secret = secret.to_owned();
        let token = stop.clone();
        runtime.spawn(async move {
            let _ = end.send(child::serve(listener, settings, &secret, token, stats).await);
        });
        Self {
            address,
            stats,
            stop,
            ended,
            runtime: Some(runtime),
        }
    }

    /// Ends the registry at once: no stream is closed in good order.
    pub(super) fn kill(mut self) -> SocketAddr {
        self.end();
        self.address
    }

    fn end(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // This waits until no socket is left. A test's own runtime must not be blocked, so another thread waits.
            std::thread::spawn(move || runtime.shutdown_timeout(DEADLINE))
                .join()
                .unwrap();
        }
    }

    pub(super) async fn client(&self) -> RegistryClient<Channel> {
        let endpoint = rpc::endpoint(&self.address.to_string()).unwrap();
        RegistryClient::new(endpoint.connect().await.unwrap())
    }

    /// The ids of the nodes that the registry lists.
    pub(super) async fn ids(&self) -> Vec<u64> {
        let response = self.client().await.list(ListRequest {}).await.unwrap();
        response.into_inner().nodes.iter().map(|node| node.id).collect()
    }

    /// Waits until exactly these nodes are registered.
    pub(super) async fn wait_for(&self, expected: &[u64]) {
        let mut ids = Vec::new();
        let waited = tokio::time::timeout(DEADLINE, async {
            loop {
                ids = self.ids().await;
                if ids == expected {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        assert!(waited.await.is_ok(), "expected {expected:?}, registered are {ids:?}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

pub(super) fn gateway(id: u64, address: &str) -> Node {
    Node {
        id,
        kind: Kind::Gateway.into(),
        address: (!address.is_empty()).then(|| address.into()),
        name: "test".into(),
        pid: 1,
        version: "0".into(),
        ..Node::default()
    }
}

pub(super) fn worker(id: u64) -> Node {
    Node {
        kind: Kind::Worker.into(),
        ..gateway(id, "")
    }
}

pub(super) fn membership(registries: &[String], secret: &str) -> Membership {
    Membership::new(&NodeSection {
        registry: registries.to_vec(),
        secret: secret.into(),
        ..NodeSection::default()
    })
}

/// A node that announces itself as real ones do, until it is told to leave.
pub(super) struct Member {
    pub(super) until: CancellationToken,
    pub(super) task: tokio::task::JoinHandle<()>,
}

impl Member {
    pub(super) fn announce(membership: &Membership, node: Node) -> Self {
        let until = CancellationToken::new();
        let (membership, token) = (membership.clone(), until.clone());
        let task = tokio::spawn(async move { membership.announce(node, token).await });
        Self { until, task }
    }

    pub(super) async fn leave(self) {
        self.until.cancel();
        tokio::time::timeout(DEADLINE, self.task).await.unwrap().unwrap();
    }
}

/// Waits until a watcher sees exactly these nodes.
pub(super) async fn wait_for(nodes: &mut tokio::sync::watch::Receiver<BTreeMap<u64, Node>>, expected: &[u64]) {
    let seen = nodes.wait_for(|nodes| nodes.keys().copied().eq(expected.iter().copied()));
    let seen = tokio::time::timeout(DEADLINE, seen).await.map(|seen| seen.map(drop));
    let ids: Vec<u64> = nodes.borrow().keys().copied().collect();
    assert!(matches!(seen, Ok(Ok(()))), "expected {expected:?}, seen are {ids:?}");
}

/// Waits until a watcher sees a node in this state, or no longer sees it if `None` is expected.
pub(super) async fn wait_for_state(
    nodes: &mut tokio::sync::watch::Receiver<BTreeMap<u64, Node>>,
    id: u64,
    expected: Option<State>,
) {
    let state = |nodes: &BTreeMap<u64, Node>| nodes.get(&id).map(|node| node.state());
    let seen = nodes.wait_for(|nodes| state(nodes) == expected);
    let seen = tokio::time::timeout(DEADLINE, seen).await.map(|seen| seen.map(drop));
    let last = state(&nodes.borrow());
    assert!(matches!(seen, Ok(Ok(()))), "expected {expected:?}, seen is {last:?}");
}

/// Waits for a log line that contains all these words.
pub(super) async fn logged(words: &[&str]) -> String {
    let log = log();
    let waited = tokio::time::timeout(DEADLINE, async {
        loop {
            let text = String::from_utf8_lossy(&log.lock().unwrap()).into_owned();
            if let Some(line) = text.lines().find(|line| words.iter().all(|word| line.contains(word))) {
                return line.to_owned();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    waited
        .await
        .unwrap_or_else(|_| panic!("no line has {words:?}:\n{}", log_text()))
}

/// The whole log so far.
pub(super) fn log_text() -> String {
    String::from_utf8_lossy(&log().lock().unwrap()).into_owned()
}

/// The log of all tests of this process. Lines before the first call are missing.
pub(super) fn log() -> Arc<Mutex<Vec<u8>>> {
    static LOG: OnceLock<Arc<Mutex<Vec<u8>>>> = OnceLock::new();
    Arc::clone(LOG.get_or_init(|| {
        let log = Arc::default();
        let writer = Writer(Arc::clone(&log));
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .init();
        log
    }))
}

#[derive(Clone)]
struct Writer(Arc<Mutex<Vec<u8>>>);

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
