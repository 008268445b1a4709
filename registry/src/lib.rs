//! The registry of a Meepo cluster: it tracks which nodes are alive, and tells those who ask.
//!
//! # Layout
//!
//! - [`settings`]: the section `[registry]`.
//! - [`store`]: what keeps the nodes, as a trait; [`memory`](store::memory) is the one that a registry has alone, [`etcd`](store::etcd) the one that
//!   several share. `feed`: what watchers of either are sent.
//! - [`leases`](store::memory::leases): names that one holder has at a time, as the store `memory` knows them.
//! - `service`: the gRPC calls over a store.
//! - `child`: a child, from its listener to its drain.
//!
//! # Invariants
//!
//! - What is kept is soft state: a registry that starts again has nobody, and the nodes come back by themselves.
//! - A registration lasts as long as its stream, or until its heartbeats stop.
//! - Two nodes are never at one address: the later one takes it, and keeps it.
//! - A registry that stops says of no node that it has left.
//! - A name is granted to nobody as long as another may have it, be it from an earlier registry at the same address.

mod child;
mod instance;
mod service;
pub mod settings;
pub mod store;
#[cfg(test)]
mod tests;

pub use instance::{RegistryInstance, instance};
pub use settings::{EtcdSection, RegistrySection};
pub use store::etcd::Etcd;
pub use store::memory::Memory;
pub use store::memory::leases::Grants;
pub use store::{Grant, Lease, Refused, Store};
