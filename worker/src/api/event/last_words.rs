//! The last word to clients before their gateway closes them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use meepo_proto::link as wire;
use meepo_proto::link::command::Body as Command;

use crate::Client;
use crate::link::Link;

/// Why a gateway is about to close its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Farewell {
    /// It stops. Over WebSocket the close code is 1001.
    Stop,
    /// It is reloaded: a successor serves already. Over WebSocket the close code is 1012.
    Reload,
}

/// The farewell of a gateway. Once nobody holds it any more, the gateway is told that all has been sent.
#[derive(Debug)]
pub(crate) struct Parting {
    link: Arc<Link>,
    pub(crate) why: Farewell,
    until: Instant,
}

impl Parting {
    pub(crate) fn new(link: Arc<Link>, leaving: wire::Leaving) -> Arc<Self> {
        Arc::new(Self {
            link,
            why: match leaving.reload {
                true => Farewell::Reload,
                false => Farewell::Stop,
            },
            until: Instant::now() + Duration::from_millis(leaving.wait_ms.into()),
        })
    }

    /// For how long the gateway still waits.
    pub(crate) fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
}

impl Drop for Parting {
    fn drop(&mut self) {
        // A link that has ended is waited for by nobody.
        let _ = self.link.send(Command::Parted(wire::Parted {}));
    }
}

/// What a handler without a last word does. It has no size, which no future of an `async fn` with arguments has.
pub(crate) struct Nothing;

impl Future for Nothing {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

/// Whether a handler has no last word, so that its clients need not be gone through.
pub(crate) fn says_nothing<'a, F: Future>(_on_farewell: impl FnOnce(&'a Client) -> F) -> bool {
    size_of::<F>() == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Handler, Message, Result};

    struct Silent;

    impl Handler for Silent {
        async fn on_message(&self, _client: &Client, _message: Message) -> Result<()> {
            Ok(())
        }
    }

    struct Polite;

    impl Handler for Polite {
        async fn on_message(&self, _client: &Client, _message: Message) -> Result<()> {
            Ok(())
        }

        async fn on_farewell(&self, _client: &Client, _why: Farewell) {}
    }

    #[test]
    fn only_a_handler_that_says_nothing_is_not_asked() {
        assert!(says_nothing(|client| Silent.on_farewell(client, Farewell::Stop)));
        assert!(!says_nothing(|client| Polite.on_farewell(client, Farewell::Stop)));
    }
}
