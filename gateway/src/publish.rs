//! Messages to the same clients that follow each other: they are encoded once, and each client is sent them in one piece.

use std::cell::OnceCell;

use bytes::Bytes;
use meepo_proto::link::Target;

use crate::encode::Outgoing;
use crate::settings::Protocol;

/// One message or several to all clients of a target.
#[derive(Debug)]
pub(crate) struct Publish {
    to: Box<Target>,
    messages: Vec<Outgoing>,
    /// Bytes of all payloads.
    bytes: usize,
    ws: OnceCell<Bytes>,
    line: OnceCell<Bytes>,
}

/// What is put together at most, in bytes: small messages gain by it, large ones would only be copied once more.
const MOST: usize = 16 * 1024;

impl Publish {
    pub(crate) fn new(to: Box<Target>, message: Outgoing) -> Self {
        Self {
            to,
            bytes: message.len(),
            messages: vec![message],
            ws: OnceCell::new(),
            line: OnceCell::new(),
        }
    }

    /// Whether a message of this size to these clients can come along.
    pub(crate) fn takes(&self, to: &Target, len: usize) -> bool {
        self.bytes + len <= MOST && *self.to == *to
    }

    /// Adds a message, before anything is encoded.
    pub(crate) fn push(&mut self, message: Outgoing) {
        self.bytes += message.len();
        self.messages.push(message);
    }

    pub(crate) fn to(&self) -> &Target {
        &self.to
    }

    pub(crate) fn messages(&self) -> &[Outgoing] {
        &self.messages
    }

    /// Bytes of all payloads.
    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    /// All messages, as clients of this protocol read them.
    pub(crate) fn encoded(&self, protocol: Protocol) -> &Bytes {
        let whole = match (&*self.messages, protocol) {
            ([message], _) => return message.encoded(protocol),
            (_, Protocol::Ws) => &self.ws,
            (_, Protocol::Line) => &self.line,
        };
        whole.get_or_init(|| {
            let frames: Vec<&[u8]> = self
                .messages
                .iter()
                .map(|message| &**message.encoded(protocol))
                .collect();
            frames.concat().into()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(group: &str) -> Box<Target> {
        Box::new(Target {
            groups: vec![group.into()],
            ..Target::default()
        })
    }

    fn text(payload: &'static str) -> Outgoing {
        Outgoing::new(payload.into(), false)
    }

    #[test]
    fn only_what_is_to_the_same_clients_and_small_comes_along() {
        let publish = Publish::new(to("a"), text("one"));
        assert!(publish.takes(&to("a"), MOST - 3));
        assert!(!publish.takes(&to("a"), MOST - 2));
        assert!(!publish.takes(&to("b"), 1));
        let but_one = Target {
            except: vec![1],
            ..*to("a")
        };
        assert!(!publish.takes(&but_one, 1));
    }

    #[test]
    fn messages_stand_one_after_the_other() {
        let mut publish = Publish::new(to("a"), text("one"));
        publish.push(text("three"));
        assert_eq!(&**publish.encoded(Protocol::Ws), b"\x81\x03one\x81\x05three");
        assert_eq!(&**publish.encoded(Protocol::Line), b"one\nthree\n");
        assert_eq!(publish.len(), 8);
    }
}
