//! The commands that go to a gateway: the worker's end of a link's sending half.

use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll};

use meepo_link::{Next, Order, Outgoing, Source, channel};
use meepo_proto::Seq;
use meepo_proto::link as wire;
use meepo_proto::link::command::Body;
use meepo_proto::link::send::To;
use tokio_stream::Stream;

use super::send_budget::{Charge, SendBudget};

/// Bytes around the body of a command, at most.
const COMMAND_HEAD: usize = 16;
/// Most events that one `done` answers.
const DONE_AT_ONCE: usize = 128;
/// Bytes that are out go back to the budget once there are this many, or the queue is empty.
const FREED_AT_ONCE: usize = 8 << 10;

/// An entry of the queue of a link.
#[derive(Debug)]
pub(crate) enum Queued {
    /// With the bytes that the budget counts for it.
    Command(wire::Command, usize),
    Done(Seq),
    /// Goes out after every `done` that was queued before.
    Undone(wire::Undone),
    End,
}

/// The request stream of a link.
#[derive(Debug)]
pub(crate) struct CommandStream(Outgoing<CommandSource>);

/// The commands of one link, in the order in which they were queued; `done`s are gathered.
#[derive(Debug)]
pub(crate) struct CommandSource {
    queue: channel::Receiver<Queued>,
    budget: Arc<SendBudget>,
    /// Bytes that are out and that the budget still counts.
    out: usize,
    /// Events that the next `done` answers: once the queue is empty, or there are enough of them.
    done: Vec<u64>,
    /// An entry that goes out after the `done` of the events before it.
    behind_done: Option<Queued>,
}

/// Sends no parts before `in_parts` is true.
pub(crate) fn stream(
    queue: channel::Receiver<Queued>,
    budget: Arc<SendBudget>,
    in_parts: Arc<AtomicBool>,
) -> CommandStream {
    CommandStream(Outgoing::new(CommandSource::new(queue, budget), in_parts))
}

impl CommandSource {
    fn new(queue: channel::Receiver<Queued>, budget: Arc<SendBudget>) -> Self {
        Self {
            queue,
            budget,
            out: 0,
            done: Vec::new(),
            behind_done: None,
        }
    }

    fn free(&mut self) {
        if self.out > 0 {
            self.budget.free(mem::take(&mut self.out));
        }
    }

    fn take_done(&mut self) -> Option<wire::Command> {
        let seq = mem::take(&mut self.done);
        (!seq.is_empty()).then(|| command(Body::Done(wire::Done { seq })))
    }

    /// An entry that no `done` may follow.
    fn after_done(&mut self, queued: Queued) -> Next<wire::Command> {
        if let Some(done) = self.take_done() {
            self.behind_done = Some(queued);
            return Next::Message(done, 0);
        }
        match queued {
            Queued::Undone(undone) => Next::Message(command(Body::Undone(undone)), 0),
            _ => {
                self.free();
                Next::End(Ok(()))
            }
        }
    }
}

impl Source for CommandSource {
    type Message = wire::Command;
    type Kept = Option<Charge>;

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next<wire::Command>> {
        if let Some(queued) = self.behind_done.take() {
            return Poll::Ready(self.after_done(queued));
        }
        while self.done.len() < DONE_AT_ONCE {
            match self.queue.poll_recv(cx) {
                Poll::Ready(Some(Queued::Command(command, bytes))) => {
                    return Poll::Ready(Next::Message(command, bytes));
                }
                Poll::Ready(Some(Queued::Done(seq))) => self.done.push(seq.0),
                Poll::Ready(Some(queued)) => return Poll::Ready(self.after_done(queued)),
                Poll::Ready(None) => return Poll::Ready(self.after_done(Queued::End)),
                Poll::Pending => {
                    self.free();
                    if self.done.is_empty() {
                        return Poll::Pending;
                    }
                    break;
                }
            }
        }
        let done = self.take_done().expect("the loop ends with events that are done");
        Poll::Ready(Next::Message(done, 0))
    }

