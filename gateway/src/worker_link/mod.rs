//! The stream to a worker: its events on their way out, its commands carried out, its queries answered.
//!
//! Called by `child`, which serves the links. It must not know any client protocol.

pub(crate) mod commands;
mod outgoing;
mod queries;
pub(crate) mod stream;
