//! The clients of this child, behind their lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use meepo_node::stats::Slot;
use meepo_proto::codes::CloseCode;
use meepo_proto::id::ClientNumber;
use meepo_proto::{ClientId, GatewayId};
use parking_lot::{Mutex, MutexGuard};

use crate::client::handle::Client;
use crate::fanout::client_registry::ClientRegistry;

/// The clients of this child.
#[derive(Debug)]
pub(crate) struct Clients {
    /// The gateway that they are clients of: this run of this child.
    pub(crate) gateway: GatewayId,
    registry: Mutex<ClientRegistry>,
    last_number: AtomicU64,
    /// With what clients that still come are closed, once all others are. Set and read under the registry's lock.
    closing_all: OnceLock<CloseCode>,
    stats: &'static Slot,
}

impl Clients {
    /// No clients yet.
    pub(crate) fn new(stats: &'static Slot) -> Self {
        Self {
            gateway: GatewayId::random(),
            registry: Mutex::default(),
            last_number: AtomicU64::new(0),
            closing_all: OnceLock::new(),
            stats,
        }
    }

    /// The registry, locked.
    pub(crate) fn registry(&self) -> MutexGuard<'_, ClientRegistry> {
        self.registry.lock()
    }

    /// The client of this number.
    pub(crate) fn get(&self, number: ClientNumber) -> Option<Arc<Client>> {
        self.registry.lock().get(number).cloned()
    }

    /// The id of a client of this child.
    pub(crate) fn id(&self, number: ClientNumber) -> ClientId {
        ClientId::new(self.gateway, number)
    }

    /// A number that no client and no forwarded request has had.
    pub(crate) fn next_number(&self) -> u64 {
        self.last_number.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Adds a client. Gives the code that it has to be closed with, if all clients are.
    pub(crate) fn add(&self, client: &Arc<Client>) -> Option<CloseCode> {
        let closing_all = {
            let mut registry = self.registry.lock();
            registry.insert(Arc::clone(client));
            self.closing_all.get().copied()
        };
        self.stats.connections.add(1);
        self.stats.connections_total.add(1);
        closing_all
    }

    /// Takes a client out.
    pub(crate) fn remove(&self, number: ClientNumber) {
        self.registry.lock().remove(number);
        self.stats.connections.sub(1);
    }

    /// Notes that all clients are being closed, and gives them. A client that comes from now on is closed at once.
    pub(crate) fn close_all(&self, code: CloseCode) -> Vec<Arc<Client>> {
        let registry = self.registry.lock();
        let _ = self.closing_all.set(code);
        registry.all().cloned().collect()
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.registry.lock().all().next().is_none()
    }
}
