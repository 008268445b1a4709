//! Whether a client lives: it is asked when it has been silent for a while, and closed when it does not answer.

use std::sync::Arc;
use std::time::Duration;

use meepo_proto::codes;
use meepo_proto::link::CloseCause;
use tokio::time::Instant;

use crate::client::Client;
use crate::encode;
use crate::end::End;
use crate::hub::Hub;
use crate::settings::Protocol;

/// When a client was last heard of, and when to ask it.
#[derive(Debug)]
pub(crate) struct Heart {
    heard: Instant,
    /// It was heard of since that was noted.
    heard_since: bool,
    asked: bool,
    next: Instant,
}

/// A person at a terminal cannot be asked; the kernel's keep-alive finds those that are gone.
const NEVER: Duration = Duration::from_secs(86_400);

impl Heart {
    pub(crate) fn new(hub: &Hub, protocol: Protocol) -> Self {
        let heard = Instant::now();
        let first = match protocol {
            Protocol::Ws => hub.settings.ping_interval,
            Protocol::Line => NEVER,
        };
        Self {
            heard,
            heard_since: false,
            asked: false,
            next: heard + first,
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
            let end = End::by_gateway(client.protocol, CloseCause::Heartbeat, codes::HEARTBEAT_LOST);
            if hub.close(client, End { clear: true, ..end }) {
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
        self.next = self.heard
            + match self.asked {
                true => hub.settings.heartbeat_timeout,
                false => hub.settings.ping_interval,
            };
    }
}
