//! Which workers were asked for the last words of their handlers and have not sent them.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::router::rules::LinkId;

/// The workers that were asked for last words and have not sent them.
#[derive(Debug, Default)]
pub(crate) struct LastWords {
    asked: HashMap<LinkId, Drain>,
    /// Told when the last worker has sent its last words.
    over: Arc<Notify>,
}

/// Whether a worker that was asked has said that it drains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drain {
    /// It has not.
    NotAsked,
    /// It has, and its clients stay until it has sent its last words: a worker that has sent its own already would have
    /// none for them.
    PutOff,
}

impl LastWords {
    /// Asks the workers behind these links. Gives what is told when all have answered, or `None` if there are none.
    pub(crate) fn ask(&mut self, links: impl Iterator<Item = LinkId>) -> Option<Arc<Notify>> {
        self.over = Arc::default();
        self.asked = links.map(|link| (link, Drain::NotAsked)).collect();
        (!self.asked.is_empty()).then(|| Arc::clone(&self.over))
    }

    /// The links of workers that were asked and have not answered.
    pub(crate) fn asked(&self) -> impl Iterator<Item = LinkId> {
        self.asked.keys().copied()
    }

    /// Puts the drain of a worker off until it has sent its last words. False if it was not asked for any.
    pub(crate) fn put_off_drain(&mut self, link: LinkId) -> bool {
        let asked = self.asked.get_mut(&link);
        asked.map(|drain| *drain = Drain::PutOff).is_some()
    }

    /// The drain of a worker is put off no longer. True if it was.
    pub(crate) fn take_up_drain(&mut self, link: LinkId) -> bool {
        let asked = self.asked.get_mut(&link);
        asked.is_some_and(|drain| std::mem::replace(drain, Drain::NotAsked) == Drain::PutOff)
    }

    /// A worker has sent its last words, or its link has ended. True if its drain was put off.
    pub(crate) fn end(&mut self, link: LinkId) -> bool {
        let drain = self.asked.remove(&link);
        if drain.is_some() && self.asked.is_empty() {
            self.over.notify_one();
        }
        drain == Some(Drain::PutOff)
    }
}
