//! From one message to many clients: which clients there are, batches of messages for a target, and encoding them once.
//!
//! Called by the router's effects, by `worker_link` and by `drain`. It must not know where a message comes from.

pub(crate) mod batch;
pub(crate) mod client_registry;
pub(crate) mod clients;
pub(crate) mod message;
mod name_index;
pub(crate) mod sender;
