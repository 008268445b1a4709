//! Lanes: the events of a client, one after the other; clients side by side.
//!
//! Every client that this worker child serves has a lane, in a table by its id. An event is put in its client's lane,
//! and a lane that has events is worked off by a task of its own. A guard of the table is never held over an await.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use futures_util::FutureExt;
use meepo_node::stats::Slot;
use meepo_proto::link as wire;
use meepo_proto::link::command::Body as Command;
use meepo_proto::link::event::Body as Event;
use meepo_proto::{ClientId, GatewayId};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::client::{CurrentEvent, Known};
use crate::link::Link;
use crate::{Client, CloseReason, Cluster, Handler, Message, Reject};

/// The lanes of all clients that this worker child serves.
pub(crate) struct Lanes<H> {
    handler: H,
    /// How long a handler may take.
    limit: Duration,
    cluster: Cluster,
    lanes: DashMap<ClientId, Lane>,
    tasks: TaskTracker,
    /// Handlers may begin: all gateways that were known at first have been dialled, so that sends reach them.
    open: CancellationToken,
}

#[derive(Default)]
struct Lane {
    /// None once the client has been forgotten, while the lane still has events or one is being handled.
    record: Option<Record>,
    waiting: VecDeque<Job>,
    /// A task works this lane off.
    busy: bool,
}

/// A client that is attached.
#[derive(Clone)]
struct Record {
    known: Arc<Known>,
    /// It came in, here or at another worker: it gets `on_close`.
    accepted: bool,
}

struct Job {
    link: Arc<Link>,
    seq: u64,
    /// The client as it was when this came: it may be forgotten since, and have come again.
    known: Option<Arc<Known>>,
    event: Arc<CurrentEvent>,
    what: What,
    _in_flight: InFlight,
}

enum What {
    Opened,
    Message(Message),
    Closed(CloseReason),
    /// The gateway died. The only job that is done after its link has ended.
    Lost,
}

