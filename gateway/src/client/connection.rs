//! The task of a client that is let in: it reads the client, keeps its heartbeat, and ends when the client is closed.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use meepo_proto::link::Message;
use tokio::io::Interest;
use tokio::task::{consume_budget, yield_now};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::client::close::ClientClose;
use crate::client::closing::{Last, finish};
use crate::client::decoder::{Decoded, Decoder};
use crate::client::handle::{Client, Condition, STUCK};
use crate::client::heartbeat::Heartbeat;
use crate::client::host::Host;
use crate::client::states::Phase;
use crate::config::limits::SlowClient;

/// Messages of one client that are taken before other clients have their turn.
const MESSAGES: usize = 64;

/// Reads a client until it ends, then closes its connection gracefully.
///
/// The size of this future is what an idle client costs: rare state is boxed, and nothing that is waited for is a future of
/// its own.
// An `async fn` would keep its arguments twice.
pub(crate) fn run<H: Host>(
    host: Arc<H>,
    client: Arc<Client>,
    decoder: impl Decoder,
) -> impl Future<Output = ()> + Send {
    let mut reading = ReadLoop {
        heartbeat: Heartbeat::new(host.limits(), client.codec),
        host,
        client,
        decoder,
        paused: None,
    };
    async move {
        let mut timer = pin!(sleep_until(reading.heartbeat.next()));
        let last = poll_fn(|context| reading.poll(context, timer.as_mut())).await;
        Box::pin(finish(&*reading.host, &reading.client, last, reading.decoder)).await;
    }
}

/// A client that is being read.
struct ReadLoop<H, D> {
    host: Arc<H>,
    client: Arc<Client>,
    decoder: D,
    heartbeat: Heartbeat,
    paused: Option<Box<Paused>>,
}

/// A client that is not read for now.
struct Paused {
    since: Instant,
    /// Ends when the connection breaks.
    gone: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// What a step of the read loop comes to.
enum Next {
    /// A message was taken: there may be more.
    Took,
    /// As much was read as may be at a time: it is the other clients' turn.
    Yields,
    /// There is nothing to do before an event.
    Waits(Interests),
    /// The client is over.
    Ends(Last),
}

/// What of its socket the client waits for.
#[derive(Clone, Copy)]
struct Interests {
    reading: bool,
    writing: bool,
}

/// What ends a wait.
enum Event {
    /// The client's state has changed, or there is more to read.
    Changed,
    /// The socket takes bytes again.
    Writable,
    /// The connection broke while the client was not read.
    Broken,
    /// The timer: the heartbeat is due, or the client may be stuck.
    Due,
}

impl<H: Host, D: Decoder> ReadLoop<H, D> {
    /// Goes on until there is nothing to do for now, or the client is over.
    fn poll(&mut self, context: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<Last> {
        loop {
            match self.step(timer.as_mut()) {
                // A client that never stops sending leaves time to the others.
                Next::Took => ready!(pin!(consume_budget()).poll(context)),
                Next::Yields => {
                    // Polled once, this has the task woken after the others.
                    let _ = pin!(yield_now()).poll(context);
                    return Poll::Pending;
                }
                Next::Waits(interests) => {
                    let event = ready!(self.poll_event(context, interests, timer.as_mut()));
                    self.handle(event);
                }
                Next::Ends(last) => return Poll::Ready(last),
            }
        }
    }

    /// Does everything that there is to do, up to the next message, and sets the timer.
    fn step(&mut self, timer: Pin<&mut Sleep>) -> Next {
        let condition = self.client.condition();
        let phase = match self.client.socket() {
            Some(_) => condition.phase,
            None => Phase::Cut,
        };
        match phase {
            Phase::Open => {}
            Phase::Cut => return Next::Ends(Last::Cut),
            Phase::Closing | Phase::Lost => return Next::Ends(Last::Closed),
            Phase::Broken => return Next::Ends(Last::Broken),
        }
        self.note_pause(condition.paused);
        let Self {
            host,
            client,
            decoder,
            heartbeat,
            ..
        } = self;
        if condition.has_news {
            host.push_send_buffer(client);
        }
        // A client that does not read what it is sent, pongs included, is not read either.
        let reading = !condition.paused && condition.choked.is_none();
        if reading {
            host.hold_back_if_full(client);
        }
        if reading && !client.condition().paused {
            let mut decoded = decoder.next(client);
            if let Decoded::Message(first) = decoded {
                heartbeat.heard();
                decoded = match take_messages(&**host, client, first, decoder) {
                    Some(next) => next,
                    None => return Next::Took,
                };
            }
            match decoded {
                Decoded::Message(_) => return Next::Took,
                Decoded::Heard => {
                    heartbeat.heard();
                    client.flush();
                    return Next::Yields;
                }
                Decoded::Blocked { heard: true } => heartbeat.heard(),
                Decoded::Blocked { heard: false } => {}
                Decoded::Close(close) => return Next::Ends(Last::Sent(Box::new(close))),
            }
        }
        heartbeat.note();
        let stuck = stuck_at(&**host, condition);
        let due = stuck.map_or(heartbeat.next(), |stuck| stuck.min(heartbeat.next()));
        if timer.deadline() != due {
            timer.reset(due);
        }
        Next::Waits(Interests {
            reading,
            writing: condition.blocked,
        })
    }

    /// A client that is not read is not judged by its silence, but a break of its connection is noticed.
    fn note_pause(&mut self, paused: bool) {
        if !paused {
            if let Some(paused) = self.paused.take() {
                self.heartbeat.skip(self.host.limits(), paused.since.elapsed());
            }
        } else if self.paused.is_none() {
            self.paused = Some(Box::new(Paused {
                since: Instant::now(),
                gone: Box::pin(connection_broken(Arc::clone(&self.client))),
            }));
        }
    }

    fn poll_event(&mut self, context: &mut Context<'_>, wait: Interests, timer: Pin<&mut Sleep>) -> Poll<Event> {
        if self.client.wake.poll_woken(context).is_ready() {
            return Poll::Ready(Event::Changed);
        }
        if let Some(socket) = self.client.socket() {
            if wait.reading && socket.poll_read_ready(context).is_ready() {
                return Poll::Ready(Event::Changed);
            }
            if wait.writing && socket.poll_write_ready(context).is_ready() {
                return Poll::Ready(Event::Writable);
            }
        }
        if let Some(paused) = &mut self.paused
            && paused.gone.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Event::Broken);
        }
        timer.poll(context).map(|()| Event::Due)
    }

