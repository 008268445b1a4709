//! One link: the stream between this worker child and one gateway child, and the bytes that may wait for it.
//!
//! The runtime dials links and reads their events; the API sends commands and asks queries over them. It knows neither
//! clients nor handlers.

pub(crate) mod outgoing;
pub(crate) mod send_budget;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use meepo_link::{Incoming, channel};
use meepo_node::secret::SecretHeader;
use meepo_node::{clock, local, rpc};
use meepo_proto::link as wire;
use meepo_proto::link::command::Body;
use meepo_proto::link::link_client::LinkClient;
use meepo_proto::{GatewayId, QueryId, Seq};
use prost::Message as _;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use self::outgoing::{Queued, command, queue, size, stream};
use self::send_budget::SendBudget;

/// How long a gateway may take to answer a connection, and to say `welcome` on it.
const DIAL: Duration = Duration::from_secs(4);
/// Bytes that a gateway may have on their way to this worker, per stream and per connection.
const WINDOW: (u32, u32) = (8 << 20, 16 << 20);
/// The largest event that is taken. The gateway's own limit is known only after `welcome`, and an event that is over
/// this one ends the whole link, so it is far above any limit that is set for messages and sessions.
const MAX_EVENT: usize = 1 << 30;
/// Bytes that a command may have beside a payload of the gateway's largest size: the gateway takes this much more.
const SLACK: u64 = 64 << 10;
/// How often the gateway is pinged, in milliseconds.
const PING: u64 = 1000;

/// Who a worker child is, as it tells a gateway that it dials.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) hello: wire::Hello,
    pub(crate) secret: SecretHeader,
}

/// Why a gateway could not be linked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("the address is not valid: {0}")]
    Address(#[source] tonic::transport::Error),
    #[error("no answer within {DIAL:?}")]
    Timeout,
    #[error("{}", refusal(.0))]
    Refused(#[source] tonic::Status),
    #[error("the first event is not `welcome`")]
    NoWelcome,
    #[error("another gateway answers")]
    Another,
}

impl DialError {
    /// Whether the gateway has surely gone: another gateway has its address, or no program listens there.
    pub(crate) fn says_gone(&self) -> bool {
        let Self::Refused(status) = self else {
            return matches!(self, Self::Another);
        };
        let mut cause = std::error::Error::source(status);
        while let Some(error) = cause {
            let io = error.downcast_ref::<std::io::Error>();
            if io.is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused) {
                return true;
            }
            cause = error.source();
        }
        false
    }
}

impl From<tonic::Status> for DialError {
    fn from(status: tonic::Status) -> Self {
        match status.code() {
            tonic::Code::FailedPrecondition => Self::Another,
            _ => Self::Refused(status),
        }
    }
}

fn refusal(status: &tonic::Status) -> String {
    match status.code() {
        tonic::Code::Unauthenticated => "the gateway refuses the secret".to_owned(),
        _ => std::error::Error::source(status)
            .map(innermost)
            .unwrap_or_else(|| status.message().to_owned()),
    }
}

/// The innermost cause of an error: tonic itself says only "transport error".
fn innermost(mut error: &(dyn std::error::Error + 'static)) -> String {
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// A link that is up, or was.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) gateway: GatewayId,
    out: channel::Sender<Queued>,
    budget: Arc<SendBudget>,
    /// The largest payload that the gateway takes.
    pub(crate) max_message: u64,
    max_command: usize,
    /// Queries that wait for their reply, by number.
    queries: DashMap<QueryId, oneshot::Sender<wire::reply::Body>>,
    last_query: AtomicU64,
    since: Duration,
    /// When its events were read last, in milliseconds since `since`.
    tended: AtomicU64,
    pings: Pings,
    /// The gateway was told that this worker drains.
    draining: CancellationToken,
    /// Whether `ended` is cancelled: asked for each event, and a token takes a lock to say so.
    over: AtomicBool,
    ended: CancellationToken,
}

/// Pings, which ask whether the gateway hears this worker, one at a time. Times are in milliseconds since the link's `since`.
#[derive(Debug, Default)]
struct Pings {
    /// When the last ping was sent.
    sent: AtomicU64,
    /// When the last ping was sent that was answered: the gateway has heard this worker since.
    answered: AtomicU64,
    /// The gateway had answered a ping shortly before the link ended.
    heard: AtomicBool,
    /// The gateway was gone when it was dialled for the first time after the link's end.
    gone: AtomicBool,
}

/// Why a command was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotSent {
    /// The link has ended.
    Ended,
    /// The gateway takes no command of this size.
    TooBig,
}

