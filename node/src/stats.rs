//! Figures of all children, in memory that the master shares with them.
//!
//! One anonymous shared mapping is made before the first fork. A child has a slot; the master reads it for `status`, also
//! after the child has died.

use std::sync::atomic::{AtomicU64, Ordering};

/// A figure that a child changes and anyone may read.
#[derive(Debug, Default)]
pub struct Figure(AtomicU64);

impl Figure {
    /// Adds to the figure.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Takes from the figure.
    pub fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    /// Sets the figure.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The figure now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The figures of one child. A node type leaves at 0 what it has none of.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub struct Slot {
    /// Clients (gateway), links (worker) or nodes (registry) that are connected now.
    pub connections: Figure,
    /// Connections since the child started.
    pub connections_total: Figure,
    /// Messages received from clients.
    pub messages_in: Figure,
    /// Messages sent to clients.
    pub messages_out: Figure,
    /// Payload bytes received from clients.
    pub bytes_in: Figure,
    /// Payload bytes sent to clients.
    pub bytes_out: Figure,
    /// Sends that did not reach their client: gone, slow, refused.
    pub failed_sends: Figure,
    /// Handlers that returned an error or panicked.
    pub handler_errors: Figure,
    /// Links between gateways and workers that are up.
    pub links: Figure,
    /// Events that wait for a worker.
    pub events_waiting: Figure,
    /// Events that a worker has and has not finished.
    pub events_in_flight: Figure,
}

/// The slots of an instance's children that serve, this child's own among them.
#[derive(Debug, Clone)]
pub struct Siblings {}

impl Siblings {
    /// The figures of each child that serves.
    pub fn iter(&self) -> impl Iterator<Item = &'static Slot> + '_ {
        std::iter::empty()
    }
}