    fn handle(&mut self, event: Event) {
        let Self { host, client, .. } = self;
        match event {
            Event::Changed => {}
            Event::Writable => client.flush(),
            Event::Broken => {
                host.close(client, ClientClose::broken());
            }
            Event::Due => {
                let now = Instant::now();
                if stuck_at(&**host, client.condition()).is_some_and(|stuck| stuck <= now) {
                    host.close_slow(client);
                }
                if self.heartbeat.next() <= now {
                    self.heartbeat.beat(&**host, client, self.paused.is_some());
                }
            }
        }
    }
}

/// Hands on a message, and those that were read along with it. Gives what came behind them, if that is no message.
fn take_messages(host: &impl Host, client: &Client, first: Message, decoder: &mut impl Decoder) -> Option<Decoded> {
    let mut left = MESSAGES;
    let mut other = None;
    host.push_messages(client, first, || {
        left -= 1;
        let decoded = match left {
            0 => Some(Decoded::Heard),
            _ => decoder.ready(client),
        };
        match decoded {
            Some(Decoded::Message(message)) => Some(message),
            decoded => {
                other = decoded;
                None
            }
        }
    });
    other
}

/// When a client that has more waiting than its send buffer counts as slow, and is closed for that.
fn stuck_at(host: &impl Host, condition: Condition) -> Option<Instant> {
    let closes = host.limits().slow_client == SlowClient::Close;
    condition.choked.filter(|_| closes).map(|since| since + STUCK)
}

/// Waits until the connection has broken.
async fn connection_broken(client: Arc<Client>) {
    if let Some(socket) = client.socket() {
        let _ = socket.ready(Interest::ERROR).await;
    }
}

#[cfg(test)]
mod tests {
    use meepo_proto::link::Handshake;

    use super::*;
    use crate::config::limits::Limits;
    use crate::protocol::entrance::Entrance;
    use crate::protocol::ws;

    /// The runtime adds about 100 bytes, and allocates in units of 128.
    #[test]
    fn the_task_of_an_idle_client_is_small() {
        let entrance = Entrance::for_test(Limits::default());
        let (client, _) = Client::new(1.into(), &ws::CODEC, &Handshake::default(), None, 0);
        let task = run(entrance, client, ws::decoder::WsDecoder::new(&[], 0));
        let size = size_of_val(&task);
        assert!(size <= 256, "{size} bytes");
    }
}
