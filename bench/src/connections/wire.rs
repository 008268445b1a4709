//! Messages to bytes and back: WebSocket frames, or lines. The scheme of the URL says which protocol is spoken inside frames.

use std::io::Cursor;
use std::net::{SocketAddr, ToSocketAddrs};

use http::Uri;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::nats;
use crate::error::{Error, Failure};

/// The largest message that is received, in bytes.
pub(crate) const MAX_MESSAGE: usize = 64 << 20;
const MAX_ANSWER: usize = 16 << 10;

/// How messages are framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Ws,
    Line,
    /// The commands of a NATS server, in WebSocket frames.
    Nats,
    /// A channel of nchan: each connection is in the room, and each message goes to the whole room.
    Nchan,
}

/// A server's URL, and all that connections to it have in common.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) url: String,
    pub(crate) protocol: Protocol,
    pub(crate) address: SocketAddr,
    /// The handshake's request; its key is the same for all connections of a run, and so is the mask: making them is not
    /// what is measured.
    pub(crate) request: Vec<u8>,
    accept: String,
    mask: [u8; 4],
}

/// A frame or line that was received.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received<'a> {
    Message(&'a [u8]),
    Ping(&'a [u8]),
    Pong,
    Close(String),
}

impl Target {
    pub(crate) fn parse(url: &str) -> Result<Self, Error> {
        let wrong = |reason: &str| Error::Url {
            url: url.into(),
            reason: reason.into(),
        };
        let uri: Uri = url.parse().map_err(|_| wrong("not an address"))?;
        let protocol = match uri.scheme_str() {
            Some("ws") => Protocol::Ws,
            Some("line") => Protocol::Line,
            Some("nats+ws") => Protocol::Nats,
            Some("nchan+ws") => Protocol::Nchan,
            _ => {
                return Err(wrong(
                    "an address begins with ws://, line://, nats+ws:// or nchan+ws://",
                ));
            }
        };
        let authority = uri.authority().ok_or_else(|| wrong("the host is missing"))?;
        let port = match (authority.port_u16(), protocol) {
            (Some(port), _) => port,
            (None, Protocol::Ws | Protocol::Nchan) => 80,
            (None, Protocol::Line | Protocol::Nats) => return Err(wrong("the port is missing")),
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let address = (host, port)
            .to_socket_addrs()
            .map_err(|error| wrong(&error.to_string()))?
            .next()
            .ok_or_else(|| wrong("the host has no address"))?;
        let key = generate_key();
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        );
        let mut mask = [0; 4];
        mask.copy_from_slice(&key.as_bytes()[..4]);
        Ok(Self {
            url: url.into(),
            protocol,
            address,
            request: request.into_bytes(),
            accept: derive_accept_key(key.as_bytes()),
            mask,
        })
    }

    /// Whether the server can echo a message to its sender alone.
    pub(crate) fn echoes(&self) -> bool {
        self.protocol != Protocol::Nchan
    }

    /// Whether the server has groups beside the one room.
    pub(crate) fn has_groups(&self) -> bool {
        self.protocol != Protocol::Nchan
    }

    /// Whether the server can leave out a publish's sender.
    pub(crate) fn leaves_out(&self) -> bool {
        !matches!(self.protocol, Protocol::Nats | Protocol::Nchan)
    }

    /// Appends a message of a connection.
    pub(crate) fn encode(&self, number: usize, payload: &[u8], out: &mut Vec<u8>) {
        match self.protocol {
            Protocol::Ws | Protocol::Nchan => self.frame(OpCode::Data(Data::Text), payload, out),
            Protocol::Nats => self.binary(&nats::command(number, payload), out),
            Protocol::Line => {
                out.extend_from_slice(payload);
                out.push(b'\n');
            }
        }
    }

    /// Appends the answer to a ping.
    pub(crate) fn pong(&self, payload: &[u8], out: &mut Vec<u8>) {
        self.frame(OpCode::Control(Control::Pong), payload, out);
    }

    /// Appends a binary frame, whose bytes need not be one message.
    pub(crate) fn binary(&self, payload: &[u8], out: &mut Vec<u8>) {
        self.frame(OpCode::Data(Data::Binary), payload, out);
    }

    fn frame(&self, opcode: OpCode, payload: &[u8], out: &mut Vec<u8>) {
        let header = FrameHeader {
            opcode,
            mask: Some(self.mask),
            ..FrameHeader::default()
        };
        header
            .format(payload.len() as u64, out)
            .expect("a vector takes all that is written");
        let start = out.len();
        out.extend_from_slice(payload);
        let mut words = out[start..].chunks_exact_mut(4);
        for word in &mut words {
            for (byte, mask) in word.iter_mut().zip(self.mask) {
                *byte ^= mask;
            }
        }
        for (byte, mask) in words.into_remainder().iter_mut().zip(self.mask) {
            *byte ^= mask;
        }
    }

    /// The frame or line at the beginning of the input, and its length; none if it is not complete yet.
    pub(crate) fn decode<'a>(&self, input: &'a [u8]) -> Result<Option<(Received<'a>, usize)>, Failure> {
        match self.protocol {
            Protocol::Ws | Protocol::Nats | Protocol::Nchan => decode_frame(input),
            Protocol::Line => Ok(input.iter().position(|byte| *byte == b'\n').map(|end| {
                let line = &input[..end];
                (Received::Message(line.strip_suffix(b"\r").unwrap_or(line)), end + 1)
            })),
        }
    }

    /// The length of the answer to the handshake; none if it is not complete yet.
    pub(crate) fn upgraded(&self, input: &[u8]) -> Result<Option<usize>, Failure> {
        let Some(end) = input.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
            return if input.len() > MAX_ANSWER {
                Err(Failure::Unsupported("the answer to the WebSocket handshake has no end"))
            } else {
                Ok(None)
            };
        };
        let head = String::from_utf8_lossy(&input[..end]);
        let mut lines = head.lines();
        let status = lines.next().unwrap_or_default();
        if status.split(' ').nth(1) != Some("101") {
            return Err(Failure::Refused(status.into()));
        }
        let accepted = lines
            .filter_map(|line| line.split_once(':'))
            .any(|(name, value)| name.eq_ignore_ascii_case("sec-websocket-accept") && value.trim() == self.accept);
        if !accepted {
            return Err(Failure::Refused(format!("{status}, with a wrong Sec-WebSocket-Accept")));
        }
        Ok(Some(end + 4))
    }
}