/// A query that waits for its reply. Dropping it forgets the query.
#[derive(Debug)]
pub(crate) struct PendingReply {
    link: Arc<Link>,
    id: QueryId,
    reply: oneshot::Receiver<wire::reply::Body>,
}

impl Link {
    /// Dials a gateway child, past the network if it is on this host and `local` is wanted, and waits for its `welcome`.
    pub(crate) async fn dial(
        gateway: GatewayId,
        address: &str,
        identity: &Identity,
        budget: Arc<SendBudget>,
        local: bool,
    ) -> Result<(Arc<Self>, Incoming<wire::Event>), DialError> {
        let endpoint = rpc::endpoint(address)
            .map_err(DialError::Address)?
            .initial_stream_window_size(WINDOW.0)
            .initial_connection_window_size(WINDOW.1);
        let connection = if local { local::connect(gateway.0).await } else { None };
        let channel = match connection {
            Some(connection) => rpc::over(&endpoint, connection),
            None => endpoint.connect_lazy(),
        };
        let mut client = LinkClient::with_interceptor(channel, identity.secret.clone())
            .max_decoding_message_size(MAX_EVENT)
            .max_encoding_message_size(usize::MAX);

        let (out, queued) = channel::channel();
        let hello = command(Body::Hello(Box::new(wire::Hello {
            gateway_id: Some(gateway.0),
            parts: true,
            ..identity.hello.clone()
        })));
        let bytes = hello.encoded_len();
        let _ = queue(&out, &budget, hello, bytes);
        let in_parts = Arc::<AtomicBool>::default();
        let outgoing = stream(queued, budget.clone(), in_parts.clone());

        let greeting = async {
            let events = client.open(outgoing).await?.into_inner();
            let mut events = Incoming::new(events, MAX_EVENT);
            let first = events.message().await?;
            Ok::<_, DialError>((first, events))
        };
        let (first, events) = match tokio::time::timeout(DIAL, greeting).await {
            Ok(greeted) => greeted?,
            Err(_) => return Err(DialError::Timeout),
        };
        let Some(wire::event::Body::Welcome(welcome)) = first.and_then(|event| event.body) else {
            return Err(DialError::NoWelcome);
        };
        if welcome.gateway_id != gateway.0 {
            return Err(DialError::Another);
        }
        in_parts.store(welcome.parts, Ordering::Relaxed);
        let max_command = welcome.max_message.saturating_add(SLACK);
        let link = Arc::new(Self {
            gateway,
            out,
            budget,
            max_message: welcome.max_message,
            max_command: usize::try_from(max_command).unwrap_or(usize::MAX),
            queries: DashMap::new(),
            last_query: AtomicU64::new(0),
            since: clock::at_last_tick(),
            tended: AtomicU64::new(0),
            pings: Pings::default(),
            draining: CancellationToken::new(),
            over: AtomicBool::new(false),
            ended: CancellationToken::new(),
        });
        Ok((link, events))
    }

    /// Queues a command. It never waits.
    pub(crate) fn send(&self, body: Body) -> Result<(), NotSent> {
        if self.is_over() {
            return Err(NotSent::Ended);
        }
        let bytes = size(&body);
        if bytes > self.max_command {
            // It would end the link for all clients.
            tracing::warn!(gateway = %self.gateway, bytes, limit = self.max_command, "command is too big for the gateway");
            return Err(NotSent::TooBig);
        }
        queue(&self.out, &self.budget, command(body), bytes).map_err(|_| NotSent::Ended)
    }

    /// Says that the handler of an event has finished, after all that it has sent. A task that is no event has no number.
    pub(crate) fn done(&self, seq: Option<Seq>) {
        // A link that has ended gets no answer: what the handler sent may have been refused, and another worker has the event.
        if let Some(seq) = seq
            && !self.is_over()
        {
            let _ = self.out.send(Queued::Done(seq));
        }
    }

    /// Says that the handler of an event was cut off, or that a worker that drains hands the event back.
    pub(crate) fn undone(&self, seq: Option<Seq>, handed_back: bool) {
        if let Some(Seq(seq)) = seq
            && !self.is_over()
        {
            let _ = self.out.send(Queued::Undone(wire::Undone { seq, handed_back }));
        }
    }

    /// Tells the gateway that this worker drains.
    pub(crate) fn drain(&self) {
        // A link that has ended has nothing to drain.
        let _ = self.send(Body::Draining(wire::Draining {}));
        self.draining.cancel();
    }

    /// Whether the gateway was told that this worker drains.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Waits until the gateway was told that this worker drains. Cancel safe.
    pub(crate) async fn drains(&self) {
        self.draining.cancelled().await;
    }

