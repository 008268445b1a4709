//! Messages for one target that follow each other: they are encoded once, and each client is sent them in one piece.

use bytes::Bytes;
use meepo_proto::id::ClientNumber;
use meepo_proto::link::Target;

use crate::client::codec::Codec;
use crate::fanout::client_registry::ClientRegistry;
use crate::fanout::message::{EncodedFrames, OutboundMessage};

/// One message or several for one target. Each message may leave out some of the target's clients.
#[derive(Debug)]
pub(crate) struct Batch {
    /// The target, without the exceptions of any message.
    target: Box<Target>,
    messages: Vec<Message>,
    /// Bytes of all payloads.
    bytes: usize,
    /// Bytes of all payloads and exceptions.
    weight: usize,
    frames: EncodedFrames,
}

#[derive(Debug)]
struct Message {
    message: OutboundMessage,
    except: Vec<u64>,
    except_uids: Vec<String>,
}

/// Which clients are left out by which messages: client number and place in the batch, sorted.
#[derive(Debug)]
pub(crate) struct LeftOut(Vec<(ClientNumber, usize)>);

/// The messages that one client of a batch gets.
#[derive(Debug)]
pub(crate) struct Share<'a> {
    batch: &'a Batch,
    /// The messages that leave the client out.
    without: &'a [(ClientNumber, usize)],
}

/// Bytes that are put together at most: small messages gain by it, large ones would only be copied once more.
const MOST: usize = 16 * 1024;

impl Batch {
    /// A batch of one message.
    pub(crate) fn new(target: Box<Target>, message: OutboundMessage) -> Self {
        let mut batch = Self {
            target,
            messages: Vec::new(),
            bytes: 0,
            weight: 0,
            frames: EncodedFrames::default(),
        };
        let except = std::mem::take(&mut batch.target.except);
        let except_uids = std::mem::take(&mut batch.target.except_uids);
        batch.add(message, except, except_uids);
        batch
    }

    /// Whether a message of `len` bytes for this target can join the batch.
    pub(crate) fn takes(&self, to: &Target, len: usize) -> bool {
        let Target {
            everyone,
            clients,
            uids,
            groups,
            except,
            except_uids,
        } = to;
        let same = self.target.everyone == *everyone
            && self.target.clients == *clients
            && self.target.uids == *uids
            && self.target.groups == *groups;
        same && self.weight + weight(len, except, except_uids) <= MOST
    }

    /// Adds a message that [`takes`](Self::takes) let in, before anything is encoded.
    pub(crate) fn push(&mut self, to: Target, message: OutboundMessage) {
        self.add(message, to.except, to.except_uids);
    }

    fn add(&mut self, message: OutboundMessage, except: Vec<u64>, except_uids: Vec<String>) {
        self.bytes += message.len();
        self.weight += weight(message.len(), &except, &except_uids);
        self.messages.push(Message {
            message,
            except,
            except_uids,
        });
    }

    /// The target, with the clients that some message leaves out.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// How many messages there are.
    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    /// Which clients are left out by which messages.
    pub(crate) fn left_out(&self, registry: &ClientRegistry) -> LeftOut {
        let mut all = Vec::new();
        for (at, message) in self.messages.iter().enumerate() {
            let numbers = registry.numbers(&message.except, &message.except_uids);
            all.extend(numbers.map(|number| (number, at)));
        }
        all.sort_unstable();
        all.dedup();
        LeftOut(all)
    }

    /// The messages that one client gets.
    pub(crate) fn share<'a>(&'a self, client: ClientNumber, left_out: &'a LeftOut) -> Share<'a> {
        let LeftOut(all) = left_out;
        let begin = all.partition_point(|&(number, _)| number < client);
        let len = all[begin..].partition_point(|&(number, _)| number == client);
        Share {
            batch: self,
            without: &all[begin..begin + len],
        }
    }

    /// The frames of all messages, one behind the other.
    fn encoded(&self, codec: &Codec) -> &Bytes {
        match &*self.messages {
            [only] => only.message.encoded(codec),
            all => self
                .frames
                .get_or_encode(codec, || concat(all.iter().map(|each| &each.message), codec)),
        }
    }
}

