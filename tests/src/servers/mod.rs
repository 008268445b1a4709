//! Programs beside the nodes: an etcd cluster, an endpoint for webhooks, a real browser.
//!
//! Tests start them. They know nothing of nodes.

pub mod browser;
pub mod endpoint;
pub mod etcd;
