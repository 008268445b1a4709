//! WebSocket frames (RFC 6455): from bytes, however they are cut, to messages. Pure: without a socket.
//!
//! Headers are parsed by tungstenite. The frames are put together here, because an idle client must cost no buffer, also
//! after a large message, and because a message over the limit must be refused before its bytes arrive.

use std::io::Cursor;

use bytes::{Buf, Bytes, BytesMut};
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// Bytes of a client that are not yet a message.
#[derive(Debug)]
pub(crate) struct Frames {
    max_message: usize,
    input: BytesMut,
    /// The fragments of a message so far, and whether it is binary. Boxed: few clients ever send fragments.
    fragments: Option<Box<(BytesMut, bool)>>,
}

/// A frame, or the last fragment of one, that a client has sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Received {
    Message {
        payload: Bytes,
        binary: bool,
    },
    Ping(Bytes),
    Pong,
    /// A close frame.
    Close {
        /// The close code, if the frame has one.
        code: Option<u16>,
        reason: String,
    },
}

/// A frame that no client may send.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadFrame {
    #[error("message of {size} bytes is over the limit of {max}")]
    TooBig { size: u64, max: usize },
    #[error("text is not UTF-8")]
    NotUtf8,
    #[error("{0}")]
    Protocol(&'static str),
}

/// A payload below this size is copied, so that it does not keep other bytes that were read along with it.
const COPY_BELOW: usize = 1024;
/// The largest payload of a ping, pong or close.
const MAX_CONTROL: u64 = 125;

impl Frames {
    /// No bytes yet, of messages of up to `max_message` bytes.
    pub(crate) fn new(max_message: usize) -> Self {
        Self {
            max_message,
            input: BytesMut::new(),
            fragments: None,
        }
    }

    /// Takes bytes that were read.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// The next message or control frame that is complete. Nothing comes after an error.
    pub(crate) fn pop(&mut self) -> Result<Option<Received>, BadFrame> {
        while let Some((header, payload)) = self.frame()? {
            match header.opcode {
                OpCode::Control(Control::Ping) => return Ok(Some(Received::Ping(payload))),
                OpCode::Control(Control::Pong) => return Ok(Some(Received::Pong)),
                OpCode::Control(_) => return close(&payload).map(Some),
                OpCode::Data(data) => {
                    if let Some(message) = self.data(data, header.is_final, payload)? {
                        return Ok(Some(message));
                    }
                }
            }
        }
        Ok(None)
    }

    /// A whole frame, unmasked.
    fn frame(&mut self) -> Result<Option<(FrameHeader, Bytes)>, BadFrame> {
        let mut cursor = Cursor::new(&self.input[..]);
        let parsed = FrameHeader::parse(&mut cursor).map_err(|_| BadFrame::Protocol("unknown kind of frame"))?;
        let Some((header, length)) = parsed else {
            self.give_back();
            return Ok(None);
        };
        let begin = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
        let mask = self.check(&header, length)?;
        // Checked to be below the limit of a message.
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if self.input.len() - begin < length {
            return Ok(None);
        }
        self.input.advance(begin);
        unmask(&mut self.input[..length], mask);
        let payload = if length < COPY_BELOW {
            let payload = Bytes::copy_from_slice(&self.input[..length]);
            self.input.advance(length);
            payload
        } else {
            self.input.split_to(length).freeze()
        };
        Ok(Some((header, payload)))
    }

    /// An idle client keeps no buffer, and a client that has sent a part of a frame keeps only that part.
    fn give_back(&mut self) {
        if self.input.is_empty() {
            self.input = BytesMut::new();
        } else if self.input.capacity() > COPY_BELOW {
            self.input = BytesMut::from(&self.input[..]);
        }
    }

