//! What one gateway child knows: its clients, its links, and how the two meet.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use meepo_node::quota::LogQuota;
use meepo_node::stats::Slot;
use meepo_proto::codes::{self, CloseCode};
use meepo_proto::link::event::Body;
use meepo_proto::link::{
    Attach, Attached, CloseCause, Closed, Detached, Event, Handshake, Opened, Reply, SessionChanged,
};
use meepo_proto::{ClientId, GatewayId};
use parking_lot::{Mutex, MutexGuard};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::client::{Client, Profile, Turn, Verdict};
use crate::encode;
use crate::roster::Roster;
use crate::router::{Bounds, Flow, LinkId, Output, Router};
use crate::settings::{GatewaySettings, Protocol};

/// Where a link's events go; the stream to the worker drains it whole.
pub(crate) type Events = mpsc::UnboundedSender<Result<Event, Status>>;

/// Shared by all tasks of a child.
#[derive(Debug)]
pub(crate) struct Hub {
    /// This run of the child.
    pub id: GatewayId,
    pub settings: GatewaySettings,
    send_buffer: usize,
    pub stats: &'static Slot,
    roster: Mutex<Roster>,
    dispatch: Mutex<Dispatch>,
    last_client: AtomicU64,
    last_link: AtomicU64,
    /// Too much waits for workers: nobody is read.
    full: AtomicBool,
    /// Log lines that clients can cause.
    pub refusals: LogQuota,
    /// The child drains: HTTP connections end.
    pub(crate) stopping: CancellationToken,
    /// Told when the last event was done.
    idle: Notify,
}

/// The router and what carries out its decisions. One lock, so that a link sees events in the order of their numbers.
#[derive(Debug)]
struct Dispatch {
    router: Router,
    links: HashMap<LinkId, Events>,
    /// Clients of which the router has something, also those that are closed.
    clients: HashMap<u64, Held>,
    out: Vec<Output>,
}

/// What is kept of a client until its last event is done: not its socket.
#[derive(Debug)]
struct Held {
    profile: Arc<Profile>,
    client: Weak<Client>,
}

/// How a client ends.
#[derive(Debug, Clone)]
pub(crate) struct End {
    pub cause: CloseCause,
    /// The close code that was received, or is sent; 0 for none.
    pub code: u16,
    pub reason: String,
    /// The last bytes that the client is sent.
    pub last: Option<Bytes>,
    /// What waits to be sent is dropped.
    pub clear: bool,
}

impl End {
    /// The client ended it, by itself or by breaking down.
    pub(crate) fn by_client(cause: CloseCause, code: u16, reason: impl Into<String>) -> Self {
        Self {
            cause,
            code,
            reason: reason.into(),
            last: None,
            clear: false,
        }
    }

    /// The gateway ends it, in the client's own protocol.
    pub(crate) fn by_gateway(protocol: Protocol, cause: CloseCause, code: CloseCode) -> Self {
        Self::with_reason(protocol, cause, code.code, code.reason)
    }

    /// As [`End::by_gateway`], with another reason. A line client is told the reason, if there is one.
    pub(crate) fn with_reason(protocol: Protocol, cause: CloseCause, code: u16, reason: &str) -> Self {
        let last = match protocol {
            Protocol::Ws => Some(encode::close_frame(code, reason)),
            Protocol::Line if reason.is_empty() => None,
            Protocol::Line => Some(encode::line(format!("closed: {reason}").as_bytes())),
        };
        Self {
            cause,
            code,
            reason: reason.into(),
            last,
            clear: false,
        }
    }
}

