//! Listeners: what each offers, and accepting connections on them.
//!
//! Called by `child`. It must not know what a client protocol does with a connection.

pub(crate) mod accept;
pub(crate) mod offer;
