//! Errors of handlers and refusals of commands, and the guard that turns a panic into an error.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::{FutureExt, TryFutureExt};
use meepo_node::error_text;
use meepo_proto::link as wire;

/// An error of a handler, or a command about a client that was refused; as [`Handler::on_error`](crate::Handler::on_error)
/// is told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandlerError {
    /// A handler has returned an error.
    #[error("{error}")]
    #[non_exhaustive]
    Failed {
        /// The method of [`Handler`](crate::Handler).
        handler: &'static str,
        /// The error that it returned.
        error: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A handler has panicked.
    #[error("panic: {message}")]
    #[non_exhaustive]
    Panicked {
        /// The method of [`Handler`](crate::Handler).
        handler: &'static str,
        /// The message of the panic.
        message: String,
    },
    /// A handler has taken longer than the setting `handler_timeout`, and was cut off: its event is delivered again, here
    /// or to another worker.
    #[error("it has taken longer than {limit:?} and was cut off")]
    #[non_exhaustive]
    CutOff {
        /// The method of [`Handler`](crate::Handler).
        handler: &'static str,
        /// How long the handler may take.
        limit: Duration,
    },
    /// The gateway has refused a command about the client.
    #[error("{command} was refused: {detail}")]
    #[non_exhaustive]
    Refused {
        /// The command: `send`, `close`, `join`, `leave`, `bind`, `unbind`, `session` or `pause`.
        command: String,
        /// Why.
        why: Refusal,
        /// The reason, in words.
        detail: String,
    },
}

/// Why a gateway has refused a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The client has gone.
    Gone,
    /// What the command says is not valid: an empty name, text that is not UTF-8.
    Invalid,
    /// The command exceeds a limit.
    OverLimit,
    /// The gateway has a reason that this worker does not know.
    Other,
}

/// A panic, with its message.
#[derive(Debug, thiserror::Error)]
#[error("panic: {0}")]
pub(crate) struct Panic(String);

impl Panic {
    pub(crate) fn new(payload: &(dyn Any + Send)) -> Self {
        Self(error_text::of_panic(payload).unwrap_or("of an unknown type").to_owned())
    }
}

impl HandlerError {
    pub(crate) fn panicked(handler: &'static str, Panic(message): Panic) -> Self {
        Self::Panicked { handler, message }
    }
}

impl From<wire::Refused> for HandlerError {
    fn from(refused: wire::Refused) -> Self {
        let why = match refused.why() {
            wire::RefusedWhy::Gone => Refusal::Gone,
            wire::RefusedWhy::Invalid => Refusal::Invalid,
            wire::RefusedWhy::OverLimit => Refusal::OverLimit,
            wire::RefusedWhy::Unspecified => Refusal::Other,
        };
        Self::Refused {
            command: refused.command,
            why,
            detail: refused.detail,
        }
    }
}

/// Runs code of the application: a panic in it becomes an error, and ends nothing else.
pub(crate) fn guarded<T>(handler: impl Future<Output = T>) -> impl Future<Output = Result<T, Panic>> {
    // No async function: that would keep the handler's future twice.
    AssertUnwindSafe(handler)
        .catch_unwind()
        .map_err(|payload| Panic::new(&*payload))
}