fn decode_frame(input: &[u8]) -> Result<Option<(Received<'_>, usize)>, Failure> {
    let mut cursor = Cursor::new(input);
    let Some((header, length)) = FrameHeader::parse(&mut cursor)? else {
        return Ok(None);
    };
    if length > MAX_MESSAGE as u64 {
        return Err(Failure::Unsupported("a frame above 64 MiB"));
    }
    let start = cursor.position() as usize;
    let end = start + length as usize;
    let Some(payload) = input.get(start..end) else {
        return Ok(None);
    };
    if header.mask.is_some() {
        return Err(Failure::Unsupported("a masked frame from a server"));
    }
    let received = match header.opcode {
        OpCode::Data(Data::Text | Data::Binary) if header.is_final => Received::Message(payload),
        OpCode::Control(Control::Ping) => Received::Ping(payload),
        OpCode::Control(Control::Pong) => Received::Pong,
        OpCode::Control(Control::Close) => Received::Close(match payload {
            [high, low, text @ ..] => {
                let code = u16::from_be_bytes([*high, *low]);
                format!("{code} {}", String::from_utf8_lossy(text)).trim_end().into()
            }
            _ => "no code".into(),
        }),
        _ => return Err(Failure::Unsupported("a message in several frames")),
    };
    Ok(Some((received, end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let ws = Target::parse("ws://127.0.0.1:19910/ws?a=b").unwrap();
        assert_eq!(ws.protocol, Protocol::Ws);
        assert_eq!(ws.address.to_string(), "127.0.0.1:19910");
        let request = String::from_utf8(ws.request).unwrap();
        assert!(
            request.starts_with("GET /ws?a=b HTTP/1.1\r\nHost: 127.0.0.1:19910\r\n"),
            "{request}"
        );
        let line = Target::parse("line://[::1]:9").unwrap();
        assert_eq!(
            (line.protocol, line.address.to_string().as_str()),
            (Protocol::Line, "[::1]:9")
        );
        let nats = Target::parse("nats+ws://127.0.0.1:1/").unwrap();
        let nchan = Target::parse("nchan+ws://127.0.0.1/").unwrap();
        assert_eq!((nats.protocol, nchan.protocol), (Protocol::Nats, Protocol::Nchan));
        for wrong in ["", "127.0.0.1:1", "http://127.0.0.1:1/", "line://127.0.0.1", "ws:///x"] {
            let error = Target::parse(wrong).unwrap_err().to_string();
            assert!(error.starts_with(wrong), "{error}");
        }
    }

    #[test]
    fn frames_come_whole_or_not_at_all() {
        let target = Target::parse("ws://127.0.0.1:1/").unwrap();
        for size in [0, 1, 3, 125, 126, 65_535, 65_536] {
            let payload = vec![b'a'; size];
            let mut masked = Vec::new();
            target.encode(0, &payload, &mut masked);
            // A server's frame is the same without the mask.
            let mut frame = masked[..masked.len() - size - 4].to_vec();
            frame[1] &= 0x7f;
            frame.extend_from_slice(&payload);
            for cut in [0, 1, frame.len() - 1] {
                assert!(
                    target.decode(&frame[..cut]).unwrap().is_none(),
                    "{size} bytes, {cut} there"
                );
            }
            frame.push(0x81);
            let (received, used) = target.decode(&frame).unwrap().unwrap();
            assert_eq!((received, used), (Received::Message(&payload[..]), frame.len() - 1));
        }
        let close = target.decode(b"\x88\x05\x03\xf1big").unwrap().unwrap();
        assert_eq!(close, (Received::Close("1009 big".into()), 7));
        assert!(target.decode(b"\x01\x01a").is_err(), "a fragment");
        assert!(target.decode(b"\x81\x81abcda").is_err(), "a mask");
    }

    #[test]
    fn lines_lose_their_ends() {
        let target = Target::parse("line://127.0.0.1:1").unwrap();
        assert_eq!(target.decode(b"a\r\nb").unwrap(), Some((Received::Message(b"a"), 3)));
        assert_eq!(target.decode(b"\nb").unwrap(), Some((Received::Message(b""), 1)));
        assert_eq!(target.decode(b"b\r").unwrap(), None);
    }

    #[test]
    fn only_a_right_answer_upgrades() {
        let target = Target::parse("ws://127.0.0.1:1/").unwrap();
        let right = format!(
            "HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: {}\r\n\r\n",
            target.accept
        );
        assert_eq!(target.upgraded(right.as_bytes()).unwrap(), Some(right.len()));
        assert_eq!(target.upgraded(&right.as_bytes()[..right.len() - 1]).unwrap(), None);
        let busy = target
            .upgraded(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
            .unwrap_err();
        assert!(busy.to_string().ends_with("HTTP/1.1 503 Service Unavailable"), "{busy}");
        assert!(
            target
                .upgraded(b"HTTP/1.1 101 X\r\nsec-websocket-accept: no\r\n\r\n")
                .is_err()
        );
    }
}
