//! The messages that clients send and are sent.

use std::fmt;

use bytes::Bytes;
use meepo_proto::link as wire;

/// A message of a client, or to clients: text or binary.
///
/// Whatever is text becomes a text message, bytes become a binary one. A clone shares the payload.
///
/// ```
/// use meepo_worker::Message;
///
/// let hello = Message::from("hello");
/// assert_eq!(hello.text(), Some("hello"));
///
/// let picture = Message::from(vec![0x89, 0x50]);
/// assert_eq!(picture.text(), None);
/// assert_eq!(picture.bytes().len(), 2);
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    payload: Bytes,
    binary: bool,
}

impl Message {
    /// Whether it is a text message.
    pub fn is_text(&self) -> bool {
        !self.binary
    }

    /// The text of a text message.
    pub fn text(&self) -> Option<&str> {
        if self.binary {
            return None;
        }
        std::str::from_utf8(&self.payload).ok()
    }

    /// The payload. Of a text message it is UTF-8.
    pub fn bytes(&self) -> &Bytes {
        &self.payload
    }

    /// Takes the payload out of the message.
    pub fn into_bytes(self) -> Bytes {
        self.payload
    }

    pub(crate) fn is_binary(&self) -> bool {
        self.binary
    }
}

impl From<wire::Message> for Message {
    fn from(message: wire::Message) -> Self {
        Self {
            payload: message.payload,
            binary: message.binary,
        }
    }
}

impl From<String> for Message {
    fn from(text: String) -> Self {
        Self {
            payload: text.into(),
            binary: false,
        }
    }
}

impl From<&String> for Message {
    fn from(text: &String) -> Self {
        text.clone().into()
    }
}

impl From<&str> for Message {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<Bytes> for Message {
    fn from(payload: Bytes) -> Self {
        Self { payload, binary: true }
    }
}

impl From<Vec<u8>> for Message {
    fn from(payload: Vec<u8>) -> Self {
        Bytes::from(payload).into()
    }
}

impl From<&[u8]> for Message {
    fn from(payload: &[u8]) -> Self {
        payload.to_vec().into()
    }
}

impl From<&Message> for Message {
    fn from(message: &Message) -> Self {
        message.clone()
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text() {
            Some(text) => f.debug_tuple("Text").field(&text).finish(),
            None => f.debug_tuple("Binary").field(&self.payload).finish(),
        }
    }
}
