//! The delivery of an event: it is sent until the endpoint has answered it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use meepo_node::quota::LogQuota;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::endpoint::{Answer, Endpoint};
use super::event::Event;
use super::settings::{Kind, Settings};
use super::verdict::{Faults, Verdict};
use crate::Client;
use crate::backoff::Backoff;
use crate::link::send_budget::HeldBack;

/// Bounds the log of an endpoint that is away.
static ATTEMPTS: LogQuota = LogQuota::new();

/// Sends the events of all clients.
pub(crate) struct Delivery {
    pub(crate) settings: Settings,
    endpoint: Endpoint,
    /// As many POSTs as there may be at a time.
    permits: Semaphore,
    /// The endpoint is away, by the last that was heard of it.
    away: AtomicBool,
    /// How many events the endpoint has answered for good.
    answered: AtomicU64,
}

/// What has become of an event.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The endpoint has taken it.
    Done(Answer),
    /// The endpoint does not want it.
    Refused(Answer),
    /// It was given up.
    Failed(String),
    /// Another worker sends it.
    Left,
}

/// Why an event is not sent from here any more.
enum Leave {
    /// This worker drains.
    Drain,
    /// The link is no more, and the gateway gives the event to another worker.
    NoLink,
}

impl Delivery {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            endpoint: Endpoint::new(&settings),
            permits: Semaphore::new(settings.connections),
            settings,
            away: AtomicBool::new(false),
            answered: AtomicU64::new(0),
        }
    }

    /// Sends an event until it is answered, or until others are to do that. An event with `nobody_else` stays here.
    pub(crate) async fn deliver(&self, client: &Client, event: &Event, nobody_else: bool) -> Outcome {
        let (shortest, longest) = self.settings.retry;
        let mut backoff = Backoff::new(shortest, longest);
        let mut attempt = 0;
        let mut faults = Faults::none(self.settings.attempts, self.answered());
        let leave = loop {
            let permit = match self.permit(client, event, nobody_else).await {
                Ok(permit) => permit,
                Err(leave) => break leave,
            };
            attempt += 1;
            let request = match event.request(attempt, &self.settings) {
                Ok(request) => request,
                Err(error) => return Outcome::Failed(format!("it cannot be sent: {error}")),
            };
            let answer = self.endpoint.post(request).await;
            drop(permit);
            let (why, at_least) = match faults.judge(answer, self.answered()) {
                Verdict::Again { why, pause } => (why, pause),
                Verdict::Done(answer) => return self.heard(Outcome::Done(answer)),
                Verdict::Refused(answer) => return self.heard(Outcome::Refused(answer)),
                Verdict::Failed(why) => return Outcome::Failed(why),
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
                leave = leave(client, event, nobody_else) => break leave,
                () = tokio::time::sleep(sleep) => {}
            }
        };
        // An `opened` that nobody has answered must not let its client in.
        if matches!(leave, Leave::Drain) || event.kind == Kind::Opened {
            client.hand_back();
        }
        Outcome::Left
    }

    /// Waits for its turn. Not once this worker drains: there may be many before it.
    async fn permit(&self, client: &Client, event: &Event, nobody_else: bool) -> Result<SemaphorePermit<'_>, Leave> {
        let link_has_ended = client.link().has_ended() && !stays(event, nobody_else);
        if link_has_ended {
            return Err(Leave::NoLink);
        }
        if let Ok(permit) = self.permits.try_acquire() {
            return Ok(permit);
        }
        tokio::select! {
            biased;
            leave = leave(client, event, nobody_else) => Err(leave),
            permit = self.permits.acquire() => Ok(permit.expect("it is never closed")),
        }
    }

    /// Events that were answered. One that is under way is none of them.
    fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    fn heard(&self, outcome: Outcome) -> Outcome {
        self.answered.fetch_add(1, Ordering::Relaxed);
        if self.away.swap(false, Ordering::Relaxed) {
            tracing::info!(url = self.settings.place, "endpoint answers again");
        }
        outcome
    }
}

/// Whether an event is sent from here also when its link has ended. `closed` is: if the gateway has died with its link,
/// nobody else will say so. If it lives, the event is said twice.
fn stays(event: &Event, nobody_else: bool) -> bool {
    nobody_else || event.kind == Kind::Closed
}

/// Waits until the event is to be left to others.
async fn leave(client: &Client, event: &Event, nobody_else: bool) -> Leave {
    let link = client.link();
    tokio::select! {
        biased;
        () = link.ended(), if !stays(event, nobody_else) => Leave::NoLink,
        () = link.drains(), if !nobody_else && !link.has_ended() => Leave::Drain,
        else => std::future::pending().await,
    }
}
