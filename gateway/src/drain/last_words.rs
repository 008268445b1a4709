//! The last words of handlers: before a child that drains closes anybody, workers may send its clients something.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use meepo_proto::link::event::Body;
use meepo_proto::link::{Event, Leaving};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::hub::Hub;
use crate::router::LinkId;
use crate::router::dispatch::Dispatch;

/// How long a child waits for last words at most: people are to read a line, not to be kept. A worker that does not know
/// of it, or is frozen, costs this much of a stop.
const WAIT: Duration = Duration::from_secs(2);
/// The part of the time for the drain that goes into it at most.
const SHARE: u32 = 8;

/// Who was asked for last words and has not answered.
#[derive(Debug, Default)]
pub(crate) struct LastWords {
    /// The links, and whether a drain of the worker is put off: its clients are not to be moved to a worker that has had
    /// its last word, and would have none for them.
    asked: HashMap<LinkId, bool>,
    /// Told when the last one has answered.
    over: Arc<Notify>,
}

impl LastWords {
    /// Puts off a worker's drain until it has answered. False if nothing is asked of it.
    pub(crate) fn put_off(&mut self, link: LinkId) -> bool {
        let asked = self.asked.get_mut(&link);
        asked.map(|draining| *draining = true).is_some()
    }

    /// A drain is put off no longer. True if it was.
    pub(crate) fn take_up(&mut self, link: LinkId) -> bool {
        self.asked.get_mut(&link).is_some_and(std::mem::take)
    }

    /// A link has answered or ended. True if its drain was put off.
    pub(crate) fn end(&mut self, link: LinkId) -> bool {
        let draining = self.asked.remove(&link);
        if draining.is_some() && self.asked.is_empty() {
            self.over.notify_one();
        }
        draining == Some(true)
    }
}

impl Hub {
    /// Lets workers send their last words to their clients, and waits until they have, for a part of the time that is
    /// left at most.
    pub(crate) async fn part(&self, reload: bool, left: Duration) {
        let wait = WAIT.min(left / SHARE);
        let over = {
            let mut dispatch = self.dispatch.lock();
            let Dispatch { router, parting, .. } = &mut *dispatch;
            parting.over = Arc::default();
            parting.asked = router.link_ids().map(|link| (link, false)).collect();
            let leaving = Leaving {
                reload,
                wait_ms: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX),
            };
            for &link in dispatch.parting.asked.keys() {
                let event = Event {
                    body: Some(Body::Leaving(leaving)),
                    ..Event::default()
                };
                dispatch.send(link, event);
            }
            if dispatch.parting.asked.is_empty() {
                return;
            }
            Arc::clone(&dispatch.parting.over)
        };
        if timeout(wait, over.notified()).await.is_ok() {
            return;
        }
        let silent: Vec<_> = self.dispatch.lock().parting.asked.keys().copied().collect();
        tracing::warn!(
            workers = silent.len(),
            ?wait,
            "workers did not finish their last words in time"
        );
        for link in silent {
            self.parted(link);
        }
    }

    /// A worker has sent its last words.
    pub(crate) fn parted(&self, link: LinkId) {
        let put_off = self.dispatch.lock().parting.end(link);
        if put_off {
            self.link_draining(link);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use meepo_proto::batch;
    use meepo_proto::link::event::Body;
    use meepo_proto::link::{Handshake, Undone};
    use tokio::time::Instant;
    use tonic::Status;

    use super::*;
    use crate::config::settings::{GatewaySettings, Protocol};
    use crate::router::Ending;

    type Stream = batch::Receiver<Result<Event, Status>>;

    fn hub() -> Arc<Hub> {
        Hub::new(GatewaySettings::default(), Box::leak(Box::default()))
    }

    fn link(hub: &Hub, outside: bool) -> (LinkId, Stream) {
        let (events, stream) = batch::channel();
        (hub.link_up(events, outside), stream)
    }

    fn bodies(stream: &mut Stream) -> Vec<Body> {
        let mut cx = Context::from_waker(Waker::noop());
        let events = std::iter::from_fn(|| match stream.poll_recv(&mut cx) {
            Poll::Ready(event) => event,
            Poll::Pending => None,
        });
        events.map(|event| event.unwrap().body.unwrap()).collect()
    }

    const LEFT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn all_workers_are_asked_and_waited_for() {
        let hub = hub();
        let (first, mut stream) = link(&hub, false);
        let (second, _stream) = link(&hub, false);
        let (_outside, mut outside) = link(&hub, true);
        let start = Instant::now();
        tokio::join!(hub.part(true, LEFT), async {
            tokio::time::sleep(WAIT / 4).await;
            hub.parted(first);
            hub.parted(first);
            tokio::time::sleep(WAIT / 4).await;
            hub.link_down(second, Ending::Died);
        });
        assert_eq!(start.elapsed(), WAIT / 2);
        let leaving = Leaving {
            reload: true,
            wait_ms: 2000,
        };
        assert_eq!(bodies(&mut stream), [Body::Leaving(leaving)]);
        assert_eq!(bodies(&mut outside), [], "it serves nobody");
        hub.part(false, LEFT).await;
        assert!(matches!(
            bodies(&mut stream)[..],
            [Body::Leaving(Leaving { reload: false, .. })]
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_worker_costs_a_part_of_the_time_at_most() {
        let hub = hub();
        let start = Instant::now();
        hub.part(false, LEFT).await;
        assert_eq!(start.elapsed(), Duration::ZERO, "there is none");
        let (_silent, _stream) = link(&hub, false);
        hub.part(false, LEFT).await;
        assert_eq!(start.elapsed(), WAIT);
        hub.part(false, Duration::from_secs(4)).await;
        assert_eq!(start.elapsed(), WAIT + Duration::from_millis(500));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_worker_hands_back_meanwhile_is_not_held_against_it() {
        let hub = hub();
        hub.open(Protocol::Line, Handshake::default(), None);
        let undone = Undone {
            seq: 1,
            handed_back: true,
        };
        for _ in 0..5 {
            let (leaves, mut old) = link(&hub, false);
            assert!(matches!(bodies(&mut old)[..], [Body::Opened(_)]));
            tokio::join!(hub.part(false, LEFT), async {
                hub.link_draining(leaves);
                hub.undone(leaves, &undone);
                assert!(matches!(bodies(&mut old)[..], [Body::Leaving(_), Body::Drained(_), ..]));
                hub.parted(leaves);
            });
            hub.link_down(leaves, Ending::Silent);
        }
        assert_eq!(hub.stats.given_up_events.get(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn clients_of_a_worker_that_drains_are_moved_after_its_last_word() {
        let hub = hub();
        let (first, mut old) = link(&hub, false);
        hub.open(Protocol::Line, Handshake::default(), None);
        hub.done(first, &[1]);
        let (second, mut new) = link(&hub, false);
        tokio::join!(hub.part(true, LEFT), async {
            hub.link_draining(first);
            assert!(!bodies(&mut old).iter().any(|body| matches!(body, Body::Detached(_))));
            hub.parted(first);
            assert!(bodies(&mut old).iter().any(|body| matches!(body, Body::Detached(_))));
            hub.parted(second);
        });
        assert!(matches!(bodies(&mut new)[..], [Body::Leaving(_), Body::Attached(_)]));
        // One that has not answered in time drains all the same.
        hub.link_draining(second);
        let (third, mut last) = link(&hub, false);
        bodies(&mut last);
        tokio::join!(hub.part(true, LEFT), async { hub.link_draining(third) });
        assert!(matches!(bodies(&mut last)[..], [Body::Leaving(_), Body::Drained(_)]));
    }
}
