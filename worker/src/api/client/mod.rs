//! A client whose event is being handled.

pub(crate) mod requests;
pub(crate) mod target;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use meepo_proto::ClientId;
use meepo_proto::link as wire;
use tokio_util::sync::CancellationToken;

use crate::api::client::requests::Requests;
use crate::api::timers::Count;
use crate::link::Link;
use crate::{ClientTarget, Cluster, Delivery, Hello, Message};

/// A client that this worker child serves.
///
/// It is cheap to clone, and can be kept for longer than a handler runs: in a timer, for example. What is sent to a
/// client that has gone is counted as a failed send, and reaches nobody else: ids are never used again.
///
/// It stands for the client as this worker serves it. When the link to its gateway ends, another worker serves the client
/// from then on, and is given again what was not finished here. So what is still done through this `Client` is refused
/// and counted as a failed send, lest the client gets an answer from both. What is to reach it in any case goes through
/// [`Cluster::client`] with its id.
///
/// # The session
///
/// A small map of text that lives with the connection on its gateway. [`get`](Self::get) reads this worker's copy and
/// does not wait; [`set`](Self::set) and [`remove`](Self::remove) change the copy, and are merged into the session at the
/// gateway key by key, so two workers that change different keys do not disturb each other. A change that the gateway
/// refuses, because the session would become too big, is in the copy until the gateway has said so. If two change the
/// same key at once, the gateway's later one stays, and the other worker's copy may differ from it until the next
/// change; [`Cluster::session`] asks the gateway itself. When a client moves to another worker, that one starts with
/// the session as it then is, and a [`Client`] that was kept here is no longer brought up to date.
#[derive(Clone)]
pub struct Client {
    known: Arc<Known>,
    event: CurrentEvent,
}

/// The event that a handler was called for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CurrentEvent {
    pub(crate) number: u64,
    pub(crate) redelivered: bool,
}

/// What a worker child knows of a client that it serves.
pub(crate) struct Known {
    id: ClientId,
    hello: Hello,
    cluster: Cluster,
    /// The link that it came through. What a handler sends once that has ended is refused.
    link: Arc<Link>,
    session: Mutex<SessionCopy>,
    /// It came in, here or at another worker: it gets `on_close`.
    accepted: AtomicBool,
    /// This worker serves it.
    attached: AtomicBool,
    over: Mutex<Over>,
    closed: AtomicBool,
    /// A handler leaves the event that it was called for, and those behind it, to another worker.
    handed_back: AtomicBool,
    timers: Count,
    requests: Requests,
    /// It is not read.
    paused: Mutex<bool>,
}

/// Whether this worker no longer serves a client, or it has closed: no timer runs and no request waits any more.
#[derive(Default)]
struct Over {
    over: bool,
    /// Who waits for that. A client that nobody waits for has none.
    told: Option<CancellationToken>,
}

/// A worker child's copy of a client's session.
#[derive(Default)]
pub(crate) struct SessionCopy {
    session: BTreeMap<String, String>,
    /// How often it has changed.
    changes: u64,
    /// The gateway has refused a change that is in the copy, and is being asked what it has.
    in_doubt: bool,
}

impl Known {
    pub(crate) fn new(
        id: ClientId,
        cluster: Cluster,
        link: Arc<Link>,
        attach: wire::Attach,
        accepted: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            hello: attach.handshake.unwrap_or_default().into(),
            cluster,
            over: Mutex::default(),
            link,
            session: Mutex::new(SessionCopy {
                session: attach.session,
                ..SessionCopy::default()
            }),
            accepted: AtomicBool::new(accepted),
            attached: AtomicBool::new(true),
            closed: AtomicBool::new(false),
            handed_back: AtomicBool::new(false),
            timers: Count::default(),
            requests: Requests::default(),
            paused: Mutex::new(attach.paused),
        })
    }

    pub(crate) fn id(&self) -> ClientId {
        self.id
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    pub(crate) fn session(&self) -> MutexGuard<'_, SessionCopy> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Is cancelled once this worker no longer serves it, or it has closed.
    pub(crate) fn over(&self) -> CancellationToken {
        let mut over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        let told = over.told.get_or_insert_with(|| self.link.until_ended()).clone();
        if over.over {
            told.cancel();
        }
        told
    }

    /// It has been let in.
    pub(crate) fn accept(&self) {
        self.accepted.store(true, Ordering::Release);
    }

    pub(crate) fn is_accepted(&self) -> bool {
        self.accepted.load(Ordering::Acquire)
    }

    /// This worker no longer serves it. The caller holds the client's lane, and [ends](Self::end) it without.
    pub(crate) fn detach(&self) {
        self.attached.store(false, Ordering::Release);
    }

    pub(crate) fn is_attached(&self) -> bool {
        self.attached.load(Ordering::Acquire)
    }

    /// No timer is to run and no request to wait any more.
    pub(crate) fn end(&self) {
        let told = {
            let mut over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
            over.over = true;
            over.told.clone()
        };
        // Without the lock: whoever waits is woken.
        if let Some(told) = told {
            told.cancel();
        }
    }

    pub(crate) fn timers(&self) -> &Count {
        &self.timers
    }

    pub(crate) fn requests(&self) -> &Requests {
        &self.requests
    }

    /// The client has gone.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.end();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(crate) fn paused(&self) -> MutexGuard<'_, bool> {
        self.paused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The copy is no longer what the gateway has. True if nobody looks after it yet: then the caller is to
    /// [bring it up to date](Self::read_again).
    pub(crate) fn doubt(&self) -> bool {
        !std::mem::replace(&mut self.session().in_doubt, true)
    }

    /// Asks the gateway for the session, until the copy has not changed meanwhile. Once the link has ended, the client
    /// comes with a new copy, if it does.
    pub(crate) async fn read_again(&self) {
        while !self.link.has_ended() {
            let before = self.session().changes;
            let answer = self.cluster.session(self.id).await;
            let mut copy = self.session();
            match answer.value {
                Some(session) if copy.changes == before => {
                    copy.session = session;
                    copy.in_doubt = false;
                    return;
                }
                None if answer.missing.is_empty() => return,
                _ => {}
            }
        }
    }
}

