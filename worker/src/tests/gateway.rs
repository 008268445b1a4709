//! A gateway child that a test plays.

use std::collections::BTreeMap;
use std::pin::Pin;

use meepo_link::parts::InParts;
use meepo_proto::link::command::Body as Command;
use meepo_proto::link::event::{Body as Event, Subject};
use meepo_proto::link::link_server::LinkServer;
use meepo_proto::link::send::To;
use meepo_proto::link::{self as wire, link_server};
use meepo_proto::{SECRET_HEADER, link};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use super::{PATIENCE, soon};

pub(super) struct Gateway {
    pub(super) id: u64,
    pub(super) address: String,
    links: mpsc::UnboundedReceiver<Link>,
    _serving: AbortOnDropHandle<()>,
}

/// A link, seen by the gateway.
pub(super) struct Link {
    events: Option<mpsc::UnboundedSender<Result<wire::Event, Status>>>,
    pub(super) commands: Streaming<wire::Command>,
    last_seq: u64,
    pub(super) secret: String,
}

struct Service(mpsc::UnboundedSender<Link>);

#[tonic::async_trait]
impl link_server::Link for Service {
    type OpenStream = Pin<Box<dyn Stream<Item = Result<wire::Event, Status>> + Send>>;

    async fn open(&self, request: Request<Streaming<wire::Command>>) -> Result<Response<Self::OpenStream>, Status> {
        let secret = request
            .metadata()
            .get(SECRET_HEADER)
            .and_then(|secret| secret.to_str().ok());
        let secret = secret.unwrap_or_default().to_owned();
        let (events, queue) = mpsc::unbounded_channel();
        let _ = self.0.send(Link {
            events: Some(events),
            commands: request.into_inner(),
            last_seq: 0,
            secret,
        });
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(queue))))
    }
}

impl Gateway {
    pub(super) async fn start(id: u64) -> Self {
        Self::start_at(id, "127.0.0.1:0").await
    }

    pub(super) async fn start_at(id: u64, address: &str) -> Self {
        let mut listener = TcpListener::bind(address).await;
        // The port of a gateway that was ended just now is free soon.
        for _ in 0..PATIENCE.as_millis() / 10 {
            if listener.is_ok() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            listener = TcpListener::bind(address).await;
        }
        let listener = listener.expect("the port is free");
        let address = listener.local_addr().expect("it is bound").to_string();
        let (tell, links) = mpsc::unbounded_channel();
        let service = LinkServer::new(Service(tell)).max_decoding_message_size(usize::MAX);
        let serving = tokio::spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            let _ = Server::builder().serve_with_incoming(service, incoming).await;
        });
        Self {
            id,
            address,
            links,
            _serving: AbortOnDropHandle::new(serving),
        }
    }

    /// The next link that a worker dials, without a word said.
    pub(super) async fn silent_link(&mut self) -> Link {
        soon("a link", self.links.recv()).await.expect("the gateway serves")
    }

    /// The next link that a worker dials, made welcome.
    pub(super) async fn link(&mut self) -> Link {
        let mut link = self.silent_link().await;
        let Command::Hello(hello) = link.next().await else {
            panic!("`hello` comes first")
        };
        assert_eq!((hello.worker_id, hello.gateway_id), (7, Some(self.id)));
        link.welcome(self.id);
        link
    }
}

impl Link {
    pub(super) fn welcome(&self, gateway_id: u64) {
        self.welcome_with(gateway_id, false);
    }

    /// Whether it takes commands in parts is said.
    pub(super) fn welcome_with(&self, gateway_id: u64, parts: bool) {
        self.push(wire::Event {
            body: Some(Event::Welcome(link::Welcome {
                gateway_id,
                max_message: 1 << 20,
                parts,
            })),
            ..wire::Event::default()
        });
    }

    /// Refuses a link that was meant for another gateway.
    pub(super) fn refuse(&self) {
        let events = self.events.as_ref().expect("the link has not ended");
        let status = Status::failed_precondition("this is another gateway");
        events.send(Err(status)).expect("the link is up");
    }

    pub(super) fn push(&self, event: wire::Event) {
        let events = self.events.as_ref().expect("the link has not ended");
        events.send(Ok(event)).expect("the link is up");
    }

    /// Sends an event about a client and returns its number.
    pub(super) fn event(&mut self, client: u64, body: Event) -> u64 {
        self.attached(client, None, body)
    }

    /// Sends an event about the link and returns its number.
    pub(super) fn event_of_link(&mut self, body: Event) -> u64 {
        self.numbered(about_link(body), false)
    }

    pub(super) fn attached(&mut self, client: u64, attach: Option<wire::Attach>, body: Event) -> u64 {
        let attach = attach.map(Box::new);
        self.numbered(
            wire::Event {
                attach,
                ..about(client, body)
            },
            false,
        )
    }

    pub(super) fn redelivered(&mut self, client: u64, attach: Option<wire::Attach>, body: Event) -> u64 {
        let attach = attach.map(Box::new);
        self.numbered(
            wire::Event {
                attach,
                ..about(client, body)
            },
            true,
        )
    }

