//! Large events and commands in parts, and what passes them.

use meepo_link::parts::{Assembly, PART};
use meepo_proto::link as wire;
use meepo_proto::link::command::Body as Command;
use meepo_proto::link::send::To;

use super::gateway::{Gateway, Link, message, part, text_to};
use super::{Running, eventually};

const SIZE: usize = 1_000_000;
/// So many large messages that they are in nobody's buffers.
const MANY: usize = 7;

/// A worker with one link to a gateway that takes parts, or does not, and two clients.
async fn linked(parts: bool) -> (Running, Gateway, Link) {
    let mut worker = Running::start();
    let mut gateway = Gateway::start(1).await;
    worker.name(&gateway);
    let mut link = gateway.silent_link().await;
    let Command::Hello(hello) = link.next().await else {
        panic!("`hello` comes first")
    };
    assert!(hello.parts, "a worker takes events in parts");
    link.welcome_with(1, parts);
    worker.expect("start, 0 gateways").await;
    for client in [1, 2] {
        link.open(client).await;
        worker.expect(&format!("{client} connect")).await;
    }
    (worker, gateway, link)
}

/// Has the worker send client 1 large messages, then client 2 a small one, and gives all that comes once that is queued.
async fn large_then_small(worker: &mut Running, link: &mut Link) -> Vec<Command> {
    let mut last = 0;
    for _ in 0..MANY {
        last = link.message(1, &format!("flood {SIZE}"));
    }
    for _ in 0..MANY {
        worker.expect(&format!("1 flood {SIZE}")).await;
    }
    let small = link.message(2, "small");
    worker.expect("2 small").await;
    let budget = worker.cluster().budget().clone();
    assert!(budget.queued() > SIZE, "what is not out yet is counted");

    let (mut came, mut done) = (Vec::new(), Vec::new());
    while !(done.contains(&last) && done.contains(&small)) {
        match link.next().await {
            Command::Done(answered) => done.extend(answered.seq),
            command => came.push(command),
        }
    }
    eventually("an empty queue", || budget.queued() == 0).await;
    came
}

/// Whom each message went to, after all are put together.
fn put_together(commands: Vec<Command>) -> Vec<u64> {
    let mut assembly = Assembly::new(usize::MAX);
    let whole = commands.into_iter().filter_map(|body| {
        let command = wire::Command { body: Some(body) };
        assembly.take(command).expect("the rules are kept")?.body
    });
    let sends = whole.map(|command| match command {
        Command::Send(send) => {
            let Some(To::Client(client)) = send.to else {
                panic!("it goes to one client")
            };
            let size = if client == 1 { SIZE } else { "small".len() };
            assert_eq!(send.payload.len(), size);
            client
        }
        other => panic!("{other:?}"),
    });
    sends.collect()
}

#[tokio::test]
async fn a_small_command_passes_large_ones_of_another_client() {
    let (mut worker, _gateway, mut link) = linked(true).await;
    let came = large_then_small(&mut worker, &mut link).await;
    for command in &came {
        match command {
            Command::Part(part) => assert!(part.bytes.len() <= PART),
            whole => assert_eq!(*whole, text_to(2, "small")),
        }
    }
    let clients = put_together(came);
    assert_eq!(clients.iter().filter(|client| **client == 1).count(), MANY);
    let small = clients.iter().position(|client| *client == 2).expect("it came");
    assert!(small < MANY - 1, "{small} large ones came before the small one");
}

#[tokio::test]
async fn a_gateway_that_does_not_take_parts_gets_all_in_whole_and_in_turn() {
    let (mut worker, _gateway, mut link) = linked(false).await;
    let came = large_then_small(&mut worker, &mut link).await;
    assert!(!came.iter().any(|command| matches!(command, Command::Part(_))));
    let mut clients = put_together(came);
    assert_eq!(clients.pop(), Some(2));
    assert_eq!(clients, [1; MANY]);
}

#[tokio::test]
async fn a_command_that_has_to_keep_its_place_comes_after_large_ones() {
    let (mut worker, _gateway, mut link) = linked(true).await;
    for _ in 0..MANY {
        link.message(1, &format!("flood {SIZE}"));
    }
    let join = link.message(1, "set k v");
    let all = link.message(2, "all x");
    for _ in 0..MANY {
        worker.expect(&format!("1 flood {SIZE}")).await;
    }
    worker.expect("1 set k v").await;
    worker.expect("2 all x").await;
    let (mut came, mut done) = (Vec::new(), Vec::new());
    while !(done.contains(&join) && done.contains(&all)) {
        match link.next().await {
            Command::Done(answered) => done.extend(answered.seq),
            command => came.push(command),
        }
    }
    let [.., Command::Part(_), Command::Session(_), Command::Send(send)] = &came[..] else {
        panic!("they come last, in their order")
    };
    assert!(matches!(&send.to, Some(To::Target(target)) if target.everyone));
}

#[tokio::test]
async fn an_event_in_parts_is_handled_as_one_and_others_come_between() {
    let (mut worker, _gateway, mut link) = linked(false).await;
    let text = "x".repeat(3000);
    let (large, mut parts) = link.in_parts(1, message(&text), 1000);
    let last = parts.pop().expect("there are several");
    for part in parts {
        link.push(part);
        let small = link.message(2, "small");
        assert_eq!(link.until_done(small).await, [text_to(2, "small")]);
        worker.expect("2 small").await;
    }
    worker.expect_no_more();
    link.push(last);
    assert_eq!(link.until_done(large).await, [text_to(1, &text)]);
    worker.expect(&format!("1 {text}")).await;
}

#[tokio::test]
async fn a_link_over_which_parts_come_that_are_not_valid_ends() {
    let (mut worker, mut gateway, mut link) = linked(false).await;
    for bad in [
        vec![part(b"x", None)],
        vec![part(b"x", Some(9)), part(b"x", Some(9))],
        vec![part(b"xyz", Some(2))],
        vec![part(b"x", Some(u64::MAX))],
        vec![part(b"\x7f\x7f", Some(2))],
    ] {
        for part in bad {
            link.push(part);
        }
        link.ended().await;
        link = gateway.link().await;
    }
    let seq = link.opened(9, "");
    link.until_done(seq).await;
    worker.expect("9 connect").await;
}
