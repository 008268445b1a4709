//! The transitions that a worker's link causes: it is up, its events are done or undone, it drains, it ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use meepo_proto::id::{ClientNumber, QueryId, Seq};
use meepo_proto::link::event::Body;
use meepo_proto::link::{LastWords, Reply, reply};
use tokio::sync::Notify;
use tonic::Status;

use crate::router::dispatch::Dispatch;
use crate::router::effects::Events;
use crate::router::rules::{Ending, LinkId};

impl Dispatch {
    /// A worker's link is up. A link from outside is given no clients.
    pub(crate) fn link_up(&self, events: Events, outside: bool) -> LinkId {
        let link = LinkId(self.last_link.fetch_add(1, Ordering::Relaxed) + 1);
        self.transition(|router, outputs, effects| {
            effects.links.insert(link, events);
            if !outside {
                router.link_up(link, outputs);
            }
        });
        link
    }

    /// The worker behind a link drains: it takes nothing new.
    pub(crate) fn link_draining(&self, link: LinkId) {
        self.transition(|router, outputs, effects| {
            if !effects.last_words.put_off_drain(link) {
                router.link_draining(link, outputs);
            }
        });
    }

    /// Says why a link ends, as the last thing that goes to the worker.
    pub(crate) fn refuse_link(&self, link: LinkId, why: Status) {
        self.look(|_, effects| {
            if let Some(events) = effects.links.get(&link) {
                let _ = events.send(Err(why));
            }
        });
    }

    /// A link has ended: its events go to others.
    pub(crate) fn link_down(&self, link: LinkId, ending: Ending) {
        self.transition(|router, outputs, effects| {
            effects.links.remove(&link);
            effects.last_words.end(link);
            router.link_down(link, ending, outputs);
        });
    }

    /// A worker has finished with events.
    pub(crate) fn done(&self, link: LinkId, events: &[Seq]) {
        self.transition(|router, outputs, _| {
            for &seq in events {
                router.done(link, seq, outputs);
            }
        });
    }

    /// A worker has cut a handler off, or hands an event back.
    pub(crate) fn undone(&self, link: LinkId, event: Seq, handed_back: bool) {
        self.transition(|router, outputs, effects| {
            // Only a worker that drains hands back, which is no failure of the event: the drain is put off no longer.
            if handed_back && effects.last_words.take_up_drain(link) {
                router.link_draining(link, outputs);
            }
            router.undone(link, event, handed_back, outputs);
        });
    }

    /// Sends an event that no worker answers with `done`: a reply, a refusal, a pong.
    pub(crate) fn tell(&self, link: LinkId, client: Option<ClientNumber>, body: Body) {
        self.look(|_, effects| effects.tell(link, client, body));
    }

    /// Answers a query.
    pub(crate) fn reply(&self, link: LinkId, query: QueryId, body: reply::Body) {
        let reply = Reply {
            query: query.0,
            body: Some(body),
        };
        self.tell(link, None, Body::Reply(reply));
    }

    /// Asks all workers that serve clients for the last words of their handlers. Gives what is told when all have sent
    /// them, or `None` if there is no such worker.
    pub(crate) fn ask_last_words(&self, reload: bool, wait: Duration) -> Option<Arc<Notify>> {
        self.transition(|router, _, effects| {
            let over = effects.last_words.ask(router.link_ids());
            let last_words = LastWords {
                reload,
                wait_ms: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX),
            };
            for link in effects.last_words.asked() {
                effects.tell(link, None, Body::LastWords(last_words));
            }
            over
        })
    }

    /// The links of workers that were asked for last words and have not sent them.
    pub(crate) fn without_last_words(&self) -> Vec<LinkId> {
        self.look(|_, effects| effects.last_words.asked().collect())
    }

    /// A worker has sent its last words, or is waited for no longer: its drain goes on, if it was put off.
    pub(crate) fn last_words_sent(&self, link: LinkId) {
        self.transition(|router, outputs, effects| {
            if effects.last_words.end(link) {
                router.link_draining(link, outputs);
            }
        });
    }
}
