//! Nodes under test: one master with a folder of its own, whole clusters, and workers that a test plays by hand.
//!
//! Tests start here. Whatever is dropped ends its processes.

pub mod cluster;
pub mod node;
pub mod played;
pub mod web;
pub mod webhook_cluster;
