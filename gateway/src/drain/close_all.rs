//! The end of all clients of a child that drains: spread over a time, so that they do not all come back at once.

use std::sync::Arc;
use std::time::Duration;

use meepo_node::StopReason;
use meepo_proto::codes::{self, CloseCode};
use meepo_proto::link::CloseCause;
use tokio::time::{Instant, sleep_until};

use crate::client::close::ClientClose;
use crate::client::handle::Client;
use crate::config::settings::GatewaySettings;
use crate::hub::Hub;

/// What clients are told, and over which time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct CloseAll {
    code: CloseCode,
    spread: Duration,
}

impl CloseAll {
    /// The close_all of a child that has so much time left for its drain: half of that is for those who are told last.
    pub(crate) fn new(settings: &GatewaySettings, reason: Option<StopReason>, left: Duration) -> Self {
        let (code, spread) = match reason {
            Some(StopReason::Reload) => (codes::RESTART, settings.reload_spread),
            Some(StopReason::Stop | StopReason::MasterGone) | None => (codes::GOING_AWAY, settings.stop_spread),
        };
        Self {
            code,
            spread: spread.min(left / 2),
        }
    }

    /// Closes every client, each at a moment of its own. Who still comes in is closed at once.
    pub(crate) async fn say(self, hub: &Hub) {
        let all = hub.leave(self.code);
        let pause = self
            .spread
            .checked_div(u32::try_from(all.len()).unwrap_or(u32::MAX))
            .unwrap_or_default();
        let start = Instant::now();
        for (index, client) in (0u32..).zip(all) {
            if !pause.is_zero() {
                let jitter = pause.mul_f64(fastrand::f64());
                sleep_until(start + pause.saturating_mul(index) + jitter).await;
            }
            self.close(hub, &client);
        }
    }

    fn close(self, hub: &Hub, client: &Arc<Client>) {
        hub.close(
            client,
            ClientClose::by_gateway(client.protocol, CloseCause::GatewayStop, self.code),
        );
    }
}

#[cfg(test)]
mod tests {
    use meepo_node::stats::Slot;
    use meepo_proto::link::Handshake;
    use tokio::time::sleep;

    use super::*;
    use crate::config::settings::Protocol;

    fn settings(stop: u64, reload: u64) -> GatewaySettings {
        GatewaySettings {
            stop_spread: Duration::from_secs(stop),
            reload_spread: Duration::from_secs(reload),
            ..GatewaySettings::default()
        }
    }

    fn hub(clients: usize) -> Arc<Hub> {
        let hub = Hub::new(GatewaySettings::default(), Box::leak(Box::<Slot>::default()));
        for _ in 0..clients {
            hub.open(Protocol::Line, Handshake::default(), None);
        }
        hub
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
            let close_all = CloseAll::new(&settings(2, 6), reason, left);
            assert_eq!(
                (close_all.code.code, close_all.spread),
                (code, Duration::from_secs(spread))
            );
        }
        let close_all = CloseAll::new(&settings(60, 60), Some(StopReason::Stop), left);
        assert_eq!(
            close_all.spread,
            left / 2,
            "half of the time is left for the last of them"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn clients_are_closed_evenly_over_the_time() {
        let hub = hub(1000);
        let spread = Duration::from_secs(10);
        let close_all = CloseAll {
            code: codes::GOING_AWAY,
            spread,
        };
        let said = close_all.say(&hub);
        let watched = async {
            for tenth in 1..=10 {
                sleep(spread / 10).await;
                let left = hub.registry().all().count();
                let due = 1000 - tenth * 100;
                assert!(left.abs_diff(due) <= 2, "{left} clients, not {due}");
            }
        };
        let start = Instant::now();
        tokio::join!(said, watched);
        assert_eq!(hub.registry().all().count(), 0);
        assert!(start.elapsed() <= spread + Duration::from_millis(50));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_comes_in_meanwhile_is_closed_as_well() {
        let hub = hub(10);
        let close_all = CloseAll {
            code: codes::RESTART,
            spread: Duration::from_secs(1),
        };
        tokio::join!(close_all.say(&hub), async {
            sleep(Duration::from_millis(500)).await;
            hub.open(Protocol::Line, Handshake::default(), None);
        });
        assert_eq!(hub.registry().all().count(), 0);
        // A connection that was accepted before may take as long as it likes.
        let (client, answer) = hub.open(Protocol::Line, Handshake::default(), None);
        assert!(client.condition().ending && answer.await.is_err());
        assert_eq!(hub.registry().all().count(), 0);
        assert_eq!(hub.unfinished(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_spread_or_clients_it_takes_no_time() {
        for (clients, spread) in [(100, 0), (0, 5)] {
            let hub = hub(clients);
            let close_all = CloseAll {
                code: codes::GOING_AWAY,
                spread: Duration::from_secs(spread),
            };
            let start = Instant::now();
            close_all.say(&hub).await;
            assert_eq!((hub.registry().all().count(), start.elapsed()), (0, Duration::ZERO));
        }
    }
}