impl Share<'_> {
    /// How many messages the client gets.
    pub(crate) fn len(&self) -> usize {
        self.batch.messages.len() - self.without.len()
    }

    /// Bytes of their payloads.
    pub(crate) fn bytes(&self) -> usize {
        match self.without {
            [] => self.batch.bytes,
            _ => self.messages().map(OutboundMessage::len).sum(),
        }
    }

    /// The messages that the client gets.
    pub(crate) fn messages(&self) -> impl Iterator<Item = &OutboundMessage> {
        let all = self.batch.messages.iter().enumerate();
        let left_out = |at| self.without.binary_search_by_key(&at, |&(_, without)| without).is_ok();
        let got = all.filter(move |&(at, _)| !left_out(at));
        got.map(|(_, each)| &each.message)
    }

    /// Their frames, one behind the other.
    pub(crate) fn encoded(&self, codec: &Codec) -> Bytes {
        if self.without.is_empty() {
            return self.batch.encoded(codec).clone();
        }
        let mut messages = self.messages();
        match (messages.next(), messages.next()) {
            (Some(only), None) => only.encoded(codec).clone(),
            _ => concat(self.messages(), codec),
        }
    }
}

/// Bytes that a message takes of a batch.
fn weight(payload: usize, except: &[u64], except_uids: &[String]) -> usize {
    let uids: usize = except_uids.iter().map(String::len).sum();
    payload + size_of_val(except) + uids
}

fn concat<'a>(messages: impl Iterator<Item = &'a OutboundMessage>, codec: &Codec) -> Bytes {
    let frames: Vec<&[u8]> = messages.map(|message| &**message.encoded(codec)).collect();
    frames.concat().into()
}

#[cfg(test)]
mod tests {
    use meepo_proto::link::Handshake;

    use super::*;
    use crate::client::handle::Client;
    use crate::protocol::{line, ws};

    fn to(group: &str) -> Box<Target> {
        Box::new(Target {
            groups: vec![group.into()],
            ..Target::default()
        })
    }

    fn but(number: u64, group: &str) -> Box<Target> {
        Box::new(Target {
            except: vec![number],
            ..*to(group)
        })
    }

    fn text(payload: &'static str) -> OutboundMessage {
        OutboundMessage::new(payload.into(), false)
    }

    #[test]
    fn only_what_is_to_the_same_clients_and_small_comes_along() {
        let batch = Batch::new(to("a"), text("one"));
        assert!(batch.takes(&to("a"), MOST - 3));
        assert!(!batch.takes(&to("a"), MOST - 2));
        assert!(batch.takes(&but(1, "a"), MOST - 3 - 8));
        assert!(!batch.takes(&but(1, "a"), MOST - 3 - 7));
        let others = [
            *to("b"),
            Target::default(),
            Target {
                everyone: true,
                ..*to("a")
            },
            Target {
                uids: vec!["ann".into()],
                ..*to("a")
            },
            Target {
                clients: vec![1],
                ..*to("a")
            },
        ];
        for other in others {
            assert!(!batch.takes(&other, 1), "{other:?}");
        }
    }

    #[test]
    fn messages_stand_one_after_the_other() {
        let mut batch = Batch::new(to("a"), text("one"));
        batch.push(*to("a"), text("three"));
        assert_eq!(&**batch.encoded(&ws::CODEC), b"\x81\x03one\x81\x05three");
        assert_eq!(&**batch.encoded(&line::CODEC), b"one\nthree\n");
        let nobody = batch.left_out(&ClientRegistry::default());
        let share = batch.share(ClientNumber(1), &nobody);
        assert_eq!((share.len(), share.bytes()), (2, 8));
    }

    #[test]
    fn each_gets_what_does_not_leave_it_out() {
        let mut registry = ClientRegistry::default();
        for number in 1..=4 {
            let (client, _) = Client::new(number.into(), &line::CODEC, &Handshake::default(), None, 0);
            registry.insert(client);
        }
        registry.bind(ClientNumber(3), Some("ann")).unwrap();
        let mut batch = Batch::new(but(2, "a"), text("a"));
        let ann = Target {
            except: vec![3, 2, 2],
            except_uids: vec!["ann".into(), "nobody".into()],
            ..*to("a")
        };
        batch.push(ann, text("b"));
        batch.push(*but(4, "a"), text("c"));
        assert_eq!(batch.target(), &*to("a"));
        let left_out = batch.left_out(&registry);
        for (number, lines) in [
            (1, "a\nb\nc\n"),
            (2, "c\n"),
            (3, "a\nc\n"),
            (4, "a\nb\n"),
            (5, "a\nb\nc\n"),
        ] {
            let share = batch.share(ClientNumber(number), &left_out);
            assert_eq!(share.encoded(&line::CODEC), lines, "{number}");
            assert_eq!(
                (share.len(), share.bytes()),
                (lines.len() / 2, lines.len() / 2),
                "{number}"
            );
        }
        let batch = Batch::new(but(2, "a"), text("a"));
        let left_out = batch.left_out(&registry);
        assert_eq!(
            [1, 2].map(|number| batch.share(ClientNumber(number), &left_out).len()),
            [1, 0]
        );
    }
}
