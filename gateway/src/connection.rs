//! The life of a client that is let in: it is read, asked whether it lives, and closed.

use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use meepo_proto::codes;
use meepo_proto::link::CloseCause;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::task::{consume_budget, yield_now};
use tokio::time::{Instant, sleep_until};

use crate::client::{Client, Condition, STUCK};
use crate::encode;
use crate::end::End;
use crate::hub::Hub;
use crate::settings::{Protocol, SlowClient};

/// Turns what a client sends into messages.
pub(crate) trait Decoder {
    /// Reads on without waiting.
    fn next(&mut self, client: &Client) -> Step;
}

/// What came of reading.
#[derive(Debug)]
pub(crate) enum Step {
    Message {
        payload: Bytes,
        binary: bool,
    },
    /// A sign of life, no message.
    Heard,
    /// Nothing more to read now; whether any bytes came.
    Blocked {
        heard: bool,
    },
    /// The client is over.
    End(End),
}

/// Reads a client until it ends, then sees it off.
pub(crate) async fn run(hub: &Hub, client: &Arc<Client>, mut decoder: impl Decoder) {
    let Some(socket) = client.socket() else { return };
    let mut heart = Heart::new(hub, client.protocol);
    let closes_slow = hub.settings.slow_client == SlowClient::Close;
    let rest = loop {
        let condition = client.condition();
        if condition.cut {
            return;
        }
        if condition.ending {
            break Rest::Decode;
        }
        if condition.broken {
            hub.close(client, End::by_client(CloseCause::Reset, 0, "connection broke"));
            break Rest::Nothing;
        }
        if condition.news {
            hub.tell_buffered(client);
        }
        heart.pause(condition.paused);
        // One that does not read what it is sent, pongs included, is not read either.
        let reading = !condition.paused && condition.choked.is_none();
        if reading {
            hub.check_full(client);
        }
        if reading && !client.condition().paused {
            match decoder.next(client) {
                Step::Message { payload, binary } => {
                    heart.heard();
                    hub.message(client, payload, binary);
                    // A client that never stops sending leaves time to the others.
                    consume_budget().await;
                    continue;
                }
                Step::Heard => {
                    heart.heard();
                    client.flush();
                    // As much as may be read at a time: it is the others' turn.
                    yield_now().await;
                    continue;
                }
                Step::Blocked { heard } => {
                    if heard {
                        heart.heard();
                    }
                }
                Step::End(end) => {
                    let rest = match (end.cause, client.protocol) {
                        // Both sides have said it: there is nothing more to come.
                        (CloseCause::Client, _) => Rest::Nothing,
                        (CloseCause::Eof, Protocol::Line) => {
                            answered(hub, client, socket).await;
                            Rest::Nothing
                        }
                        _ => {
                            log_refusal(hub, client, &end);
                            Rest::Discard
                        }
                    };
                    hub.close(client, end);
                    break rest;
                }
            }
        }
        heart.note();
        tokio::select! {
            biased;
            () = client.wake.notified() => {}
            _ = socket.readable(), if reading => {}
            _ = socket.writable(), if condition.blocked => client.flush(),
            // A client that is not read is not judged by its silence, but one whose connection breaks is noticed.
            _ = socket.ready(Interest::ERROR), if condition.paused => {
                hub.close(client, End::by_client(CloseCause::Reset, 0, "connection broke"));
            }
            () = sleep_until(stuck_at(condition)), if condition.choked.is_some() && closes_slow => {
                if client.condition().choked == condition.choked {
                    hub.close_one_slow(client);
                }
            }
            () = sleep_until(heart.next) => heart.beat(hub, client),
        }
    };
    let _ = tokio::time::timeout(hub.settings.close_timeout, see_off(client, socket, rest, decoder)).await;
}

/// Says why a client was closed for what it sent; a crowd of them does not flood the log.
fn log_refusal(hub: &Hub, client: &Client, end: &End) {
    if let Some(unlogged) = hub.refusals.take() {
        let (id, peer) = (hub.client_id(client.number), &client.profile.handshake.peer);
        tracing::info!(client = %id, peer, cause = ?end.cause, reason = end.reason, unlogged, "closed a client");
    }
}

/// When a client that has more waiting than it may have counts as one that does not read.
fn stuck_at(condition: Condition) -> Instant {
    condition.choked.map_or_else(Instant::now, |since| since + STUCK)
}

/// What a client that is closed may still send.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// Messages, and at last its answer to the close.
    Decode,
    /// Bytes that mean nothing any more.
    Discard,
    Nothing,
}