    /// Only messages to single clients are passed: a client that gets one may ask, over any link, for the state that earlier
    /// commands made.
    fn order(command: &wire::Command) -> Order {
        let Some(body) = &command.body else { return Order::Fence };
        match body {
            Body::Send(wire::Send {
                to: Some(To::Client(client)),
                ..
            }) => Order::Of(*client),
            Body::Accept(accept) => Order::Change(accept.client),
            Body::Reject(reject) => Order::Change(reject.client),
            Body::Join(join) => Order::Change(join.client),
            Body::Leave(leave) => Order::Change(leave.client),
            Body::Bind(bind) => Order::Change(bind.client),
            Body::Unbind(unbind) => Order::Change(unbind.client),
            Body::Session(update) => Order::Change(update.client),
            Body::Pause(pause) => Order::Change(pause.client),
            // The gateway counts clients and forwarded requests together.
            Body::Respond(respond) => Order::Of(respond.request_number),
            Body::Done(_) | Body::Ping(_) => Order::After,
            _ => Order::Fence,
        }
    }

    /// Events that are done already do not wait for the large command behind them.
    fn take_before_large(&mut self) -> Option<wire::Command> {
        self.take_done()
    }

    fn sent(&mut self, bytes: usize) {
        self.out += bytes;
        if self.out >= FREED_AT_ONCE {
            self.free();
        }
    }

    fn keep(&mut self, bytes: usize) -> Option<Charge> {
        (bytes > 0).then(|| self.budget.until_dropped(bytes))
    }
}

impl Drop for CommandSource {
    fn drop(&mut self) {
        for queued in self.queue.close() {
            if let Queued::Command(_, bytes) = queued {
                self.out += bytes;
            }
        }
        self.free();
    }
}

impl Stream for CommandStream {
    type Item = wire::Command;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<wire::Command>> {
        // A worker ends its stream without an error.
        Pin::new(&mut self.0).poll_next(cx).map(|next| next?.ok())
    }
}

/// Queues a command. It comes back, and counts nowhere, if the stream has gone.
pub(crate) fn queue(
    out: &channel::Sender<Queued>,
    budget: &SendBudget,
    command: wire::Command,
    bytes: usize,
) -> Result<(), Queued> {
    budget.charge(bytes);
    out.send(Queued::Command(command, bytes))
        .inspect_err(|_| budget.free(bytes))
}

/// The size of a command in bytes, or a little more.
pub(crate) fn size(body: &Body) -> usize {
    let bytes = match body {
        // Most commands are of this kind, and are not measured twice: up to 13 bytes stand beside the payload.
        Body::Send(wire::Send {
            payload,
            to: Some(To::Client(_)) | None,
            ..
        }) => payload.len() + COMMAND_HEAD,
        body => body.encoded_len(),
    };
    bytes + COMMAND_HEAD
}

pub(crate) fn command(body: Body) -> wire::Command {
    wire::Command { body: Some(body) }
}

#[cfg(test)]
mod tests {
    use meepo_link::PART;
    use meepo_link::testing::{Played, poll};

    use super::*;

    const LARGE: usize = 5 * PART / 2;

    /// The sending half of a link that a test reads.
    struct Line {
        out: channel::Sender<Queued>,
        played: Played<CommandSource>,
        budget: Arc<SendBudget>,
        /// The budget of the whole child.
        whole: Arc<SendBudget>,
    }

    impl Line {
        fn new(in_parts: bool) -> Self {
            let (out, queue) = channel::channel();
            let whole = SendBudget::new(usize::MAX, None, Box::leak(Box::default()));
            let budget = SendBudget::new(usize::MAX, Some(whole.clone()), Box::leak(Box::default()));
            let source = CommandSource::new(queue, budget.clone());
            let outgoing = Outgoing::new(source, Arc::new(in_parts.into()));
            Self {
                out,
                played: Played::new(outgoing, short),
                budget,
                whole,
            }
        }

        fn queue(&self, queued: Queued) {
            self.out.send(queued).expect("it is read");
        }

        fn command(&self, body: Body) {
            let bytes = size(&body);
            queue(&self.out, &self.budget, command(body), bytes).expect("it is read");
        }

