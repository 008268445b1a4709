//! Client queues: the events of a client, one after the other; clients side by side.
//!
//! The links give it their events, and it calls the handler. Every client that this worker child serves has a queue, in a
//! table by its id. A queue that has tasks is worked off: at once, as far as that goes without waiting, then by a task of
//! tokio. A guard of the table is never held over an await, nor over a handler. It does not know how links are kept.

mod handling;
mod last_words;
mod requests;
mod serving;
mod task;

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
use futures_util::{FutureExt, poll};
use meepo_proto::link as wire;
use meepo_proto::link::event::{Body as Event, Subject};
use meepo_proto::{ClientId, GatewayId, RequestNumber, Seq};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::last_words::SayLastWords;
use self::task::{Owner, Rules, Task, TaskKind, begin};
use crate::api::client::life::Life;
use crate::api::client::served::ServedClient;
use crate::api::cluster::Cluster;
use crate::api::error::{HandlerError, Panic};
use crate::api::handler::Handler;
use crate::link::Link;

/// The queues of all clients that this worker child serves.
pub(crate) struct ClientQueues<H> {
    handler: H,
    /// How long a handler may take.
    limit: Duration,
    cluster: Cluster,
    queues: DashMap<ClientId, ClientQueue, RandomState>,
    tasks: TaskTracker,
    /// The child has one thread: a tokio task of its own would bring a handler nothing before it waits for something.
    one_thread: bool,
    /// Cancelled when handlers may begin: all gateways that were known at first have been dialled, so that sends reach them.
    open: CancellationToken,
    /// Whether `open` is cancelled: looked at for each event, and a token takes a lock to say so.
    is_open: AtomicBool,
}

/// The queue of one client.
#[derive(Default)]
struct ClientQueue {
    /// None once the client is forgotten, while one of its tasks still runs.
    served: Option<Arc<ServedClient>>,
    work: Work,
    /// Refusals that the handler was told since the last event, or will be.
    refusals: usize,
}

/// Whether a task of a client runs.
#[derive(Default)]
enum Work {
    /// No task runs, and none waits.
    #[default]
    Idle,
    /// A task runs, and these wait for their turn.
    Busy(VecDeque<(Owner, Task)>),
}

/// Refusals of a client's commands that its handler is told in a row: a handler that causes a refusal whenever it is told
/// of one would never end.
pub(crate) const REFUSALS: usize = 16;

impl<H: Handler> ClientQueues<H> {
    pub(crate) fn new(handler: H, cluster: Cluster) -> Arc<Self> {
        let queues = Arc::new(Self {
            handler,
            limit: cluster.limits().handler_timeout,
            cluster,
            queues: DashMap::default(),
            tasks: TaskTracker::new(),
            one_thread: Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread,
            open: CancellationToken::new(),
            is_open: AtomicBool::new(false),
        });
        // Named, so that it becomes a `Weak<dyn ServedClients>`.
        let served = Arc::downgrade(&queues);
        queues.cluster.set_served(served);
        queues
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
        let delivery = event.delivery;
        match (event.subject, event.body) {
            (Some(Subject::Client(number)), body) => {
                let id = ClientId::new(link.gateway, number);
                return self.take_of_client(id, link, delivery, event.attach, body);
            }
            (Some(Subject::RequestNumber(number)), Some(Event::Request(request))) => {
                return self.request(link, RequestNumber(number), delivery, *request);
            }
            (_, Some(Event::Reply(reply))) => link.answer(reply),
            (_, Some(Event::Pong(_))) => link.pong(),
            (_, Some(Event::Refused(refused))) => self.refused(link, None, refused),
            (_, Some(Event::LastWords(last_words))) => self.last_words(link, last_words),
            _ => unknown(link),
        }
        link.done(delivery.map(|delivery| Seq(delivery.seq)));
    }

