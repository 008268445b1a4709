//! Messages to the same clients that follow each other: they are encoded once, and each client is sent them in one piece.

use std::cell::OnceCell;

use bytes::Bytes;
use meepo_proto::link::Target;

use crate::config::settings::Protocol;
use crate::fanout::client_registry::ClientRegistry;
use crate::fanout::encode::OutboundMessage;

/// One message or several to the clients of a target, but for those whom each leaves out.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Without those who are left out.
    to: Box<Target>,
    messages: Vec<Message>,
    /// Bytes of all payloads.
    bytes: usize,
    /// Bytes of those, and of who is left out.
    weight: usize,
    ws: OnceCell<Bytes>,
    line: OnceCell<Bytes>,
}

#[derive(Debug)]
struct Message {
    message: OutboundMessage,
    except: Vec<u64>,
    except_uids: Vec<String>,
}

/// Who is left out by which messages, in order.
#[derive(Debug)]
pub(crate) struct LeftOut(Vec<(u64, usize)>);

/// What one client of a batch gets.
#[derive(Debug)]
pub(crate) struct Share<'a> {
    batch: &'a Batch,
    /// The messages that leave it out.
    without: &'a [(u64, usize)],
}

/// What is put together at most, in bytes: small messages gain by it, large ones would only be copied once more.
const MOST: usize = 16 * 1024;

impl Batch {
    pub(crate) fn new(to: Box<Target>, message: OutboundMessage) -> Self {
        let mut batch = Self {
            to,
            messages: Vec::new(),
            bytes: 0,
            weight: 0,
            ws: OnceCell::new(),
            line: OnceCell::new(),
        };
        let except = std::mem::take(&mut batch.to.except);
        let except_uids = std::mem::take(&mut batch.to.except_uids);
        batch.add(message, except, except_uids);
        batch
    }

    /// Whether a message of this size to these clients can come along.
    pub(crate) fn takes(&self, to: &Target, len: usize) -> bool {
        let Target {
            everyone,
            clients,
            uids,
            groups,
            except,
            except_uids,
        } = to;
        let same = self.to.everyone == *everyone
            && self.to.clients == *clients
            && self.to.uids == *uids
            && self.to.groups == *groups;
        same && self.weight + weight(len, except, except_uids) <= MOST
    }

    /// Adds a message, before anything is encoded.
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

    /// All of its clients, and those who are left out.
    pub(crate) fn to(&self) -> &Target {
        &self.to
    }

    /// How many messages there are.
    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

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

    pub(crate) fn share<'a>(&'a self, client: u64, left_out: &'a LeftOut) -> Share<'a> {
        let LeftOut(all) = left_out;
        let begin = all.partition_point(|&(number, _)| number < client);
        let len = all[begin..].partition_point(|&(number, _)| number == client);
        Share {
            batch: self,
            without: &all[begin..begin + len],
        }
    }

    /// All messages, as clients of this protocol read them.
    fn encoded(&self, protocol: Protocol) -> &Bytes {
        let whole = match (&*self.messages, protocol) {
            ([only], _) => return only.message.encoded(protocol),
            (_, Protocol::Ws) => &self.ws,
            (_, Protocol::Line) => &self.line,
        };
        whole.get_or_init(|| concat(self.messages.iter().map(|each| &each.message), protocol))
    }
}

impl Share<'_> {
    /// How many messages it gets.
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

    pub(crate) fn messages(&self) -> impl Iterator<Item = &OutboundMessage> {
        let all = self.batch.messages.iter().enumerate();
        let left_out = |at| self.without.binary_search_by_key(&at, |&(_, without)| without).is_ok();
        let got = all.filter(move |&(at, _)| !left_out(at));
        got.map(|(_, each)| &each.message)
    }

    /// All of them, as a client of this protocol reads them.
    pub(crate) fn encoded(&self, protocol: Protocol) -> Bytes {
        if self.without.is_empty() {
            return self.batch.encoded(protocol).clone();
        }
        let mut messages = self.messages();
        match (messages.next(), messages.next()) {
            (Some(only), None) => only.encoded(protocol).clone(),
            _ => concat(self.messages(), protocol),
        }
    }
}

/// What a message takes of a batch.
fn weight(payload: usize, except: &[u64], except_uids: &[String]) -> usize {
    let uids: usize = except_uids.iter().map(String::len).sum();
    payload + size_of_val(except) + uids
}

fn concat<'a>(messages: impl Iterator<Item = &'a OutboundMessage>, protocol: Protocol) -> Bytes {
    let frames: Vec<&[u8]> = messages.map(|message| &**message.encoded(protocol)).collect();
    frames.concat().into()
}

#[cfg(test)]
mod tests {
    use meepo_proto::link::Handshake;

    use super::*;
    use crate::client::handle::Client;

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
        assert_eq!(&**batch.encoded(Protocol::Ws), b"\x81\x03one\x81\x05three");
        assert_eq!(&**batch.encoded(Protocol::Line), b"one\nthree\n");
        let nobody = batch.left_out(&ClientRegistry::default());
        let share = batch.share(1, &nobody);
        assert_eq!((share.len(), share.bytes()), (2, 8));
    }

    #[test]
    fn each_gets_what_does_not_leave_it_out() {
        let mut registry = ClientRegistry::default();
        for number in 1..=4 {
            let (client, _) = Client::new(number, Protocol::Line, &Handshake::default(), None, 0);
            registry.insert(client);
        }
        registry.bind(3, Some("ann")).unwrap();
        let mut batch = Batch::new(but(2, "a"), text("a"));
        let ann = Target {
            except: vec![3, 2, 2],
            except_uids: vec!["ann".into(), "nobody".into()],
            ..*to("a")
        };
        batch.push(ann, text("b"));
        batch.push(*but(4, "a"), text("c"));
        assert_eq!(batch.to(), &*to("a"));
        let left_out = batch.left_out(&registry);
        for (number, lines) in [
            (1, "a\nb\nc\n"),
            (2, "c\n"),
            (3, "a\nc\n"),
            (4, "a\nb\n"),
            (5, "a\nb\nc\n"),
        ] {
            let share = batch.share(number, &left_out);
            assert_eq!(share.encoded(Protocol::Line), lines, "{number}");
            assert_eq!(
                (share.len(), share.bytes()),
                (lines.len() / 2, lines.len() / 2),
                "{number}"
            );
        }
        let batch = Batch::new(but(2, "a"), text("a"));
        let left_out = batch.left_out(&registry);
        assert_eq!([1, 2].map(|number| batch.share(number, &left_out).len()), [1, 0]);
    }
}
