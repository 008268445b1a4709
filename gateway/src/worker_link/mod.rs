//! The stream to a worker: events on their way out, commands carried out, queries answered.
//!
//! Called by `child`, which serves the links. It must not know any client protocol.

mod commands;
pub(crate) mod context;
mod outgoing;
mod queries;
mod refusal;
pub(crate) mod stream;
