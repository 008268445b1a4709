//! The registry of a Meepo cluster: which gateways and workers are alive, and who holds which lease.
//!
//! # Layout, in the order in which an announcement passes
//!
//! - `instance`: what the master is told of a registry; [`settings`]: the section `[registry]`, declared and checked.
//! - `child`: one child, from its listener to its drain. It chooses the store.
//! - `service`: the gRPC calls. A node's stream of announcements is checked there, and its heartbeats are watched.
//! - [`store`]: the trait [`Store`], which keeps nodes and leases, and tells watchers of changes. Each implementation has a
//!   folder: `store/memory` for a registry that shares with nobody, `store/etcd` for several that share.
//!
//! # Invariants
//!
//! - What is kept is soft state: a registry that starts again knows no node, and the nodes register again by themselves.
//! - A registration lasts as long as its stream, or until its heartbeats stop.
//! - Two nodes never have one address: the later one takes it, and keeps it.
//! - A registry that stops tells no watcher that a node has left.
//! - A lease is granted to no holder as long as another may have it, be it from an earlier registry at the same address.

mod child;
mod figures;
mod instance;
mod service;
pub mod settings;
pub mod store;
#[cfg(test)]
mod tests;

pub use instance::{RegistryInstance, instance};
pub use settings::{EtcdSection, RegistrySection};
pub use store::etcd::EtcdStore;
pub use store::memory::MemoryStore;
pub use store::{Registration, Store, StoreError};