/// Counts an event for as long as it is not finished.
struct InFlight(&'static Slot);

impl<H: Handler> Lanes<H> {
    pub(crate) fn new(handler: H, limit: Duration, cluster: Cluster) -> Arc<Self> {
        let lanes = Arc::new(Self {
            handler,
            limit,
            cluster,
            lanes: DashMap::new(),
            tasks: TaskTracker::new(),
            open: CancellationToken::new(),
        });
        let served = Arc::downgrade(&lanes);
        lanes
            .cluster
            .serves(move |id| Some(served.upgrade()?.record(id)?.known));
        lanes
    }

    pub(crate) fn handler(&self) -> &H {
        &self.handler
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Lets handlers begin.
    pub(crate) fn open(&self) {
        self.open.cancel();
    }

    /// Takes an event from a link. It never waits, so that replies to queries pass handlers that wait for them.
    pub(crate) fn take(self: &Arc<Self>, link: &Arc<Link>, event: wire::Event) {
        let stats = self.cluster.stats();
        let id = ClientId::new(link.gateway, event.client);
        if let Some(attach) = event.attach {
            let opened = matches!(event.body, Some(Event::Opened(_)));
            self.attach(id, link, attach, !opened);
        }
        let what = match event.body {
            Some(Event::Opened(_)) => What::Opened,
            Some(Event::Message(message)) => {
                stats.messages_in.add(1);
                stats.bytes_in.add(message.payload.len() as u64);
                What::Message(message.into())
            }
            Some(Event::Closed(closed)) => What::Closed(closed.into()),
            other => {
                match other {
                    // It is recorded above, and says nothing yet.
                    Some(Event::Attached(_)) => {}
                    Some(Event::Detached(_)) => self.forget(id, link),
                    Some(Event::SessionChanged(change)) => self.session_changed(id, change),
                    Some(Event::Reply(reply)) => link.answer(reply),
                    Some(Event::Refused(refused)) => self.refused(link, &refused),
                    _ => tracing::debug!(gateway = %link.gateway, "event is not known to this worker"),
                }
                return link.done(event.seq);
            }
        };
        let job = Job {
            link: link.clone(),
            seq: event.seq,
            known: None,
            event: CurrentEvent::new(event.number, event.redelivered),
            what,
            _in_flight: InFlight::new(stats),
        };
        self.push(id, job);
    }

    /// Forgets the clients of a gateway whose link has ended, but that lives: it has moved them to other workers.
    pub(crate) fn moved(&self, gateway: GatewayId) {
        for (id, link) in self.left_behind(gateway) {
            self.forget(id, &link);
        }
    }

    /// Tells the handler of the clients of a gateway that has died.
    pub(crate) fn lost(self: &Arc<Self>, gateway: GatewayId) {
        let clients = self.left_behind(gateway);
        if !clients.is_empty() {
            tracing::warn!(%gateway, clients = clients.len(), "gateway is lost with its clients");
        }
        for (id, link) in clients {
            let job = Job {
                link,
                seq: 0,
                known: None,
                event: Arc::default(),
                what: What::Lost,
                _in_flight: InFlight::new(self.cluster.stats()),
            };
            self.push(id, job);
        }
    }

    /// Waits until no event is being handled or waits for it. Cancel safe.
    pub(crate) async fn idle(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn attach(&self, id: ClientId, link: &Arc<Link>, attach: wire::Attach, accepted: bool) {
        let record = Record {
            known: Known::new(id, self.cluster.clone(), link.clone(), attach),
            accepted,
        };
        let stats = self.cluster.stats();
        stats.connections_total.add(1);
        if self.lanes.entry(id).or_default().record.replace(record).is_none() {
            stats.connections.add(1);
        }
    }

    /// Forgets a client, unless it has been attached through another link since.
    fn forget(&self, id: ClientId, link: &Arc<Link>) {
        if let Some(mut lane) = self.lanes.get_mut(&id)
            && lane
                .record
                .take_if(|record| Arc::ptr_eq(record.known.link(), link))
                .is_some()
        {
            self.cluster.stats().connections.sub(1);
        }
        self.lanes.remove_if(&id, |_, lane| lane.is_over());
    }

    fn session_changed(&self, id: ClientId, change: wire::SessionChanged) {
        if let Some(record) = self.record(id) {
            record.known.session().change(change);
        }
    }

    fn refused(&self, link: &Link, refused: &wire::Refused) {
        let client = ClientId::new(link.gateway, refused.client);
        self.cluster.stats().failed_sends.add(1);
        let (command, why, detail) = (&refused.command, refused.why(), &refused.detail);
        tracing::debug!(%client, command, ?why, detail, "gateway refused a command");
        if command == "session"
            && let Some(Record { known, .. }) = self.record(client)
            && known.doubt()
        {
            self.tasks.spawn(async move { known.read_again().await });
        }
    }

    fn record(&self, id: ClientId) -> Option<Record> {
        self.lanes.get(&id)?.record.clone()
    }

    pub(crate) fn has_left_behind(&self, gateway: GatewayId) -> bool {
        !self.left_behind(gateway).is_empty()
    }

    /// The clients that were attached through a link of this gateway that has ended.
    fn left_behind(&self, gateway: GatewayId) -> Vec<(ClientId, Arc<Link>)> {
        let of_gateway = self.lanes.iter().filter(|lane| lane.key().gateway == gateway);
        of_gateway
            .filter_map(|lane| Some((*lane.key(), lane.record.as_ref()?.known.link().clone())))
            .filter(|(_, link)| link.has_ended())
            .collect()
    }

    fn push(self: &Arc<Self>, id: ClientId, mut job: Job) {
        let mut lane = self.lanes.entry(id).or_default();
        let known = lane.record.as_ref().map(|record| &record.known);
        job.known = known.filter(|known| Arc::ptr_eq(known.link(), &job.link)).cloned();
        lane.waiting.push_back(job);
        if !lane.busy {
            lane.busy = true;
            self.tasks.spawn(self.clone().work_off(id));
        }
    }

    async fn work_off(self: Arc<Self>, id: ClientId) {
        self.open.cancelled().await;
        while let Some(job) = self.next(id) {
            job.link.available().await;
            let lost = matches!(job.what, What::Lost);
            if job.link.has_ended() && !lost {
                // The gateway hands it to another worker.
                continue;
            }
            let (link, seq, event) = (job.link.clone(), job.seq, job.event.clone());
            let Some(record) = self.record(id).filter(|record| job.is_of(record)) else {
                // Of a client that was rejected, has gone already, or comes again after a handler was cut off.
                link.done(seq);
                continue;
            };
            let handler = job.what.handler();
            match timeout(self.limit, self.handle(record, job)).await {
                Ok(()) if event.is_handed_back() && !lost => self.hand_back(id, &link, seq),
                Ok(()) => link.done(seq),
                Err(_) => self.cut_off(id, &link, seq, handler),
            }
        }
    }

    fn next(&self, id: ClientId) -> Option<Job> {
        {
            let mut lane = self.lanes.get_mut(&id)?;
            if let Some(job) = lane.waiting.pop_front() {
                return Some(job);
            }
            lane.busy = false;
            // A burst leaves nothing behind at a client that is idle.
            lane.waiting.shrink_to(4);
        }
        self.lanes.remove_if(&id, |_, lane| lane.is_over());
        None
    }

    async fn handle(&self, record: Record, job: Job) {
        let client = Client::new(record.known, job.event);
        match job.what {
            What::Opened => self.connect(&client, &job.link).await,
            What::Message(message) => self.message(&client, message).await,
            What::Closed(reason) => self.close(&client, &job.link, record.accepted, reason).await,
            What::Lost => {
                let reason = CloseReason::gateway_lost();
                self.close(&client, &job.link, record.accepted, reason).await;
            }
        }
    }

    /// A handler has taken too long: a worker gets its event again, and with it those behind it.
    fn cut_off(&self, id: ClientId, link: &Arc<Link>, seq: u64, handler: &'static str) {
        self.cluster.stats().handler_errors.add(1);
        tracing::warn!(client = %id, handler, limit = ?self.limit, "handler has taken too long and was cut off");
        self.forget(id, link);
        link.undone(seq, false);
    }

    /// A handler leaves its event, and with it those behind it, to another worker.
    fn hand_back(&self, id: ClientId, link: &Arc<Link>, seq: u64) {
        self.forget(id, link);
        link.undone(seq, true);
    }

    async fn connect(&self, client: &Client, link: &Arc<Link>) {
        let id = client.id();
        let connected = guarded(async { self.handler.on_connect(client, client.hello()).await }).await;
        let connected = connected.unwrap_or_else(|panic| {
            self.failed(id, "on_connect", &panic);
            Err(Reject::new(500, "internal error"))
        });
        if client.is_handed_back() {
            return;
        }
        let answer = match connected {
            Ok(()) => {
                self.accepted(id, link);
                Command::Accept(wire::Accept { client: id.number })
            }
            Err(reject) => {
                self.forget(id, link);
                Command::Reject(wire::Reject {
                    client: id.number,
                    status: reject.status().into(),
                    reason: reject.reason().to_owned(),
                })
            }
        };
        // If the link has ended, the gateway asks another worker.
        let _ = link.send(answer);
    }

    async fn message(&self, client: &Client, message: Message) {
        match guarded(async { self.handler.on_message(client, message).await }).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.failed(client.id(), "on_message", &*error),
            Err(panic) => self.failed(client.id(), "on_message", &panic),
        }
    }

    async fn close(&self, client: &Client, link: &Arc<Link>, accepted: bool, reason: CloseReason) {
        if accepted && let Err(panic) = guarded(async { self.handler.on_close(client, &reason).await }).await {
            self.failed(client.id(), "on_close", &panic);
        }
        self.forget(client.id(), link);
    }

    fn accepted(&self, id: ClientId, link: &Arc<Link>) {
        if let Some(mut lane) = self.lanes.get_mut(&id)
            && let Some(record) = &mut lane.record
            && Arc::ptr_eq(record.known.link(), link)
        {
            record.accepted = true;
        }
    }

    fn failed(&self, client: ClientId, handler: &'static str, error: &(dyn std::error::Error + '_)) {
        self.cluster.stats().handler_errors.add(1);
        tracing::warn!(%client, handler, error = %error, "handler failed");
    }
}

impl Lane {
    fn is_over(&self) -> bool {
        !self.busy && self.record.is_none() && self.waiting.is_empty()
    }
}

impl Job {
    fn is_of(&self, record: &Record) -> bool {
        self.known
            .as_ref()
            .is_some_and(|known| Arc::ptr_eq(known, &record.known))
    }
}

impl What {
    fn handler(&self) -> &'static str {
        match self {
            Self::Opened => "on_connect",
            Self::Message(_) => "on_message",
            Self::Closed(_) | Self::Lost => "on_close",
        }
    }
}

impl InFlight {
    fn new(stats: &'static Slot) -> Self {
        stats.events_in_flight.add(1);
        Self(stats)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.events_in_flight.sub(1);
    }
}

/// What a panic said.
#[derive(Debug, thiserror::Error)]
#[error("panic: {0}")]
pub(crate) struct Panic(String);

/// Runs what an application wrote: a panic there ends nothing else.
pub(crate) async fn guarded<T>(handler: impl Future<Output = T>) -> Result<T, Panic> {
    AssertUnwindSafe(handler).catch_unwind().await.map_err(|payload| {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Panic(text.unwrap_or("of an unknown type").to_owned())
    })
}