/// A line client that has sent its last line may still read: it is kept until all that it sent is answered.
async fn answered(hub: &Hub, client: &Client, socket: &TcpStream) {
    let settled = async {
        while !hub.settle(client) {
            let condition = client.condition();
            if condition.ending || condition.broken {
                return;
            }
            if condition.news {
                hub.tell_buffered(client);
            }
            tokio::select! {
                () = client.wake.notified() => {}
                _ = socket.writable(), if condition.blocked => client.flush(),
            }
        }
    };
    let gone = socket.ready(Interest::ERROR);
    tokio::select! {
        () = settled => {}
        _ = gone => {}
        () = tokio::time::sleep(hub.settings.connect_timeout) => {}
    }
}

/// Sends what the client has still to get, and waits until it has read that: closing with unread input would reset the
/// connection and destroy what is on its way.
async fn see_off(client: &Client, socket: &TcpStream, mut rest: Rest, mut decoder: impl Decoder) {
    loop {
        client.flush();
        if client.condition().broken {
            return;
        }
        if client.unsent() == 0 {
            break;
        }
        if socket.writable().await.is_err() {
            return;
        }
    }
    let _ = socket2::SockRef::from(socket).shutdown(Shutdown::Write);
    let mut discarded = [0; 1024];
    loop {
        let step = match rest {
            Rest::Decode => decoder.next(client),
            Rest::Discard => match client.try_read(&mut discarded) {
                Ok(1..) => Step::Heard,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Step::Blocked { heard: false },
                Ok(0) | Err(_) => return,
            },
            Rest::Nothing => return,
        };
        match step {
            Step::Message { .. } => consume_budget().await,
            Step::Heard => yield_now().await,
            Step::Blocked { .. } => {
                if socket.readable().await.is_err() {
                    return;
                }
            }
            // What it sent last is not read to its end: the rest is, so that it still reads what it was sent.
            Step::End(end) => match end.cause {
                CloseCause::Client | CloseCause::Eof | CloseCause::Reset => return,
                _ => rest = Rest::Discard,
            },
        }
    }
}

/// When a client was last heard of, and when to ask it.
struct Heart {
    protocol: Protocol,
    heard: Instant,
    /// It was heard of since that was noted.
    heard_since: bool,
    asked: bool,
    /// Since when the client is not read.
    paused: Option<Instant>,
    next: Instant,
    interval: Duration,
    timeout: Duration,
}

impl Heart {
    fn new(hub: &Hub, protocol: Protocol) -> Self {
        let (interval, timeout) = match protocol {
            Protocol::Ws => (hub.settings.ping_interval, hub.settings.heartbeat_timeout),
            // A person at a terminal cannot be asked; the kernel's keep-alive finds those that are gone.
            Protocol::Line => (Duration::from_secs(86_400), Duration::MAX),
        };
        let heard = Instant::now();
        Self {
            protocol,
            heard,
            heard_since: false,
            asked: false,
            paused: None,
            next: heard + interval,
            interval,
            timeout,
        }
    }

    fn heard(&mut self) {
        self.heard_since = true;
    }

    /// Notes when the client was heard of. The clock is read once for all that came together.
    fn note(&mut self) {
        if std::mem::take(&mut self.heard_since) {
            self.heard = Instant::now();
            self.asked = false;
        }
    }

    /// The time in which the client is not read does not count.
    fn pause(&mut self, paused: bool) {
        if !paused && let Some(since) = self.paused.take() {
            self.heard += since.elapsed();
            self.plan();
        } else if paused && self.paused.is_none() {
            self.paused = Some(Instant::now());
        }
    }

    fn beat(&mut self, hub: &Hub, client: &Arc<Client>) {
        let now = Instant::now();
        if self.paused.is_some() {
            self.next = now + self.interval;
            // One that has ended its connection in good order answers what it is sent by breaking it.
            if self.protocol == Protocol::Ws && client.unsent() == 0 {
                client.push_raw(encode::ping_frame());
                client.flush();
            }
            return;
        }
        if self.protocol == Protocol::Line {
            self.heard = now;
        }
        let silent = now - self.heard;
        if silent >= self.timeout {
            let end = End::by_gateway(client.protocol, CloseCause::Heartbeat, codes::HEARTBEAT_LOST);
            if hub.close(client, End { clear: true, ..end }) {
                tracing::debug!(client = %hub.client_id(client.number), "closed a client that was silent for too long");
            }
            return;
        }
        if silent >= self.interval && !self.asked {
            self.asked = true;
            client.push_raw(encode::ping_frame());
            client.flush();
        }
        self.plan();
    }

    fn plan(&mut self) {
        self.next = if self.asked {
            self.heard + self.timeout
        } else {
            self.heard + self.interval
        };
    }
}
