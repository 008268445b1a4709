//! Lanes: the events of a client, one after the other; clients side by side.
//!
//! Every client that this worker child serves has a lane, in a table by its id. An event is put in its client's lane,
//! and a lane that has events is worked off: at once, as far as that goes without waiting, then by a task of its own. A
//! guard of the table is never held over an await, nor over a handler.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::one::RefMut;
use foldhash::fast::RandomState;
use futures_util::{FutureExt, TryFutureExt, poll};
use meepo_proto::link as wire;
use meepo_proto::link::event::Body as Event;
use meepo_proto::{ClientId, GatewayId};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::task::{Job, Rules, What, Whose, begin};
use crate::api::client::{CurrentEvent, Known};
use crate::api::error::Panic;
use crate::api::event::last_words::{Parting, says_nothing};
use crate::link::Link;
use crate::{Cluster, Handler, HandlerError};

mod handling;
mod requests;
mod serving;
mod task;

/// The lanes of all clients that this worker child serves.
pub(crate) struct Lanes<H> {
    handler: H,
    /// How long a handler may take.
    limit: Duration,
    cluster: Cluster,
    lanes: DashMap<ClientId, Lane, RandomState>,
    tasks: TaskTracker,
    /// There is one thread: a task of its own would bring a handler nothing before it waits for something.
    one_thread: bool,
    /// Handlers may begin: all gateways that were known at first have been dialled, so that sends reach them.
    open: CancellationToken,
    /// Whether `open` is cancelled: asked for each event, and a token takes a lock to say so.
    is_open: AtomicBool,
}

#[derive(Default)]
struct Lane {
    /// None once the client has been forgotten, while the lane still has events or one is being handled.
    known: Option<Arc<Known>>,
    waiting: VecDeque<(Whose, Job)>,
    /// The lane is being worked off.
    busy: bool,
    /// Refusals that the handler was told since the last event, or will be.
    refusals: usize,
}

/// Refusals of a client's commands that its handler is told in a row: one that it causes whenever it hears of one would
/// never end.
pub(crate) const REFUSALS: usize = 16;

