//! From one message to many clients: which clients there are, batches to a target, and encoding once for all.
//!
//! Called by the router's effects and by `worker_link`. It must not know where a message comes from.

pub(crate) mod batch;
pub(crate) mod client_registry;
pub(crate) mod encode;
mod name_index;
