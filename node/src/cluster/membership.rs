//! How a node makes itself known to the registries, and learns which other nodes there are.
//!
//! Registries may come and go: a node tries each of them for ever, soon at first and then about every second, so that it is
//! there within two seconds of a registry's return. A host name is resolved again at each attempt.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use meepo_proto::registry::registry_client::RegistryClient;
use meepo_proto::registry::{Announce, Node, WatchRequest};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::backoff::Backoff;
use crate::cluster::node_view::NodeView;
use crate::cluster::rpc;
use crate::cluster::secret::SecretHeader;
use crate::config::NodeSection;
use crate::error_text;

/// How long a registry may take to accept a connection. An attempt that began just before it was back is lost: with the
/// longest pause after it, the next one still comes within two seconds.
const CONNECT: Duration = Duration::from_millis(900);
/// How long a registry may take for an answer.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// How long leaving a registry may take.
const LEAVE_TIME: Duration = Duration::from_secs(1);
/// How long a registry that is back may take to know all nodes again.
const SETTLE_TIME: Duration = Duration::from_secs(10);
/// A registry that is away for less is not logged: nodes start in any order.
const GRACE: Duration = Duration::from_secs(3);
/// A registry that stays away is logged again after this.
const REMIND: Duration = Duration::from_secs(300);
/// The largest message that a registry may send, in bytes: a snapshot of many nodes is long.
const MAX_CHANGE: usize = 64 << 20;
/// The first pause after an attempt that failed.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause, however often an attempt has failed.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The shortest part of a pause: small, so that many nodes that lost a registry at the same moment come back spread out.
const SHORTEST_PART: f64 = 0.25;

pub(crate) type Client = RegistryClient<InterceptedService<Channel, SecretHeader>>;

/// The registries of a cluster, seen by a node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Membership {
    registries: Arc<[Registry]>,
    secret: SecretHeader,
}

/// A registry, and how long it is away.
#[derive(Debug)]
struct Registry {
    address: String,
    outage: Mutex<Option<Outage>>,
    /// The connection that single calls share.
    client: Mutex<Option<Client>>,
}

/// A registry is away, or refuses this node.
#[derive(Debug)]
struct Outage {
    since: Instant,
    /// When each kind of failure was logged last.
    logged: HashMap<Code, Instant>,
}

impl Membership {
    /// The registries that the section names, shown the secret that it has.
    pub fn new(node: &NodeSection) -> Self {
        let registries = node.registry.iter().map(|address| Registry {
            address: address.clone(),
            outage: Mutex::default(),
            client: Mutex::default(),
        });
        Self {
            registries: registries.collect(),
            secret: SecretHeader::new(&node.secret),
        }
    }

    /// Makes a node known to every registry until the token is cancelled. Then it leaves at once and returns.
    pub async fn announce(&self, node: Node, until: CancellationToken) {
        self.announce_changing(&watch::channel(node).1, until).await;
    }

    /// Makes a node known whose state changes. Each change is told at once; the last one also at the end, to the registries
    /// that are there.
    pub async fn announce_changing(&self, node: &watch::Receiver<Node>, until: CancellationToken) {
        join_all(self.registries.iter().map(|registry| {
            let until = &until;
            async move {
                let mut backoff = between_attempts();
                while let Err(error) = self.announce_once(registry, node, until, &mut backoff).await {
                    registry.failed(&error);
                    if until.run_until_cancelled(sleep(backoff.pause())).await.is_none() {
                        break;
                    }
                }
            }
        }))
        .await;
    }

    /// All nodes that the registries know, from now on until the token is cancelled or the receiver is dropped.
    ///
    /// The view is empty at first. What a registry said before it was lost counts until it is back and has had time to hear
    /// from all nodes, unless a registry that is there contradicts it.
    pub fn watch(&self, until: CancellationToken) -> watch::Receiver<BTreeMap<u64, Node>> {
        let (sender, receiver) = watch::channel(BTreeMap::new());
        let this = self.clone();
        tokio::spawn(async move {
            let watcher = Watcher {
                view: Mutex::new(NodeView::new(this.registries.len())),
                sender,
            };
            let all = join_all((0..this.registries.len()).map(|index| this.watch_one(index, &watcher)));
            tokio::select! {
                _ = all => {}
                () = until.cancelled() => {}
                () = watcher.sender.closed() => {}
            }
        });
        receiver
    }

