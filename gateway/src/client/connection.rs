//! The life of a client that is let in: it is read, asked whether it lives, and closed.

use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use meepo_proto::link::{CloseCause, Message};
use tokio::io::Interest;
use tokio::task::{consume_budget, yield_now};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use crate::client::close::ClientClose;
use crate::client::handle::{Client, Condition, STUCK};
use crate::client::heartbeat::Heartbeat;
use crate::config::settings::{Protocol, SlowClient};
use crate::hub::Hub;

/// Turns what a client sends into messages.
pub(crate) trait Decoder: Send + 'static {
    /// Reads on without waiting.
    fn next(&mut self, client: &Client) -> Decoded;

    /// What is complete in what was read already.
    fn ready(&mut self, client: &Client) -> Option<Decoded>;
}

/// Messages of one client that are taken before others have their turn.
const MESSAGES: usize = 64;

/// What came of reading.
#[derive(Debug)]
pub(crate) enum Decoded {
    Message(Message),
    /// A sign of life, no message.
    Heard,
    /// Nothing more to read now; whether any bytes came.
    Blocked {
        heard: bool,
    },
    /// The client is over.
    Close(ClientClose),
}

/// Reads a client until it ends, then sees it off.
///
/// This is what an idle client costs: what is rare is boxed, and what is waited for are no futures of their own.
// An `async fn` would keep its arguments twice.
pub(crate) fn run(hub: Arc<Hub>, client: Arc<Client>, decoder: impl Decoder) -> impl Future<Output = ()> + Send {
    let mut life = ReadLoop {
        heartbeat: Heartbeat::new(&hub, client.protocol),
        hub,
        client,
        decoder,
        paused: None,
    };
    async move {
        let mut timer = pin!(sleep_until(life.heartbeat.next()));
        let last = poll_fn(|context| life.poll(context, timer.as_mut())).await;
        Box::pin(finish(&life.hub, &life.client, last, life.decoder)).await;
    }
}

/// A client that is being read.
struct ReadLoop<D> {
    hub: Arc<Hub>,
    client: Arc<Client>,
    decoder: D,
    heartbeat: Heartbeat,
    paused: Option<Box<Paused>>,
}

