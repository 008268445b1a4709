//! Client protocols, one folder each: how a connection begins, its decoder, its encoder, its close codes.
//!
//! Called by `listen`. It must not know of workers and their links.

pub(crate) mod http;
pub(crate) mod line;
pub(crate) mod ws;
