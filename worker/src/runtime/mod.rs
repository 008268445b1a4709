//! The life of a worker child: its links to all gateways, the queues of its clients, and its leader jobs.
//!
//! An instance starts it with a handler. It knows the API, which does not know it, and neither the push API nor webhooks.

pub(crate) mod client_queues;
pub(crate) mod leader_jobs;
pub(crate) mod links;
pub(crate) mod serve;