impl<H: Handler> Lanes<H> {
    pub(crate) fn new(handler: H, limit: Duration, cluster: Cluster) -> Arc<Self> {
        let lanes = Arc::new(Self {
            handler,
            limit,
            cluster,
            lanes: DashMap::default(),
            tasks: TaskTracker::new(),
            one_thread: Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread,
            open: CancellationToken::new(),
            is_open: AtomicBool::new(false),
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
        self.is_open.store(true, Ordering::Release);
        self.open.cancel();
    }

    /// Takes an event from a link. It never waits, so that replies to queries pass handlers that wait for them.
    pub(crate) fn take(self: &Arc<Self>, link: &Arc<Link>, event: wire::Event) {
        let stats = self.cluster.stats();
        let id = ClientId::new(link.gateway, event.client);
        if let Some(attach) = event.attach {
            let opened = matches!(event.body, Some(Event::Opened(_)));
            self.attach(id, link, *attach, !opened);
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
        self.push(id, link, Job::new(event.seq, current, what, stats));
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
            self.push(id, &link, Job::new(0, event, What::Lost, self.cluster.stats()));
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
        let served = |lane: &Lane| matches!(&lane.known, Some(known) if Arc::ptr_eq(known.link(), link));
        let clients: Vec<_> = self
            .lanes
            .iter()
            .filter(|lane| served(lane))
            .map(|lane| *lane.key())
            .collect();
        for id in clients {
            let what = What::Farewell(parting.clone());
            let job = Job::new(0, CurrentEvent::default(), what, self.cluster.stats());
            self.push(id, link, job);
        }
    }

    fn attach(&self, id: ClientId, link: &Arc<Link>, attach: wire::Attach, accepted: bool) {
        let known = Known::new(id, self.cluster.clone(), link.clone(), attach, accepted);
        let stats = self.cluster.stats();
        stats.connections_total.add(1);
        let earlier = {
            let mut lane = self.lanes.entry(id).or_default();
            lane.known.replace(known).inspect(|earlier| earlier.detach())
        };
        match earlier {
            Some(earlier) => earlier.end(),
            None => stats.connections.add(1),
        }
    }

    /// Forgets a client, unless it has been attached through another link since.
    fn forget(&self, id: ClientId, link: &Arc<Link>) {
        let through_it = |known: &mut Arc<Known>| Arc::ptr_eq(known.link(), link);
        let forgotten = self
            .lanes
            .get_mut(&id)
            .and_then(|mut lane| lane.known.take_if(through_it).inspect(|known| known.detach()));
        if let Some(known) = forgotten {
            known.end();
            self.cluster.stats().connections.sub(1);
        }
        self.lanes.remove_if(&id, |_, lane| lane.is_over());
    }

    fn session_changed(&self, id: ClientId, change: wire::SessionChanged) {
        if let Some(known) = self.known(id) {
            known.session().change(change);
        }
    }

    fn reading_changed(&self, id: ClientId, paused: bool) {
        if let Some(known) = self.known(id) {
            *known.paused() = paused;
        }
    }

    fn refused(self: &Arc<Self>, link: &Arc<Link>, refused: wire::Refused) {
        let client = ClientId::new(link.gateway, refused.client);
        self.cluster.stats().failed_sends.add(1);
        let (command, why, detail) = (&refused.command, refused.why(), &refused.detail);
        tracing::debug!(%client, command, ?why, detail, "gateway refused a command");
        if command == "session"
            && let Some(known) = self.known(client)
            && known.doubt()
        {
            self.tasks.spawn(async move { known.read_again().await });
        }
        // An `accept` is no doing of the application.
        if refused.command != "accept" && self.known(client).is_some() {
            let what = What::Refused(refused.into());
            let job = Job::new(0, CurrentEvent::default(), what, self.cluster.stats());
            self.push(client, link, job);
        }
    }

    fn known(&self, id: ClientId) -> Option<Arc<Known>> {
        self.lanes.get(&id)?.known.clone()
    }

    pub(crate) fn has_left_behind(&self, gateway: GatewayId) -> bool {
        !self.left_behind(gateway).is_empty()
    }

    /// The clients that were attached through a link of this gateway that has ended.
    fn left_behind(&self, gateway: GatewayId) -> Vec<(ClientId, Arc<Link>)> {
        let of_gateway = self.lanes.iter().filter(|lane| lane.key().gateway == gateway);
        of_gateway
            .filter_map(|lane| Some((*lane.key(), lane.known.as_ref()?.link().clone())))
            .filter(|(_, link)| link.has_ended())
            .collect()
    }

    fn push(self: &Arc<Self>, id: ClientId, link: &Arc<Link>, job: Job) {
        let mut lane = self.lanes.entry(id).or_default();
        match job.what {
            What::Refused(_) if lane.refusals == REFUSALS => return,
            What::Refused(_) => lane.refusals += 1,
            _ => lane.refusals = 0,
        }
        let whose = match &lane.known {
            Some(known) if Arc::ptr_eq(known.link(), link) => Whose::Client(known.clone()),
            _ => Whose::Nobody(link.clone()),
        };
        if let Whose::Client(known) = &whose
            && job.may_concern_requests(known)
        {
            // Without the lock: closures of the application may be called.
            drop(lane);
            if self.answers_request(known, &job) {
                return link.done(job.seq);
            }
            lane = self.lanes.entry(id).or_default();
        }
        self.queue(id, lane, whose, job);
    }

    fn queue(self: &Arc<Self>, id: ClientId, mut lane: RefMut<'_, ClientId, Lane>, whose: Whose, job: Job) {
        if std::mem::replace(&mut lane.busy, true) {
            lane.waiting.push_back((whose, job));
            return;
        }
        drop(lane);
        let mut work = Box::pin(self.clone().work_off(id, whose, job));
        let begun = match self.one_thread {
            true => AssertUnwindSafe(work.as_mut()).catch_unwind().now_or_never(),
            false => None,
        };
        match begun {
            Some(Ok(())) => {}
            // As a task would have: what is not the handler's, such as how its error is shown, may panic too.
            Some(Err(panic)) => {
                tracing::error!(client = %id, panic = %Panic::new(&*panic), "handling an event has failed")
            }
            None => {
                self.tasks.spawn(work);
            }
        }
    }

    /// It is put on the heap for each event that finds its lane idle, so it is small: what is rare has a place of its own.
    async fn work_off(self: Arc<Self>, id: ClientId, whose: Whose, first: Job) {
        if !self.is_open.load(Ordering::Acquire) {
            self.open.cancelled().await;
        }
        let mut next = Some((whose, first));
        while let Some((whose, job)) = next {
            if !whose.link().is_available() {
                Box::pin(whose.link().available()).await;
            }
            if let Some(client) = begin(whose, &job) {
                let Rules { handler, limit, event } = job.what.rules(self.limit);
                let (seq, lost) = (job.seq, matches!(job.what, What::Lost));
                let handled = {
                    let mut handling = pin!(self.handle(&client, job));
                    match poll!(&mut handling) {
                        Poll::Ready(handled) => handled,
                        // It waits: only now is its time limit set up, and it is polled once more with that.
                        Poll::Pending => match timeout(limit, handling).await {
                            Ok(handled) => handled,
                            Err(_) => Err(HandlerError::CutOff { handler, limit }),
                        },
                    }
                };
                let cut_off = matches!(handled, Err(HandlerError::CutOff { .. }));
                if let Err(error) = handled {
                    self.failed(id, handler, &error);
                    Box::pin(self.tell(&client, &error)).await;
                }
                let handed_back = client.is_handed_back() && !lost;
                match event && (cut_off || handed_back) {
                    false => client.link().done(seq),
                    // A worker gets its event again, and with it those behind it.
                    true => {
                        self.forget(id, client.link());
                        client.link().undone(seq, handed_back);
                    }
                }
            }
            next = self.next(id);
        }
    }

    fn next(&self, id: ClientId) -> Option<(Whose, Job)> {
        let is_over = {
            let mut lane = self.lanes.get_mut(&id)?;
            if let Some(next) = lane.waiting.pop_front() {
                return Some(next);
            }
            lane.busy = false;
            // A burst leaves nothing behind at a client that is idle.
            lane.waiting = VecDeque::new();
            lane.is_over()
        };
        if is_over {
            self.lanes.remove_if(&id, |_, lane| lane.is_over());
        }
        None
    }
}

impl Lane {
    fn is_over(&self) -> bool {
        !self.busy && self.known.is_none() && self.waiting.is_empty()
    }
}

/// Runs what an application wrote: a panic there ends nothing else.
pub(crate) fn guarded<T>(handler: impl Future<Output = T>) -> impl Future<Output = Result<T, Panic>> {
    // No async function: that would keep the handler's future twice.
    AssertUnwindSafe(handler)
        .catch_unwind()
        .map_err(|payload| Panic::new(&*payload))
}