    fn check(&self, header: &FrameHeader, length: u64) -> Result<[u8; 4], BadFrame> {
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(BadFrame::Protocol("reserved bits are set"));
        }
        let Some(mask) = header.mask else {
            return Err(BadFrame::Protocol("frame is not masked"));
        };
        match header.opcode {
            OpCode::Control(_) if !header.is_final => return Err(BadFrame::Protocol("control frame is fragmented")),
            OpCode::Control(_) if length > MAX_CONTROL => return Err(BadFrame::Protocol("control frame is too long")),
            OpCode::Control(_) => {}
            OpCode::Data(_) => {
                let before = self.fragments.as_ref().map_or(0, |fragments| fragments.0.len() as u64);
                let size = before.saturating_add(length);
                if size > self.max_message as u64 {
                    return Err(BadFrame::TooBig {
                        size,
                        max: self.max_message,
                    });
                }
            }
        }
        Ok(mask)
    }

    fn data(&mut self, data: Data, is_final: bool, payload: Bytes) -> Result<Option<Received>, BadFrame> {
        let binary = match (data, &mut self.fragments) {
            (Data::Continue, Some(begun)) => {
                begun.0.extend_from_slice(&payload);
                if !is_final {
                    return Ok(None);
                }
                let (fragments, binary) = std::mem::take(&mut **begun);
                self.fragments = None;
                return message(fragments.freeze(), binary).map(Some);
            }
            (Data::Continue, None) => return Err(BadFrame::Protocol("continuation of nothing")),
            (_, Some(_)) => return Err(BadFrame::Protocol("message within a message")),
            (data, None) => data == Data::Binary,
        };
        if is_final {
            return message(payload, binary).map(Some);
        }
        self.fragments = Some(Box::new((BytesMut::from(&payload[..]), binary)));
        Ok(None)
    }
}

fn message(payload: Bytes, binary: bool) -> Result<Received, BadFrame> {
    if !binary && std::str::from_utf8(&payload).is_err() {
        return Err(BadFrame::NotUtf8);
    }
    Ok(Received::Message { payload, binary })
}

