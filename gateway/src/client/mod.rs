//! One client: its socket, what it has still to be sent, its session, and the task that reads it until it is closed.
//!
//! Called by every folder that names clients. It must not know which protocol a client speaks, nor what a router is.

pub(crate) mod close;
pub(crate) mod connection;
pub(crate) mod handle;
mod heartbeat;
mod outbox;
mod session;
mod waker;
