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
use meepo_proto::link::event::Body as Event;
use meepo_proto::{ClientId, GatewayId};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::client::{CurrentEvent, Known};
use crate::error::Panic;
use crate::farewell::{Parting, says_nothing};
use crate::link::Link;
use crate::timers::{Run, TIMER};
use crate::{Client, CloseReason, Cluster, Handler, HandlerError, Message};

mod handling;
mod http;
mod serving;

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
    /// Refusals that the handler was told since the last event, or will be.
    refusals: usize,
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
    event: CurrentEvent,
    what: What,
    _in_flight: InFlight,
}

enum What {
    Opened,
    Message(Message),
    Closed(CloseReason),
    /// The send buffer is full, or empty again.
    Buffered(bool),
    /// The gateway has refused a command. It is no event: there is nothing to be done.
    Refused(HandlerError),
    Farewell(Arc<Parting>),
    /// The gateway died. The only job that is done after its link has ended.
    Lost,
    Timer(Run),
}

/// Refusals of a client's commands that its handler is told in a row: one that it causes whenever it hears of one would
/// never end.
pub(crate) const REFUSALS: usize = 16;

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
        // Named, so that it becomes a `Weak<dyn Serving>`.
        let serving = Arc::downgrade(&lanes);
        lanes.cluster.serves(serving);
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
            Some(Event::Buffered(wire::Buffered { full })) => What::Buffered(full),
            Some(Event::Request(request)) => {
                return self.request(link, event.client, event.seq, event.redelivered, *request);
            }
            other => {
                match other {
                    // It is recorded above, and says nothing yet.
                    Some(Event::Attached(_)) => {}
                    Some(Event::Detached(_)) => self.forget(id, link),
                    Some(Event::SessionChanged(change)) => self.session_changed(id, change),
                    Some(Event::ReadingChanged(change)) => self.reading_changed(id, change.paused),
                    Some(Event::Reply(reply)) => link.answer(reply),
                    Some(Event::Refused(refused)) => self.refused(link, refused),
                    Some(Event::Leaving(leaving)) => self.leaving(link, leaving),
                    _ => tracing::debug!(gateway = %link.gateway, "event is not known to this worker"),
                }
                return link.done(event.seq);
            }
        };
        let current = CurrentEvent {
            number: event.number,
            redelivered: event.redelivered,
        };
        self.push(id, Job::new(link, event.seq, current, what, stats));
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
            // If the gateway had given the link up, others were told of its end, or will be.
            let event = CurrentEvent {
                redelivered: !link.surely_held(),
                ..CurrentEvent::default()
            };
            self.push(id, Job::new(&link, 0, event, What::Lost, self.cluster.stats()));
        }
    }

    /// Waits until no event is being handled or waits for it. Cancel safe.
    pub(crate) async fn idle(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Lets the handler say a last word to the clients of a gateway that is about to close them.
    fn leaving(self: &Arc<Self>, link: &Arc<Link>, leaving: wire::Leaving) {
        let parting = Parting::new(link.clone(), leaving);
        if says_nothing(|client| self.handler.on_farewell(client, parting.why)) {
            return;
        }
        let served = |lane: &Lane| matches!(&lane.record, Some(record) if Arc::ptr_eq(record.known.link(), link));
        let clients: Vec<_> = self
            .lanes
            .iter()
            .filter(|lane| served(lane))
            .map(|lane| *lane.key())
            .collect();
        for id in clients {
            let what = What::Farewell(parting.clone());
            self.push(
                id,
                Job::new(link, 0, CurrentEvent::default(), what, self.cluster.stats()),
            );
        }
    }

    fn attach(&self, id: ClientId, link: &Arc<Link>, attach: wire::Attach, accepted: bool) {
        let record = Record {
            known: Known::new(id, self.cluster.clone(), link.clone(), attach),
            accepted,
        };
        let stats = self.cluster.stats();
        stats.connections_total.add(1);
        let earlier = self.lanes.entry(id).or_default().record.replace(record);
        match earlier {
            Some(earlier) => earlier.known.end(),
            None => stats.connections.add(1),
        }
    }

    /// Forgets a client, unless it has been attached through another link since.
    fn forget(&self, id: ClientId, link: &Arc<Link>) {
        let through_it = |record: &mut Record| Arc::ptr_eq(record.known.link(), link);
        let forgotten = self
            .lanes
            .get_mut(&id)
            .and_then(|mut lane| lane.record.take_if(through_it));
        if let Some(record) = forgotten {
            record.known.end();
            self.cluster.stats().connections.sub(1);
        }
        self.lanes.remove_if(&id, |_, lane| lane.is_over());
    }

    fn session_changed(&self, id: ClientId, change: wire::SessionChanged) {
        if let Some(record) = self.record(id) {
            record.known.session().change(change);
        }
    }

    fn reading_changed(&self, id: ClientId, paused: bool) {
        if let Some(record) = self.record(id) {
            *record.known.paused() = paused;
        }
    }

    fn refused(self: &Arc<Self>, link: &Arc<Link>, refused: wire::Refused) {
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
        // An `accept` is no doing of the application.
        if refused.command != "accept" && self.record(client).is_some() {
            let what = What::Refused(refused.into());
            self.push(
                client,
                Job::new(link, 0, CurrentEvent::default(), what, self.cluster.stats()),
            );
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
        match job.what {
            What::Refused(_) if lane.refusals == REFUSALS => return,
            What::Refused(_) => lane.refusals += 1,
            _ => lane.refusals = 0,
        }
        let known = lane.record.as_ref().map(|record| &record.known);
        job.known = known.filter(|known| Arc::ptr_eq(known.link(), &job.link)).cloned();
        if job.may_concern_requests() {
            // Without the lock: closures of the application may be called.
            drop(lane);
            if self.answers_request(&job) {
                return job.link.done(job.seq);
            }
            lane = self.lanes.entry(id).or_default();
        }
        self.queue(id, &mut lane, job);
    }

    fn queue(self: &Arc<Self>, id: ClientId, lane: &mut Lane, job: Job) {
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
            let (link, seq) = (job.link.clone(), job.seq);
            let Some(record) = self.record(id).filter(|record| job.is_of(record)) else {
                // Of a client that was rejected, has gone already, or comes again after a handler was cut off.
                link.done(seq);
                continue;
            };
            let client = Client::new(record.known, job.event);
            if let What::Refused(error) = job.what {
                self.tell(&client, &error).await;
                continue;
            }
            let handler = job.what.handler();
            let (limit, is_event) = match &job.what {
                // It limits itself: it goes on after a run that was cut off.
                What::Timer(_) => (Duration::MAX, false),
                What::Farewell(parting) => (parting.left().min(self.limit), false),
                _ => (self.limit, true),
            };
            let handled = timeout(limit, self.handle(&client, record.accepted, job)).await;
            let cut_off = handled.is_err();
            if let Err(error) = handled.unwrap_or(Err(HandlerError::CutOff { handler, limit })) {
                self.failed(id, handler, &error);
                self.tell(&client, &error).await;
            }
            let handed_back = client.is_handed_back() && !lost;
            match is_event && (cut_off || handed_back) {
                false => link.done(seq),
                // A worker gets its event again, and with it those behind it.
                true => {
                    self.forget(id, &link);
                    link.undone(seq, handed_back);
                }
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
}

impl Lane {
    fn is_over(&self) -> bool {
        !self.busy && self.record.is_none() && self.waiting.is_empty()
    }
}

impl Job {
    fn new(link: &Arc<Link>, seq: u64, event: CurrentEvent, what: What, stats: &'static Slot) -> Self {
        Self {
            link: link.clone(),
            seq,
            known: None,
            event,
            what,
            _in_flight: InFlight::new(stats),
        }
    }

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
            Self::Timer(_) => TIMER,
            Self::Buffered(true) => "on_buffer_full",
            Self::Buffered(false) => "on_buffer_empty",
            Self::Refused(_) => "on_error",
            Self::Farewell(_) => "on_farewell",
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

/// Runs what an application wrote: a panic there ends nothing else.
pub(crate) async fn guarded<T>(handler: impl Future<Output = T>) -> Result<T, Panic> {
    let guarded = AssertUnwindSafe(handler).catch_unwind().await;
    guarded.map_err(|payload| Panic::new(&*payload))
}
