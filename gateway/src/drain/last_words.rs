//! The last words of handlers: before a child that drains closes its clients, workers may send them something.

use std::time::Duration;

use tokio::time::timeout;

use crate::router::dispatch::Dispatch;

/// How long a child waits for last words at most: people are to read a line, not to be kept. A worker that does not know
/// last words, or is frozen, makes a stop this much longer.
const WAIT: Duration = Duration::from_secs(2);
/// The part of the time for the drain that last words may take.
const SHARE: u32 = 8;

/// Lets workers send last words to their clients, and waits until they have, for a part of the time that is left.
pub(crate) async fn last_words(dispatch: &Dispatch, reload: bool, left: Duration) {
    let wait = WAIT.min(left / SHARE);
    let Some(over) = dispatch.ask_last_words(reload, wait) else {
        return;
    };
    if timeout(wait, over.notified()).await.is_ok() {
        return;
    }
    let silent = dispatch.without_last_words();
    tracing::warn!(
        workers = silent.len(),
        ?wait,
        "workers did not finish their last words in time"
    );
    for link in silent {
        dispatch.last_words_sent(link);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::{Context, Poll, Waker};

    use meepo_link::channel;
    use meepo_node::stats::Slot;
    use meepo_proto::id::Seq;
    use meepo_proto::link::event::Body;
    use meepo_proto::link::{Event, Handshake, LastWords};
    use tokio::time::Instant;
    use tonic::Status;

    use super::*;
    use crate::config::limits::Limits;
    use crate::protocol::line;
    use crate::router::{Ending, LinkId};

    type Stream = channel::Receiver<Result<Event, Status>>;

    fn dispatch() -> Arc<Dispatch> {
        Dispatch::new(&Limits::default(), Box::leak(Box::default()))
    }

    fn link(dispatch: &Dispatch, outside: bool) -> (LinkId, Stream) {
        let (events, stream) = channel::channel();
        (dispatch.link_up(events, outside), stream)
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
    async fn all_workers_are_asked_and_awaited() {
        let dispatch = dispatch();
        let (first, mut stream) = link(&dispatch, false);
        let (second, _stream) = link(&dispatch, false);
        let (_outside, mut outside) = link(&dispatch, true);
        let start = Instant::now();
        tokio::join!(last_words(&dispatch, true, LEFT), async {
            tokio::time::sleep(WAIT / 4).await;
            dispatch.last_words_sent(first);
            dispatch.last_words_sent(first);
            tokio::time::sleep(WAIT / 4).await;
            dispatch.link_down(second, Ending::Died);
        });
        assert_eq!(start.elapsed(), WAIT / 2);
        let asked = LastWords {
            reload: true,
            wait_ms: 2000,
        };
        assert_eq!(bodies(&mut stream), [Body::LastWords(asked)]);
        assert_eq!(bodies(&mut outside), [], "it serves no client");
        last_words(&dispatch, false, LEFT).await;
        assert!(matches!(
            bodies(&mut stream)[..],
            [Body::LastWords(LastWords { reload: false, .. })]
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_worker_costs_a_part_of_the_time_at_most() {
        let dispatch = dispatch();
        let start = Instant::now();
        last_words(&dispatch, false, LEFT).await;
        assert_eq!(start.elapsed(), Duration::ZERO, "there is no worker");
        let (_silent, _stream) = link(&dispatch, false);
        last_words(&dispatch, false, LEFT).await;
        assert_eq!(start.elapsed(), WAIT);
        last_words(&dispatch, false, Duration::from_secs(4)).await;
        assert_eq!(start.elapsed(), WAIT + Duration::from_millis(500));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_worker_hands_back_meanwhile_is_not_held_against_it() {
        let stats: &Slot = Box::leak(Box::default());
        let dispatch = Dispatch::new(&Limits::default(), stats);
        dispatch.open(&line::CODEC, &Handshake::default(), None);
        for _ in 0..5 {
            let (leaves, mut old) = link(&dispatch, false);
            assert!(matches!(bodies(&mut old)[..], [Body::Opened(_)]));
            tokio::join!(last_words(&dispatch, false, LEFT), async {
                dispatch.link_draining(leaves);
                dispatch.undone(leaves, Seq(1), true);
                assert!(matches!(
                    bodies(&mut old)[..],
                    [Body::LastWords(_), Body::Drained(_), ..]
                ));
                dispatch.last_words_sent(leaves);
            });
            dispatch.link_down(leaves, Ending::Silent);
        }
        assert_eq!(stats.given_up_events.get(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn clients_of_a_worker_that_drains_are_moved_after_its_last_word() {
        let dispatch = dispatch();
        let (first, mut old) = link(&dispatch, false);
        dispatch.open(&line::CODEC, &Handshake::default(), None);
        dispatch.done(first, &[Seq(1)]);
        let (second, mut new) = link(&dispatch, false);
        tokio::join!(last_words(&dispatch, true, LEFT), async {
            dispatch.link_draining(first);
            assert!(!bodies(&mut old).iter().any(|body| matches!(body, Body::Detached(_))));
            dispatch.last_words_sent(first);
            assert!(bodies(&mut old).iter().any(|body| matches!(body, Body::Detached(_))));
            dispatch.last_words_sent(second);
        });
        assert!(matches!(bodies(&mut new)[..], [Body::LastWords(_), Body::Attached(_)]));
        // One that has not answered in time drains all the same.
        dispatch.link_draining(second);
        let (third, mut last) = link(&dispatch, false);
        bodies(&mut last);
        tokio::join!(last_words(&dispatch, true, LEFT), async {
            dispatch.link_draining(third)
        });
        assert!(matches!(bodies(&mut last)[..], [Body::LastWords(_), Body::Drained(_)]));
    }
}
