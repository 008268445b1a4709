//! WebSocket: the client protocol of browsers (RFC 6455).
//!
//! Called by `http`, which a connection begins with. It must not know of HTTP beyond the opening handshake.

pub(crate) mod decoder;
pub(crate) mod frames;