fn close(payload: &[u8]) -> Result<Received, BadFrame> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return match payload {
            [] => Ok(Received::Close {
                code: None,
                reason: String::new(),
            }),
            _ => Err(BadFrame::Protocol("close frame of one byte")),
        };
    };
    let code = u16::from_be_bytes(*code);
    // 1004 to 1006 and 1015 never stand in a frame; 1016 to 2999 are not given out.
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(BadFrame::Protocol("invalid close code"));
    }
    let reason = std::str::from_utf8(reason).map_err(|_| BadFrame::NotUtf8)?.to_owned();
    Ok(Received::Close {
        code: Some(code),
        reason,
    })
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut chunks = payload.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let word = u64::from_ne_bytes(chunk.try_into().expect("chunks of 8 bytes"));
        chunk.copy_from_slice(&(word ^ wide).to_ne_bytes());
    }
    for (byte, mask) in chunks.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: u8 = 0x1;
    const CONTINUE: u8 = 0x0;
    const PING: u8 = 0x9;
    const CLOSE: u8 = 0x8;
    const FINAL: u8 = 0x80;

    /// A masked frame as a client writes it.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [0x12, 0x34, 0x56, 0x78];
        let mut bytes = vec![first];
        match payload.len() {
            len @ 0..=125 => bytes.push(0x80 | len as u8),
            len @ 126..=0xffff => {
                bytes.push(0x80 | 126);
                bytes.extend((len as u16).to_be_bytes());
            }
            len => {
                bytes.push(0x80 | 127);
                bytes.extend((len as u64).to_be_bytes());
            }
        }
        bytes.extend(mask);
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    fn all(frames: &mut Frames) -> Result<Vec<Received>, BadFrame> {
        let mut received = Vec::new();
        while let Some(next) = frames.pop()? {
            received.push(next);
        }
        Ok(received)
    }

    fn read(bytes: &[u8]) -> Result<Vec<Received>, BadFrame> {
        let mut frames = Frames::new(1000);
        frames.feed(bytes);
        all(&mut frames)
    }

    fn text(payload: &str) -> Received {
        Received::Message {
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            binary: false,
        }
    }

    #[test]
    fn a_ping_comes_between_fragments() {
        let bytes = [
            frame(TEXT, b"a\xe2\x82"),
            frame(FINAL | PING, b"?"),
            frame(CONTINUE, b""),
            frame(FINAL | CONTINUE, b"\xac"),
        ];
        assert_eq!(
            read(&bytes.concat()),
            Ok(vec![Received::Ping(Bytes::from_static(b"?")), text("a\u{20ac}")])
        );
    }

    #[test]
    fn frames_that_no_client_may_send_are_refused() {
        let too_big = |size| BadFrame::TooBig { size, max: 1000 };
        assert_eq!(read(&frame(FINAL | TEXT, &[b'x'; 1000])).map(|read| read.len()), Ok(1));
        assert_eq!(read(&frame(FINAL | TEXT, &[b'x'; 1001])[..8]), Err(too_big(1001)));
        let header = [&[FINAL | TEXT, 0xff][..], &u64::MAX.to_be_bytes(), &[0; 4]].concat();
        assert_eq!(read(&header), Err(too_big(u64::MAX)));
        let fragments = [frame(TEXT, &[b'x'; 600]), frame(CONTINUE, &[b'x'; 401])].concat();
        assert_eq!(read(&fragments), Err(too_big(1001)));
        assert_eq!(read(&frame(FINAL | TEXT, b"\xff")), Err(BadFrame::NotUtf8));
        assert_eq!(read(&frame(FINAL | CLOSE, b"\x03\xe8\xff")), Err(BadFrame::NotUtf8));
        let broken = [
            vec![FINAL | TEXT, 1, b'x'],
            frame(FINAL | 0x40 | TEXT, b"x"),
            frame(FINAL | 0x3, b"x"),
            frame(FINAL | 0xb, b"x"),
            frame(PING, b"x"),
            frame(FINAL | PING, &[0; 126]),
            frame(FINAL | CONTINUE, b"x"),
            [frame(TEXT, b"x"), frame(FINAL | TEXT, b"x")].concat(),
            frame(FINAL | CLOSE, b"x"),
        ];
        for bytes in broken {
            assert!(matches!(read(&bytes), Err(BadFrame::Protocol(_))), "{bytes:?}");
        }
    }

    #[test]
    fn close_codes() {
        for code in [1000, 1001, 1003, 1007, 1012, 1014, 3000, 4999_u16] {
            let closed = Received::Close {
                code: Some(code),
                reason: "why".into(),
            };
            let payload = [&code.to_be_bytes()[..], b"why"].concat();
            assert_eq!(read(&frame(FINAL | CLOSE, &payload)), Ok(vec![closed]));
        }
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, u16::MAX] {
            let refused = read(&frame(FINAL | CLOSE, &code.to_be_bytes()));
            assert_eq!(refused, Err(BadFrame::Protocol("invalid close code")), "{code}");
        }
        assert_eq!(
            read(&frame(FINAL | CLOSE, b"")),
            Ok(vec![Received::Close {
                code: None,
                reason: String::new()
            }])
        );
    }

    #[test]
    fn nothing_is_kept_of_a_large_message() {
        let mut frames = Frames::new(1 << 20);
        for piece in frame(FINAL | TEXT, &vec![b'x'; 1 << 20]).chunks(4096) {
            assert_eq!(frames.pop(), Ok(None));
            frames.feed(piece);
        }
        assert_eq!(all(&mut frames).map(|all| all.len()), Ok(1));
        assert_eq!(frames.input.capacity(), 0);
    }

    proptest! {
        #[test]
        fn messages_are_the_same_however_they_are_cut(
            messages in prop::collection::vec(prop::collection::vec("[a-zäöü]{0,90}", 1..4), 1..6),
            cut in 1..64usize,
        ) {
            let mut bytes = Vec::new();
            for fragments in &messages {
                for (index, fragment) in fragments.iter().enumerate() {
                    let first = if index == 0 { TEXT } else { CONTINUE };
                    let last = if index + 1 == fragments.len() { FINAL } else { 0 };
                    bytes.extend(frame(first | last, fragment.as_bytes()));
                }
            }
            let mut frames = Frames::new(1000);
            let mut received = Vec::new();
            for piece in bytes.chunks(cut) {
                frames.feed(piece);
                received.extend(all(&mut frames).unwrap());
            }
            let expected: Vec<_> = messages.iter().map(|fragments| text(&fragments.concat())).collect();
            prop_assert_eq!(received, expected);
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes);
        }
    }
}
