//! Doors to the hot inner parts, for `benches/` alone: they are no part of what this crate promises.

use std::sync::Arc;

use bytes::Bytes;
use meepo_proto::link::{Handshake, Target};

use crate::client::handle::{Client, FlushBatch};
use crate::fanout::batch::Batch;
use crate::fanout::client_registry::ClientRegistry;
use crate::fanout::message::OutboundMessage;
use crate::protocol::ws;
use crate::protocol::ws::frames::{Frames, Received};

/// A WebSocket client's input.
#[derive(Debug)]
pub struct Decoder(Frames);

impl Decoder {
    /// For messages up to this size.
    pub fn new(max_message: usize) -> Self {
        Self(Frames::new(max_message))
    }

    /// Takes what was read, and gives the bytes of all messages that are complete.
    pub fn decode(&mut self, bytes: &[u8]) -> usize {
        self.0.feed(bytes);
        let mut sum = 0;
        while let Ok(Some(Received::Message { payload, .. })) = self.0.pop() {
            sum += payload.len();
        }
        sum
    }
}

/// The frame of a text.
pub fn encode(payload: Bytes) -> Bytes {
    OutboundMessage::new(payload, false).encoded(&ws::CODEC).clone()
}

/// A group whose members have no sockets: what is measured ends where the system would take the bytes.
#[derive(Debug)]
pub struct Group {
    registry: ClientRegistry,
    to: Target,
}

impl Group {
    /// A group with so many members.
    pub fn new(members: u64) -> Self {
        let mut registry = ClientRegistry::default();
        let name = "room";
        for number in 1..=members {
            let (client, _) = Client::new(number.into(), &ws::CODEC, &Handshake::default(), None, 1 << 20);
            registry.insert(client);
            registry
                .join(number.into(), name, 1)
                .expect("it is there, and in no other group");
        }
        let to = Target {
            groups: vec![name.into()],
            ..Target::default()
        };
        Self { registry, to }
    }

    /// Encodes a message, and sends it to each member, as the last of a flush.
    pub fn publish(&self, payload: Bytes) -> usize {
        let batch = Batch::new(Box::new(self.to.clone()), OutboundMessage::new(payload, false));
        let mut flush = FlushBatch::default();
        flush.is_last = true;
        let mut members = Vec::new();
        self.registry
            .each(batch.target(), |client| members.push(Arc::clone(client)));
        let left_out = batch.left_out(&self.registry);
        for client in &members {
            let share = batch.share(client.number, &left_out);
            client.send(share.encoded(client.codec), None, &mut flush);
        }
        flush.flush();
        members.len()
    }
}
