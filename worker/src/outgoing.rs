//! What goes to a gateway: the request stream of a link.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use meepo_proto::link as wire;
use meepo_proto::link::command::Body;
use meepo_proto::parts::{Order, PART, Queue};
use tokio::sync::mpsc;
use tokio_stream::Stream;

use crate::room::Charge;

/// What surrounds the body of a command, at most.
const COMMAND_HEAD: usize = 16;
/// Most events that one `done` answers.
const DONE_AT_ONCE: usize = 128;

/// An entry of the outgoing queue.
#[derive(Debug)]
pub(crate) enum Queued {
    Command(wire::Command, Charge),
    Done(u64),
    /// After all that was done before.
    Undone(wire::Undone),
    End,
}

/// The request stream. All that is queued is ready at each poll, so tonic joins it into as few writes as it can; but of what
/// is large it gives one part a poll, so that what other tasks say meanwhile passes it.
#[derive(Debug)]
pub(crate) struct Outgoing {
    queue: mpsc::UnboundedReceiver<Queued>,
    /// The gateway takes commands in parts.
    in_parts: Arc<AtomicBool>,
    /// Events to be answered with the next `done`: once the queue is empty, or enough of them.
    done: Vec<u64>,
    /// What cannot go at once.
    held: Queue<wire::Command, Option<Charge>>,
    /// A part is out, and others have had their turn.
    paused: bool,
    ended: bool,
}

impl Outgoing {
    /// It sends no parts before `in_parts` is true.
    pub(crate) fn new(queue: mpsc::UnboundedReceiver<Queued>, in_parts: Arc<AtomicBool>) -> Self {
        Self {
            queue,
            in_parts,
            done: Vec::new(),
            held: Queue::default(),
            paused: false,
            ended: false,
        }
    }

    /// The next one while nothing is held. Nothing if that has changed, or all has ended.
    fn poll_straight(&mut self, cx: &mut Context<'_>) -> Poll<Option<wire::Command>> {
        while self.done.len() < DONE_AT_ONCE {
            match self.queue.poll_recv(cx) {
                Poll::Ready(Some(Queued::Command(command, charge))) if !self.is_large(&charge) => {
                    return Poll::Ready(Some(command));
                }
                Poll::Ready(Some(Queued::Done(seq))) => self.done.push(seq),
                Poll::Ready(Some(queued)) => {
                    self.hold(queued);
                    self.hold_all(cx);
                    return Poll::Ready(None);
                }
                Poll::Ready(None) => {
                    self.hold(Queued::End);
                    return Poll::Ready(None);
                }
                Poll::Pending if self.done.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(Some(self.take_done()))
    }

    fn is_large(&self, charge: &Charge) -> bool {
        charge.bytes() > PART && self.in_parts.load(Ordering::Relaxed)
    }

    /// Takes all that there is.
    fn hold_all(&mut self, cx: &mut Context<'_>) {
        while !self.ended
            && let Poll::Ready(queued) = self.queue.poll_recv(cx)
        {
            self.hold(queued.unwrap_or(Queued::End));
        }
        self.hold_done();
    }

    fn hold(&mut self, queued: Queued) {
        match queued {
            Queued::Command(command, charge) => {
                let large = self.is_large(&charge);
                if large {
                    // What is done already does not wait for it.
                    self.hold_done();
                }
                let order = command.body.as_ref().map_or(Order::Fence, order);
                self.held.push(command, order, large, Some(charge));
            }
            Queued::Done(seq) => {
                self.done.push(seq);
                if self.done.len() == DONE_AT_ONCE {
                    self.hold_done();
                }
            }
            Queued::Undone(undone) => {
                self.hold_done();
                self.held.push(command(Body::Undone(undone)), Order::Fence, false, None);
            }
            Queued::End => {
                self.hold_done();
                self.ended = true;
            }
        }
    }

    fn hold_done(&mut self) {
        if !self.done.is_empty() {
            let done = self.take_done();
            self.held.push(done, Order::After, false, None);
        }
    }

    fn take_done(&mut self) -> wire::Command {
        let seq = std::mem::take(&mut self.done);
        command(Body::Done(wire::Done { seq }))
    }
}

impl Stream for Outgoing {
    type Item = wire::Command;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<wire::Command>> {
        if self.held.is_empty() && !self.ended {
            let next = ready!(self.poll_straight(cx));
            if next.is_some() {
                return Poll::Ready(next);
            }
        }
        if std::mem::take(&mut self.paused) {
            self.hold_all(cx);
        }
        let next = self.held.pop();
        if next.is_none() && !self.held.is_empty() {
            self.paused = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(next)
    }
}

/// What a command takes, or a little more.
pub(crate) fn size(body: &Body) -> usize {
    let bytes = match body {
        // Most are of this kind, and are not to be measured twice: up to 13 bytes stand beside the payload.
        Body::Send(wire::Send { payload, to: None, .. }) => payload.len() + COMMAND_HEAD,
        body => body.encoded_len(),
    };
    bytes + COMMAND_HEAD
}

/// Which place a command has to keep. Only messages to single clients are passed: whoever gets one may ask, over any link,
/// for what was done before it.
fn order(body: &Body) -> Order {
    match body {
        Body::Send(send) if send.to.is_none() => Order::Of(send.client),
        Body::Accept(accept) => Order::Change(accept.client),
        Body::Reject(reject) => Order::Change(reject.client),
        Body::Join(join) => Order::Change(join.client),
        Body::Leave(leave) => Order::Change(leave.client),
        Body::Bind(bind) => Order::Change(bind.client),
        Body::Unbind(unbind) => Order::Change(unbind.client),
        Body::Session(update) => Order::Change(update.client),
        Body::Reading(reading) => Order::Change(reading.client),
        Body::Done(_) => Order::After,
        _ => Order::Fence,
    }
}

pub(crate) fn command(body: Body) -> wire::Command {
    wire::Command { body: Some(body) }
}
