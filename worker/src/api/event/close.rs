//! Why a client has closed.

use std::fmt;

use meepo_proto::link as wire;

/// Why a client has closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseReason {
    /// What ended the connection.
    pub cause: CloseCause,
    /// The close code that the client sent, if it was the client that closed, else the one that it was sent.
    pub code: Option<u16>,
    /// The text that came with the code, often empty.
    pub text: String,
}

/// What ended a client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseCause {
    /// The client closed with a close frame.
    Client,
    /// The client ended the connection without a close frame.
    Eof,
    /// The connection broke.
    Reset,
    /// A worker closed the client.
    Kicked,
    /// The client sent a message over the limit.
    TooBig,
    /// The client broke the protocol.
    Protocol,
    /// The client sent text that is not UTF-8.
    InvalidText,
    /// The client was silent for longer than the heartbeat limit.
    Heartbeat,
    /// The client did not read what it was sent.
    Slow,
    /// The gateway was stopped or reloaded.
    GatewayStop,
    /// The gateway died, and the connection with it.
    GatewayLost,
    /// An event of the client ended several workers in turn.
    GivenUp,
    /// No worker took the client in time.
    NoWorker,
    /// A newer gateway told a cause that this worker does not know.
    Unknown,
}

impl CloseCause {
    /// Its name, for logs and figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Eof => "eof",
            Self::Reset => "reset",
            Self::Kicked => "kicked",
            Self::TooBig => "too big",
            Self::Protocol => "protocol",
            Self::InvalidText => "invalid text",
            Self::Heartbeat => "heartbeat",
            Self::Slow => "slow",
            Self::GatewayStop => "gateway stop",
            Self::GatewayLost => "gateway lost",
            Self::GivenUp => "given up",
            Self::NoWorker => "no worker",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for CloseCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl CloseReason {
    pub(crate) fn gateway_lost() -> Self {
        Self {
            cause: CloseCause::GatewayLost,
            code: None,
            text: String::new(),
        }
    }
}

/// Cuts a text that is longer than `most` bytes between two characters.
pub(crate) fn cut(text: &mut String, most: usize) {
    if text.len() > most {
        let end = (0..=most).rev().find(|&end| text.is_char_boundary(end));
        text.truncate(end.unwrap_or(0));
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)?;
        if let Some(code) = self.code {
            write!(f, " {code}")?;
        }
        if !self.text.is_empty() {
            write!(f, ": {}", self.text)?;
        }
        Ok(())
    }
}

impl From<wire::Closed> for CloseReason {
    fn from(closed: wire::Closed) -> Self {
        Self {
            cause: closed.cause().into(),
            code: closed.code.and_then(|code| u16::try_from(code).ok()),
            text: closed.reason,
        }
    }
}

impl From<wire::CloseCause> for CloseCause {
    fn from(cause: wire::CloseCause) -> Self {
        match cause {
            wire::CloseCause::Unspecified => Self::Unknown,
            wire::CloseCause::Client => Self::Client,
            wire::CloseCause::Eof => Self::Eof,
            wire::CloseCause::Reset => Self::Reset,
            wire::CloseCause::Kicked => Self::Kicked,
            wire::CloseCause::TooBig => Self::TooBig,
            wire::CloseCause::Protocol => Self::Protocol,
            wire::CloseCause::InvalidText => Self::InvalidText,
            wire::CloseCause::Heartbeat => Self::Heartbeat,
            wire::CloseCause::Slow => Self::Slow,
            wire::CloseCause::GatewayStop => Self::GatewayStop,
            wire::CloseCause::GatewayLost => Self::GatewayLost,
            wire::CloseCause::GivenUp => Self::GivenUp,
            wire::CloseCause::NoWorker => Self::NoWorker,
        }
    }
}
