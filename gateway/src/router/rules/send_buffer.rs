//! News of send buffers: of a client there is at most one event that no worker was sent, however often its send buffer fills
//! and empties.

use meepo_proto::id::ClientNumber;

use super::{Output, Router};

impl Router {
    /// Takes out an event that waits and that no worker was sent: the event that comes now is the opposite, and both together
    /// are no news.
    pub(super) fn take_out_news(&mut self, client: ClientNumber, out: &mut Vec<Output>) -> bool {
        let Some(queue) = self.client_queues.get_mut(&client) else {
            return false;
        };
        let Some(at) = queue.waiting.iter().rposition(|event| event.is_new_send_buffer()) else {
            return false;
        };
        let news = queue.waiting.remove(at).expect("its place was found above");
        queue.waiting_bytes -= news.bytes;
        self.waiting_bytes -= news.bytes;
        self.waiting -= 1;
        if queue.settling && queue.is_idle() {
            out.push(Output::Settled { client });
        }
        self.hand_over(client, out);
        self.check_resume(client, out);
        true
    }
}

#[cfg(test)]
mod tests {
    use meepo_proto::id::Seq;
    use meepo_proto::link::event::Body;
    use meepo_proto::link::{Message, Opened, SendBuffer};

    use super::super::{Bounds, Ending, Flow, LinkId};
    use super::*;

    const BOUNDS: Bounds = Bounds {
        client_in_flight: 1,
        link_in_flight_bytes: 300,
        client_waiting_bytes: 300,
        waiting_bytes: 500,
        max_deliveries: 3,
        max_returns: 16,
    };

    fn send_buffer(full: bool) -> Body {
        Body::SendBuffer(SendBuffer { full })
    }

    /// A router with a link, over which a client's `opened` is done.
    fn router() -> Router {
        let mut router = Router::new(BOUNDS);
        let mut out = Vec::new();
        router.link_up(LinkId(1), &mut out);
        router.push(ClientNumber(1), Body::Opened(Opened {}), &mut out);
        router.done(LinkId(1), Seq(1), &mut out);
        router
    }

    fn news(out: &[Output]) -> Vec<(u64, bool, bool)> {
        let news = out.iter().filter_map(|output| match output {
            Output::Deliver {
                link,
                body: Body::SendBuffer(SendBuffer { full }),
                redelivered,
                ..
            } => Some((link.0, *full, *redelivered)),
            _ => None,
        });
        news.collect()
    }

    #[test]
    fn what_nobody_was_sent_vanishes_with_its_opposite() {
        let mut router = router();
        let mut out = Vec::new();
        router.push(ClientNumber(1), send_buffer(true), &mut out);
        assert_eq!(news(&out), [(1, true, false)]);
        for full in [false, true, false, true, false] {
            router.push(ClientNumber(1), send_buffer(full), &mut out);
        }
        assert_eq!((router.waiting(), router.waiting_bytes), (1, 128));
        out.clear();
        router.done(LinkId(1), Seq(2), &mut out);
        assert_eq!(news(&out), [(1, false, false)]);
    }

    #[test]
    fn what_a_worker_was_sent_comes_again_and_does_not_vanish() {
        let mut router = router();
        let mut out = Vec::new();
        router.push(ClientNumber(1), send_buffer(true), &mut out);
        router.link_down(LinkId(1), Ending::Died, &mut out);
        router.push(ClientNumber(1), send_buffer(false), &mut out);
        out.clear();
        router.link_up(LinkId(2), &mut out);
        router.done(LinkId(2), Seq(1), &mut out);
        assert_eq!(news(&out), [(2, true, true), (2, false, false)]);
    }

    #[test]
    fn a_client_settles_and_is_read_again_when_its_last_event_vanishes() {
        let mut router = router();
        let mut out = Vec::new();
        router.link_down(LinkId(1), Ending::Silent, &mut out);
        router.push(ClientNumber(1), send_buffer(true), &mut out);
        assert!(!router.settle(ClientNumber(1)));
        router.push(ClientNumber(1), send_buffer(false), &mut out);
        assert_eq!(
            out,
            [Output::Settled {
                client: ClientNumber(1)
            }]
        );

        let large = Body::Message(Message {
            payload: vec![0; 160].into(),
            binary: true,
        });
        router.push(ClientNumber(1), large, &mut out);
        assert_eq!(router.push(ClientNumber(1), send_buffer(true), &mut out), Flow::Pause);
        out.clear();
        assert_eq!(router.push(ClientNumber(1), send_buffer(false), &mut out), Flow::Go);
        router.link_up(LinkId(2), &mut out);
        assert!(
            out.contains(&Output::Resume {
                client: ClientNumber(1)
            }),
            "{out:?}"
        );
    }

    #[test]
    fn a_client_that_waited_for_room_is_known_to_the_link_that_it_has_come_to() {
        let mut router = router();
        let mut out = Vec::new();
        router.push(ClientNumber(2), Body::Opened(Opened {}), &mut out);
        router.done(LinkId(1), Seq(2), &mut out);
        router.link_down(LinkId(1), Ending::Silent, &mut out);
        let large = Body::Message(Message {
            payload: vec![0; 300].into(),
            binary: true,
        });
        router.push(ClientNumber(1), large, &mut out);
        router.push(ClientNumber(2), send_buffer(true), &mut out);
        out.clear();
        router.link_up(LinkId(2), &mut out);
        let delivered = |output: &&Output| matches!(output, Output::Deliver { .. });
        assert_eq!(
            out.iter().filter(delivered).count(),
            1,
            "there is room for one: {out:?}"
        );
        out.clear();
        router.push(ClientNumber(2), send_buffer(false), &mut out);
        let link = LinkId(2);
        assert!(
            out.contains(&Output::Attach {
                link,
                client: ClientNumber(2)
            }),
            "{out:?}"
        );
    }
}
