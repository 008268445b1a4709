//! How a client ends.

use bytes::Bytes;
use meepo_proto::codes::CloseCode;
use meepo_proto::link::CloseCause;

use crate::config::settings::Protocol;
use crate::fanout::encode;

/// How a client ends.
#[derive(Debug, Clone)]
pub(crate) struct ClientClose {
    pub cause: CloseCause,
    /// The close code that was received, or is sent; 0 for none.
    pub code: u16,
    pub reason: String,
    /// The last bytes that the client is sent.
    pub last: Option<Bytes>,
    /// What waits to be sent is dropped.
    pub clear: bool,
    /// Nothing is waited for.
    pub at_once: bool,
}

impl ClientClose {
    /// The client ended it, by itself or by breaking down.
    pub(crate) fn by_client(cause: CloseCause, code: u16, reason: impl Into<String>) -> Self {
        Self {
            cause,
            code,
            reason: reason.into(),
            last: None,
            clear: false,
            at_once: false,
        }
    }

    /// A worker ends it without a word.
    pub(crate) fn at_once() -> Self {
        Self {
            clear: true,
            at_once: true,
            ..Self::by_client(CloseCause::Kicked, 0, "")
        }
    }

    /// The gateway ends it, in the client's own protocol.
    pub(crate) fn by_gateway(protocol: Protocol, cause: CloseCause, code: CloseCode) -> Self {
        Self::with_reason(protocol, cause, code.code, code.reason)
    }

    /// As [`ClientClose::by_gateway`], with another reason. A line client is told the reason, if there is one.
    pub(crate) fn with_reason(protocol: Protocol, cause: CloseCause, code: u16, reason: &str) -> Self {
        let last = match protocol {
            Protocol::Ws => Some(encode::close_frame(code, reason)),
            Protocol::Line if reason.is_empty() => None,
            Protocol::Line => Some(encode::line(format!("closed: {reason}").as_bytes())),
        };
        Self {
            cause,
            code,
            reason: reason.into(),
            last,
            clear: false,
            at_once: false,
        }
    }
}
