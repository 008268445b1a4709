//! WebSocket (RFC 6455), the client protocol of browsers: `upgrade` begins a connection, `decoder` and `encoder` speak it.
//!
//! Called by `http`, which such a connection begins with. It must not know of HTTP beyond the opening handshake.

use crate::client::codec::Codec;

pub(crate) mod decoder;
pub(crate) mod encoder;
pub(crate) mod frames;
pub(crate) mod upgrade;

/// The client protocol of `ws` listeners.
pub(crate) static CODEC: Codec = Codec {
    name: "ws",
    index: 0,
    encode: encoder::message,
    close: encoder::last,
    ping: Some(encoder::PING),
}
.checked();
