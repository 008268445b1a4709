//! One client: its socket, its outbox, its states, and the task that reads it until it is closed.
//!
//! Called by every folder that names clients. It must not know which protocol a client speaks (`codec` and `decoder` say
//! what a protocol has to bring), nor what is around it (`host` says what the gateway has to bring).

pub(crate) mod close;
mod closing;
pub(crate) mod codec;
pub(crate) mod connection;
pub(crate) mod decoder;
pub(crate) mod handle;
mod heartbeat;
pub(crate) mod host;
mod outbox;
pub(crate) mod profile;
mod states;
mod waker;
