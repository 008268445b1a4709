//! Connections to the server: how messages are framed, one connection, and the poll that drives all of them.
//!
//! The loads open a pool and send over it. Nothing here knows what a message is for, nor what is measured.

pub(crate) mod connection;
mod nats;
pub(crate) mod pool;
pub(crate) mod wire;