impl Hub {
    pub(crate) fn new(settings: GatewaySettings, stats: &'static Slot) -> Arc<Self> {
        let bytes = |size: bytesize::ByteSize| usize::try_from(size.as_u64()).unwrap_or(usize::MAX);
        let bounds = Bounds {
            client_in_flight: settings.client_in_flight,
            link_in_flight_bytes: bytes(settings.link_in_flight),
            client_waiting_bytes: bytes(settings.client_waiting),
            waiting_bytes: bytes(settings.waiting),
            max_deliveries: MAX_DELIVERIES,
        };
        let dispatch = Dispatch {
            router: Router::new(bounds),
            links: HashMap::new(),
            clients: HashMap::new(),
            out: Vec::new(),
        };
        Arc::new(Self {
            id: GatewayId::random(),
            send_buffer: bytes(settings.send_buffer),
            full: AtomicBool::new(false),
            refusals: LogQuota::new(),
            settings,
            stats,
            roster: Mutex::default(),
            dispatch: Mutex::new(dispatch),
            last_client: AtomicU64::new(0),
            last_link: AtomicU64::new(0),
            stopping: CancellationToken::new(),
            idle: Notify::new(),
        })
    }

    pub(crate) fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock()
    }

    /// The id of a client of this child.
    pub(crate) fn client_id(&self, number: u64) -> ClientId {
        ClientId::new(self.id, number)
    }

    // === clients ===

    /// A client wants in: a worker is asked.
    pub(crate) fn open(
        &self,
        protocol: Protocol,
        handshake: Handshake,
        socket: Option<TcpStream>,
    ) -> (Arc<Client>, oneshot::Receiver<Verdict>) {
        let number = self.last_client.fetch_add(1, Ordering::Relaxed) + 1;
        let (client, answer) = Client::new(number, protocol, handshake, socket, self.send_buffer);
        self.roster.lock().insert(Arc::clone(&client));
        self.stats.connections.add(1);
        self.stats.connections_total.add(1);
        let mut dispatch = self.dispatch.lock();
        let held = Held {
            profile: Arc::clone(&client.profile),
            client: Arc::downgrade(&client),
        };
        dispatch.clients.insert(number, held);
        dispatch.push(number, Body::Opened(Opened {}));
        self.carry_out(dispatch);
        (client, answer)
    }

    /// Takes a message from a client.
    pub(crate) fn message(&self, client: &Client, payload: Bytes, binary: bool) {
        self.stats.messages_in.add(1);
        self.stats.bytes_in.add(payload.len() as u64);
        let body = Body::Message(meepo_proto::link::Message { payload, binary });
        let mut dispatch = self.dispatch.lock();
        // Its last event is pushed under this lock, after it began to end: nothing may follow that.
        if client.condition().ending {
            return;
        }
        if dispatch.push(client.number, body) == Flow::Pause {
            client.pause();
        }
        self.carry_out(dispatch);
    }

    /// Pauses a client that is about to be read while too much waits.
    pub(crate) fn check_full(&self, client: &Client) {
        if self.full.load(Ordering::Relaxed) && self.dispatch.lock().router.flow(client.number) == Flow::Pause {
            client.pause();
        }
    }

    /// Whether all that the client has sent is done. If not, the client is woken then.
    pub(crate) fn settle(&self, client: &Client) -> bool {
        self.dispatch.lock().router.settle(client.number)
    }

    /// Ends a client, once: it leaves the roster at once, workers are told, and what it was sent before still goes out.
    pub(crate) fn close(&self, client: &Arc<Client>, end: End) -> bool {
        let End {
            cause,
            code,
            reason,
            last,
            clear,
        } = end;
        let pending = client.is_pending();
        if !client.end(last, clear) {
            return false;
        }
        self.roster.lock().remove(client.number);
        self.stats.connections.sub(1);
        let mut dispatch = self.dispatch.lock();
        let Dispatch { router, out, .. } = &mut *dispatch;
        if !(pending && router.abandon(client.number, out)) {
            dispatch.push(
                client.number,
                Body::Closed(Closed {
                    cause: cause.into(),
                    code: code.into(),
                    reason,
                }),
            );
        }
        self.carry_out(dispatch);
        true
    }

    /// A worker has rejected a client: no event of it follows.
    pub(crate) fn dismiss(&self, number: u64) {
        let mut dispatch = self.dispatch.lock();
        let Dispatch { router, out, .. } = &mut *dispatch;
        router.dismiss(number, out);
        self.carry_out(dispatch);
    }

    /// Takes a client out that a worker has rejected.
    pub(crate) fn rejected(&self, client: &Arc<Client>, last: Option<Bytes>) {
        if client.end(last, true) {
            self.roster.lock().remove(client.number);
            self.stats.connections.sub(1);
            self.dismiss(client.number);
        }
    }

    /// Closes those whose send buffer is full.
    pub(crate) fn close_slow(&self, turn: &mut Turn) {
        for client in turn.slow.drain(..) {
            self.close_one_slow(&client);
        }
    }

    pub(crate) fn close_one_slow(&self, client: &Arc<Client>) {
        let end = End::by_gateway(client.protocol, CloseCause::Slow, codes::SLOW_CLIENT);
        if self.close(client, End { clear: true, ..end }) {
            tracing::info!(client = %self.client_id(client.number), "closed a client that does not read");
        }
    }

    // === links ===

    /// A worker's link is up.
    pub(crate) fn link_up(&self, events: Events) -> LinkId {
        let link = LinkId(self.last_link.fetch_add(1, Ordering::Relaxed) + 1);
        let mut dispatch = self.dispatch.lock();
        dispatch.links.insert(link, events);
        let Dispatch { router, out, .. } = &mut *dispatch;
        router.link_up(link, out);
        self.carry_out(dispatch);
        link
    }

    pub(crate) fn link_draining(&self, link: LinkId) {
        let mut dispatch = self.dispatch.lock();
        let Dispatch { router, out, .. } = &mut *dispatch;
        router.link_draining(link, out);
        self.carry_out(dispatch);
    }

    pub(crate) fn link_down(&self, link: LinkId) {
        let mut dispatch = self.dispatch.lock();
        dispatch.links.remove(&link);
        let Dispatch { router, out, .. } = &mut *dispatch;
        router.link_down(link, out);
        self.carry_out(dispatch);
    }

    /// A worker has finished with events.
    pub(crate) fn done(&self, link: LinkId, numbers: &[u64]) {
        let mut dispatch = self.dispatch.lock();
        let Dispatch { router, out, .. } = &mut *dispatch;
        for &number in numbers {
            router.done(link, number, out);
        }
        self.carry_out(dispatch);
    }

    /// Sends something beside the numbered events: a reply or a refusal.
    pub(crate) fn tell(&self, link: LinkId, client: u64, body: Body) {
        self.dispatch.lock().send(
            link,
            Event {
                client,
                body: Some(body),
                ..Event::default()
            },
        );
    }

    pub(crate) fn reply(&self, link: LinkId, reply: Reply) {
        self.tell(link, 0, Body::Reply(reply));
    }

    /// Changes a client's session. The worker that serves the client hears of what another one has changed.
    pub(crate) fn update_session(
        &self,
        link: LinkId,
        client: &Client,
        change: SessionChanged,
        max_session: u64,
    ) -> Result<(), SessionTooBig> {
        let dispatch = self.dispatch.lock();
        {
            let mut session = client.profile.session.lock();
            let mut next = session.clone();
            for key in &change.remove {
                next.remove(key);
            }
            next.extend(change.set.clone());
            let size: usize = next.iter().map(|(key, value)| key.len() + value.len()).sum();
            if size as u64 > max_session {
                return Err(SessionTooBig);
            }
            *session = next;
        }
        if let Some(server) = dispatch.router.link_of(client.number)
            && server != link
        {
            let event = Event {
                client: client.number,
                body: Some(Body::SessionChanged(change)),
                ..Event::default()
            };
            dispatch.send(server, event);
        }
        Ok(())
    }

    // === the end ===

    /// Waits until every event is done, or nobody is there to do them. Cancel safe.
    pub(crate) async fn drained(&self) {
        loop {
            let notified = self.idle.notified();
            {
                let dispatch = self.dispatch.lock();
                if dispatch.router.is_idle() || dispatch.router.links() == 0 {
                    return;
                }
            }
            notified.await;
        }
    }

    /// Events that no worker has finished.
    pub(crate) fn unfinished(&self) -> usize {
        let dispatch = self.dispatch.lock();
        dispatch.router.waiting() + dispatch.router.in_flight()
    }

    /// Ends all links' streams.
    pub(crate) fn end_links(&self) {
        self.dispatch.lock().links.clear();
    }

    /// Carries out what the router decided, then lets go of the lock and closes whom it gave up.
    fn carry_out(&self, mut dispatch: MutexGuard<'_, Dispatch>) {
        let given_up = dispatch.carry_out();
        let router = &dispatch.router;
        self.full.store(router.is_full(), Ordering::Relaxed);
        self.stats.events_waiting.set(router.waiting() as u64);
        self.stats.events_in_flight.set(router.in_flight() as u64);
        self.stats.links.set(router.links() as u64);
        if router.is_idle() || router.links() == 0 {
            self.idle.notify_waiters();
        }
        drop(dispatch);
        for client in given_up {
            tracing::error!(client = %self.client_id(client.number), "gave up an event that ended several workers in turn");
            self.close(
                &client,
                End::by_gateway(client.protocol, CloseCause::GivenUp, codes::GIVEN_UP),
            );
        }
    }
}

