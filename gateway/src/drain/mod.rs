//! The end of a child: handlers' last words, the close of all clients, and waiting for what workers have still to finish.
//!
//! Called by `child`. It must not know how a client or a link does its work.

pub(crate) mod close_all;
pub(crate) mod last_words;
pub(crate) mod wait;
