//! Registries and nodes in one process, over real sockets.

mod conversation;
mod harness;
mod lease_world;
mod leases;
mod members;
mod strangers;
