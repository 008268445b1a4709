//! The handshake of a client, and its rejection.

use std::fmt;

use meepo_proto::{PackedHandshake, link as wire};

use super::close::cut;

/// The handshake: how a client came, with its address and its WebSocket request.
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
pub struct Hello(PackedHandshake);

impl Hello {
    /// A handshake without path, query and headers, for tests of a handler's own parts.
    pub fn new(peer: impl AsRef<str>, protocol: impl AsRef<str>) -> Self {
        Self(PackedHandshake::new(peer.as_ref(), protocol.as_ref()))
    }

    /// The same with another path.
    pub fn with_path(self, path: impl AsRef<str>) -> Self {
        Self(self.0.with_path(path.as_ref()))
    }

    /// The same with another query.
    pub fn with_query(self, query: impl AsRef<str>) -> Self {
        Self(self.0.with_query(query.as_ref()))
    }

    /// The same with one header more.
    pub fn with_header(self, name: impl AsRef<str>, value: impl AsRef<[u8]>) -> Self {
        Self(self.0.with_header(name.as_ref(), value.as_ref()))
    }

    /// The client's address and port.
    pub fn peer(&self) -> &str {
        self.0.peer()
    }

    /// The protocol of the listener that the client came to: `ws` or `line`.
    pub fn protocol(&self) -> &str {
        self.0.protocol()
    }

    /// The path of the WebSocket request. Empty for other protocols.
    pub fn path(&self) -> &str {
        self.0.path()
    }

    /// The query of the WebSocket request: what follows the `?`, as it was sent. Empty for other protocols.
    pub fn query(&self) -> &str {
        self.0.query()
    }

    /// The first value of a key in the query, decoded. A key without `=` has the empty value.
    pub fn query_value(&self, key: &str) -> Option<String> {
        value_of(self.query(), key)
    }

    /// The first value of a header that is text. Upper and lower case of the name are the same.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers()
            .filter(|(header, _)| header.eq_ignore_ascii_case(name))
            .find_map(|(_, value)| std::str::from_utf8(value).ok())
    }

    /// All headers in the order in which they came.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.headers()
    }
}

/// The first value of a key in a query or a form, decoded. The empty key has none.
pub(crate) fn value_of(pairs: &str, key: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(pairs.as_bytes());
    pairs
        .find(|(name, _)| !name.is_empty() && name == key)
        .map(|(_, value)| value.into_owned())
}

impl From<wire::Handshake> for Hello {
    fn from(handshake: wire::Handshake) -> Self {
        Self((&handshake).into())
    }
}

/// Headers carry cookies and tokens: only their names are shown.
impl fmt::Debug for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hello")
            .field("peer", &self.peer())
            .field("protocol", &self.protocol())
            .field("path", &self.path())
            .field("headers", &self.headers().map(|(name, _)| name).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// Most bytes of the reason of a rejection: enough for people, and far below the gateway's limit for a command.
const MAX_REASON: usize = 1024;

/// A rejection: the WebSocket handshake fails with this HTTP status, clients of other protocols are closed.
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

    /// The reason that the client is told.
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
    use bytes::Bytes;

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
    fn what_is_packed_is_there_again() {
        let long = "x".repeat(300);
        let header = |name: &str, value: &'static [u8]| wire::Header {
            name: name.into(),
            value: Bytes::from_static(value),
        };
        let handshake = wire::Handshake {
            peer: "192.0.2.7:1".into(),
            protocol: "ws".into(),
            path: String::new(),
            query: long.clone(),
            headers: vec![header("a", b""), header("", b"\xff")],
        };
        let hello = Hello::from(handshake);
        let texts = [hello.peer(), hello.protocol(), hello.path(), hello.query()];
        assert_eq!(texts, ["192.0.2.7:1", "ws", "", &long]);
        let headers: Vec<_> = hello.headers().collect();
        assert_eq!(headers, [("a", &b""[..]), ("", &b"\xff"[..])]);
        let other = Hello::default().with_header("b", "c").with_path("/p");
        assert_eq!((other.path(), other.header("B")), ("/p", Some("c")));
        assert_eq!((other.peer(), Hello::default().headers().count()), ("", 0));
    }

    #[test]
    fn a_status_that_is_no_error_becomes_500() {
        for status in [0, 200, 399, 600] {
            assert_eq!(Reject::new(status, "").status(), 500);
        }
    }
}
