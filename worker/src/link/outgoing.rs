//! What goes to a gateway: the request stream of a link.

use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use meepo_proto::batch;
use meepo_proto::link as wire;
use meepo_proto::link::command::Body;
use meepo_proto::parts::{Order, PART, Queue};
use tokio_stream::Stream;

use crate::link::send_budget::{Charge, SendBudget};

/// What surrounds the body of a command, at most.
const COMMAND_HEAD: usize = 16;
/// The number of the query that asks whether the gateway hears this worker; others count from 1.
pub(crate) const PROBE_QUERY: u64 = 0;
/// Most events that one `done` answers.
const DONE_AT_ONCE: usize = 128;
/// Bytes that are out are counted no longer once there are so many of them, or nothing more is there.
const FREED_AT_ONCE: usize = 8 << 10;

/// An entry of the outgoing queue.
#[derive(Debug)]
pub(crate) enum Queued {
    /// With the bytes that are counted for it.
    Command(wire::Command, usize),
    Done(u64),
    /// After all that was done before.
    Undone(wire::Undone),
    End,
}

/// The request stream. All that is queued is ready at each poll, so tonic joins it into as few writes as it can, and HTTP/2
/// says when it has enough; but of what is large it gives one part a poll, so that what other tasks say meanwhile passes it.
#[derive(Debug)]
pub(crate) struct Outgoing {
    queue: batch::Receiver<Queued>,
    room: Arc<SendBudget>,
    /// Bytes of what is out, that are still counted.
    out: usize,
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
    pub(crate) fn new(queue: batch::Receiver<Queued>, room: Arc<SendBudget>, in_parts: Arc<AtomicBool>) -> Self {
        Self {
            queue,
            room,
            out: 0,
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
                Poll::Ready(Some(Queued::Command(command, bytes))) if !self.is_large(bytes) => {
                    self.free_soon(bytes);
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
                Poll::Pending => {
                    self.free();
                    if self.done.is_empty() {
                        return Poll::Pending;
                    }
                    break;
                }
            }
        }
        Poll::Ready(Some(self.take_done()))
    }

    fn is_large(&self, bytes: usize) -> bool {
        bytes > PART && self.in_parts.load(Ordering::Relaxed)
    }

    /// Has bytes counted no longer, together with others.
    fn free_soon(&mut self, bytes: usize) {
        self.out += bytes;
        if self.out >= FREED_AT_ONCE {
            self.free();
        }
    }

    fn free(&mut self) {
        if self.out > 0 {
            self.room.free(mem::take(&mut self.out));
        }
    }

    /// Takes all that there is.
    fn hold_all(&mut self, cx: &mut Context<'_>) {
        self.free();
        while !self.ended
            && let Poll::Ready(queued) = self.queue.poll_recv(cx)
        {
            self.hold(queued.unwrap_or(Queued::End));
        }
        self.hold_done();
    }

