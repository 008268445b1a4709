//! Registries and nodes in one process, over real sockets.

mod conversation;
mod harness;
mod holders;
mod leases;
mod members;
mod strangers;
