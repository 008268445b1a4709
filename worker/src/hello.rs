//! How a client came, and how it is turned away.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use meepo_proto::link as wire;
use percent_encoding::percent_decode_str;

use crate::close::cut;

/// How a client came: its address, and what its WebSocket request said.
///
/// ```
/// # use meepo_worker::Hello;
/// fn name(hello: &Hello) -> Option<String> {
///     // ws://chat.example/ws?name=J%C3%BCrgen
///     hello.query_value("name")
/// }
/// # let hello = Hello::new("192.0.2.7:51312", "ws").with_query("room=a&name=J%C3%BCrgen+M&x");
/// # assert_eq!(name(&hello).as_deref(), Some("Jürgen M"));
/// # assert_eq!(hello.query_value("x").as_deref(), Some(""));
/// # assert_eq!(hello.query_value("y"), None);
/// ```
#[derive(Clone, Default)]
pub struct Hello {
    peer: String,
    protocol: String,
    path: String,
    query: String,
    headers: Vec<(String, Bytes)>,
}

impl Hello {
    /// A handshake without path, query and headers, for tests of a handler's own parts.
    pub fn new(peer: impl Into<String>, protocol: impl Into<String>) -> Self {
        Self {
            peer: peer.into(),
            protocol: protocol.into(),
            ..Self::default()
        }
    }

    /// The same with another path.
    pub fn with_path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// The same with another query.
    pub fn with_query(mut self, query: impl Into<String>) -> Self {
        self.query = query.into();
        self
    }

    /// The same with one header more.
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The client's address and port.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// The protocol of the listener that the client came to: `ws` or `line`.
    pub fn protocol(&self) -> &str {
        &self.protocol
    }

    /// The path of the WebSocket request. Empty for other protocols.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What follows the `?` in the WebSocket request, as it was sent. Empty for other protocols.
    pub fn query(&self) -> &str {
        &self.query
    }

    /// The first value of a key in the query, decoded. A key without `=` has the empty value.
    pub fn query_value(&self, key: &str) -> Option<String> {
        value_of(&self.query, key)
    }

    /// The first value of a header that is text. Upper and lower case of the name are the same.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .filter(|(header, _)| header.eq_ignore_ascii_case(name))
            .find_map(|(_, value)| std::str::from_utf8(value).ok())
    }

    /// All headers in the order in which they came.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers.iter().map(|(name, value)| (&**name, &**value))
    }
}

/// The first value of a key in a query or a form, decoded.
pub(crate) fn value_of(pairs: &str, key: &str) -> Option<String> {
    pairs
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .find(|(name, _)| !name.is_empty() && decoded(name) == key)
        .map(|(_, value)| decoded(value).into_owned())
}

fn decoded(text: &str) -> Cow<'_, str> {
    if text.contains('+') {
        let spaced = text.replace('+', " ");
        return Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned());
    }
    percent_decode_str(text).decode_utf8_lossy()
}

impl From<wire::Handshake> for Hello {
    fn from(handshake: wire::Handshake) -> Self {
        Self {
            peer: handshake.peer,
            protocol: handshake.protocol,
            path: handshake.path,
            query: handshake.query,
            headers: handshake.headers.into_iter().map(|h| (h.name, h.value)).collect(),
        }
    }
}

/// Headers carry cookies and tokens: only their names are shown.
impl fmt::Debug for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hello")
            .field("peer", &self.peer)
            .field("protocol", &self.protocol)
            .field("path", &self.path)
            .field(
                "headers",
                &self.headers.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            )
            .finish_non_exhaustive()
    }
}

/// Most bytes of the reason of a rejection: enough for people, and far below the gateway's limit for a command.
const MAX_REASON: usize = 1024;

/// Turns a client away: the WebSocket handshake fails with this HTTP status, other protocols are closed.
///
/// ```
/// use meepo_worker::Reject;
///
/// let reject = Reject::new(403, "members only");
/// assert_eq!(reject.status(), 403);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    status: u16,
    reason: String,
}

impl Reject {
    /// A rejection with an HTTP status of 400 to 599 (any other becomes 500) and a reason that the client is told, cut
    /// after 1 KiB.
    pub fn new(status: u16, reason: impl Into<String>) -> Self {
        let mut reason = reason.into();
        cut(&mut reason, MAX_REASON);
        Self {
            status: if (400..600).contains(&status) { status } else { 500 },
            reason,
        }
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// What the client is told.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, self.reason)
    }
}

impl std::error::Error for Reject {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_found_in_any_case_and_text_only() {
        let hello = Hello::new("192.0.2.7:1", "ws")
            .with_header("Cookie", &b"\xff"[..])
            .with_header("COOKIE", "a=1");
        assert_eq!(hello.header("cookie"), Some("a=1"));
        assert_eq!(hello.header("origin"), None);
        assert!(!format!("{hello:?}").contains("a=1"));
    }

    #[test]
    fn a_status_that_is_no_error_becomes_500() {
        for status in [0, 200, 399, 600] {
            assert_eq!(Reject::new(status, "").status(), 500);
        }
    }
}
