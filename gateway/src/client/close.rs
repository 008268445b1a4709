//! How a client is closed: cause, code, and what it still gets.

use bytes::Bytes;
use meepo_proto::codes::CloseCode;
use meepo_proto::link::CloseCause;

use crate::client::codec::Codec;

/// How a client is closed.
#[derive(Debug, Clone)]
pub(crate) struct ClientClose {
    /// Which side closes it, and for what.
    pub(crate) cause: CloseCause,
    /// The close code that was received, or is sent.
    pub(crate) code: Option<u16>,
    /// The reason for logs and workers, and for the client if its protocol can tell it.
    pub(crate) reason: String,
    /// The last frame that the client is sent.
    pub(crate) last: Option<Bytes>,
    /// What becomes of frames that wait in its outbox.
    pub(crate) waiting: WaitingFrames,
}

/// What becomes of the frames that wait in a client's outbox when it is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitingFrames {
    /// They are sent before the last frame.
    Sent,
    /// They are dropped, and the last frame is sent.
    Dropped,
    /// They are dropped, and the connection ends at once, without a graceful close.
    Cut,
}

impl ClientClose {
    /// The client has closed the connection, or broken it.
    pub(crate) fn by_client(cause: CloseCause, code: Option<u16>, reason: impl Into<String>) -> Self {
        Self {
            cause,
            code,
            reason: reason.into(),
            last: None,
            waiting: WaitingFrames::Sent,
        }
    }

    /// The connection broke.
    pub(crate) fn broken() -> Self {
        Self::by_client(CloseCause::Reset, None, "connection broke")
    }

    /// A worker closes it without a graceful close.
    pub(crate) fn at_once() -> Self {
        Self {
            waiting: WaitingFrames::Cut,
            ..Self::by_client(CloseCause::Kicked, None, "")
        }
    }

    /// The gateway closes it, with a last frame of its protocol.
    pub(crate) fn by_gateway(codec: &Codec, cause: CloseCause, code: CloseCode) -> Self {
        Self::with_reason(codec, cause, Some(code.code), code.reason)
    }

    /// As [`ClientClose::by_gateway`], with a code and a reason that are not in the table of close codes.
    pub(crate) fn with_reason(codec: &Codec, cause: CloseCause, code: Option<u16>, reason: &str) -> Self {
        Self {
            last: (codec.close)(code, reason),
            ..Self::by_client(cause, code, reason)
        }
    }

    /// The same, but frames that wait in the outbox are dropped.
    pub(crate) fn dropping_waiting(self) -> Self {
        Self {
            waiting: WaitingFrames::Dropped,
            ..self
        }
    }
}
