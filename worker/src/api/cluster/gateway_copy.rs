//! This child's copy of what a gateway holds for a client: its session, and whether it is paused.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use meepo_proto::link as wire;

/// This child's copy of what the gateway holds for a client.
///
/// A lock is held while a change is sent: so the copy and the gateway see the changes of this child in the same order.
pub(crate) struct GatewayCopy {
    session: Mutex<SessionCopy>,
    paused: Mutex<bool>,
}

/// A client of which this child has a [`GatewayCopy`].
pub(crate) trait HasGatewayCopy: Send + Sync {
    fn gateway_copy(&self) -> &GatewayCopy;
}

/// This child's copy of a client's session.
#[derive(Default)]
pub(crate) struct SessionCopy {
    entries: BTreeMap<String, String>,
    /// How often the copy has changed.
    changes: u64,
    /// The gateway has refused a change that is in the copy, and is being asked for the session.
    in_doubt: bool,
}

impl GatewayCopy {
    pub(crate) fn new(session: BTreeMap<String, String>, paused: bool) -> Self {
        Self {
            session: Mutex::new(SessionCopy {
                entries: session,
                ..SessionCopy::default()
            }),
            paused: Mutex::new(paused),
        }
    }

    pub(crate) fn session(&self) -> MutexGuard<'_, SessionCopy> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn paused(&self) -> MutexGuard<'_, bool> {
        self.paused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SessionCopy {
    pub(crate) fn entries(&self) -> &BTreeMap<String, String> {
        &self.entries
    }

    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    pub(crate) fn change(&mut self, change: wire::SessionChanged) {
        if change.clear {
            self.entries.clear();
        }
        for key in &change.remove {
            self.entries.remove(key);
        }
        self.entries.extend(change.set);
        self.changes += 1;
    }

    /// The gateway has refused a change that is in the copy. True if the gateway is not being asked for the session yet:
    /// then the caller has to ask.
    pub(crate) fn doubt(&mut self) -> bool {
        !std::mem::replace(&mut self.in_doubt, true)
    }

    /// The session as the gateway has it, which was asked for after so many changes. False if the copy has changed since:
    /// then the gateway has to be asked again.
    pub(crate) fn restore(&mut self, entries: BTreeMap<String, String>, changes: u64) -> bool {
        if self.changes != changes {
            return false;
        }
        self.entries = entries;
        self.in_doubt = false;
        true
    }
}
