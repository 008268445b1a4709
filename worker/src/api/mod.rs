//! What an application imports: the handler, the clients and the cluster that it is given, and what can be asked of them.
//!
//! The runtime calls the handler and fills what a cluster needs from below. Nothing here knows the runtime: commands go
//! straight to the links, and the queues of clients are known by a trait.

pub(crate) mod client;
pub(crate) mod cluster;
pub(crate) mod error;
pub(crate) mod event;
pub(crate) mod handler;
pub(crate) mod query;
pub(crate) mod receipt;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod targets;
pub(crate) mod timers;
