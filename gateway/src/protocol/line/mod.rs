//! The line protocol: one line of UTF-8, one message, for telnet and scripts.
//!
//! Called by `listen`. It must not know any other client protocol.

pub(crate) mod decoder;