    fn take_of_client(
        self: &Arc<Self>,
        id: ClientId,
        link: &Arc<Link>,
        delivery: Option<wire::Delivery>,
        attach: Option<Box<wire::Attach>>,
        body: Option<Event>,
    ) {
        let stats = self.cluster.stats();
        if let Some(attach) = attach {
            let life = match body {
                Some(Event::Opened(_)) => Life::Asked,
                // Also with an event that this worker does not know: others of the client follow.
                _ => Life::Open,
            };
            self.attach(id, link, *attach, life);
        }
        let Some(body) = body else {
            unknown(link);
            return link.done(delivery.map(|delivery| Seq(delivery.seq)));
        };
        let kind = match body {
            Event::Opened(_) => TaskKind::Opened,
            Event::Message(message) => {
                stats.messages_in.add(1);
                stats.bytes_in.add(message.payload.len() as u64);
                TaskKind::Message(message.into())
            }
            Event::Closed(closed) => TaskKind::Closed(closed.into()),
            Event::SendBuffer(wire::SendBuffer { full: true }) => TaskKind::BufferFull,
            Event::SendBuffer(wire::SendBuffer { full: false }) => TaskKind::BufferEmpty,
            other => {
                match other {
                    // The client is attached above, and has no event yet.
                    Event::Attached(_) => {}
                    Event::Detached(_) => self.forget(id, link),
                    Event::SessionChanged(change) => self.session_changed(id, change),
                    Event::PauseChanged(change) => self.pause_changed(id, change.paused),
                    Event::Refused(refused) => self.refused(link, Some(id), refused),
                    _ => unknown(link),
                }
                return link.done(delivery.map(|delivery| Seq(delivery.seq)));
            }
        };
        self.push(id, link, Task::of_event(delivery, kind, stats));
    }

