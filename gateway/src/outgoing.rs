//! What goes to a worker: the answer stream of a link.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_util::Stream;
use meepo_proto::link::Event;
use meepo_proto::link::event::Body;
use meepo_proto::parts::{Order, PART, Queue};
use prost::Message as _;
use tokio::sync::mpsc;
use tonic::Status;

/// The answer stream. All that is queued is ready at each poll, so tonic joins it into as few writes as it can; but of what is
/// large it gives one part a poll, so that what other tasks say meanwhile passes it.
#[derive(Debug)]
pub(crate) struct Outgoing {
    queue: mpsc::UnboundedReceiver<Result<Event, Status>>,
    /// The worker takes events in parts.
    in_parts: Arc<AtomicBool>,
    /// What cannot go at once.
    held: Queue<Event, ()>,
    /// A part is out, and others have had their turn.
    paused: bool,
    /// How it ends, once nothing is held.
    end: Option<Result<(), Status>>,
}

impl Outgoing {
    /// It sends no parts before `in_parts` is true.
    pub(crate) fn new(queue: mpsc::UnboundedReceiver<Result<Event, Status>>, in_parts: Arc<AtomicBool>) -> Self {
        Self {
            queue,
            in_parts,
            held: Queue::default(),
            paused: false,
            end: None,
        }
    }

    fn is_large(&self, event: &Event) -> bool {
        size(event) > PART && self.in_parts.load(Ordering::Relaxed)
    }

    /// Takes all that there is.
    fn hold_all(&mut self, cx: &mut Context<'_>) {
        while self.end.is_none()
            && let Poll::Ready(event) = self.queue.poll_recv(cx)
        {
            match event {
                Some(Ok(event)) => self.hold(event),
                Some(Err(status)) => self.end = Some(Err(status)),
                None => self.end = Some(Ok(())),
            }
        }
    }

    fn hold(&mut self, event: Event) {
        let (order, large) = (order(&event), self.is_large(&event));
        self.held.push(event, order, large, ());
    }
}

impl Stream for Outgoing {
    type Item = Result<Event, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Event, Status>>> {
        if self.held.is_empty() && self.end.is_none() {
            match self.queue.poll_recv(cx) {
                Poll::Ready(Some(Ok(event))) if self.is_large(&event) => {
                    self.hold(event);
                    self.hold_all(cx);
                }
                next => return next,
            }
        }
        if std::mem::take(&mut self.paused) {
            self.hold_all(cx);
        }
        if let Some(event) = self.held.pop() {
            return Poll::Ready(Some(Ok(event)));
        }
        if !self.held.is_empty() {
            self.paused = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let end = self.end.replace(Ok(()));
        Poll::Ready(end.and_then(Result::err).map(Err))
    }
}

/// What an event takes, or a little less.
fn size(event: &Event) -> usize {
    match (&event.body, &event.attach) {
        // Most are of this kind, and are not to be measured twice.
        (Some(Body::Message(message)), None) => message.payload.len(),
        _ => event.encoded_len(),
    }
}

/// Which place an event has to keep. Those that handlers answer with `done` are handled client by client, in no order among
/// clients; others tell of a change that a handler of any client may see.
fn order(event: &Event) -> Order {
    match event.client {
        0 => Order::Fence,
        client if event.seq == 0 => Order::Change(client),
        client => Order::Of(client),
    }
}