/// A client that is not read for now.
struct Paused {
    since: Instant,
    /// Waits for the end of its connection.
    gone: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// What comes next.
enum Next {
    /// A message was taken.
    Took,
    /// As much was read as may be at a time: it is the others' turn.
    Yields,
    Waits(Wait),
    Ends(Last),
}

/// What of its socket a client waits for.
#[derive(Clone, Copy)]
struct Wait {
    reading: bool,
    blocked: bool,
}

/// What ends a wait.
enum Wake {
    /// Something has changed that concerns it, or there is more to read.
    News,
    Writable,
    Broken,
    /// It is time to look whether it lives, or takes what it is sent.
    Due,
}

impl<D: Decoder> ReadLoop<D> {
    /// Lives on until there is nothing to do for now, or the end.
    fn poll(&mut self, context: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<Last> {
        loop {
            match self.turn(timer.as_mut()) {
                // A client that never stops sending leaves time to the others.
                Next::Took => ready!(pin!(consume_budget()).poll(context)),
                Next::Yields => {
                    // Polled once, it has the task woken after the others.
                    let _ = pin!(yield_now()).poll(context);
                    return Poll::Pending;
                }
                Next::Waits(wait) => {
                    let event = ready!(self.poll_event(context, wait, timer.as_mut()));
                    self.hear(event);
                }
                Next::Ends(last) => return Poll::Ready(last),
            }
        }
    }

    /// Does what there is to do, up to the next message, and sets the timer.
    fn turn(&mut self, timer: Pin<&mut Sleep>) -> Next {
        let condition = self.client.condition();
        if condition.cut || self.client.socket().is_none() {
            return Next::Ends(Last::Cut);
        }
        if condition.ending {
            return Next::Ends(Last::Closed);
        }
        if condition.broken {
            return Next::Ends(Last::Broken);
        }
        self.pause(condition.paused);
        let Self {
            hub,
            client,
            decoder,
            heartbeat,
            ..
        } = self;
        if condition.news {
            hub.tell_buffered(client);
        }
        // One that does not read what it is sent, pongs included, is not read either.
        let reading = !condition.paused && condition.choked.is_none();
        if reading {
            hub.check_full(client);
        }
        if reading && !client.condition().paused {
            let mut step = decoder.next(client);
            if let Decoded::Message(first) = step {
                heartbeat.heard();
                step = match take(hub, client, first, decoder) {
                    Some(next) => next,
                    None => return Next::Took,
                };
            }
            match step {
                Decoded::Message(_) => return Next::Took,
                Decoded::Heard => {
                    heartbeat.heard();
                    client.flush();
                    return Next::Yields;
                }
                Decoded::Blocked { heard: true } => heartbeat.heard(),
                Decoded::Blocked { heard: false } => {}
                Decoded::Close(end) => return Next::Ends(Last::Ends(Box::new(end))),
            }
        }
        heartbeat.note();
        let stuck = stuck_at(hub, condition);
        let due = stuck.map_or(heartbeat.next(), |stuck| stuck.min(heartbeat.next()));
        if timer.deadline() != due {
            timer.reset(due);
        }
        Next::Waits(Wait {
            reading,
            blocked: condition.blocked,
        })
    }

    /// A client that is not read is not judged by its silence, but one whose connection breaks is noticed.
    fn pause(&mut self, paused: bool) {
        if !paused {
            if let Some(paused) = self.paused.take() {
                self.heartbeat.skip(&self.hub, paused.since.elapsed());
            }
        } else if self.paused.is_none() {
            self.paused = Some(Box::new(Paused {
                since: Instant::now(),
                gone: Box::pin(gone_away(Arc::clone(&self.client))),
            }));
        }
    }

    fn poll_event(&mut self, context: &mut Context<'_>, wait: Wait, timer: Pin<&mut Sleep>) -> Poll<Wake> {
        if self.client.wake.poll_heard(context).is_ready() {
            return Poll::Ready(Wake::News);
        }
        if let Some(socket) = self.client.socket() {
            if wait.reading && socket.poll_read_ready(context).is_ready() {
                return Poll::Ready(Wake::News);
            }
            if wait.blocked && socket.poll_write_ready(context).is_ready() {
                return Poll::Ready(Wake::Writable);
            }
        }
        if let Some(paused) = &mut self.paused
            && paused.gone.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Wake::Broken);
        }
        timer.poll(context).map(|()| Wake::Due)
    }

    fn hear(&mut self, event: Wake) {
        match event {
            Wake::News => {}
            Wake::Writable => self.client.flush(),
            Wake::Broken => {
                let end = ClientClose::by_client(CloseCause::Reset, 0, "connection broke");
                self.hub.close(&self.client, end);
            }
            Wake::Due => {
                let now = Instant::now();
                if stuck_at(&self.hub, self.client.condition()).is_some_and(|stuck| stuck <= now) {
                    self.hub.close_one_slow(&self.client);
                }
                if self.heartbeat.next() <= now {
                    self.heartbeat.beat(&self.hub, &self.client, self.paused.is_some());
                }
            }
        }
    }
}

/// Takes a message, and those that were read along with it. Gives what came behind them, if that is something else.
fn take(hub: &Hub, client: &Client, first: Message, decoder: &mut impl Decoder) -> Option<Decoded> {
    let mut left = MESSAGES;
    let mut other = None;
    hub.messages(client, first, || {
        left -= 1;
        let step = match left {
            0 => Some(Decoded::Heard),
            _ => decoder.ready(client),
        };
        match step {
            Some(Decoded::Message(message)) => Some(message),
            step => {
                other = step;
                None
            }
        }
    });
    other
}

/// How a client comes to its end.
enum Last {
    /// It is not seen off.
    Cut,
    /// It was closed.
    Closed,
    Broken,
    /// By what it has sent.
    Ends(Box<ClientClose>),
}