    /// Forgets the clients of a gateway that lives and whose link has ended: the gateway has moved them to other workers.
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
            // If the gateway had given the link up, other workers were told of the clients' ends, or will be.
            let redelivered = !link.surely_held();
            self.push(id, &link, Task::gateway_lost(redelivered, self.cluster.stats()));
        }
    }

    /// Waits until no task runs or waits. Cancel safe.
    pub(crate) async fn idle(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Lets the handler say last words to the clients of a gateway that is about to close them.
    fn last_words(self: &Arc<Self>, link: &Arc<Link>, last_words: wire::LastWords) {
        // The gateway is answered once no task holds this any more.
        let last_words = SayLastWords::new(link.clone(), last_words);
        if !self.handler.says_last_words() {
            return;
        }
        let served = |queue: &ClientQueue| matches!(&queue.served, Some(served) if Arc::ptr_eq(served.link(), link));
        let clients: Vec<_> = self
            .queues
            .iter()
            .filter(|queue| served(queue))
            .map(|queue| *queue.key())
            .collect();
        for id in clients {
            let kind = TaskKind::LastWords(last_words.clone());
            let task = Task::of_no_event(kind, self.cluster.stats());
            self.push(id, link, task);
        }
    }

    fn attach(&self, id: ClientId, link: &Arc<Link>, attach: wire::Attach, life: Life) {
        let served = ServedClient::new(id, self.cluster.clone(), link.clone(), attach, life);
        let stats = self.cluster.stats();
        stats.connections_total.add(1);
        let earlier = {
            let mut queue = self.queues.entry(id).or_default();
            queue.served.replace(served).inspect(|earlier| earlier.forget())
        };
        match earlier {
            Some(earlier) => earlier.end_waits(),
            None => stats.connections.add(1),
        }
    }

    /// Forgets a client, unless it has been attached through another link since.
    fn forget(&self, id: ClientId, link: &Arc<Link>) {
        let through_it = |served: &mut Arc<ServedClient>| Arc::ptr_eq(served.link(), link);
        let forgotten = self
            .queues
            .get_mut(&id)
            .and_then(|mut queue| queue.served.take_if(through_it).inspect(|served| served.forget()));
        if let Some(served) = forgotten {
            served.end_waits();
            self.cluster.stats().connections.sub(1);
        }
        self.queues.remove_if(&id, |_, queue| queue.is_unused());
    }

    fn session_changed(&self, id: ClientId, change: wire::SessionChanged) {
        if let Some(served) = self.served(id) {
            served.copy().session().change(change);
        }
    }

    fn pause_changed(&self, id: ClientId, paused: bool) {
        if let Some(served) = self.served(id) {
            *served.copy().paused() = paused;
        }
    }

    /// The gateway has refused a command, which may be about a client.
    fn refused(self: &Arc<Self>, link: &Arc<Link>, client: Option<ClientId>, refused: wire::Refused) {
        self.cluster.stats().failed_sends.add(1);
        let (command, why, detail) = (&refused.command, refused.why(), &refused.detail);
        let Some(client) = client else {
            tracing::debug!(gateway = %link.gateway, command, ?why, detail, "gateway refused a command");
            return;
        };
        tracing::debug!(%client, command, ?why, detail, "gateway refused a command about a client");
        if command == "session"
            && let Some(served) = self.served(client)
            && served.copy().session().doubt()
        {
            self.tasks.spawn(async move { served.restore_session().await });
        }
        // The application has not sent an `accept`.
        if refused.command != "accept" && self.served(client).is_some() {
            let kind = TaskKind::Refused(refused.into());
            let task = Task::of_no_event(kind, self.cluster.stats());
            self.push(client, link, task);
        }
    }

    fn served(&self, id: ClientId) -> Option<Arc<ServedClient>> {
        self.queues.get(&id)?.served.clone()
    }

    pub(crate) fn has_left_behind(&self, gateway: GatewayId) -> bool {
        !self.left_behind(gateway).is_empty()
    }

    /// The clients that were attached through a link of this gateway that has ended.
    fn left_behind(&self, gateway: GatewayId) -> Vec<(ClientId, Arc<Link>)> {
        let of_gateway = self.queues.iter().filter(|queue| queue.key().gateway == gateway);
        of_gateway
            .filter_map(|queue| Some((*queue.key(), queue.served.as_ref()?.link().clone())))
            .filter(|(_, link)| link.has_ended())
            .collect()
    }

    fn push(self: &Arc<Self>, id: ClientId, link: &Arc<Link>, task: Task) {
        let mut queue = self.queues.entry(id).or_default();
        match task.kind {
            TaskKind::Refused(_) if queue.refusals == REFUSALS => return,
            TaskKind::Refused(_) => queue.refusals += 1,
            _ => queue.refusals = 0,
        }
        let owner = match &queue.served {
            Some(served) if Arc::ptr_eq(served.link(), link) => Owner::Client(served.clone()),
            _ => Owner::Unknown(link.clone()),
        };
        if let Owner::Client(served) = &owner
            && task.may_concern_requests(served)
        {
            // Without the lock: closures of the application may be called.
            drop(queue);
            if self.answers_request(served, &task) {
                return link.done(task.seq);
            }
            queue = self.queues.entry(id).or_default();
        }
        self.queue(id, queue, owner, task);
    }

    fn queue(self: &Arc<Self>, id: ClientId, mut queue: RefMut<'_, ClientId, ClientQueue>, owner: Owner, task: Task) {
        match &mut queue.work {
            Work::Busy(waiting) => return waiting.push_back((owner, task)),
            idle @ Work::Idle => *idle = Work::Busy(VecDeque::new()),
        }
        drop(queue);
        let mut work = Box::pin(self.clone().work_off(id, owner, task));
        let begun = match self.one_thread {
            true => AssertUnwindSafe(work.as_mut()).catch_unwind().now_or_never(),
            false => None,
        };
        match begun {
            Some(Ok(())) => {}
            // As a task of tokio would have: what is not the handler's, such as how its error is shown, may panic too.
            Some(Err(panic)) => {
                tracing::error!(client = %id, panic = %Panic::new(&*panic), "handling an event has failed")
            }
            None => {
                self.tasks.spawn(work);
            }
        }
    }

    /// Works off a queue that was idle. The future is put on the heap each time, so it is small: what is rare is boxed.
    async fn work_off(self: Arc<Self>, id: ClientId, owner: Owner, first: Task) {
        if !self.is_open.load(Ordering::Acquire) {
            self.open.cancelled().await;
        }
        let mut next = Some((owner, first));
        while let Some((owner, task)) = next {
            if !owner.link().is_available() {
                Box::pin(owner.link().available()).await;
            }
            if let Some(client) = begin(owner, &task) {
                let Rules { handler, limit, event } = task.kind.rules(self.limit);
                let (seq, lost) = (task.seq, matches!(task.kind, TaskKind::GatewayLost));
                let handled = {
                    let mut handling = pin!(self.handle(&client, task));
                    match poll!(&mut handling) {
                        Poll::Ready(handled) => handled,
                        // The handler waits: only now is its time limit set up, and it is polled once more with that.
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
                    // A worker gets the event again, and with it the client's events behind it.
                    true => {
                        self.forget(id, client.link());
                        client.link().undone(seq, handed_back);
                    }
                }
            }
            next = self.next(id);
        }
    }

    /// The client's next task. With none, its queue is idle.
    fn next(&self, id: ClientId) -> Option<(Owner, Task)> {
        let is_unused = {
            let mut queue = self.queues.get_mut(&id)?;
            if let Work::Busy(waiting) = &mut queue.work
                && let Some(next) = waiting.pop_front()
            {
                return Some(next);
            }
            // The memory of a burst goes: an idle client has none.
            queue.work = Work::Idle;
            queue.is_unused()
        };
        if is_unused {
            self.queues.remove_if(&id, |_, queue| queue.is_unused());
        }
        None
    }
}

fn unknown(link: &Link) {
    tracing::debug!(gateway = %link.gateway, "event is not known to this worker");
}

impl ClientQueue {
    fn is_unused(&self) -> bool {
        self.served.is_none() && matches!(self.work, Work::Idle)
    }
}