    /// Waits until it has ended. Cancel safe.
    pub(crate) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Asks the gateway a query. None if the link has ended, or the gateway takes no query of this size.
    pub(crate) fn ask(self: &Arc<Self>, body: wire::query::Body) -> Option<PendingReply> {
        let id = QueryId(self.last_query.fetch_add(1, Ordering::Relaxed) + 1);
        let (answer, reply) = oneshot::channel();
        self.queries.insert(id, answer);
        let asked = PendingReply {
            link: self.clone(),
            id,
            reply,
        };
        let query = wire::Query {
            id: id.0,
            body: Some(body),
        };
        let sent = self.send(Body::Query(Box::new(query))).is_ok();
        // `end` forgets the queries that are there; a query that is added after it would wait in vain.
        (sent && !self.has_ended()).then_some(asked)
    }

    /// Hands a reply to the task that asked. A reply that comes too late is dropped.
    pub(crate) fn answer(&self, reply: wire::Reply) {
        if let (Some((_, asker)), Some(body)) = (self.queries.remove(&QueryId(reply.query)), reply.body) {
            let _ = asker.send(body);
        }
    }

    /// The gateway has answered a ping.
    pub(crate) fn pong(&self) {
        let sent = self.pings.sent.load(Ordering::Relaxed);
        self.pings.answered.store(sent, Ordering::Relaxed);
    }

    /// Whether the gateway takes a command of this size.
    pub(crate) fn takes(&self, body: &Body) -> bool {
        size(body) <= self.max_command
    }

    /// Whether there is [room](SendBudget::has_half) for more from outside.
    pub(crate) fn has_half(&self) -> bool {
        self.budget.has_half()
    }

    /// Whether there is room in the outgoing queue.
    pub(crate) fn is_available(&self) -> bool {
        self.budget.is_available()
    }

    /// Waits for room in the outgoing queue, or for the link's end. Cancel safe.
    pub(crate) async fn available(&self) {
        tokio::select! {
            biased;
            () = self.budget.available() => {}
            () = self.ended.cancelled() => {}
        }
    }

    /// The link's events are read: to be called about every second. It pings the gateway when it is time to.
    pub(crate) fn tend(&self) {
        let age = self.age();
        self.tended.store(age, Ordering::Relaxed);
        let (sent, answered) = (&self.pings.sent, &self.pings.answered);
        let last = sent.load(Ordering::Relaxed);
        if answered.load(Ordering::Relaxed) == last && age - last >= PING {
            sent.store(age, Ordering::Relaxed);
            let _ = self.send(Body::Ping(wire::Ping {}));
        }
    }

    /// Whether the gateway, which has gone, had surely not given this link up before, and its clients to other workers.
    pub(crate) fn surely_held(&self) -> bool {
        self.pings.heard.load(Ordering::Relaxed) && self.pings.gone.load(Ordering::Relaxed)
    }

    /// The gateway was gone when it was dialled for the first time after the link's end.
    pub(crate) fn gateway_has_gone(&self) {
        self.pings.gone.store(true, Ordering::Relaxed);
    }

    /// Whether the link has ended. A link whose events were not read for long counts as ended too, for good: this process
    /// was frozen, the gateway may have given the link up, and other workers may have handled since what is left here.
    pub(crate) fn has_ended(&self) -> bool {
        let untended = self.age().saturating_sub(self.tended.load(Ordering::Relaxed));
        if !self.is_over() && u128::from(untended) >= rpc::UNHEARD.as_millis() {
            self.cancel();
        }
        self.is_over()
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    fn cancel(&self) {
        self.over.store(true, Ordering::Release);
        self.ended.cancel();
    }

    /// A token that is cancelled when the link has ended, and can be cancelled before by itself.
    pub(crate) fn until_ended(&self) -> CancellationToken {
        self.ended.child_token()
    }

    fn age(&self) -> u64 {
        let age = clock::at_last_tick().saturating_sub(self.since);
        u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
    }

    /// Ends this side once all that is queued is sent; the gateway ends the other.
    pub(crate) fn finish(&self) {
        let _ = self.out.send(Queued::End);
    }

    /// The stream has ended: queries that wait get no reply.
    pub(crate) fn end(&self) {
        let heard = self.age() - self.pings.answered.load(Ordering::Relaxed);
        let heard = u128::from(heard) < rpc::UNHEARD.as_millis();
        self.pings.heard.store(heard, Ordering::Relaxed);
        self.cancel();
        self.queries.clear();
        let _ = self.out.send(Queued::End);
    }
}

impl PendingReply {
    /// The reply. None if the link ends before.
    pub(crate) async fn reply(mut self) -> Option<wire::reply::Body> {
        (&mut self.reply).await.ok()
    }
}

impl Drop for PendingReply {
    fn drop(&mut self) {
        self.link.queries.remove(&self.id);
    }
}
