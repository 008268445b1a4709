//! The events that go to a worker: the gateway's end of a link's sending half.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll, ready};

use meepo_link::{Next, Order, Outgoing, Source, channel};
use meepo_proto::link::Event;
use meepo_proto::link::event::{Body, Subject};
use prost::Message as _;
use tonic::Status;

/// The answer stream of a link.
pub(crate) type EventStream = Outgoing<EventSource>;

/// The events of one link, in the order in which they were queued.
#[derive(Debug)]
pub(crate) struct EventSource(channel::Receiver<Result<Event, Status>>);

/// Sends no parts before `in_parts` is true.
pub(crate) fn stream(queue: channel::Receiver<Result<Event, Status>>, in_parts: Arc<AtomicBool>) -> EventStream {
    Outgoing::new(EventSource(queue), in_parts)
}

impl Source for EventSource {
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

    /// Events that handlers answer with `done` are handled client by client, in no order among clients; other events tell of
    /// a change that a handler of any client may see.
    fn order(event: &Event) -> Order {
        match event.subject {
            // The answer to `ping` depends on nothing else.
            None if matches!(&event.body, Some(Body::Pong(_))) => Order::After,
            None => Order::Fence,
            Some(Subject::Client(number) | Subject::RequestNumber(number)) => match event.delivery {
                Some(_) => Order::Of(number),
                None => Order::Change(number),
            },
        }
    }

    fn keep(&mut self, _bytes: usize) {}
}

/// The size of an event in bytes, or a little less.
fn size(event: &Event) -> usize {
    match (&event.body, &event.attach) {
        // Most events are messages, and are not measured twice.
        (Some(Body::Message(message)), None) => message.payload.len(),
        _ => event.encoded_len(),
    }
}

#[cfg(test)]
mod tests {
    use meepo_link::PART;
    use meepo_link::testing::Played;
    use meepo_proto::link::{Delivery, Message, Pong, Reply, SessionChanged};

    use super::*;

    const LARGE: usize = 5 * PART / 2;

    struct Line {
        events: channel::Sender<Result<Event, Status>>,
        played: Played<EventSource>,
        last_seq: u64,
    }

    impl Line {
        fn new() -> Self {
            let (events, queue) = channel::channel();
            Self {
                events,
                played: Played::new(stream(queue, Arc::new(true.into())), short),
                last_seq: 0,
            }
        }

        fn tell(&self, client: Option<u64>, body: Body) {
            let event = Event {
                subject: client.map(Subject::Client),
                body: Some(body),
                ..Event::default()
            };
            self.events.send(Ok(event)).expect("it is read");
        }

        fn message(&mut self, client: u64, bytes: usize) {
            self.last_seq += 1;
            let payload = vec![0; bytes].into();
            let event = Event {
                delivery: Some(Delivery {
                    seq: self.last_seq,
                    ..Delivery::default()
                }),
                subject: Some(Subject::Client(client)),
                body: Some(Body::Message(Message { payload, binary: true })),
                ..Event::default()
            };
            self.events.send(Ok(event)).expect("it is read");
        }
    }

    fn short(event: Event) -> String {
        let client = match event.subject {
            Some(Subject::Client(client)) => client.to_string(),
            _ => String::new(),
        };
        match event.body.expect("it has a body") {
            Body::Message(message) if message.payload.len() == LARGE => format!("large {client}"),
            Body::Message(_) => format!("small {client}"),
            Body::SessionChanged(_) => format!("session {client}"),
            Body::Reply(_) => "reply".to_owned(),
            Body::Pong(_) => "pong".to_owned(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn only_messages_of_other_clients_pass_a_large_message() {
        let mut line = Line::new();
        line.message(1, LARGE);
        line.message(1, 10);
        line.message(2, 10);
        line.tell(Some(2), Body::SessionChanged(SessionChanged::default()));
        line.message(2, LARGE);
        line.tell(None, Body::Reply(Reply { query: 7, body: None }));
        line.message(3, 10);
        assert_eq!(
            line.played.all(),
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
        // A change that waits holds other messages back: a handler may look at the changed state.
        line.message(1, LARGE);
        line.tell(Some(1), Body::SessionChanged(SessionChanged::default()));
        line.message(2, 10);
        assert_eq!(line.played.all(), ["large 1", "session 1", "small 2"]);
        // Workers ping all the time.
        line.message(1, LARGE);
        line.tell(None, Body::Pong(Pong {}));
        line.message(2, 10);
        assert_eq!(line.played.all(), ["small 2", "large 1", "pong"]);
    }
}
