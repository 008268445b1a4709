//! Tests of a whole worker child against gateways that the tests play.

mod callbacks;
mod connect;
mod events;
mod flow;
mod gateway;
mod last_words;
mod links;
mod parts;
#[cfg(feature = "push")]
mod pushes;
mod queries;
mod replies;
mod sends;
mod session;
mod timers;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use meepo_node::secret::SecretHeader;
use meepo_node::{BoxError, Membership, NodeSection, Stop, StopReason};
use meepo_proto::link as wire;
use meepo_proto::registry::{Kind, Node, State};
use meepo_proto::{ClientId, GatewayId};
#[cfg(feature = "push")]
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use self::gateway::{Gateway, Link};
use crate::WorkerSection;
use crate::api::client::CurrentEvent;
use crate::api::client::served::ServedClient;
use crate::figures::WorkerFigures;
use crate::link::Identity;
use crate::runtime::serve::{Entrance, Worker};
use crate::{Client, CloseReason, Cluster, Handler, HandlerError, Hello, LastWords, Message, Reject, Result};

/// How long a test waits for what has to come.
const PATIENCE: Duration = Duration::from_secs(10);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not come"),
    }
}

/// Waits for a condition that nothing announces.
async fn eventually(what: &str, condition: impl Fn() -> bool) {
    soon(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// An error that is no good even as an error.
#[derive(Debug, thiserror::Error)]
#[error("asked to")]
struct Bad;

impl Drop for Bad {
    fn drop(&mut self) {
        panic!("also asked to");
    }
}

/// Does what the messages say, and tells what happens to it.
struct Script {
    log: mpsc::UnboundedSender<String>,
    gate: Arc<Semaphore>,
    cluster: Arc<OnceLock<Cluster>>,
    says_last_words: bool,
}

impl Script {
    fn tell(&self, client: &Client, what: impl AsRef<str>) {
        let again = if client.redelivered() { " again" } else { "" };
        let _ = self
            .log
            .send(format!("{} {}{again}", client.id().number, what.as_ref()));
    }

    async fn pass_gate(&self) {
        self.gate.acquire().await.expect("the gate is never closed").forget();
    }
}

impl Handler for Script {
    async fn on_start(&self, cluster: &Cluster) -> Result<()> {
        let _ = self.cluster.set(cluster.clone());
        let _ = self
            .log
            .send(format!("start, {} gateways", cluster.gateways().up.len()));
        Ok(())
    }

    async fn on_connect(&self, client: &Client, hello: &Hello) -> Result<(), Reject> {
        self.tell(client, "connect");
        match hello.query() {
            "reject" => return Err(Reject::new(403, "no")),
            "reject-long" => return Err(Reject::new(403, "ä".repeat(1 << 20))),
            "panic" => panic!("asked to"),
            "hold" => self.pass_gate().await,
            "ask" => {
                let reply = client.request("who?", PATIENCE).await;
                self.tell(client, format!("reply: {reply:?}"));
            }
            "hold-reject" => {
                self.pass_gate().await;
                return Err(Reject::new(403, "no"));
            }
            _ => client.send("welcome"),
        }
        Ok(())
    }

    async fn on_message(&self, client: &Client, message: Message) -> Result<()> {
        let text = message.text().unwrap_or("binary").to_owned();
        self.tell(client, &text);
        let words: Vec<_> = text.split(' ').collect();
        match words[..] {
            ["hold", "all", rest] => {
                self.pass_gate().await;
                client.cluster().all().send(rest);
            }
            ["hand", "back"] => {
                self.pass_gate().await;
                client.hand_back();
            }
            ["hold", ..] => {
                self.pass_gate().await;
                self.tell(client, "held");
            }
            ["late-set", key, value] => {
                self.pass_gate().await;
                client.set(key, value);
                client.send(client.get(key).unwrap_or_default());
            }
            ["ask", question] => {
                let reply = client.request(question, PATIENCE).await;
                self.tell(client, format!("reply: {reply:?}"));
            }
            ["panic"] => panic!("asked to"),
            ["fail"] => return Err("asked to".into()),
            ["fail-badly"] => return Err(Bad.into()),
            ["set", key, value] => client.set(key, value),
            ["remove", key] => client.remove(key),
            ["get", key] => client.send(client.get(key).unwrap_or_default()),
            ["pause"] => client.pause(),
            ["resume"] => client.resume(),
            ["paused"] => client.send(client.is_paused().to_string()),
            ["flood", size] => client.send("x".repeat(size.parse()?)),
            ["all", rest] => client.cluster().all().except(client.id()).send(rest),
            ["online"] => {
                let online = client.cluster().count().await;
                client.send(format!("{} {}", online.value, online.missing.len()));
            }
            _ => client.send(message),
        }
        Ok(())
    }

    async fn on_last_words(&self, client: &Client, why: LastWords) {
        self.tell(client, format!("last words: {why:?}"));
        match client.hello().query() {
            "last-words-hang" => std::future::pending().await,
            "last-words-panic" => panic!("asked to"),
            "last-words-hold" => self.pass_gate().await,
            _ => {}
        }
        client.send("goodbye");
    }

    fn says_last_words(&self) -> bool {
        self.says_last_words
    }

    async fn on_close(&self, client: &Client, reason: &CloseReason) {
        self.tell(client, format!("close: {reason}"));
        if client.get("panic").is_some() {
            panic!("asked to");
        }
        if client.get("hand-back").is_some() {
            self.pass_gate().await;
            client.hand_back();
        }
    }

    async fn on_buffer_full(&self, client: &Client) {
        self.tell(client, "full");
        if client.get("panic").is_some() {
            panic!("asked to");
        }
    }

    async fn on_buffer_empty(&self, client: &Client) {
        self.tell(client, "empty");
    }

    /// The session says what to do.
    async fn on_error(&self, client: &Client, error: &HandlerError) {
        let Some(how) = client.get("on_error") else { return };
        self.tell(client, format!("error: {error}"));
        match how.as_str() {
            "panic" => panic!("asked to"),
            "hang" => std::future::pending().await,
            _ => client.join(how),
        }
    }

    async fn on_stop(&self, cluster: &Cluster) {
        let _ = self.log.send(format!("stop, {} gateways", cluster.gateways().up.len()));
    }
}

/// A worker child that runs, and what the test sees of it.
struct Running {
    log: mpsc::UnboundedReceiver<String>,
    gate: Arc<Semaphore>,
    cluster: Arc<OnceLock<Cluster>>,
    nodes: watch::Sender<BTreeMap<u64, Node>>,
    stats: &'static WorkerFigures,
    stop: Stop,
    ready: mpsc::Receiver<()>,
    task: JoinHandle<Result<(), BoxError>>,
}

impl Running {
    fn start() -> Self {
        Self::with(WorkerSection::default())
    }

    fn with(section: WorkerSection) -> Self {
        Self::with_all(section, true, Stop::new(Duration::from_secs(4)), None)
    }

    /// A worker child that serves the push API, too.
    #[cfg(feature = "push")]
    fn with_push(section: WorkerSection, listener: TcpListener) -> Self {
        let stop = Stop::new(Duration::from_secs(4));
        let address = listener.local_addr().expect("it is bound");
        let (settings, stopping) = (crate::settings::PushSettings::open(address), stop.clone());
        let entrance: Entrance =
            Box::new(move |cluster| Box::pin(crate::push::serve(cluster, settings, listener, stopping)));
        Self::with_all(section, true, stop, Some(entrance))
    }

    /// A worker child whose handler has no last words.
    fn without_last_words() -> Self {
        Self::with_all(WorkerSection::default(), false, Stop::new(Duration::from_secs(4)), None)
    }

    fn with_all(section: WorkerSection, says_last_words: bool, stop: Stop, entrance: Option<Entrance>) -> Self {
        let (tell, log) = mpsc::unbounded_channel();
        let (nodes, named) = watch::channel(BTreeMap::new());
        let (serves, ready) = mpsc::channel(1);
        let gate = Arc::new(Semaphore::new(0));
        let cluster = Arc::<OnceLock<Cluster>>::default();
        let stats = Box::leak(Box::default());
        let worker = Worker {
            handler: Script {
                log: tell,
                gate: gate.clone(),
                cluster: cluster.clone(),
                says_last_words,
            },
            limits: section.limits(),
            identity: Identity {
                hello: wire::Hello {
                    worker_id: 7,
                    name: "test".into(),
                    version: "0".into(),
                    ..wire::Hello::default()
                },
                secret: SecretHeader::new("the secret"),
            },
            stats,
            stop: stop.clone(),
            // There are no registries.
            membership: Membership::new(&NodeSection {
                registry: Vec::new(),
                ..NodeSection::default()
            }),
            entrance,
        };
        let token = stop.token().clone();
        let announced = async move { token.cancelled().await };
        let task = tokio::spawn(worker.run(named, announced, move || {
            let _ = serves.try_send(());
        }));
        Self {
            log,
            gate,
            cluster,
            nodes,
            stats,
            stop,
            ready,
            task,
        }
    }

    /// A worker with one link.
    async fn linked() -> (Self, Gateway, Link) {
        let mut worker = Self::start();
        let mut gateway = Gateway::start(1).await;
        worker.name(&gateway);
        let link = gateway.link().await;
        worker.expect("start, 0 gateways").await;
        (worker, gateway, link)
    }

    /// The registry names a gateway.
    fn name(&self, gateway: &Gateway) {
        self.name_as(gateway, State::Serving);
    }

    /// The registry says how a gateway is.
    fn name_as(&self, gateway: &Gateway, state: State) {
        let node = Node {
            id: gateway.id,
            kind: Kind::Gateway.into(),
            address: Some(gateway.address.clone()),
            state: state.into(),
            ..Node::default()
        };
        self.nodes.send_modify(|nodes| {
            nodes.insert(gateway.id, node);
        });
    }

    /// The registry no longer names a gateway.
    fn forget(&self, gateway: &Gateway) {
        self.nodes.send_modify(|nodes| {
            nodes.remove(&gateway.id);
        });
    }

    async fn told(&mut self) -> String {
        soon("word of the handler", self.log.recv())
            .await
            .expect("the worker runs")
    }

    async fn expect(&mut self, what: &str) {
        assert_eq!(self.told().await, what);
    }

    /// Nothing but what was expected has been told.
    fn expect_no_more(&mut self) {
        assert_eq!(self.log.try_recv().ok(), None);
    }

    fn cluster(&self) -> &Cluster {
        self.cluster.get().expect("the worker has started")
    }

    /// A client of the first gateway, as a handler has it.
    async fn client(&self, number: u64) -> Client {
        let id = ClientId::new(GatewayId(1), number);
        eventually("the client", || self.cluster().served(id).is_some()).await;
        let served = self.cluster().served_clients().and_then(|all| all.served_client(id));
        let served = served.expect("it was there just now").downcast::<ServedClient>();
        let served = served.unwrap_or_else(|_| panic!("it is no client"));
        Client::new(served, CurrentEvent::default())
    }

    fn let_pass(&self, handlers: usize) {
        self.gate.add_permits(handlers);
    }

    fn request_stop(&self) {
        self.stop.request(StopReason::Stop);
    }

    async fn stopped(mut self) -> mpsc::UnboundedReceiver<String> {
        soon("the end", &mut self.task)
            .await
            .expect("no panic")
            .expect("no error");
        self.log
    }
}
