//! What the events of a client carry: how it came, what it sent, and why it went.
//!
//! Handlers are given these values. They know nothing of clients, clusters or links.

pub(crate) mod close;
pub(crate) mod hello;
pub(crate) mod last_words;
pub(crate) mod message;