impl SessionCopy {
    pub(crate) fn change(&mut self, change: wire::SessionChanged) {
        if change.clear {
            self.session.clear();
        }
        for key in &change.remove {
            self.session.remove(key);
        }
        self.session.extend(change.set);
        self.changes += 1;
    }
}

impl Client {
    pub(crate) fn new(known: Arc<Known>, event: CurrentEvent) -> Self {
        Self { known, event }
    }

    /// The link that it came through.
    pub(crate) fn link(&self) -> &Arc<Link> {
        self.known.link()
    }

    /// Leaves the event that is being handled, and those behind it, to another worker. Only for a worker that drains:
    /// of another one the gateway thinks that the handler was cut off.
    pub(crate) fn hand_back(&self) {
        self.known.handed_back.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_handed_back(&self) -> bool {
        self.known.handed_back.load(Ordering::Relaxed)
    }

    /// Its id, which names it everywhere in the cluster, and never names another client.
    pub fn id(&self) -> ClientId {
        self.known.id
    }

    /// How it came.
    pub fn hello(&self) -> &Hello {
        &self.known.hello
    }

    /// All others.
    pub fn cluster(&self) -> &Cluster {
        &self.known.cluster
    }

    /// Whether the event that is being handled was given to a worker before, whose link ended before it was done with
    /// it. A handler for which it matters can look at whether it has been done.
    pub fn redelivered(&self) -> bool {
        self.event.redelivered
    }

    pub(crate) fn known(&self) -> &Arc<Known> {
        &self.known
    }

    /// The number of the event that is being handled: which of the client's events it is, counted from 1 by its gateway,
    /// with `on_connect` and `on_close`. It stays the same when the event is delivered again, to whichever worker; with the
    /// client's [id](Self::id) it names an event for good. It is 0 in a timer, and for an `on_close` because the gateway has
    /// died.
    pub fn event_number(&self) -> u64 {
        self.event.number
    }

    pub(crate) fn target(&self) -> ClientTarget<'_> {
        self.cluster().client(self.id()).known(&self.known)
    }

    /// Sends the client a message.
    pub fn send(&self, message: impl Into<Message>) {
        self.target().send(message);
    }

    /// Sends the client a message, and waits until it is known what became of it; as
    /// [`ClientTarget::send_and_confirm`](crate::ClientTarget::send_and_confirm).
    pub async fn send_and_confirm(&self, message: impl Into<Message>) -> Delivery {
        self.target().send_and_confirm(message).await
    }

    /// Closes the client after all that it was sent before; as [`ClientTarget::close`](crate::ClientTarget::close).
    pub fn close(&self, code: u16, reason: impl Into<String>) {
        self.target().close(code, reason);
    }

    /// Cuts the client off: what it was sent and has not got yet is lost, and it is told nothing.
    pub fn destroy(&self) {
        self.target().destroy();
    }

    /// Has the gateway read nothing more from the client; as [`ClientTarget::pause`](crate::ClientTarget::pause).
    pub fn pause(&self) {
        self.target().pause();
    }

    /// Has the gateway read from the client again.
    pub fn resume(&self) {
        self.target().resume();
    }

    /// Whether the client is paused, as far as this worker knows: by itself, by workers before it, or by another one that
    /// the gateway has heard since.
    pub fn is_paused(&self) -> bool {
        *self.known.paused()
    }

    /// Makes the client a member of a group. It leaves by itself when it goes.
    pub fn join(&self, group: impl Into<String>) {
        self.target().join(group);
    }

    /// Takes the client out of a group.
    pub fn leave(&self, group: impl Into<String>) {
        self.target().leave(group);
    }

    /// Binds the client to the uid of a user, in place of an earlier one. A user can have several clients.
    pub fn bind(&self, uid: impl Into<String>) {
        self.target().bind(uid);
    }

    /// Binds the client to no uid any more. It does so by itself when it goes.
    pub fn unbind(&self) {
        self.target().unbind();
    }

    /// The value of a key of its session.
    pub fn get(&self, key: &str) -> Option<String> {
        self.known.session().session.get(key).cloned()
    }

    /// Its whole session.
    pub fn session(&self) -> BTreeMap<String, String> {
        self.known.session().session.clone()
    }

    /// Sets a key of its session; other keys stay as they are.
    pub fn set(&self, key: impl Into<String>, value: impl Into<String>) {
        self.target().set(key, value);
    }

    /// Sets several keys of its session at once: nobody sees some of them without the others.
    pub fn update<K: Into<String>, V: Into<String>>(&self, set: impl IntoIterator<Item = (K, V)>) {
        self.target().update(set);
    }

    /// Removes a key of its session.
    pub fn remove(&self, key: impl Into<String>) {
        self.target().remove(key);
    }

    /// Puts a new session in the place of its session.
    pub fn replace_session<K: Into<String>, V: Into<String>>(&self, session: impl IntoIterator<Item = (K, V)>) {
        self.target().replace_session(session);
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("id", &self.id())
            .field("hello", self.hello())
            .field("event", &self.event)
            .finish_non_exhaustive()
    }
}
