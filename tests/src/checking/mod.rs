//! What is known after the fact: what the test worker and its leader job wrote down, status and metrics of a node, and the
//! checker, which compares a load with what handlers saw.
//!
//! Nodes hand these out to tests. Nothing here starts a process.

pub mod checker;
pub mod events;
pub mod jobs;
pub mod scrape;
pub mod status;
