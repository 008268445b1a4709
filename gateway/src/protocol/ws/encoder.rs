//! From messages and closes to WebSocket frames.

use bytes::{BufMut, Bytes};
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// An empty ping frame.
pub(crate) const PING: &[u8] = b"\x89\0";
/// A close frame without a code.
const EMPTY_CLOSE: &[u8] = b"\x88\0";
/// The longest reason that a close frame carries, in bytes.
const MAX_REASON: usize = 123;

/// The frame of a message.
pub(crate) fn message(payload: &[u8], binary: bool) -> Bytes {
    frame(OpCode::Data(if binary { Data::Binary } else { Data::Text }), payload)
}

/// The last frame of a client that the gateway closes.
pub(crate) fn last(code: Option<u16>, reason: &str) -> Option<Bytes> {
    Some(close(code, reason))
}

/// A close frame; the reason is cut to what a frame carries.
pub(crate) fn close(code: Option<u16>, reason: &str) -> Bytes {
    let Some(code) = code else {
        return Bytes::from_static(EMPTY_CLOSE);
    };
    let mut end = reason.len().min(MAX_REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let mut payload = Vec::with_capacity(2 + end);
    payload.put_u16(code);
    payload.put_slice(&reason.as_bytes()[..end]);
    frame(OpCode::Control(Control::Close), &payload)
}

/// The answer to a ping.
pub(crate) fn pong(payload: &[u8]) -> Bytes {
    frame(OpCode::Control(Control::Pong), payload)
}

fn frame(opcode: OpCode, payload: &[u8]) -> Bytes {
    let header = FrameHeader {
        opcode,
        ..FrameHeader::default()
    };
    let length = payload.len() as u64;
    // Exactly the room that the frame takes: `Bytes` would allocate anew to give room back.
    let mut buffer = Vec::with_capacity(header.len(length) + payload.len());
    header.format(length, &mut buffer).expect("a vector takes every write");
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
            let frame = message(&payload, len % 2 == 0);
            let mut socket = FrameSocket::new(Cursor::new(frame.to_vec()));
            let read = socket.read(None).unwrap().unwrap();
            assert_eq!(read.payload(), payload);
            let FrameHeader { is_final, mask, .. } = read.header();
            assert!(is_final & mask.is_none());
        }
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let frame = close(Some(4001), &"é".repeat(80));
        assert_eq!(frame.len(), 2 + 2 + 122);
        assert!(std::str::from_utf8(&frame[4..]).is_ok());
    }
}
