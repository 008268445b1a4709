//! The sending half of a link.

use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use tonic::Status;

use crate::parts::{InParts, Order, PART, Queue};

/// The end of a link that says which messages it has to send.
pub trait Source: Unpin {
    /// Events or commands.
    type Message: InParts;
    /// A value that is dropped once the last byte of a message that had to wait is out.
    type Kept;

    /// The next message in the order in which they were queued.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next<Self::Message>>;

    /// Which place a message has to keep.
    fn order(message: &Self::Message) -> Order;

    /// A message that must not wait for a large one that was queued after it.
    fn take_before_large(&mut self) -> Option<Self::Message> {
        None
    }

    /// A message of this size has gone out at once.
    fn sent(&mut self, _bytes: usize) {}

    /// A message of this size has to wait.
    fn keep(&mut self, bytes: usize) -> Self::Kept;
}

/// What a [`Source`] has to send next.
#[derive(Debug)]
pub enum Next<M> {
    /// A message, and its size in bytes, or a little less.
    Message(M, usize),
    /// The stream ends, with an error or without.
    End(Result<(), Status>),
}

/// The stream that is sent. All messages that are queued are ready at each poll, so that tonic joins them into as few writes
/// as it can, and HTTP/2 says when it has enough; but of a large message one poll gives one part, so that messages which
/// other tasks queue meanwhile pass it.
pub struct Outgoing<S: Source> {
    source: S,
    /// The other end takes messages in parts.
    in_parts: Arc<AtomicBool>,
    /// Messages that have to wait, because they are large or a large one is in front.
    waiting: Queue<S::Message, S::Kept>,
    /// A part has gone out, and other tasks have had their turn.
    paused: bool,
    /// How the stream ends, once no message waits.
    end: Option<Result<(), Status>>,
}

impl<S: Source> Outgoing<S> {
    /// Sends no parts before `in_parts` is true.
    pub fn new(source: S, in_parts: Arc<AtomicBool>) -> Self {
        Self {
            source,
            in_parts,
            waiting: Queue::default(),
            paused: false,
            end: None,
        }
    }

    /// The next message, while none waits. None if one waits from now on, or the source has ended.
    fn poll_straight(&mut self, cx: &mut Context<'_>) -> Poll<Option<S::Message>> {
        match ready!(self.source.poll_next(cx)) {
            Next::Message(message, bytes) if !self.is_large(bytes) => {
                self.source.sent(bytes);
                Poll::Ready(Some(message))
            }
            next => {
                self.take(next);
                self.take_all(cx);
                Poll::Ready(None)
            }
        }
    }

    fn is_large(&self, bytes: usize) -> bool {
        bytes > PART && self.in_parts.load(Ordering::Relaxed)
    }

    /// Takes all that the source has.
    fn take_all(&mut self, cx: &mut Context<'_>) {
        while self.end.is_none()
            && let Poll::Ready(next) = self.source.poll_next(cx)
        {
            self.take(next);
        }
    }

    fn take(&mut self, next: Next<S::Message>) {
        match next {
            Next::Message(message, bytes) => {
                let large = self.is_large(bytes);
                if large && let Some(earlier) = self.source.take_before_large() {
                    self.wait(earlier, 0, false);
                }
                self.wait(message, bytes, large);
            }
            Next::End(end) => self.end = Some(end),
        }
    }

    fn wait(&mut self, message: S::Message, bytes: usize, large: bool) {
        let order = S::order(&message);
        let kept = self.source.keep(bytes);
        self.waiting.push(message, order, large, kept);
    }
}

impl<S: Source> Stream for Outgoing<S>
where
    S::Message: Unpin,
    S::Kept: Unpin,
{
    type Item = Result<S::Message, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.waiting.is_empty() && self.end.is_none() {
            let next = ready!(self.poll_straight(cx));
            if next.is_some() {
                return Poll::Ready(next.map(Ok));
            }
        }
        if mem::take(&mut self.paused) {
            self.take_all(cx);
        }
        if let Some(message) = self.waiting.pop() {
            return Poll::Ready(Some(Ok(message)));
        }
        if !self.waiting.is_empty() {
            self.paused = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let end = self.end.replace(Ok(()));
        Poll::Ready(end.and_then(Result::err).map(Err))
    }
}

