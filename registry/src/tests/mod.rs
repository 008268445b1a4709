//! Registries and nodes in one process, over real sockets.

mod conversation;
mod harness;
mod members;
mod strangers;
