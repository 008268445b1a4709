//! Large events and commands in parts: between a gateway and a worker that the test plays, and through a whole cluster.

use meepo_link::PART;
use meepo_link::parts::{Assembly, Order, Queue};
use meepo_proto::link::{Command, Part, Send, command, event, send};
use meepo_tests::played::{Place, Worker, client_of};
use meepo_tests::{Node, Status as NodeStatus, Ws};
use tonic::Code;

const SIZE: usize = 1_000_000;
/// So many large messages that they are in nobody's buffers.
const MANY: u64 = 5;

/// A client sends large messages, then another one a small one. Gives the numbers of both, whose messages come in which
/// order once the gateway has all, and how many parts come.
async fn large_then_small(place: &Place, worker: &mut Worker) -> (u64, u64, Vec<u64>, usize) {
    let (mut one, large) = place.client(worker).await;
    let (mut other, small) = place.client(worker).await;
    for _ in 0..MANY {
        one.send(&"x".repeat(SIZE)).await;
    }
    in_flight(place, MANY).await;
    other.send("small").await;
    in_flight(place, MANY + 1).await;

    let (mut came, mut parts) = (Vec::new(), 0);
    let mut assembly = Assembly::new(usize::MAX);
    while came.len() <= MANY as usize {
        let event = worker.next().await;
        if let Some(event::Body::Part(part)) = &event.body {
            assert!(part.bytes.len() <= PART);
            parts += 1;
        }
        let Some(event) = assembly.take(event).expect("the rules are kept") else {
            continue;
        };
        let client = client_of(&event).expect("a message of a client");
        let Some(event::Body::Message(message)) = event.body else {
            panic!("only messages come")
        };
        let size = if client == large { SIZE } else { "small".len() };
        assert_eq!(message.payload.len(), size);
        came.push(client);
    }
    (large, small, came, parts)
}

async fn in_flight(place: &Place, events: u64) {
    let in_flight = |status: &NodeStatus| status.instance("gateway").sum(|child| child.events_in_flight) == events;
    place.gateway.status_when("the events are under way", in_flight).await;
}

fn part(worker: &Worker, bytes: &'static [u8], size: Option<u64>) {
    let bytes = bytes.into();
    worker.say(command::Body::Part(Part { bytes, size }));
}

fn send(client: u64, text: &str) -> command::Body {
    command::Body::Send(Send {
        payload: text.to_owned().into(),
        to: Some(send::To::Client(client)),
        ..Send::default()
    })
}

#[tokio::test]
async fn a_small_event_passes_large_ones_of_another_client() {
    let place = Place::new().await;
    let mut worker = place.worker(true).await;
    let (large, small, came, parts) = large_then_small(&place, &mut worker).await;
    assert!(parts > SIZE / PART * MANY as usize, "{parts} parts");
    let at = came.iter().position(|client| *client == small).expect("it came");
    assert!(at < MANY as usize - 1, "{at} large ones came before the small one");
    assert_eq!(came.iter().filter(|client| **client == large).count() as u64, MANY);
}

#[tokio::test]
async fn a_worker_that_does_not_take_parts_gets_all_in_whole_and_in_turn() {
    let place = Place::new().await;
    let mut worker = place.worker(false).await;
    let (large, small, mut came, parts) = large_then_small(&place, &mut worker).await;
    assert_eq!(parts, 0);
    assert_eq!(came.pop(), Some(small));
    assert_eq!(came, [large; MANY as usize]);
}

#[tokio::test]
async fn a_command_in_parts_is_carried_out_and_others_come_between() {
    // Also one of a worker that takes no parts itself.
    for parts in [true, false] {
        let place = Place::new().await;
        let mut worker = place.worker(parts).await;
        let (mut one, large) = place.client(&mut worker).await;
        let (mut other, small) = place.client(&mut worker).await;
        let text = "x".repeat(SIZE);
        let mut queue = Queue::default();
        let body = Some(send(large, &text));
        queue.push(Command { body }, Order::Fence, true, ());
        while !queue.is_empty() {
            let Some(part) = queue.pop() else { continue };
            worker.say(send(small, "small"));
            assert_eq!(other.text().await, "small");
            worker.commands.send(part).expect("the link stands");
        }
        assert_eq!(one.text().await, text);
        worker.say(send(large, "the end"));
        assert_eq!(one.text().await, "the end");
    }
}

