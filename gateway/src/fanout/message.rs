//! A message on its way to clients, encoded once for each client protocol.

use std::cell::OnceCell;

use bytes::Bytes;

use crate::client::codec::{CODECS, Codec};

/// A message for any number of clients.
#[derive(Debug)]
pub(crate) struct OutboundMessage {
    payload: Bytes,
    binary: bool,
    frames: EncodedFrames,
}

/// Frames of the same content, one for each client protocol, made when they are asked for.
#[derive(Debug, Default)]
pub(crate) struct EncodedFrames([OnceCell<Bytes>; CODECS]);

impl EncodedFrames {
    /// The frame for a protocol.
    pub(crate) fn get_or_encode(&self, codec: &Codec, encode: impl FnOnce() -> Bytes) -> &Bytes {
        self.0[codec.index].get_or_init(encode)
    }
}

impl OutboundMessage {
    /// A message whose payload is valid for its kind.
    pub(crate) fn new(payload: Bytes, binary: bool) -> Self {
        Self {
            payload,
            binary,
            frames: EncodedFrames::default(),
        }
    }

    /// Bytes of the payload.
    pub(crate) fn len(&self) -> usize {
        self.payload.len()
    }

    /// The frame for the only client that gets the message.
    pub(crate) fn into_encoded(self, codec: &Codec) -> Bytes {
        (codec.encode)(&self.payload, self.binary)
    }

    /// The frame for clients of a protocol.
    pub(crate) fn encoded(&self, codec: &Codec) -> &Bytes {
        self.frames
            .get_or_encode(codec, || (codec.encode)(&self.payload, self.binary))
    }
}