    /// Announces a node at one registry. `Ok` when the token was cancelled and the node has left.
    async fn announce_once(
        &self,
        registry: &Registry,
        node: &watch::Receiver<Node>,
        until: &CancellationToken,
        backoff: &mut Backoff,
    ) -> Result<(), Status> {
        let mut node = node.clone();
        let (beats, outgoing) = mpsc::channel(1);
        // There is room: nothing was sent yet.
        let _ = beats.try_send(announce(&mut node));
        let call = async {
            let mut client = self.connect(registry).await?;
            client.register(ReceiverStream::new(outgoing)).await
        };
        let Some(answer) = until.run_until_cancelled(soon(call)).await else {
            return Ok(());
        };
        let mut acks = answer?.into_inner();

        let mut beat = pin!(sleep(ANSWER_TIME));
        let mut silence = pin!(sleep(ANSWER_TIME));
        loop {
            tokio::select! {
                () = until.cancelled() => break,
                ack = acks.message() => {
                    let ack = ack?.ok_or_else(|| Status::unavailable("the registry ended the registration"))?;
                    registry.answered();
                    backoff.reset();
                    let heartbeat = Duration::from_millis(ack.heartbeat_ms.clamp(100, 60_000).into());
                    beat.as_mut().reset(Instant::now() + heartbeat);
                    silence.as_mut().reset(Instant::now() + heartbeat + ANSWER_TIME);
                }
                () = &mut beat => {
                    // Full only if the connection is stuck, and then the silence ends it.
                    let _ = beats.try_send(announce(&mut node));
                    beat.as_mut().reset(Instant::now() + ANSWER_TIME);
                }
                Ok(()) = node.changed() => {
                    let _ = beats.try_send(announce(&mut node));
                }
                () = &mut silence => return Err(Status::deadline_exceeded("the registry does not answer")),
            }
        }
        let leaving = async {
            let last = announce(&mut node);
            // An error means that the registry has ended its side.
            let _ = beats.send(last).await;
            drop(beats);
            // The registry ends the stream once it has taken the node off its list.
            while let Ok(Some(_)) = acks.message().await {}
        };
        let _ = timeout(LEAVE_TIME, leaving).await;
        Ok(())
    }

    async fn watch_one(&self, index: usize, watcher: &Watcher) {
        let registry = &self.registries[index];
        let mut backoff = between_attempts();
        loop {
            let Err(error) = self.watch_once(index, watcher, &mut backoff).await;
            watcher.change(|view| view.lost(index));
            registry.failed(&error);
            sleep(backoff.pause()).await;
        }
    }

    async fn watch_once(&self, index: usize, watcher: &Watcher, backoff: &mut Backoff) -> Result<Infallible, Status> {
        let registry = &self.registries[index];
        let call = async {
            let mut client = self.connect(registry).await?;
            client.watch(WatchRequest {}).await
        };
        let mut changes = soon(call).await?.into_inner();
        registry.answered();
        backoff.reset();

        let mut settle = pin!(sleep(SETTLE_TIME));
        let mut settled = false;
        loop {
            tokio::select! {
                change = changes.message() => {
                    let change = change?.ok_or_else(|| Status::unavailable("the registry ended the watch"))?;
                    if let Some(change) = change.change {
                        watcher.change(|view| view.said(index, change));
                    }
                }
                () = &mut settle, if !settled => {
                    settled = true;
                    watcher.change(|view| view.settled(index));
                }
            }
        }
    }

    /// The number of registries.
    pub(crate) fn size(&self) -> usize {
        self.registries.len()
    }

