//! A handshake in one allocation: gateways and workers keep one for every client.

use std::fmt;

use prost::{decode_length_delimiter, encode_length_delimiter, length_delimiter_len};

use crate::link::{Handshake, Header};

/// A [`Handshake`] in one allocation.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PackedHandshake {
    /// Peer, protocol, path, query, then name and value of each header, each with its length before it.
    packed: Box<[u8]>,
}

/// The parts that every handshake has.
const PEER: usize = 0;
const PROTOCOL: usize = 1;
const PATH: usize = 2;
const QUERY: usize = 3;
const HEADERS: usize = 4;

impl PackedHandshake {
    /// A handshake without path, query and headers.
    pub fn new(peer: &str, protocol: &str) -> Self {
        Self::pack(&[peer.as_bytes(), protocol.as_bytes(), b"", b""])
    }

    /// The same with another path.
    pub fn with_path(self, path: &str) -> Self {
        self.with(PATH, path.as_bytes())
    }

    /// The same with another query.
    pub fn with_query(self, query: &str) -> Self {
        self.with(QUERY, query.as_bytes())
    }

    /// The same with one header more.
    pub fn with_header(self, name: &str, value: &[u8]) -> Self {
        let parts = self.complete();
        Self::pack(&[&parts[..], &[name.as_bytes(), value]].concat())
    }

    fn with(self, at: usize, part: &[u8]) -> Self {
        let mut parts = self.complete();
        parts[at] = part;
        Self::pack(&parts)
    }

    /// All parts: those that every handshake has are there, be they empty.
    fn complete(&self) -> Vec<&[u8]> {
        let mut parts: Vec<_> = self.parts().collect();
        parts.resize(parts.len().max(HEADERS), b"");
        parts
    }

    fn pack(parts: &[&[u8]]) -> Self {
        let size = parts.iter().map(|part| length_delimiter_len(part.len()) + part.len());
        let mut packed = Vec::with_capacity(size.sum());
        for part in parts {
            encode_length_delimiter(part.len(), &mut packed).expect("a vector grows");
            packed.extend_from_slice(part);
        }
        Self { packed: packed.into() }
    }

    fn parts(&self) -> Parts<'_> {
        Parts(&self.packed)
    }

    fn text(&self, at: usize) -> &str {
        text(self.parts().nth(at).unwrap_or_default())
    }

    /// The client's address and port.
    pub fn peer(&self) -> &str {
        self.text(PEER)
    }

    /// The client protocol, such as `ws`.
    pub fn protocol(&self) -> &str {
        self.text(PROTOCOL)
    }

    /// The path of the HTTP request; empty for other protocols.
    pub fn path(&self) -> &str {
        self.text(PATH)
    }

    /// The query of the HTTP request, as it was sent; empty for other protocols.
    pub fn query(&self) -> &str {
        self.text(QUERY)
    }

    /// Name and value of each header, in the order in which they came.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let mut parts = self.parts();
        // Names and values of headers come after the parts that every handshake has.
        let _ = parts.nth(HEADERS - 1);
        std::iter::from_fn(move || Some((text(parts.next()?), parts.next()?)))
    }

    /// The handshake as it goes over a link.
    pub fn unpack(&self) -> Handshake {
        let header = |(name, value): (&str, &[u8])| Header {
            name: name.into(),
            value: value.to_vec().into(),
        };
        Handshake {
            peer: self.peer().into(),
            protocol: self.protocol().into(),
            path: self.path().into(),
            query: self.query().into(),
            headers: self.headers().map(header).collect(),
        }
    }
}

impl From<&Handshake> for PackedHandshake {
    fn from(handshake: &Handshake) -> Self {
        let Handshake {
            peer,
            protocol,
            path,
            query,
            headers,
        } = handshake;
        let mut parts = Vec::with_capacity(HEADERS + 2 * headers.len());
        parts.extend([peer, protocol, path, query].map(|part| part.as_bytes()));
        for Header { name, value } in headers {
            parts.extend([name.as_bytes(), value]);
        }
        Self::pack(&parts)
    }
}

/// Headers carry cookies and tokens: only their names are shown.
impl fmt::Debug for PackedHandshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackedHandshake")
            .field("peer", &self.peer())
            .field("protocol", &self.protocol())
            .field("path", &self.path())
            .field("headers", &self.headers().map(|(name, _)| name).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// The parts of a packed handshake.
struct Parts<'a>(&'a [u8]);

impl<'a> Iterator for Parts<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let length = decode_length_delimiter(&mut self.0).ok()?;
        let (part, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(part)
    }
}

/// A part that was packed as text.
fn text(part: &[u8]) -> &str {
    std::str::from_utf8(part).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_comes_back_as_it_was_packed() {
        let header = |name: &str, value: &[u8]| Header {
            name: name.into(),
            value: value.to_vec().into(),
        };
        for handshake in [
            Handshake::default(),
            Handshake {
                peer: "192.0.2.7:51312".into(),
                protocol: "ws".into(),
                path: "/ws".into(),
                query: "x".repeat(300),
                headers: vec![header("cookie", b"a=b"), header("", b""), header("raw", b"\xff\0")],
            },
        ] {
            assert_eq!(PackedHandshake::from(&handshake).unpack(), handshake);
        }
        let built = PackedHandshake::default().with_query("q").with_header("name", b"value");
        assert_eq!((built.peer(), built.query()), ("", "q"));
        assert_eq!(built.headers().collect::<Vec<_>>(), [("name", &b"value"[..])]);
    }

    #[test]
    fn values_of_headers_are_not_shown() {
        let secret = PackedHandshake::default().with_header("cookie", b"hush-hush");
        let shown = format!("{secret:?}");
        assert!(shown.contains("cookie") && !shown.contains("hush"), "{shown}");
    }
}