/// Closes a client that is not closed yet, and sees it off.
async fn finish(hub: &Hub, client: &Arc<Client>, last: Last, decoder: impl Decoder) {
    let rest = match last {
        Last::Cut => return,
        Last::Closed => Rest::Decode,
        Last::Broken => {
            hub.close(client, ClientClose::by_client(CloseCause::Reset, 0, "connection broke"));
            Rest::Nothing
        }
        Last::Ends(end) => {
            let rest = match (end.cause, client.protocol) {
                // Both sides have said it: there is nothing more to come.
                (CloseCause::Client, _) => Rest::Nothing,
                (CloseCause::Eof, Protocol::Line) => {
                    answered(hub, client).await;
                    Rest::Nothing
                }
                _ => {
                    log_refusal(hub, client, &end);
                    Rest::Discard
                }
            };
            hub.close(client, *end);
            rest
        }
    };
    let _ = timeout(hub.settings.close_timeout, see_off(client, rest, decoder)).await;
}

/// Waits until the connection has broken.
async fn gone_away(client: Arc<Client>) {
    if let Some(socket) = client.socket() {
        let _ = socket.ready(Interest::ERROR).await;
    }
}

/// Says why a client was closed for what it sent; a crowd of them does not flood the log.
fn log_refusal(hub: &Hub, client: &Client, end: &ClientClose) {
    if let Some(unlogged) = hub.refusals.take() {
        let (id, peer) = (hub.client_id(client.number), client.profile.handshake().peer);
        tracing::info!(client = %id, peer, cause = ?end.cause, reason = end.reason, unlogged, "closed a client");
    }
}

/// When a client that has more waiting than it may have counts as one that does not read, and is closed for that.
fn stuck_at(hub: &Hub, condition: Condition) -> Option<Instant> {
    let closes = hub.settings.slow_client == SlowClient::Close;
    condition.choked.filter(|_| closes).map(|since| since + STUCK)
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
async fn answered(hub: &Hub, client: &Client) {
    let Some(socket) = client.socket() else { return };
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
                () = poll_fn(|context| client.wake.poll_heard(context)) => {}
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
async fn see_off(client: &Client, mut rest: Rest, mut decoder: impl Decoder) {
    let Some(socket) = client.socket() else { return };
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
    loop {
        let step = match rest {
            Rest::Decode => decoder.next(client),
            Rest::Discard => match client.try_read(|_| {}) {
                Ok(1..) => Decoded::Heard,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Decoded::Blocked { heard: false },
                Ok(0) | Err(_) => return,
            },
            Rest::Nothing => return,
        };
        match step {
            Decoded::Message(_) => consume_budget().await,
            Decoded::Heard => yield_now().await,
            Decoded::Blocked { .. } => {
                if socket.readable().await.is_err() {
                    return;
                }
            }
            // What it sent last is not read to its end: the rest is, so that it still reads what it was sent.
            Decoded::Close(end) => match end.cause {
                CloseCause::Client | CloseCause::Eof | CloseCause::Reset => return,
                _ => rest = Rest::Discard,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use meepo_node::stats::Slot;
    use meepo_proto::link::Handshake;

    use super::*;
    use crate::config::settings::GatewaySettings;
    use crate::protocol::ws::decoder::WsDecoder;

    /// The runtime adds about 100 bytes, and allocates in units of 128.
    #[test]
    fn the_task_of_an_idle_client_is_small() {
        let hub = Hub::new(GatewaySettings::default(), Box::leak(Box::<Slot>::default()));
        let (client, _) = Client::new(1, Protocol::Ws, &Handshake::default(), None, 0);
        let task = run(hub, client, WsDecoder::new(&[], 0));
        let size = size_of_val(&task);
        println!(
            "task {size}, line {}",
            size_of::<crate::protocol::line::decoder::LineDecoder>()
        );
        assert!(size <= 256, "{size} bytes");
    }
}
