//! Messages on their way to clients, encoded once for each client protocol.

use std::cell::OnceCell;

use bytes::{BufMut, Bytes};
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::config::settings::Protocol;

/// A message for any number of clients.
#[derive(Debug)]
pub(crate) struct OutboundMessage {
    payload: Bytes,
    binary: bool,
    ws: OnceCell<Bytes>,
    line: OnceCell<Bytes>,
}

impl OutboundMessage {
    /// A message whose payload is valid for its kind.
    pub(crate) fn new(payload: Bytes, binary: bool) -> Self {
        Self {
            payload,
            binary,
            ws: OnceCell::new(),
            line: OnceCell::new(),
        }
    }

    /// Bytes of the payload.
    pub(crate) fn len(&self) -> usize {
        self.payload.len()
    }

    /// As its one client reads it, who has this protocol.
    pub(crate) fn into_encoded(self, protocol: Protocol) -> Bytes {
        match protocol {
            Protocol::Ws => frame(self.opcode(), &self.payload),
            Protocol::Line => line(&self.payload),
        }
    }

    fn opcode(&self) -> OpCode {
        OpCode::Data(if self.binary { Data::Binary } else { Data::Text })
    }

    /// As clients of this protocol read it.
    pub(crate) fn encoded(&self, protocol: Protocol) -> &Bytes {
        match protocol {
            Protocol::Ws => self.ws.get_or_init(|| frame(self.opcode(), &self.payload)),
            Protocol::Line => self.line.get_or_init(|| line(&self.payload)),
        }
    }
}

/// A close frame; the reason is cut to what a frame can carry.
pub(crate) fn close_frame(code: u16, reason: &str) -> Bytes {
    let mut end = reason.len().min(123);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let mut payload = Vec::with_capacity(2 + end);
    payload.put_u16(code);
    payload.put_slice(&reason.as_bytes()[..end]);
    frame(OpCode::Control(Control::Close), &payload)
}

/// A close frame without a code.
pub(crate) fn empty_close_frame() -> Bytes {
    Bytes::from_static(b"\x88\0")
}

/// The answer to a ping.
pub(crate) fn pong_frame(payload: &[u8]) -> Bytes {
    frame(OpCode::Control(Control::Pong), payload)
}

/// An empty ping frame.
pub(crate) fn ping_frame() -> Bytes {
    Bytes::from_static(b"\x89\0")
}

/// A line of text, ended.
pub(crate) fn line(payload: &[u8]) -> Bytes {
    let mut buffer = Vec::with_capacity(payload.len() + 1);
    buffer.put_slice(payload);
    buffer.put_u8(b'\n');
    buffer.into()
}

fn frame(opcode: OpCode, payload: &[u8]) -> Bytes {
    let header = FrameHeader {
        opcode,
        ..FrameHeader::default()
    };
    let length = payload.len() as u64;
    // No more room than it takes: what is over would make a second allocation of it.
    let mut buffer = Vec::with_capacity(header.len(length) + payload.len());
    header.format(length, &mut buffer).expect("a vector takes all");
    buffer.put_slice(payload);
    buffer.into()
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use tokio_tungstenite::tungstenite::protocol::frame::FrameSocket;

    use super::*;

    #[test]
    fn frames_are_read_back_by_another_implementation() {
        for len in [0, 1, 125, 126, 127, 65_535, 65_536, 70_000] {
            let payload = vec![b'x'; len];
            let message = OutboundMessage::new(payload.clone().into(), len % 2 == 0);
            let mut socket = FrameSocket::new(Cursor::new(message.encoded(Protocol::Ws).to_vec()));
            let read = socket.read(None).unwrap().unwrap();
            assert_eq!(read.payload(), payload);
            let FrameHeader { is_final, mask, .. } = read.header();
            assert!(is_final & mask.is_none());
        }
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let frame = close_frame(4001, &"é".repeat(80));
        assert_eq!(frame.len(), 2 + 2 + 122);
        assert!(std::str::from_utf8(&frame[4..]).is_ok());
    }
}
