//! What goes to a worker: the answer stream of a link.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_util::Stream;
use meepo_proto::batch;
use meepo_proto::link::Event;
use meepo_proto::link::event::Body;
use meepo_proto::parts::{Order, PART, Queue};
use prost::Message as _;
use tonic::Status;

/// The answer stream. All that is queued is ready at each poll, so tonic joins it into as few writes as it can, and HTTP/2 says
/// when it has enough; but of what is large it gives one part a poll, so that what other tasks say meanwhile passes it.
#[derive(Debug)]
pub(crate) struct Outgoing {
    queue: batch::Receiver<Result<Event, Status>>,
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
    pub(crate) fn new(queue: batch::Receiver<Result<Event, Status>>, in_parts: Arc<AtomicBool>) -> Self {
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
        // The answer to a question about nothing: whether the worker is heard.
        0 if matches!(&event.body, Some(Body::Reply(reply)) if reply.query == 0) => Order::After,
        0 => Order::Fence,
        client if event.seq == 0 => Order::Change(client),
        client => Order::Of(client),
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use meepo_proto::link::{Message, Reply, SessionChanged};
    use meepo_proto::parts::Assembly;

    use super::*;

    const LARGE: usize = 5 * PART / 2;

    struct Line {
        events: Option<batch::Sender<Result<Event, Status>>>,
        outgoing: Outgoing,
        last_seq: u64,
    }

    impl Line {
        fn new(in_parts: bool) -> Self {
            let (events, queue) = batch::channel();
            Self {
                events: Some(events),
                outgoing: Outgoing::new(queue, Arc::new(in_parts.into())),
                last_seq: 0,
            }
        }

        fn queue(&self, event: Result<Event, Status>) {
            let events = self.events.as_ref().expect("it has not ended");
            events.send(event).expect("it is read");
        }

        fn tell(&self, client: u64, body: Body) {
            self.queue(Ok(Event {
                client,
                body: Some(body),
                ..Event::default()
            }));
        }

        fn message(&mut self, client: u64, bytes: usize) {
            self.last_seq += 1;
            let payload = vec![0; bytes].into();
            self.queue(Ok(Event {
                seq: self.last_seq,
                client,
                body: Some(Body::Message(Message { payload, binary: true })),
                ..Event::default()
            }));
        }

        fn poll(&mut self) -> Poll<Option<Result<Event, Status>>> {
            let mut cx = Context::from_waker(Waker::noop());
            Pin::new(&mut self.outgoing).poll_next(&mut cx)
        }

        /// What comes until there is nothing, put together, in short.
        fn all(&mut self) -> Vec<String> {
            let mut assembly = Assembly::new(usize::MAX);
            let mut all = Vec::new();
            let mut pending = 0;
            while pending < 2 {
                match self.poll() {
                    // A pause, unless there is nothing after it either.
                    Poll::Pending => pending += 1,
                    Poll::Ready(None) => {
                        all.push("end".to_owned());
                        return all;
                    }
                    Poll::Ready(Some(Err(status))) => all.push(status.message().to_owned()),
                    Poll::Ready(Some(Ok(event))) => {
                        pending = 0;
                        all.extend(assembly.take(event).expect("the rules are kept").map(short));
                    }
                }
            }
            all
        }
    }

    fn short(event: Event) -> String {
        let client = event.client;
        match event.body.expect("it has a body") {
            Body::Message(message) if message.payload.len() == LARGE => format!("large {client}"),
            Body::Message(_) => format!("small {client}"),
            Body::SessionChanged(_) => format!("session {client}"),
            Body::Reply(_) => "reply".to_owned(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn only_messages_of_others_pass_a_large_one() {
        let mut line = Line::new(true);
        line.message(1, LARGE);
        line.message(1, 10);
        line.message(2, 10);
        line.tell(2, Body::SessionChanged(SessionChanged::default()));
        line.message(2, LARGE);
        let reply = |query| Body::Reply(Reply { query, body: None });
        line.tell(0, reply(7));
        line.message(3, 10);
        let all = line.all();
        assert_eq!(
            all,
            [
                "small 2",
                "session 2",
                "large 1",
                "small 1",
                "large 2",
                "reply",
                "small 3"
            ]
        );
        // A change that waits holds others back: a handler may look at what it changes.
        line.message(1, LARGE);
        line.tell(1, Body::SessionChanged(SessionChanged::default()));
        line.message(2, 10);
        assert_eq!(line.all(), ["large 1", "session 1", "small 2"]);
        // Whether a worker is heard is asked all the time.
        line.message(1, LARGE);
        line.tell(0, reply(0));
        line.message(2, 10);
        assert_eq!(line.all(), ["small 2", "large 1", "reply"]);
    }

    #[test]
    fn all_is_sent_in_turn_to_a_worker_that_takes_no_parts() {
        let mut line = Line::new(false);
        line.message(1, LARGE);
        line.message(2, 10);
        let first = line.poll();
        assert!(matches!(first, Poll::Ready(Some(Ok(event))) if short(event.clone()) == "large 1"));
        assert_eq!(line.all(), ["small 2"]);
    }

    #[test]
    fn the_stream_ends_after_the_last_part() {
        let mut line = Line::new(true);
        line.message(1, LARGE);
        line.message(1, 10);
        line.events = None;
        assert_eq!(line.all(), ["large 1", "small 1", "end"]);

        let mut line = Line::new(true);
        line.message(1, LARGE);
        line.queue(Err(Status::invalid_argument("wrong")));
        line.events = None;
        assert_eq!(line.all(), ["large 1", "wrong", "end"]);
    }

    #[test]
    fn a_large_one_goes_on_however_many_pass_it() {
        let mut line = Line::new(true);
        line.message(1, LARGE);
        let (mut parts, mut polls) = (0, 0);
        while parts < 3 {
            line.message(2, 10);
            polls += 1;
            if let Poll::Ready(Some(Ok(Event {
                body: Some(Body::Part(_)),
                ..
            }))) = line.poll()
            {
                parts += 1;
            }
        }
        assert!(polls < 30, "{polls}");
    }
}
