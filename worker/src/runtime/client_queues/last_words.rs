//! The last words to the clients of a gateway, before it closes them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use meepo_proto::link as wire;
use meepo_proto::link::command::Body as Command;

use crate::api::event::last_words::LastWords;
use crate::link::Link;

/// The last words to the clients of a gateway that is about to close them. Once no task holds this value any more, the
/// gateway is told that all has been sent.
#[derive(Debug)]
pub(crate) struct SayLastWords {
    link: Arc<Link>,
    pub(crate) why: LastWords,
    until: Instant,
}

impl SayLastWords {
    pub(crate) fn new(link: Arc<Link>, last_words: wire::LastWords) -> Arc<Self> {
        Arc::new(Self {
            link,
            why: match last_words.reload {
                true => LastWords::Reload,
                false => LastWords::Stop,
            },
            until: Instant::now() + Duration::from_millis(last_words.wait_ms.into()),
        })
    }

    /// How long the gateway still waits.
    pub(crate) fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
}

impl Drop for SayLastWords {
    fn drop(&mut self) {
        // If the link has ended, the gateway does not wait.
        let _ = self.link.send(Command::LastWordsSent(wire::LastWordsSent {}));
    }
}
