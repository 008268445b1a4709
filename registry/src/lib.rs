//! The registry of a Meepo cluster: it tracks which nodes are alive, and tells those who ask.
//!
//! # Layout
//!
//! - [`settings`]: the section `[registry]`.
//! - [`store`]: what keeps the nodes, as a trait; [`memory`] is the one that a registry has alone, [`etcd`] the one that
//!   several share. `feed`: what watchers of either are sent.
//! - [`grants`]: names that one holder has at a time, as the store `memory` knows them.
//! - `service`: the gRPC calls over a store.
//! - `serve`: a child, from its listener to its drain.
//!
//! # Invariants
//!
//! - What is kept is soft state: a registry that starts again has nobody, and the nodes come back by themselves.
//! - A registration lasts as long as its stream, or until its heartbeats stop.
//! - Two nodes are never at one address: the later one takes it, and keeps it.
//! - A registry that stops says of no node that it has left.
//! - A name is granted to nobody as long as another may have it, be it from an earlier registry at the same address.

pub mod etcd;
mod feed;
mod figures;
pub mod grants;
mod instance;
pub mod memory;
mod serve;
mod service;
pub mod settings;
pub mod store;
#[cfg(test)]
mod tests;

pub use etcd::Etcd;
pub use grants::{Grant, Grants};
pub use instance::{RegistryInstance, instance};
pub use memory::Memory;
pub use settings::{EtcdSection, RegistrySection};
pub use store::{Lease, Refused, Store};
