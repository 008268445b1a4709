//! The line protocol, one line of UTF-8 a message, for telnet and scripts: `begin` begins a connection, `decoder` and
//! `encoder` speak it.
//!
//! Called for connections of a `line` listener. It must not know any other client protocol.

use crate::client::codec::Codec;

pub(crate) mod begin;
pub(crate) mod decoder;
pub(crate) mod encoder;

/// The client protocol of `line` listeners. A person at a terminal cannot be asked for a sign of life.
pub(crate) static CODEC: Codec = Codec {
    name: "line",
    index: 1,
    encode: encoder::message,
    close: encoder::last,
    ping: None,
}
.checked();