impl<S: Source> std::fmt::Debug for Outgoing<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outgoing")
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use meepo_proto::link::{Event, Message, event};

    use super::*;
    use crate::channel;
    use crate::testing::{Played, poll};

    const LARGE: usize = 5 * PART / 2;

    /// Events in the order of their clients; an event without one is a fence.
    struct Plain(channel::Receiver<Result<Event, Status>>);

    impl Source for Plain {
        type Message = Event;
        type Kept = ();

        fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next<Event>> {
            Poll::Ready(match ready!(self.0.poll_recv(cx)) {
                Some(Ok(event)) => {
                    let bytes = size(&event);
                    Next::Message(event, bytes)
                }
                Some(Err(status)) => Next::End(Err(status)),
                None => Next::End(Ok(())),
            })
        }

        fn order(event: &Event) -> Order {
            match event.subject {
                Some(event::Subject::Client(client)) => Order::Of(client),
                _ => Order::Fence,
            }
        }

        fn keep(&mut self, _bytes: usize) {}
    }

    fn size(event: &Event) -> usize {
        match &event.body {
            Some(event::Body::Message(message)) => message.payload.len(),
            _ => 0,
        }
    }

    fn line(in_parts: bool) -> (channel::Sender<Result<Event, Status>>, Played<Plain>) {
        let (events, queue) = channel::channel();
        let outgoing = Outgoing::new(Plain(queue), Arc::new(in_parts.into()));
        (events, Played::new(outgoing, short))
    }

    fn message(client: u64, bytes: usize) -> Result<Event, Status> {
        let payload = vec![0; bytes].into();
        Ok(Event {
            subject: Some(event::Subject::Client(client)),
            body: Some(event::Body::Message(Message { payload, binary: true })),
            ..Event::default()
        })
    }

    fn short(event: Event) -> String {
        let Some(event::Subject::Client(client)) = event.subject else {
            return "fence".to_owned();
        };
        let size = if size(&event) == LARGE { "large" } else { "small" };
        format!("{size} {client}")
    }

    #[test]
    fn small_messages_of_other_clients_pass_a_large_one() {
        let (events, mut line) = line(true);
        for (client, bytes) in [(1, LARGE), (1, 10), (2, 10), (2, LARGE)] {
            events.send(message(client, bytes)).unwrap();
        }
        events.send(Ok(Event::default())).unwrap();
        events.send(message(3, 10)).unwrap();
        assert_eq!(
            line.all(),
            ["small 2", "large 1", "small 1", "large 2", "fence", "small 3"]
        );
    }

    #[test]
    fn messages_keep_their_order_if_the_other_end_takes_no_parts() {
        let (events, mut line) = line(false);
        events.send(message(1, LARGE)).unwrap();
        events.send(message(2, 10)).unwrap();
        let first = poll(&mut line.outgoing);
        assert!(matches!(first, Poll::Ready(Some(Ok(event))) if short(event.clone()) == "large 1"));
        assert_eq!(line.all(), ["small 2"]);
    }

    #[test]
    fn the_stream_ends_after_the_last_part() {
        let (events, mut line) = line(true);
        events.send(message(1, LARGE)).unwrap();
        events.send(message(1, 10)).unwrap();
        drop(events);
        assert_eq!(line.all(), ["large 1", "small 1", "end"]);

        let (events, mut line) = self::line(true);
        events.send(message(1, LARGE)).unwrap();
        events.send(Err(Status::invalid_argument("wrong"))).unwrap();
        drop(events);
        assert_eq!(line.all(), ["large 1", "wrong", "end"]);
    }

    #[test]
    fn a_large_message_goes_on_however_many_pass_it() {
        let (events, mut line) = line(true);
        events.send(message(1, LARGE)).unwrap();
        let (mut parts, mut polls) = (0, 0);
        while parts < 3 {
            events.send(message(2, 10)).unwrap();
            polls += 1;
            let mut cx = Context::from_waker(Waker::noop());
            if let Poll::Ready(Some(Ok(event))) = Pin::new(&mut line.outgoing).poll_next(&mut cx) {
                parts += usize::from(matches!(event.body, Some(event::Body::Part(_))));
            }
        }
        assert!(polls < 30, "{polls}");
    }
}
