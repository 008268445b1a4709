//! The delivery of an event: it is sent until the endpoint has answered it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use meepo_node::Backoff;
use meepo_node::quota::LogQuota;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::endpoint::{Endpoint, EndpointResponse};
use super::event::Event;
use super::settings::{EventKind, WebhookSettings};
use super::verdict::{Faults, Verdict};
use crate::Client;
use crate::link::send_budget::HeldBack;

/// Bounds the log of an endpoint that is away.
static ATTEMPTS: LogQuota = LogQuota::new();

/// Sends the events of all clients.
pub(crate) struct Delivery {
    pub(crate) settings: WebhookSettings,
    endpoint: Endpoint,
    /// One for each POST that there may be at a time.
    permits: Semaphore,
    /// Whether the last attempt found the endpoint away.
    away: AtomicBool,
    /// Events that the endpoint has answered, so that they are not sent again.
    answered: AtomicU64,
}

/// The outcome of a delivery.
#[derive(Debug)]
pub(crate) enum Delivered {
    /// The endpoint has taken the event.
    Done(EndpointResponse),
    /// The endpoint does not want the event.
    Refused(EndpointResponse),
    /// The event was given up, for this reason.
    Failed(String),
    /// Another worker sends it.
    Left,
}

/// Why an event is not sent from here any more.
enum Leave {
    /// This worker drains.
    Drain,
    /// The link has ended, and the gateway gives the event to another worker.
    NoLink,
}

impl Delivery {
    pub(crate) fn new(settings: WebhookSettings) -> Self {
        Self {
            endpoint: Endpoint::new(&settings),
            permits: Semaphore::new(settings.connections),
            settings,
            away: AtomicBool::new(false),
            answered: AtomicU64::new(0),
        }
    }

    /// Sends an event until it is answered, or until it is left to other workers. With `only_here` no other worker has the
    /// event, and it is never left.
    pub(crate) async fn deliver(&self, client: &Client, event: &Event, only_here: bool) -> Delivered {
        let (shortest, longest) = self.settings.retry;
        let mut backoff = Backoff::new(shortest, longest);
        let mut attempt = 0;
        let mut faults = Faults::none(self.settings.attempts, self.answered());
        let leave = loop {
            let permit = match self.permit(client, event, only_here).await {
                Ok(permit) => permit,
                Err(leave) => break leave,
            };
            attempt += 1;
            let request = match event.request(attempt, &self.settings) {
                Ok(request) => request,
                Err(error) => return Delivered::Failed(format!("it cannot be sent: {error}")),
            };
            let answer = self.endpoint.post(request).await;
            drop(permit);
            let (why, at_least) = match faults.judge(answer, self.answered()) {
                Verdict::Again { why, pause } => (why, pause),
                Verdict::Done(answer) => return self.heard(Delivered::Done(answer)),
                Verdict::Refused(answer) => return self.heard(Delivered::Refused(answer)),
                Verdict::Failed(why) => return Delivered::Failed(why),
            };
            self.away.store(true, Ordering::Relaxed);
            if let Some(unlogged) = ATTEMPTS.take() {
                let (url, event) = (&self.settings.place, &event.id);
                tracing::warn!(
                    url,
                    event,
                    attempt,
                    error = why,
                    unlogged,
                    "endpoint has not taken an event, which is sent again"
                );
            }
            let sleep = backoff.pause().max(at_least);
            let _held_back = HeldBack::new(client.cluster().stats());
            tokio::select! {
                biased;
                leave = leave(client, event, only_here) => break leave,
                () = tokio::time::sleep(sleep) => {}
            }
        };
        // An `opened` that the endpoint has not answered must not let its client in.
        if matches!(leave, Leave::Drain) || event.kind == EventKind::Opened {
            client.hand_back();
        }
        Delivered::Left
    }

    /// Waits until there may be one more POST, or until the event is left to other workers.
    async fn permit(&self, client: &Client, event: &Event, only_here: bool) -> Result<SemaphorePermit<'_>, Leave> {
        let link_has_ended = client.link().has_ended() && !stays(event, only_here);
        if link_has_ended {
            return Err(Leave::NoLink);
        }
        if let Ok(permit) = self.permits.try_acquire() {
            return Ok(permit);
        }
        tokio::select! {
            biased;
            leave = leave(client, event, only_here) => Err(leave),
            permit = self.permits.acquire() => Ok(permit.expect("it is never closed")),
        }
    }

    /// Events that the endpoint has answered so far.
    fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    fn heard(&self, outcome: Delivered) -> Delivered {
        self.answered.fetch_add(1, Ordering::Relaxed);
        if self.away.swap(false, Ordering::Relaxed) {
            tracing::info!(url = self.settings.place, "endpoint answers again");
        }
        outcome
    }
}

/// Whether an event is sent from here also when its link has ended. `closed` is: if the gateway has died with its link, no
/// other worker sends it. If the gateway lives, the event is sent twice.
fn stays(event: &Event, only_here: bool) -> bool {
    only_here || event.kind == EventKind::Closed
}

/// Waits until the event is to be left to other workers.
async fn leave(client: &Client, event: &Event, only_here: bool) -> Leave {
    let link = client.link();
    tokio::select! {
        biased;
        () = link.ended(), if !stays(event, only_here) => Leave::NoLink,
        () = link.drains(), if !only_here && !link.has_ended() => Leave::Drain,
        else => std::future::pending().await,
    }
}
