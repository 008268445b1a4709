//! Registries and nodes in one process: over real sockets, but for `lease_world`, which simulates the network.

mod conversation;
mod harness;
mod lease_world;
mod leases;
mod members;
mod strangers;
