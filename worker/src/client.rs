//! A client whose event is being handled.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use meepo_proto::ClientId;
use meepo_proto::link as wire;

use crate::{Cluster, Hello, Message};

/// A client that this worker child serves.
///
/// It is cheap to clone, and can be kept for longer than a handler runs: in a timer, for example. What is sent to a
/// client that has gone is counted as a failed send, and reaches nobody else: ids are never used again.
///
/// # The session
///
/// A small map of text that lives with the connection on its gateway. [`get`](Self::get) reads this worker's copy and
/// does not wait; [`set`](Self::set) and [`remove`](Self::remove) change the copy, and are merged into the session at the
/// gateway key by key, so two workers that change different keys do not disturb each other. If two change the same key
/// at once, the gateway's later one stays, and the other worker's copy may differ from it until the next change;
/// [`Cluster::session`] asks the gateway itself. When a client moves to another worker, that one starts with the session
/// as it then is, and a [`Client`] that was kept here is no longer brought up to date.
#[derive(Clone)]
pub struct Client {
    known: Arc<Known>,
    redelivered: bool,
}

/// What a worker child knows of a client that it serves.
pub(crate) struct Known {
    id: ClientId,
    hello: Hello,
    cluster: Cluster,
    session: Mutex<BTreeMap<String, String>>,
}

impl Known {
    pub(crate) fn new(id: ClientId, cluster: Cluster, attach: wire::Attach) -> Arc<Self> {
        Arc::new(Self {
            id,
            hello: attach.handshake.unwrap_or_default().into(),
            cluster,
            session: Mutex::new(attach.session),
        })
    }

    /// Another worker has changed the session.
    pub(crate) fn session_changed(&self, change: wire::SessionChanged) {
        let mut session = self.session();
        session.extend(change.set);
        for key in &change.remove {
            session.remove(key);
        }
    }

    fn session(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    pub(crate) fn new(known: Arc<Known>, redelivered: bool) -> Self {
        Self { known, redelivered }
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
        self.redelivered
    }

    /// Sends the client a message.
    pub fn send(&self, message: impl Into<Message>) {
        self.cluster().client(self.id()).send(message);
    }

    /// Closes the client after all that it was sent before; as [`ClientTarget::close`](crate::ClientTarget::close).
    pub fn close(&self, code: u16, reason: impl Into<String>) {
        self.cluster().client(self.id()).close(code, reason);
    }

    /// Makes the client a member of a group. It leaves by itself when it goes.
    pub fn join(&self, group: impl Into<String>) {
        self.cluster().client(self.id()).join(group);
    }

    /// Takes the client out of a group.
    pub fn leave(&self, group: impl Into<String>) {
        self.cluster().client(self.id()).leave(group);
    }

    /// The value of a key of its session.
    pub fn get(&self, key: &str) -> Option<String> {
        self.known.session().get(key).cloned()
    }

    /// Its whole session.
    pub fn session(&self) -> BTreeMap<String, String> {
        self.known.session().clone()
    }

    /// Sets a key of its session; other keys stay as they are.
    pub fn set(&self, key: impl Into<String>, value: impl Into<String>) {
        let (key, value) = (key.into(), value.into());
        // The copy and the gateway see the changes of this worker in the same order.
        let mut session = self.known.session();
        session.insert(key.clone(), value.clone());
        self.cluster().client(self.id()).set(key, value);
    }

    /// Removes a key of its session.
    pub fn remove(&self, key: impl Into<String>) {
        let key = key.into();
        let mut session = self.known.session();
        session.remove(&key);
        self.cluster().client(self.id()).remove(key);
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("id", &self.id())
            .field("hello", self.hello())
            .field("redelivered", &self.redelivered)
            .finish_non_exhaustive()
    }
}