        fn send(&self, client: u64, bytes: usize) {
            self.command(Body::Send(wire::Send {
                payload: vec![0; bytes].into(),
                to: Some(To::Client(client)),
                ..wire::Send::default()
            }));
        }

        fn undone(&self, seq: u64) {
            let handed_back = false;
            self.queue(Queued::Undone(wire::Undone { seq, handed_back }));
        }

        fn poll(&mut self) -> Poll<Option<wire::Command>> {
            poll(&mut self.played.outgoing).map(|next| next.map(|next| next.expect("a worker sends no error")))
        }

        /// What comes until there is nothing, put together, in short.
        fn all(&mut self) -> Vec<String> {
            self.played.all()
        }
    }

    fn short(command: wire::Command) -> String {
        match command.body.expect("it has a body") {
            Body::Send(wire::Send {
                payload,
                to: Some(To::Client(client)),
                ..
            }) => match payload.len() {
                LARGE => format!("large {client}"),
                _ => format!("small {client}"),
            },
            Body::Respond(respond) => format!("answer {}", respond.request_number),
            Body::Ping(_) => "ping".to_owned(),
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
        line.queue(Queued::Done(Seq(1)));
        line.send(2, 10);
        line.queue(Queued::Done(Seq(2)));
        line.send(1, 10);
        assert_eq!(line.all(), ["small 2", "large 1", "small 1", "done [1, 2]"]);
        // What is done before the large one does not wait for it.
        line.queue(Queued::Done(Seq(3)));
        line.send(1, LARGE);
        line.queue(Queued::Done(Seq(4)));
        assert_eq!(line.all(), ["done [3]", "large 1", "done [4]"]);
    }

    #[test]
    fn small_messages_pass_answers_to_requests_and_the_ping() {
        let mut line = Line::new(true);
        line.command(Body::Respond(wire::Respond {
            request_number: 5,
            body: vec![0; LARGE].into(),
            ..wire::Respond::default()
        }));
        line.command(Body::Ping(wire::Ping {}));
        line.send(2, 10);
        line.command(Body::Query(Box::new(wire::Query { id: 1, body: None })));
        line.send(3, 10);
        assert_eq!(line.all(), ["small 2", "answer 5", "ping", "query 1", "small 3"]);
    }

    #[test]
    fn undone_keeps_its_place_among_what_is_done() {
        for large in [false, true] {
            let mut line = Line::new(true);
            if large {
                line.send(1, LARGE);
            }
            line.queue(Queued::Done(Seq(1)));
            line.undone(2);
            line.queue(Queued::Done(Seq(3)));
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
        line.queue(Queued::Done(Seq(1)));
        line.queue(Queued::End);
        line.send(2, 10);
        assert_eq!(line.all(), ["large 1", "small 1", "done [1]", "end"]);
        assert!(matches!(line.poll(), Poll::Ready(None)));
        let mut line = Line::new(true);
        line.queue(Queued::Done(Seq(1)));
        line.queue(Queued::End);
        assert_eq!(line.all(), ["done [1]", "end"]);
    }

    #[test]
    fn all_is_sent_in_turn_to_a_gateway_that_takes_no_parts() {
        let mut line = Line::new(false);
        line.send(1, LARGE);
        line.queue(Queued::Done(Seq(1)));
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
            line.queue(Queued::Done(Seq(1)));
            for bytes in [LARGE, 10, LARGE] {
                line.send(1, bytes);
            }
            for _ in 0..polls {
                let _ = line.poll();
            }
            line.send(1, 10);
            assert!(line.budget.queued() > LARGE && line.budget.queued() == line.whole.queued());
            let Line {
                out,
                played,
                budget,
                whole,
            } = line;
            drop(played);
            assert_eq!((budget.queued(), whole.queued()), (0, 0), "after {polls}");
            assert!(queue(&out, &budget, wire::Command::default(), 10).is_err());
            assert_eq!((budget.queued(), whole.queued()), (0, 0));
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
                assert_eq!(parts < 3, line.budget.queued() > LARGE, "{parts} parts are out");
            }
        }
        assert!(polls < 30, "{polls}");
        line.all();
        assert_eq!(line.budget.queued(), 0);
    }
}
