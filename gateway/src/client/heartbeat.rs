//! The heartbeat: a client that has been silent for a while is asked with a ping, and closed when it does not answer.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use meepo_proto::codes;
use meepo_proto::link::CloseCause;
use tokio::time::Instant;

use crate::client::close::ClientClose;
use crate::client::codec::Codec;
use crate::client::handle::Client;
use crate::client::host::Host;
use crate::config::limits::Limits;

/// When a client was last heard, and when to ask it.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    heard: Instant,
    /// The client was heard after `heard` was noted.
    heard_since: bool,
    /// A ping waits for its answer.
    asked: bool,
    next: Instant,
}

/// A person at a terminal cannot be asked; the kernel's keep-alive finds connections that are gone.
const NEVER: Duration = Duration::from_secs(86_400);
/// Clients that are due within this time are looked at together, at its end: each alone would wake the process.
const TICK: Duration = Duration::from_millis(250);
/// Ticks are counted from here.
static FIRST_TICK: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Heartbeat {
    /// The heartbeat of a client that came just now.
    pub(crate) fn new(limits: &Limits, codec: &Codec) -> Self {
        let heard = Instant::now();
        let next = match codec.ping {
            Some(_) => at_tick(heard + limits.ping_interval, limits),
            None => heard + NEVER,
        };
        Self {
            heard,
            heard_since: false,
            asked: false,
            next,
        }
    }

    /// When [`Heartbeat::beat`] is due.
    pub(crate) fn next(&self) -> Instant {
        self.next
    }

    /// The client has sent something.
    pub(crate) fn heard(&mut self) {
        self.heard_since = true;
    }

    /// Notes the time if the client was heard. The clock is read once for everything that came together.
    pub(crate) fn note(&mut self) {
        if std::mem::take(&mut self.heard_since) {
            self.heard = Instant::now();
            self.asked = false;
        }
    }

    /// Leaves a time out in which the client was not read.
    pub(crate) fn skip(&mut self, limits: &Limits, time: Duration) {
        self.heard += time;
        self.plan(limits);
    }

    /// Asks a client that has been silent for long, and closes one that has not answered.
    pub(crate) fn beat(&mut self, host: &impl Host, client: &Arc<Client>, paused: bool) {
        let (now, limits) = (Instant::now(), host.limits());
        let Some(ping) = client.codec.ping else {
            self.next = now + NEVER;
            return;
        };
        if paused {
            self.next = now + limits.ping_interval;
            // A client that has ended its connection in good order answers a ping by breaking it.
            if client.unsent() == 0 {
                send(client, ping);
            }
            return;
        }
        let silent = now - self.heard;
        if silent >= limits.heartbeat_timeout {
            let close = ClientClose::by_gateway(client.codec, CloseCause::Heartbeat, codes::HEARTBEAT_LOST);
            if host.close(client, close.dropping_waiting()) {
                tracing::debug!(client = %host.client_id(client), "closed a client that was silent for too long");
            }
            return;
        }
        if silent >= limits.ping_interval && !self.asked {
            self.asked = true;
            send(client, ping);
        }
        self.plan(limits);
    }

    fn plan(&mut self, limits: &Limits) {
        let due = match self.asked {
            true => limits.heartbeat_timeout,
            false => limits.ping_interval,
        };
        self.next = at_tick(self.heard + due, limits);
    }
}

fn send(client: &Client, ping: &'static [u8]) {
    client.push_control(Bytes::from_static(ping));
    client.flush();
}

/// The tick at or after a time. Ticks are so close that a client is asked well before it would be closed.
fn at_tick(time: Instant, limits: &Limits) -> Instant {
    let between = limits.heartbeat_timeout.saturating_sub(limits.ping_interval);
    let tick = TICK.min(between / 4).max(Duration::from_micros(1)).as_nanos();
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
            let limits = Limits {
                ping_interval: Duration::from_millis(ping),
                heartbeat_timeout: Duration::from_millis(timeout),
                ..Limits::default()
            };
            let mut looks = std::collections::BTreeSet::new();
            for heard in (0..1_000_000)
                .step_by(999)
                .map(|us| *FIRST_TICK + Duration::from_micros(us))
            {
                let asked = at_tick(heard + limits.ping_interval, &limits);
                let closed = at_tick(heard + limits.heartbeat_timeout, &limits);
                assert!(asked >= heard + limits.ping_interval && closed >= heard + limits.heartbeat_timeout);
                assert!(asked < closed && closed - heard < limits.heartbeat_timeout + TICK);
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