    fn numbered(&mut self, event: wire::Event, redelivered: bool) -> u64 {
        let delivery = self.delivery(redelivered);
        self.push(wire::Event {
            delivery: Some(delivery),
            ..event
        });
        delivery.seq
    }

    fn delivery(&mut self, redelivered: bool) -> wire::Delivery {
        self.last_seq += 1;
        wire::Delivery {
            seq: self.last_seq,
            redelivered,
            ..wire::Delivery::default()
        }
    }

    /// An event about a client in parts of so many bytes, which are not sent yet, and its number.
    pub(super) fn in_parts(&mut self, client: u64, body: Event, bytes: usize) -> (u64, Vec<wire::Event>) {
        let delivery = self.delivery(false);
        let event = wire::Event {
            delivery: Some(delivery),
            ..about(client, body)
        };
        let whole = event.encode_to_vec();
        let mut size = Some(whole.len() as u64);
        let pieces = whole.chunks(bytes).map(|piece| part(piece, std::mem::take(&mut size)));
        (delivery.seq, pieces.collect())
    }

    /// A client that has nothing to say is handed over, with this session.
    pub(super) fn hand_over(&self, client: u64, session: &[(&str, &str)]) {
        self.push(wire::Event {
            attach: Some(Box::new(attach(session))),
            ..about(client, Event::Attached(wire::Attached {}))
        });
    }

    /// A client comes, with this query in its handshake.
    pub(super) fn opened(&mut self, client: u64, query: &str) -> u64 {
        let mut attach = attach(&[]);
        attach.handshake = Some(wire::Handshake {
            query: query.into(),
            ..wire::Handshake::default()
        });
        self.attached(client, Some(attach), Event::Opened(wire::Opened {}))
    }

    pub(super) fn message(&mut self, client: u64, text: &str) -> u64 {
        self.event(client, message(text))
    }

    pub(super) fn closed(&mut self, client: u64) -> u64 {
        let closed = wire::Closed {
            cause: wire::CloseCause::Client.into(),
            code: Some(1000),
            reason: "bye".into(),
        };
        self.event(client, Event::Closed(closed))
    }

    /// The next command; that the worker is heard is answered on the way.
    pub(super) async fn next(&mut self) -> Command {
        loop {
            let command = soon("a command", self.commands.message()).await;
            let command = command.expect("the link is up").expect("the worker goes on");
            match command.body.expect("it has a body") {
                Command::Ping(_) => self.push(about_link(Event::Pong(wire::Pong {}))),
                command => return command,
            }
        }
    }

    /// All commands up to the `done` of an event, which is not among them; other events may be done meanwhile.
    pub(super) async fn until_done(&mut self, seq: u64) -> Vec<Command> {
        let mut before = Vec::new();
        loop {
            match self.next().await {
                Command::Done(done) if done.seq.contains(&seq) => return before,
                Command::Done(_) => {}
                command => before.push(command),
            }
        }
    }

    /// A client comes and is let in.
    pub(super) async fn open(&mut self, client: u64) {
        let seq = self.opened(client, "");
        let commands = self.until_done(seq).await;
        assert_eq!(commands.last(), Some(&Command::Accept(wire::Accept { client })));
    }

    /// Ends the link as a gateway does once it has nothing more to say.
    pub(super) fn end(&mut self) {
        self.events = None;
    }

    /// The worker has ended its side.
    pub(super) async fn ended(&mut self) {
        while let Ok(Some(_)) = soon("the link's end", self.commands.message()).await {}
    }
}

/// An event about a client that is not answered with `done`.
pub(super) fn about(client: u64, body: Event) -> wire::Event {
    wire::Event {
        subject: Some(Subject::Client(client)),
        ..about_link(body)
    }
}

/// An event about the link that is not answered with `done`.
pub(super) fn about_link(body: Event) -> wire::Event {
    wire::Event {
        body: Some(body),
        ..wire::Event::default()
    }
}

pub(super) fn part(bytes: &[u8], size: Option<u64>) -> wire::Event {
    let bytes = bytes.to_vec().into();
    wire::Event::carrying(wire::Part { bytes, size })
}

pub(super) fn message(text: &str) -> Event {
    Event::Message(wire::Message {
        payload: text.to_owned().into(),
        binary: false,
    })
}

pub(super) fn attach(session: &[(&str, &str)]) -> wire::Attach {
    let session = session.iter().map(|(key, value)| (key.to_string(), value.to_string()));
    wire::Attach {
        handshake: Some(wire::Handshake::default()),
        session: session.collect::<BTreeMap<_, _>>(),
        paused: false,
    }
}

/// The text of a message to clients of which there may be several.
pub(super) fn text_to_some(clients: &[u64], text: &str) -> Command {
    Command::Send(wire::Send {
        payload: text.to_owned().into(),
        binary: false,
        to: Some(To::Target(Box::new(wire::Target {
            clients: clients.to_vec(),
            ..wire::Target::default()
        }))),
    })
}

/// The text of a message to one client.
pub(super) fn text_to(client: u64, text: &str) -> Command {
    Command::Send(wire::Send {
        payload: text.to_owned().into(),
        binary: false,
        to: Some(To::Client(client)),
    })
}
