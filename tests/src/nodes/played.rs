//! A gateway, and workers that a test plays: it speaks the link protocol by hand.

use futures_util::stream;
use meepo_node::rpc;
use meepo_proto::link::link_client::LinkClient;
use meepo_proto::link::{Accept, Command, Done, Event, Hello, Welcome, command, event};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::node::Node;
use crate::clients::ws::Ws;
use crate::machine::host::Host;
use crate::wait::in_time;

/// Bytes that may be under way to a worker that does not read.
const WINDOW: u32 = 65_535;

/// A gateway child, and the registry that it needs.
#[derive(Debug)]
pub struct Place {
    /// The gateway's node.
    pub gateway: Node,
    _registry: Node,
}

/// The worker's end of a link.
#[derive(Debug)]
pub struct Worker {
    /// The commands that it sends.
    pub commands: mpsc::UnboundedSender<Command>,
    events: Streaming<Event>,
}

impl Place {
    /// Starts a registry and a gateway with one child.
    pub async fn new() -> Self {
        Self::with("").await
    }

    /// The same with more settings of the section `[gateway]`.
    pub async fn with(settings: &str) -> Self {
        let place = Host::new();
        let _registry = Node::build("meepo-registry").host(&place).start().await;
        let gateway = Node::build("meepo-gateway")
            .registry(&place)
            .set("gateway", &format!("children = 1\n{settings}"))
            .start()
            .await;
        Self { gateway, _registry }
    }

    /// Links a worker to the gateway. `parts` says whether it takes events in parts.
    pub async fn worker(&self, parts: bool) -> Worker {
        let address = self.gateway.host().port(19912).to_string();
        let endpoint = rpc::endpoint(&address).expect("an address");
        let endpoint = endpoint.initial_stream_window_size(WINDOW);
        let channel = in_time("a connection", endpoint.connect()).await.expect("a connection");
        let (commands, mut queue) = mpsc::unbounded_channel();
        let mut link = LinkClient::new(channel).max_decoding_message_size(usize::MAX);
        let opened = link.open(stream::poll_fn(move |cx| queue.poll_recv(cx)));
        let events = in_time("an answer", opened).await.expect("a link").into_inner();
        let mut worker = Worker { commands, events };
        let hello = Hello {
            parts,
            ..Hello::default()
        };
        worker.say(command::Body::Hello(Box::new(hello)));
        let Some(event::Body::Welcome(Welcome { parts: true, .. })) = worker.next().await.body else {
            panic!("a gateway takes parts, and says so")
        };
        worker
    }

    /// Connects a client that the worker accepts, and returns it with its number.
    pub async fn client(&self, worker: &mut Worker) -> (Ws, u64) {
        self.client_by(worker, Ws::connect(self.gateway.host().ws())).await
    }

    /// The same for a client that connects by `connect`.
    pub async fn client_by(&self, worker: &mut Worker, connect: impl Future<Output = Ws>) -> (Ws, u64) {
        let let_in = async {
            let opened = worker.next().await;
            let client = client_of(&opened).expect("an event of a client");
            worker.say(command::Body::Accept(Accept { client }));
            worker.say(command::Body::Done(Done {
                seq: vec![seq_of(&opened)],
            }));
            client
        };
        tokio::join!(connect, let_in)
    }
}

/// The number of the client whose event this is.
pub fn client_of(event: &Event) -> Option<u64> {
    match event.subject {
        Some(event::Subject::Client(client)) => Some(client),
        _ => None,
    }
}

/// The number on its link of an event that is answered with `done`.
pub fn seq_of(event: &Event) -> u64 {
    event
        .delivery
        .as_ref()
        .expect("an event that is answered with `done`")
        .seq
}

impl Worker {
    /// Sends a command.
    pub fn say(&self, body: command::Body) {
        self.commands
            .send(Command { body: Some(body) })
            .expect("the link stands");
    }

    /// The next event.
    pub async fn next(&mut self) -> Event {
        let event = in_time("an event", self.events.message()).await;
        event.expect("the link stands").expect("the gateway goes on")
    }

    /// The status with which the gateway ends the link.
    pub async fn refusal(&mut self) -> Status {
        in_time("the end", self.events.message())
            .await
            .expect_err("it is refused")
    }
}
