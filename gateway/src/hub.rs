//! What one gateway child knows: its clients, its links, and how the two meet.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use foldhash::HashMap;
use meepo_node::quota::LogQuota;
use meepo_node::stats::Slot;
use meepo_proto::codes::{self, CloseCode};
use meepo_proto::link::event::Body;
use meepo_proto::link::{Buffered, CloseCause, Closed, Event, Handshake, Message, Opened, Reply, Undone, reply};
use meepo_proto::{ClientId, GatewayId};
use parking_lot::{Mutex, MutexGuard};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::client::close::ClientClose;
use crate::client::handle::{Client, FlushBatch, Sent, Verdict};
use crate::config::settings::{GatewaySettings, Protocol, SlowClient};
use crate::drain::last_words::LastWords;
use crate::fanout::batch::Share;
use crate::fanout::client_registry::ClientRegistry;
use crate::fanout::encode::OutboundMessage;
use crate::router::dispatch::{Dispatch, Events, Later, Retained};
use crate::router::request_budget::RequestBudget;
use crate::router::{Bounds, Ending, Flow, LinkId, Router};

/// Shared by all tasks of a child.
#[derive(Debug)]
pub(crate) struct Hub {
    /// This run of the child.
    pub id: GatewayId,
    pub settings: GatewaySettings,
    send_buffer: usize,
    pub stats: &'static Slot,
    registry: Mutex<ClientRegistry>,
    pub(crate) dispatch: Mutex<Dispatch>,
    /// What requests over HTTP may take.
    pub(crate) allowance: Arc<RequestBudget>,
    last_client: AtomicU64,
    last_link: AtomicU64,
    /// Too much waits for workers: nobody is read.
    full: AtomicBool,
    /// Log lines that clients can cause.
    pub refusals: LogQuota,
    /// The child drains: HTTP connections end.
    pub(crate) stopping: CancellationToken,
    /// What clients that still come are closed with, once all others have been told to go. Set and read under the registry's lock.
    leaving: OnceLock<CloseCode>,
    /// Told when the last event was done, and while the child drains of whatever may have been the last.
    pub(crate) idle: Notify,
    /// For what has to be done later, if the child still runs then.
    this: Weak<Self>,
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
            max_returns: MAX_RETURNS,
        };
        let dispatch = Dispatch {
            router: Router::new(bounds),
            links: HashMap::default(),
            clients: HashMap::default(),
            requests: HashMap::default(),
            out: Vec::new(),
            parting: LastWords::default(),
        };
        Arc::new_cyclic(|this| Self {
            id: GatewayId::random(),
            send_buffer: bytes(settings.send_buffer),
            full: AtomicBool::new(false),
            refusals: LogQuota::new(),
            allowance: RequestBudget::new(settings.max_requests, bytes(settings.request_memory)),
            settings,
            stats,
            registry: Mutex::default(),
            dispatch: Mutex::new(dispatch),
            last_client: AtomicU64::new(0),
            last_link: AtomicU64::new(0),
            stopping: CancellationToken::new(),
            leaving: OnceLock::new(),
            idle: Notify::new(),
            this: this.clone(),
        })
    }

    pub(crate) fn registry(&self) -> MutexGuard<'_, ClientRegistry> {
        self.registry.lock()
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
        let number = self.next_number();
        let (client, answer) = Client::new(number, protocol, &handshake, socket, self.send_buffer);
        let leaving = {
            let mut registry = self.registry.lock();
            registry.insert(Arc::clone(&client));
            self.leaving.get().copied()
        };
        self.stats.connections.add(1);
        self.stats.connections_total.add(1);
        let mut dispatch = self.dispatch.lock();
        let held = Retained {
            profile: Arc::clone(&client.profile),
            client: Arc::downgrade(&client),
        };
        dispatch.clients.insert(number, held);
        dispatch.push(number, Body::Opened(Opened {}));
        self.carry_out(dispatch);
        if let Some(code) = leaving {
            self.close(
                &client,
                ClientClose::by_gateway(protocol, CloseCause::GatewayStop, code),
            );
        }
        (client, answer)
    }

    /// All clients there are. Who comes from now on is closed at once.
    pub(crate) fn leave(&self, code: CloseCode) -> Vec<Arc<Client>> {
        let registry = self.registry.lock();
        let _ = self.leaving.set(code);
        registry.all().cloned().collect()
    }

    /// A number that no client and no request has had.
    pub(crate) fn next_number(&self) -> u64 {
        self.last_client.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Takes a message from a client, and those behind it, until the client is to be held back.
    pub(crate) fn messages(&self, client: &Client, first: Message, mut next: impl FnMut() -> Option<Message>) {
        let mut dispatch = self.dispatch.lock();
        // Its last event is pushed under this lock, after it began to end: nothing may follow that.
        if client.condition().ending {
            return;
        }
        let (mut messages, mut bytes) = (0, 0);
        let mut message = Some(first);
        while let Some(taken) = message {
            messages += 1;
            bytes += taken.payload.len() as u64;
            if dispatch.push(client.number, Body::Message(taken)) == Flow::Pause {
                client.hold_back();
                break;
            }
            message = next();
        }
        self.stats.messages_in.add(messages);
        self.stats.bytes_in.add(bytes);
        self.carry_out(dispatch);
    }

    /// Tells workers that a client's send buffer has filled, or that all of it is written.
    pub(crate) fn tell_buffered(&self, client: &Client) {
        let mut dispatch = self.dispatch.lock();
        // Taken under this lock, as for messages: nothing follows the last event.
        let Some(full) = client.take_news() else { return };
        if dispatch.push(client.number, Body::Buffered(Buffered { full })) == Flow::Pause {
            client.hold_back();
        }
        self.carry_out(dispatch);
    }

    /// Holds a client back that is about to be read while too much waits.
    pub(crate) fn check_full(&self, client: &Client) {
        if !self.full.load(Ordering::Relaxed) {
            return;
        }
        let mut dispatch = self.dispatch.lock();
        if dispatch.router.flow(client.number) == Flow::Pause {
            client.hold_back();
            self.stats.held_back.set(dispatch.router.held_back() as u64);
        }
    }

    /// Whether all that the client has sent is done. If not, the client is woken then.
    pub(crate) fn settle(&self, client: &Client) -> bool {
        self.dispatch.lock().router.settle(client.number)
    }

    /// Ends a client, once: it leaves the registry at once, workers are told, and what it was sent before still goes out.
    pub(crate) fn close(&self, client: &Arc<Client>, end: ClientClose) -> bool {
        let ClientClose {
            cause,
            code,
            reason,
            last,
            clear,
            at_once,
        } = end;
        let pending = client.is_pending();
        if at_once {
            client.cut();
        }
        if !client.end(last, clear) {
            return false;
        }
        self.registry.lock().remove(client.number);
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

    /// A worker has rejected a client that another one had let in before: it has forgotten it, and is to hear of its end.
    pub(crate) fn rejected_late(&self, client: &Arc<Client>) {
        self.dispatch.lock().router.forgotten(client.number);
        self.close(
            client,
            ClientClose::by_gateway(client.protocol, CloseCause::Kicked, codes::POLICY),
        );
    }

    /// Takes a client out that a worker has rejected.
    pub(crate) fn rejected(&self, client: &Arc<Client>, last: Option<Bytes>) {
        if client.end(last, true) {
            self.registry.lock().remove(client.number);
            self.stats.connections.sub(1);
            self.dismiss(client.number);
        }
    }

    /// Closes those whose send buffer is full.
    pub(crate) fn close_slow(&self, flush: &mut FlushBatch) {
        for client in flush.slow.drain(..) {
            self.close_one_slow(&client);
        }
    }

    pub(crate) fn close_one_slow(&self, client: &Arc<Client>) {
        let end = ClientClose::by_gateway(client.protocol, CloseCause::Slow, codes::SLOW_CLIENT);
        if self.close(client, ClientClose { clear: true, ..end }) {
            self.stats.slow_clients.add(1);
            tracing::info!(client = %self.client_id(client.number), "closed a client that does not read");
        }
    }

    // === links ===

    /// A worker's link is up. One from outside is given no clients.
    pub(crate) fn link_up(&self, events: Events, outside: bool) -> LinkId {
        let link = LinkId(self.last_link.fetch_add(1, Ordering::Relaxed) + 1);
        let mut dispatch = self.dispatch.lock();
        dispatch.links.insert(link, events);
        if !outside {
            let Dispatch { router, out, .. } = &mut *dispatch;
            router.link_up(link, out);
        }
        self.carry_out(dispatch);
        link
    }

    pub(crate) fn link_draining(&self, link: LinkId) {
        let mut dispatch = self.dispatch.lock();
        if dispatch.parting.put_off(link) {
            return;
        }
        let Dispatch { router, out, .. } = &mut *dispatch;
        router.link_draining(link, out);
        self.carry_out(dispatch);
    }

    /// Says why a link ends, as the last thing that goes to the worker.
    pub(crate) fn refuse_link(&self, link: LinkId, why: Status) {
        if let Some(events) = self.dispatch.lock().links.get(&link) {
            let _ = events.send(Err(why));
        }
    }

    pub(crate) fn link_down(&self, link: LinkId, ending: Ending) {
        let mut dispatch = self.dispatch.lock();
        dispatch.links.remove(&link);
        dispatch.parting.end(link);
        let Dispatch { router, out, .. } = &mut *dispatch;
        router.link_down(link, ending, out);
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

    /// A worker has cut a handler off, or hands an event back.
    pub(crate) fn undone(&self, link: LinkId, undone: &Undone) {
        let mut dispatch = self.dispatch.lock();
        let Dispatch {
            router, out, parting, ..
        } = &mut *dispatch;
        // Only a worker that drains hands back, which is no failure of the event: the drain is put off no longer.
        if undone.handed_back && parting.take_up(link) {
            router.link_draining(link, out);
        }
        router.undone(link, undone.seq, undone.handed_back, out);
        self.carry_out(dispatch);
    }

    /// Tries an event again that has ended links before.
    fn release(&self, client: u64) {
        let mut dispatch = self.dispatch.lock();
        let Dispatch { router, out, .. } = &mut *dispatch;
        router.release(client, out);
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

    pub(crate) fn reply(&self, link: LinkId, query: u64, body: reply::Body) {
        let body = Some(body);
        self.tell(link, 0, Body::Reply(Reply { query, body }));
    }

    /// For what outlives the caller.
    pub(crate) fn handle(&self) -> Weak<Self> {
        self.this.clone()
    }

    /// Sends one of several clients its share, which it gets with the flush's flush, or at once if nothing follows.
    pub(crate) fn publish(&self, client: &Arc<Client>, share: &Share<'_>, flush: &mut FlushBatch) {
        let messages = share.len();
        if messages == 0 {
            return;
        }
        match client.send(share.encoded(client.protocol), None, flush) {
            // As many as there is room for.
            Sent::Full if messages > 1 => {
                for message in share.messages() {
                    let frame = message.encoded(client.protocol).clone();
                    let sent = client.send(frame, None, flush);
                    self.count(client, sent, 1, message.len(), flush);
                }
            }
            sent => self.count(client, sent, messages, share.bytes(), flush),
        }
    }

    /// Sends a message to its one client, which gets it with the flush's flush. The receipt hears when its system has it.
    pub(crate) fn send_one(
        &self,
        client: &Arc<Client>,
        message: OutboundMessage,
        receipt: Option<oneshot::Sender<()>>,
        flush: &mut FlushBatch,
    ) -> Sent {
        let bytes = message.len();
        let sent = client.send(message.into_encoded(client.protocol), receipt, flush);
        self.count(client, sent, 1, bytes, flush);
        sent
    }

    /// Counts what became of messages to a client.
    fn count(&self, client: &Arc<Client>, sent: Sent, messages: usize, bytes: usize, flush: &mut FlushBatch) {
        match sent {
            Sent::Queued => {
                self.stats.messages_out.add(messages as u64);
                self.stats.bytes_out.add(bytes as u64);
            }
            Sent::Full => {
                self.stats.failed_sends.add(messages as u64);
                self.stats.dropped_sends.add(messages as u64);
                if self.settings.slow_client == SlowClient::Close {
                    flush.slow.push(Arc::clone(client));
                }
            }
            Sent::Gone => {}
        }
    }

    pub(crate) fn dispatch(&self) -> MutexGuard<'_, Dispatch> {
        self.dispatch.lock()
    }

    /// Carries out what the router decided, then lets go of the lock and closes whom it gave up.
    pub(crate) fn carry_out(&self, mut dispatch: MutexGuard<'_, Dispatch>) {
        let Later { given_up, held } = dispatch.carry_out();
        let router = &dispatch.router;
        self.full.store(router.is_full(), Ordering::Relaxed);
        self.stats.events_waiting.set(router.waiting() as u64);
        self.stats.events_in_flight.set(router.in_flight() as u64);
        self.stats.links.set(router.links() as u64);
        self.stats.held_back.set(router.held_back() as u64);
        self.stats.full_queues.set(router.is_full().into());
        if router.is_idle() || router.links() == 0 || self.stopping.is_cancelled() {
            self.idle.notify_waiters();
        }
        drop(dispatch);
        for client in held {
            let hub = self.this.clone();
            tokio::spawn(async move {
                // At random: events of several gateways that were in front when a worker died are not to meet again.
                tokio::time::sleep(HOLD.mul_f64(1.0 + fastrand::f64())).await;
                if let Some(hub) = hub.upgrade() {
                    hub.release(client);
                }
            });
        }
        for (number, client) in given_up {
            self.stats.given_up_events.add(1);
            tracing::error!(client = %self.client_id(number), "gave up an event that ended several workers in flush");
            if let Some(client) = client {
                self.close(
                    &client,
                    ClientClose::by_gateway(client.protocol, CloseCause::GivenUp, codes::GIVEN_UP),
                );
            }
        }
    }
}

/// Workers that may die with the same event in front before it is given up.
const MAX_DELIVERIES: u32 = 3;
/// Links that may end, in whatever way, with the same event in front: far more than a cut network takes in one go, but
/// a handler that blocks its whole process must not block every worker there is.
const MAX_RETURNS: u32 = 16;

/// How long at least, and at most twice as long, an event waits before the delivery that may be its last: workers that were
/// killed together, or with the machine, are all known to be dead by then.
const HOLD: Duration = Duration::from_secs(1);
