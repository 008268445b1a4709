//! One client: as a handler has it, and by its id wherever it is connected.
//!
//! Handlers and timers call it. Commands go straight to the link to the client's gateway; it does not know the runtime.

pub(crate) mod life;
pub(crate) mod open_requests;
pub(crate) mod requests;
pub(crate) mod served;
pub(crate) mod target;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use meepo_proto::EventNumber;

use self::served::ServedClient;
use self::target::ClientTarget;
use crate::api::event::hello::Hello;
use crate::link::Link;

/// A client that this worker child serves.
///
/// It is cheap to clone, and can be kept for longer than a handler runs: in a timer, for example. What is sent to a
/// client that has gone is counted as a failed send, and reaches nobody else: ids are never used again.
///
/// What can be done with a client anywhere, such as [`send`](ClientTarget::send), [`join`](ClientTarget::join) and
/// [`set`](ClientTarget::set), are the methods of [`ClientTarget`], which a `Client` derefs to.
///
/// It stands for the client as this worker serves it. When the link to its gateway ends, another worker serves the client
/// from then on, and is given again what was not finished here. So what is still done through this `Client` is refused
/// and counted as a failed send, lest the client gets an answer from both. What is to reach it in any case goes through
/// [`Cluster::client`](crate::Cluster::client) with its id.
///
/// # The session
///
/// A small map of text that lives with the connection on its gateway. [`get`](Self::get) reads this worker's copy and
/// does not wait; [`set`](ClientTarget::set) and [`remove`](ClientTarget::remove) change the copy, and are merged into the
/// session at the gateway key by key, so two workers that change different keys do not disturb each other. A change that the gateway
/// refuses, because the session would become too big, is in the copy until the gateway has said so. If two change the
/// same key at once, the gateway's later one stays, and the other worker's copy may differ from it until the next
/// change; [`Cluster::session`](crate::Cluster::session) asks the gateway itself. When a client moves to another worker, that one starts with
/// the session as it then is, and a [`Client`] that was kept here is no longer brought up to date.
#[derive(Clone)]
pub struct Client {
    target: ClientTarget<'static>,
    event: CurrentEvent,
}

/// The event that a handler was called for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CurrentEvent {
    /// None for a task that is no event.
    pub(crate) number: Option<EventNumber>,
    pub(crate) redelivered: bool,
}

impl Client {
    pub(crate) fn new(served: Arc<ServedClient>, event: CurrentEvent) -> Self {
        let target = ClientTarget::of_served(served);
        Self { target, event }
    }

    pub(crate) fn served(&self) -> &Arc<ServedClient> {
        self.target.served().expect("it is made with a served client")
    }

    /// The link that the client came through.
    pub(crate) fn link(&self) -> &Arc<Link> {
        self.served().link()
    }

    /// Leaves the event that is being handled, and the events behind it, to another worker. Only for a worker that drains:
    /// of any other the gateway thinks that the handler was cut off.
    pub(crate) fn hand_back(&self) {
        self.served().hand_back();
    }

    pub(crate) fn is_handed_back(&self) -> bool {
        self.served().life().is_handed_back()
    }

    /// How the client came.
    pub fn hello(&self) -> &Hello {
        self.served().hello()
    }

    /// Whether the event that is being handled was given to a worker before, whose link ended before the event was done.
    /// A handler for which it matters can look at whether it has been done.
    pub fn redelivered(&self) -> bool {
        self.event.redelivered
    }

    /// The number of the event that is being handled: which of the client's events it is, counted from 1 by its gateway,
    /// with `on_connect` and `on_close`. It stays the same when the event is delivered again, to whichever worker; with the
    /// client's [id](ClientTarget::id) it names an event for good. There is none in a timer, in `on_last_words`, and for an
    /// `on_close` because the gateway has died.
    pub fn event_number(&self) -> Option<EventNumber> {
        self.event.number
    }

    /// Whether the client is paused, as far as this worker knows: by itself, by workers before it, or by another worker
    /// that the gateway has heard since.
    pub fn is_paused(&self) -> bool {
        *self.served().copy().paused()
    }

    /// The value of a key of the client's session.
    pub fn get(&self, key: &str) -> Option<String> {
        self.served().copy().session().entries().get(key).cloned()
    }

    /// The client's whole session.
    pub fn session(&self) -> BTreeMap<String, String> {
        self.served().copy().session().entries().clone()
    }
}

/// What can be done with a client anywhere can be done with one that is served here: through the link that it came
/// through, or not at all.
impl Deref for Client {
    type Target = ClientTarget<'static>;

    fn deref(&self) -> &ClientTarget<'static> {
        &self.target
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