#[tokio::test]
async fn parts_that_are_not_valid_end_the_link_with_words() {
    let place = Place::new().await;
    let mut other = place.worker(true).await;
    let (mut client, number) = place.client(&mut other).await;
    for (parts, code, words) in [
        (
            vec![(&b"x"[..], None)],
            Code::InvalidArgument,
            "a part without a first part",
        ),
        (
            vec![(b"x", Some(9)), (b"x", Some(9))],
            Code::InvalidArgument,
            "a first part before the last part of another message",
        ),
        (
            vec![(b"xyz", Some(2))],
            Code::InvalidArgument,
            "more bytes in parts than the first part announced",
        ),
        (
            vec![(b"\x7f\x7f", Some(2))],
            Code::InvalidArgument,
            "a message in parts is not valid",
        ),
        (
            vec![(b"x", Some(3 << 20))],
            Code::OutOfRange,
            "a message of 3145728 bytes in parts, over the limit of 2097152",
        ),
    ] {
        let mut worker = place.worker(true).await;
        for (bytes, size) in parts {
            part(&worker, bytes, size);
        }
        let status = worker.refusal().await;
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().starts_with(words), "{status}");
    }
    other.say(send(number, "still here"));
    assert_eq!(client.text().await, "still here");
}

#[tokio::test]
async fn what_was_under_way_when_its_link_ended_comes_again_from_its_first_part() {
    let place = Place::new().await;
    let mut worker = place.worker(true).await;
    let (mut one, client) = place.client(&mut worker).await;
    one.send(&"x".repeat(SIZE)).await;
    for _ in 0..2 {
        assert!(matches!(worker.next().await.body, Some(event::Body::Part(_))));
    }
    drop(worker);
    let mut worker = place.worker(true).await;
    let mut assembly = Assembly::new(usize::MAX);
    let event = loop {
        let event = worker.next().await;
        if let Some(event) = assembly.take(event).expect("the rules are kept") {
            break event;
        }
    };
    assert!(client_of(&event) == Some(client) && event.attach.is_some());
    assert!(event.delivery.is_some_and(|delivery| delivery.redelivered));
    let Some(event::Body::Message(message)) = event.body else {
        panic!("it is a message")
    };
    assert_eq!(message.payload.len(), SIZE);
}

/// Asks for many texts to come back, small and large at random, some at once.
async fn echoes(node: &Node, seed: u64) {
    const ROUNDS: usize = 40;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut client = Ws::connect(node.host().ws()).await;
    for round in 0..ROUNDS {
        let texts: Vec<_> = (0..random.usize(1..5))
            .map(|at| {
                let size = match random.u32(0..3) {
                    0 => random.usize(PART / 2..4 * PART),
                    _ => random.usize(0..100),
                };
                format!("{seed} {round} {at} ").repeat(size / 7 + 1)
            })
            .collect();
        for text in &texts {
            client.send(text).await;
        }
        for text in texts {
            assert!(client.text().await == text, "client {seed}, round {round}");
        }
    }
}

#[tokio::test]
async fn small_and_large_messages_come_back_as_they_were_sent_and_in_their_order() {
    let node = Node::test()
        .set("gateway", "children = 1")
        .set("worker", "children = 1");
    let node = node.start().await;
    tokio::join!(
        echoes(&node, 1),
        echoes(&node, 2),
        echoes(&node, 3),
        echoes(&node, 4),
        echoes(&node, 5),
        echoes(&node, 6)
    );
    let status = node.status().await;
    assert_eq!(status.instance("worker").sum(|child| child.failed_sends), 0);
}
