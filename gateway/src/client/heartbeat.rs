//! Whether a client lives: it is asked when it has been silent for a while, and closed when it does not answer.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use meepo_proto::codes;
use meepo_proto::link::CloseCause;
use tokio::time::Instant;

use crate::client::close::ClientClose;
use crate::client::handle::Client;
use crate::config::settings::{GatewaySettings, Protocol};
use crate::fanout::encode;
use crate::hub::Hub;

/// When a client was last heard of, and when to ask it.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    heard: Instant,
    /// It was heard of since that was noted.
    heard_since: bool,
    asked: bool,
    next: Instant,
}

/// A person at a terminal cannot be asked; the kernel's keep-alive finds those that are gone.
const NEVER: Duration = Duration::from_secs(86_400);
/// Clients that are due within this time are looked at together, at its end: each alone would wake the process.
const TICK: Duration = Duration::from_millis(250);
/// Ticks are counted from here.
static FIRST_TICK: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Heartbeat {
    pub(crate) fn new(hub: &Hub, protocol: Protocol) -> Self {
        let heard = Instant::now();
        let next = match protocol {
            Protocol::Ws => at_tick(heard + hub.settings.ping_interval, &hub.settings),
            Protocol::Line => heard + NEVER,
        };
        Self {
            heard,
            heard_since: false,
            asked: false,
            next,
        }
    }

    /// When there is something to do.
    pub(crate) fn next(&self) -> Instant {
        self.next
    }

    pub(crate) fn heard(&mut self) {
        self.heard_since = true;
    }

    /// Notes when the client was heard of. The clock is read once for all that came together.
    pub(crate) fn note(&mut self) {
        if std::mem::take(&mut self.heard_since) {
            self.heard = Instant::now();
            self.asked = false;
        }
    }

    /// A time in which the client was not read does not count.
    pub(crate) fn skip(&mut self, hub: &Hub, time: Duration) {
        self.heard += time;
        self.plan(hub);
    }

    /// Asks a client that has been silent for long, and closes one that has not answered.
    pub(crate) fn beat(&mut self, hub: &Hub, client: &Arc<Client>, paused: bool) {
        let now = Instant::now();
        if client.protocol == Protocol::Line {
            self.next = now + NEVER;
            return;
        }
        if paused {
            self.next = now + hub.settings.ping_interval;
            // One that has ended its connection in good order answers what it is sent by breaking it.
            if client.unsent() == 0 {
                client.push_raw(encode::ping_frame());
                client.flush();
            }
            return;
        }
        let silent = now - self.heard;
        if silent >= hub.settings.heartbeat_timeout {
            let end = ClientClose::by_gateway(client.protocol, CloseCause::Heartbeat, codes::HEARTBEAT_LOST);
            if hub.close(client, ClientClose { clear: true, ..end }) {
                tracing::debug!(client = %hub.client_id(client.number), "closed a client that was silent for too long");
            }
            return;
        }
        if silent >= hub.settings.ping_interval && !self.asked {
            self.asked = true;
            client.push_raw(encode::ping_frame());
            client.flush();
        }
        self.plan(hub);
    }

    fn plan(&mut self, hub: &Hub) {
        let due = match self.asked {
            true => hub.settings.heartbeat_timeout,
            false => hub.settings.ping_interval,
        };
        self.next = at_tick(self.heard + due, &hub.settings);
    }
}

/// The tick at or after a time. They are so close that a client is asked well before it would be closed.
fn at_tick(time: Instant, settings: &GatewaySettings) -> Instant {
    let patience = settings.heartbeat_timeout.saturating_sub(settings.ping_interval);
    let tick = TICK.min(patience / 4).max(Duration::from_micros(1)).as_nanos();
    let since = time.saturating_duration_since(*FIRST_TICK).as_nanos();
    let at = u64::try_from(since.next_multiple_of(tick)).unwrap_or(u64::MAX);
    *FIRST_TICK + Duration::from_nanos(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_looked_at_together_and_asked_before_they_are_closed() {
        for (ping, timeout) in [(25_000, 60_000), (1_000, 2_000), (100, 200), (10_000, 10_100), (1, 2)] {
            let settings = GatewaySettings {
                ping_interval: Duration::from_millis(ping),
                heartbeat_timeout: Duration::from_millis(timeout),
                ..GatewaySettings::default()
            };
            let mut looks = std::collections::BTreeSet::new();
            for heard in (0..1_000_000)
                .step_by(999)
                .map(|us| *FIRST_TICK + Duration::from_micros(us))
            {
                let asked = at_tick(heard + settings.ping_interval, &settings);
                let closed = at_tick(heard + settings.heartbeat_timeout, &settings);
                assert!(asked >= heard + settings.ping_interval && closed >= heard + settings.heartbeat_timeout);
                assert!(asked < closed && closed - heard < settings.heartbeat_timeout + TICK);
                looks.insert(asked);
            }
            let together = TICK.min(Duration::from_millis(timeout - ping) / 4).as_millis().max(1);
            assert!(
                looks.len() as u128 <= 2 * (1_000 / together + 2),
                "{ping}: {}",
                looks.len()
            );
        }
    }
}