    /// One call of one registry, over a connection that all such calls share as long as it is good.
    pub(crate) async fn call<T>(
        &self,
        registry: usize,
        limit: Duration,
        call: impl AsyncFnOnce(Client) -> Result<T, Status>,
    ) -> Result<T, Status> {
        let registry = &self.registries[registry];
        let whole = async {
            let known = registry.client().clone();
            let client = match known {
                Some(client) => client,
                None => self.connect(registry).await?,
            };
            *registry.client() = Some(client.clone());
            call(client).await
        };
        let answer = match timeout(limit, whole).await {
            Ok(answer) => answer,
            Err(_) => Err(Status::deadline_exceeded("the registry does not answer")),
        };
        if answer.is_err() {
            *registry.client() = None;
        }
        answer.map_err(|error| Status::new(error.code(), format!("{}: {}", registry.address, error.message())))
    }

    async fn connect(&self, registry: &Registry) -> Result<Client, Status> {
        let endpoint = rpc::endpoint(&registry.address).map_err(|error| {
            Status::invalid_argument(format!("not an address: {}", error_text::with_causes(&error)))
        })?;
        let channel = endpoint
            .connect_timeout(CONNECT)
            .connect()
            .await
            .map_err(|error| Status::unavailable(error_text::with_causes(&error)))?;
        let client = RegistryClient::with_interceptor(channel, self.secret.clone());
        Ok(client.max_decoding_message_size(MAX_CHANGE))
    }
}

impl Registry {
    fn client(&self) -> MutexGuard<'_, Option<Client>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An attempt has failed. An outage that lasts is logged, and then rarely again.
    fn failed(&self, error: &Status) {
        let now = Instant::now();
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        let outage = outage.get_or_insert_with(|| Outage {
            since: now,
            logged: HashMap::new(),
        });
        let kind = match error.code() {
            // The registry is there and refuses this node: waiting does not help.
            code @ (Code::Unauthenticated | Code::InvalidArgument | Code::AlreadyExists) => code,
            _ if now - outage.since < GRACE => return,
            _ => Code::Unavailable,
        };
        if outage.logged.get(&kind).is_some_and(|&when| now - when < REMIND) {
            return;
        }
        outage.logged.insert(kind, now);
        let registry = &self.address;
        let error = error.message();
        match kind {
            Code::Unauthenticated => tracing::error!(registry, error, "the registry refused the secret, still trying"),
            Code::Unavailable => tracing::warn!(registry, error, "cannot reach the registry, still trying"),
            _ => tracing::error!(registry, error, "the registry refused this node, still trying"),
        }
    }

    /// The registry has answered: ends an outage.
    fn answered(&self) {
        let outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner).take();
        if outage.is_some_and(|outage| !outage.logged.is_empty()) {
            tracing::info!(registry = self.address, "the registry is back");
        }
    }
}

/// A watch of all nodes: the view, and the channel to its reader.
struct Watcher {
    view: Mutex<NodeView>,
    sender: watch::Sender<BTreeMap<u64, Node>>,
}

impl Watcher {
    fn change(&self, change: impl FnOnce(&mut NodeView)) {
        let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut view);
        let nodes = view.nodes();
        self.sender.send_if_modified(|known| {
            let modified = *known != nodes;
            *known = nodes;
            modified
        });
    }
}

/// Pauses between attempts at one registry.
fn between_attempts() -> Backoff {
    Backoff::new(FIRST_PAUSE, LONGEST_PAUSE).never_below(SHORTEST_PART)
}

fn announce(node: &mut watch::Receiver<Node>) -> Announce {
    Announce {
        node: Some(node.borrow_and_update().clone()),
    }
}

/// An answer that has to come within [`ANSWER_TIME`].
async fn soon<T>(answer: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let late = |_| Status::deadline_exceeded("the registry does not answer");
    timeout(ANSWER_TIME, answer).await.map_err(late)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_and_a_pause_take_less_than_two_seconds() {
        assert!(CONNECT + LONGEST_PAUSE < Duration::from_secs(2));
    }
}
