//! From WebSocket frames to events; answers pings and closes.

use std::io;

use meepo_proto::codes;
use meepo_proto::link::{CloseCause, Message};

use crate::client::close::ClientClose;
use crate::client::decoder::{Decoded, Decoder};
use crate::client::handle::Client;
use crate::protocol::ws::CODEC;
use crate::protocol::ws::encoder;
use crate::protocol::ws::frames::{BadFrame, Frames, Received};

/// Reads of one client before other clients have their turn.
const READS: usize = 4;

/// Reads the frames of one client.
#[derive(Debug)]
pub(crate) struct WsDecoder {
    frames: Frames,
}

impl WsDecoder {
    /// A decoder that begins with the bytes that came along with the handshake.
    pub(crate) fn new(read: &[u8], max_message: usize) -> Self {
        let mut frames = Frames::new(max_message);
        frames.feed(read);
        Self { frames }
    }
}

impl Decoder for WsDecoder {
    fn next(&mut self, client: &Client) -> Decoded {
        let mut heard = false;
        for _ in 0..READS {
            if let Some(step) = self.ready(client) {
                return step;
            }
            match Self::read(client, |read| self.frames.feed(read)) {
                Ok(0) => {
                    return Decoded::Close(ClientClose::by_client(
                        CloseCause::Eof,
                        None,
                        "connection ended without a close frame",
                    ));
                }
                Ok(_) => heard = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Decoded::Blocked { heard },
                Err(error) => {
                    return Decoded::Close(ClientClose::by_client(CloseCause::Reset, None, error.to_string()));
                }
            }
        }
        Decoded::Heard
    }

    fn ready(&mut self, client: &Client) -> Option<Decoded> {
        match self.frames.pop() {
            Ok(received) => received.map(|received| step(client, received)),
            Err(bad) => Some(Decoded::Close(refusal(&bad))),
        }
    }
}

fn step(client: &Client, received: Received) -> Decoded {
    match received {
        Received::Message { payload, binary } => Decoded::Message(Message { payload, binary }),
        Received::Ping(payload) => {
            client.push_control(encoder::pong(&payload));
            Decoded::Heard
        }
        Received::Pong => Decoded::Heard,
        Received::Close { code, reason } => Decoded::Close(ClientClose {
            last: Some(encoder::close(code, "")),
            ..ClientClose::by_client(CloseCause::Client, code, reason)
        }),
    }
}

fn refusal(bad: &BadFrame) -> ClientClose {
    let (cause, code) = match bad {
        BadFrame::TooBig { .. } => (CloseCause::TooBig, codes::TOO_BIG),
        BadFrame::NotUtf8 => (CloseCause::InvalidText, codes::INVALID_TEXT),
        BadFrame::Protocol(_) => (CloseCause::Protocol, codes::PROTOCOL_ERROR),
    };
    ClientClose {
        reason: bad.to_string(),
        ..ClientClose::by_gateway(&CODEC, cause, code)
    }
}
