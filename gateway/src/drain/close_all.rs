//! The close of all clients of a child that drains: spread over a time, so that they do not all come back at once.

use std::time::Duration;

use meepo_node::StopReason;
use meepo_proto::codes::{self, CloseCode};
use meepo_proto::link::CloseCause;
use tokio::time::{Instant, sleep_until};

use crate::client::close::ClientClose;
use crate::config::limits::Limits;
use crate::router::dispatch::Dispatch;

/// With which code clients are closed, and over which time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct CloseAll {
    code: CloseCode,
    spread: Duration,
}

impl CloseAll {
    /// The close of a child that has this much time left for its drain: half of that is for the clients that are closed last.
    pub(crate) fn new(limits: &Limits, reason: Option<StopReason>, left: Duration) -> Self {
        let (code, spread) = match reason {
            Some(StopReason::Reload) => (codes::RESTART, limits.reload_spread),
            Some(StopReason::Stop | StopReason::MasterGone) | None => (codes::GOING_AWAY, limits.stop_spread),
        };
        Self {
            code,
            spread: spread.min(left / 2),
        }
    }

    /// Closes every client, each at a moment of its own. A client that still comes is closed at once.
    pub(crate) async fn run(self, dispatch: &Dispatch) {
        let clients = dispatch.clients.close_all(self.code);
        let pause = self
            .spread
            .checked_div(u32::try_from(clients.len()).unwrap_or(u32::MAX))
            .unwrap_or_default();
        let start = Instant::now();
        for (index, client) in (0u32..).zip(clients) {
            if !pause.is_zero() {
                let jitter = pause.mul_f64(fastrand::f64());
                sleep_until(start + pause.saturating_mul(index) + jitter).await;
            }
            let close = ClientClose::by_gateway(client.codec, CloseCause::GatewayStop, self.code);
            dispatch.close(&client, close);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use meepo_node::stats::Slot;
    use meepo_proto::link::Handshake;
    use tokio::time::sleep;

    use super::*;
    use crate::drain::wait;
    use crate::protocol::line;

    fn limits(stop: u64, reload: u64) -> Limits {
        Limits {
            stop_spread: Duration::from_secs(stop),
            reload_spread: Duration::from_secs(reload),
            ..Limits::default()
        }
    }

    fn dispatch(clients: usize) -> Arc<Dispatch> {
        let dispatch = Dispatch::new(&Limits::default(), Box::leak(Box::<Slot>::default()));
        for _ in 0..clients {
            dispatch.open(&line::CODEC, &Handshake::default(), None);
        }
        dispatch
    }

    #[test]
    fn reason_and_time_tell_code_and_spread() {
        let left = Duration::from_secs(20);
        for (reason, code, spread) in [
            (Some(StopReason::Stop), 1001, 2),
            (Some(StopReason::MasterGone), 1001, 2),
            (None, 1001, 2),
            (Some(StopReason::Reload), 1012, 6),
        ] {
            let close_all = CloseAll::new(&limits(2, 6), reason, left);
            assert_eq!(
                (close_all.code.code, close_all.spread),
                (code, Duration::from_secs(spread))
            );
        }
        let close_all = CloseAll::new(&limits(60, 60), Some(StopReason::Stop), left);
        assert_eq!(
            close_all.spread,
            left / 2,
            "half of the time is left for the last of them"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn clients_are_closed_evenly_over_the_time() {
        let dispatch = dispatch(1000);
        let spread = Duration::from_secs(10);
        let close_all = CloseAll {
            code: codes::GOING_AWAY,
            spread,
        };
        let closed = close_all.run(&dispatch);
        let watched = async {
            for tenth in 1..=10 {
                sleep(spread / 10).await;
                let left = dispatch.clients.registry().all().count();
                let due = 1000 - tenth * 100;
                assert!(left.abs_diff(due) <= 2, "{left} clients, not {due}");
            }
        };
        let start = Instant::now();
        tokio::join!(closed, watched);
        assert_eq!(dispatch.clients.registry().all().count(), 0);
        assert!(start.elapsed() <= spread + Duration::from_millis(50));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_comes_meanwhile_is_closed_as_well() {
        let dispatch = dispatch(10);
        let close_all = CloseAll {
            code: codes::RESTART,
            spread: Duration::from_secs(1),
        };
        tokio::join!(close_all.run(&dispatch), async {
            sleep(Duration::from_millis(500)).await;
            dispatch.open(&line::CODEC, &Handshake::default(), None);
        });
        assert_eq!(dispatch.clients.registry().all().count(), 0);
        // A connection that was accepted before may take as long as it likes.
        let (client, answer) = dispatch.open(&line::CODEC, &Handshake::default(), None);
        assert!(client.is_closed() && answer.await.is_err());
        assert_eq!(dispatch.clients.registry().all().count(), 0);
        assert_eq!(wait::unfinished(&dispatch), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_spread_or_clients_it_takes_no_time() {
        for (clients, spread) in [(100, 0), (0, 5)] {
            let dispatch = dispatch(clients);
            let close_all = CloseAll {
                code: codes::GOING_AWAY,
                spread: Duration::from_secs(spread),
            };
            let start = Instant::now();
            close_all.run(&dispatch).await;
            assert_eq!(
                (dispatch.clients.registry().all().count(), start.elapsed()),
                (0, Duration::ZERO)
            );
        }
    }
}