    fn hold(&mut self, queued: Queued) {
        match queued {
            Queued::Command(command, bytes) => {
                let large = self.is_large(bytes);
                if large {
                    // What is done already does not wait for it.
                    self.hold_done();
                }
                let order = command.body.as_ref().map_or(Order::Fence, order);
                let charge = self.room.until_dropped(bytes);
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
        let seq = mem::take(&mut self.done);
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
        if mem::take(&mut self.paused) {
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

impl Drop for Outgoing {
    fn drop(&mut self) {
        for queued in self.queue.close() {
            if let Queued::Command(_, bytes) = queued {
                self.out += bytes;
            }
        }
        self.free();
    }
}

/// Puts a command into an outgoing queue. It comes back, and counts nowhere, if the stream has gone.
pub(crate) fn queue(
    out: &batch::Sender<Queued>,
    room: &SendBudget,
    command: wire::Command,
    bytes: usize,
) -> Result<(), Queued> {
    room.charge(bytes);
    out.send(Queued::Command(command, bytes))
        .inspect_err(|_| room.free(bytes))
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
        // Requests have numbers that no client has.
        Body::Respond(respond) => Order::Of(respond.request),
        Body::Done(_) => Order::After,
        // It asks only whether it is heard.
        Body::Query(query) if query.id == PROBE_QUERY => Order::After,
        _ => Order::Fence,
    }
}

pub(crate) fn command(body: Body) -> wire::Command {
    wire::Command { body: Some(body) }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use meepo_proto::parts::Assembly;

    use super::*;

    const LARGE: usize = 5 * PART / 2;

    struct Line {
        out: batch::Sender<Queued>,
        outgoing: Outgoing,
        room: Arc<SendBudget>,
        /// That of the whole child.
        whole: Arc<SendBudget>,
    }

    impl Line {
        fn new(in_parts: bool) -> Self {
            let (out, queue) = batch::channel();
            let whole = SendBudget::new(usize::MAX, None, Box::leak(Box::default()));
            let room = SendBudget::new(usize::MAX, Some(whole.clone()), Box::leak(Box::default()));
            let outgoing = Outgoing::new(queue, room.clone(), Arc::new(in_parts.into()));
            Self {
                out,
                outgoing,
                room,
                whole,
            }
        }

        fn queue(&self, queued: Queued) {
            self.out.send(queued).expect("it is read");
        }

        fn command(&self, body: Body) {
            let bytes = size(&body);
            queue(&self.out, &self.room, command(body), bytes).expect("it is read");
        }

        fn send(&self, client: u64, bytes: usize) {
            self.command(Body::Send(wire::Send {
                payload: vec![0; bytes].into(),
                client,
                ..wire::Send::default()
            }));
        }

        fn undone(&self, seq: u64) {
            let handed_back = false;
            self.queue(Queued::Undone(wire::Undone { seq, handed_back }));
        }

        fn poll(&mut self) -> Poll<Option<wire::Command>> {
            let mut cx = Context::from_waker(Waker::noop());
            Pin::new(&mut self.outgoing).poll_next(&mut cx)
        }

        /// The next one, also after a pause.
        fn next(&mut self) -> Poll<Option<wire::Command>> {
            match self.poll() {
                Poll::Pending => self.poll(),
                next => next,
            }
        }

        /// What comes until there is nothing, put together, in short.
        fn all(&mut self) -> Vec<String> {
            let mut assembly = Assembly::new(usize::MAX);
            let mut all = Vec::new();
            loop {
                let said = match self.next() {
                    Poll::Pending => return all,
                    Poll::Ready(None) => "end".to_owned(),
                    Poll::Ready(Some(command)) => match assembly.take(command).expect("the rules are kept") {
                        Some(whole) => short(whole),
                        None => continue,
                    },
                };
                let ended = said == "end";
                all.push(said);
                if ended {
                    return all;
                }
            }
        }
    }

    fn short(command: wire::Command) -> String {
        match command.body.expect("it has a body") {
            Body::Send(send) if send.payload.len() == LARGE => format!("large {}", send.client),
            Body::Send(send) => format!("small {}", send.client),
            Body::Respond(respond) => format!("answer {}", respond.request),
            Body::Query(query) => format!("query {}", query.id),
            Body::Join(join) => format!("join {}", join.client),
            Body::Done(done) => format!("done {:?}", done.seq),
            Body::Undone(undone) => format!("undone {}", undone.seq),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn done_comes_after_all_that_was_sent_before_it() {
        let mut line = Line::new(true);
        line.send(1, LARGE);
        line.queue(Queued::Done(1));
        line.send(2, 10);
        line.queue(Queued::Done(2));
        line.send(1, 10);
        assert_eq!(line.all(), ["small 2", "large 1", "small 1", "done [1, 2]"]);
        // What is done before the large one does not wait for it.
        line.queue(Queued::Done(3));
        line.send(1, LARGE);
        line.queue(Queued::Done(4));
        assert_eq!(line.all(), ["done [3]", "large 1", "done [4]"]);
    }

    #[test]
    fn small_messages_pass_answers_to_requests_and_the_probe() {
        let mut line = Line::new(true);
        line.command(Body::Respond(wire::Respond {
            request: 5,
            body: vec![0; LARGE].into(),
            ..wire::Respond::default()
        }));
        line.command(Body::Query(Box::new(wire::Query {
            id: PROBE_QUERY,
            body: None,
        })));
        line.send(2, 10);
        line.command(Body::Query(Box::new(wire::Query { id: 1, body: None })));
        line.send(3, 10);
        assert_eq!(line.all(), ["small 2", "answer 5", "query 0", "query 1", "small 3"]);
    }

    #[test]
    fn undone_keeps_its_place_among_what_is_done() {
        for large in [false, true] {
            let mut line = Line::new(true);
            if large {
                line.send(1, LARGE);
            }
            line.queue(Queued::Done(1));
            line.undone(2);
            line.queue(Queued::Done(3));
            line.send(2, 10);
            let mut all = line.all();
            if large {
                assert_eq!(all.remove(0), "large 1");
            }
            all.sort_by_key(|said| said == "small 2");
            assert_eq!(all, ["done [1]", "undone 2", "done [3]", "small 2"]);
        }
    }

    #[test]
    fn a_change_is_passed_by_no_message() {
        let mut line = Line::new(true);
        line.send(1, LARGE);
        for client in [2, 1] {
            line.command(Body::Join(wire::Join {
                client,
                group: "g".into(),
            }));
        }
        line.send(3, 10);
        assert_eq!(line.all(), ["join 2", "large 1", "join 1", "small 3"]);
    }

    #[test]
    fn the_stream_ends_after_the_last_part() {
        let mut line = Line::new(true);
        line.send(1, LARGE);
        line.send(1, 10);
        line.queue(Queued::Done(1));
        line.queue(Queued::End);
        line.send(2, 10);
        assert_eq!(line.all(), ["large 1", "small 1", "done [1]", "end"]);
        assert!(matches!(line.poll(), Poll::Ready(None)));
        let mut line = Line::new(true);
        line.queue(Queued::Done(1));
        line.queue(Queued::End);
        assert_eq!(line.all(), ["done [1]", "end"]);
    }

    #[test]
    fn all_is_sent_in_turn_to_a_gateway_that_takes_no_parts() {
        let mut line = Line::new(false);
        line.send(1, LARGE);
        line.queue(Queued::Done(1));
        line.undone(2);
        line.send(1, LARGE);
        line.send(2, 10);
        let first = line.poll();
        assert!(matches!(first, Poll::Ready(Some(command)) if short(command.clone()) == "large 1"));
        assert_eq!(line.all(), ["done [1]", "undone 2", "large 1", "small 2"]);
    }

    #[test]
    fn what_never_goes_out_is_counted_no_longer() {
        for polls in 0..10 {
            let mut line = Line::new(true);
            for _ in 0..3 {
                line.send(1, 10);
            }
            line.queue(Queued::Done(1));
            for bytes in [LARGE, 10, LARGE] {
                line.send(1, bytes);
            }
            for _ in 0..polls {
                let _ = line.poll();
            }
            line.send(1, 10);
            assert!(line.room.queued() > LARGE && line.room.queued() == line.whole.queued());
            let Line {
                out,
                outgoing,
                room,
                whole,
            } = line;
            drop(outgoing);
            assert_eq!((room.queued(), whole.queued()), (0, 0), "after {polls}");
            assert!(queue(&out, &room, wire::Command::default(), 10).is_err());
            assert_eq!((room.queued(), whole.queued()), (0, 0));
        }
    }

    #[test]
    fn a_large_one_goes_on_and_is_counted_however_many_pass_it() {
        let mut line = Line::new(true);
        line.send(1, LARGE);
        let (mut parts, mut polls) = (0, 0);
        while parts < 3 {
            line.send(2, 10);
            polls += 1;
            if let Poll::Ready(Some(wire::Command {
                body: Some(Body::Part(_)),
            })) = line.poll()
            {
                parts += 1;
                assert_eq!(parts < 3, line.room.queued() > LARGE, "{parts} parts are out");
            }
        }
        assert!(polls < 30, "{polls}");
        line.all();
        assert_eq!(line.room.queued(), 0);
    }
}
