//! The profile of a client, which workers know: its handshake, its session, and whether it is paused.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use meepo_proto::PackedHandshake;
use meepo_proto::link::{Attach, Handshake, SessionChanged};
use parking_lot::Mutex;

/// The facts that workers know of a client. They outlive the client until a worker has handled the event of its end.
#[derive(Debug)]
pub(crate) struct Profile {
    /// How the client came.
    handshake: PackedHandshake,
    /// The session: a small map that workers read and write.
    pub(crate) session: Mutex<BTreeMap<String, String>>,
    /// A worker asked that the client is not read.
    paused: AtomicBool,
}

/// The session would be over its limit.
#[derive(Debug)]
pub(crate) struct SessionTooBig;

impl Profile {
    /// The profile of a client that came just now.
    pub(crate) fn new(handshake: &Handshake) -> Self {
        Self {
            handshake: handshake.into(),
            session: Mutex::default(),
            paused: AtomicBool::new(false),
        }
    }

    /// How the client came.
    pub(crate) fn handshake(&self) -> &PackedHandshake {
        &self.handshake
    }

    /// Whether a worker asked that the client is not read.
    pub(crate) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    /// Notes that a worker pauses or resumes the client. False if it was so before.
    pub(crate) fn set_paused(&self, paused: bool) -> bool {
        self.paused.swap(paused, Ordering::Relaxed) != paused
    }

    /// Changes the session, if it then takes no more than `max` bytes of keys and values.
    pub(crate) fn update_session(&self, change: &SessionChanged, max: usize) -> Result<(), SessionTooBig> {
        let mut session = self.session.lock();
        let mut next = match change.clear {
            true => BTreeMap::new(),
            false => session.clone(),
        };
        for key in &change.remove {
            next.remove(key);
        }
        next.extend(change.set.clone());
        let size: usize = next.iter().map(|(key, value)| key.len() + value.len()).sum();
        if size > max {
            return Err(SessionTooBig);
        }
        *session = next;
        Ok(())
    }

    /// The state of the client, for a worker that begins to serve it.
    pub(crate) fn attach(&self) -> Attach {
        let session = self.session.lock().clone();
        Attach {
            handshake: Some(self.handshake.unpack()),
            session,
            paused: self.is_paused(),
        }
    }
}