/// Links that may end with the same event in front before it is given up.
const MAX_DELIVERIES: u32 = 3;

/// The session would be over its limit.
#[derive(Debug)]
pub(crate) struct SessionTooBig;

impl Dispatch {
    fn push(&mut self, client: u64, body: Body) -> Flow {
        self.router.push(client, body, &mut self.out)
    }

    fn send(&self, link: LinkId, event: Event) {
        // A link whose stream has ended is about to be taken down: its events come back then.
        if let Some(events) = self.links.get(&link) {
            let _ = events.send(Ok(event));
        }
    }

    /// Returns the clients that were given up.
    fn carry_out(&mut self) -> Vec<Arc<Client>> {
        let mut given_up = Vec::new();
        let mut out = std::mem::take(&mut self.out);
        for output in out.drain(..) {
            match output {
                Output::Deliver {
                    link,
                    seq,
                    client,
                    body,
                    redelivered,
                    first,
                } => {
                    let attach = if first { self.attach(client) } else { None };
                    let event = Event {
                        seq,
                        client,
                        redelivered,
                        attach,
                        body: Some(body),
                        ..Event::default()
                    };
                    self.send(link, event);
                }
                Output::Attach { link, client } => {
                    let attach = self.attach(client);
                    let body = Some(Body::Attached(Attached {}));
                    self.send(
                        link,
                        Event {
                            client,
                            attach,
                            body,
                            ..Event::default()
                        },
                    );
                }
                Output::Detach { link, client } => {
                    self.send(
                        link,
                        Event {
                            client,
                            body: Some(Body::Detached(Detached {})),
                            ..Event::default()
                        },
                    );
                }
                Output::Finished { link } => {
                    self.links.remove(&link);
                }
                Output::GiveUp { client } => given_up.extend(self.client(client)),
                Output::Settled { client } => {
                    if let Some(client) = self.client(client) {
                        client.wake.notify_one();
                    }
                }
                Output::Resume { client } => {
                    if let Some(client) = self.client(client) {
                        client.resume();
                    }
                }
                Output::Forget { client } => {
                    self.clients.remove(&client);
                }
            }
        }
        self.out = out;
        given_up
    }

    /// The client, unless it is closed.
    fn client(&self, number: u64) -> Option<Arc<Client>> {
        self.clients.get(&number)?.client.upgrade()
    }

    fn attach(&self, client: u64) -> Option<Attach> {
        let profile = &self.clients.get(&client)?.profile;
        let session = profile.session.lock().clone();
        Some(Attach {
            handshake: Some(profile.handshake.clone()),
            session,
        })
    }
}
