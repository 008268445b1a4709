//! Events of clients: in order, side by side, done once.

use std::time::Duration;

use meepo_proto::link as wire;
use meepo_proto::link::command::Body as Command;
use meepo_proto::link::event::Body as Event;

use super::gateway::{Gateway, about, attach, message, text_to};
use super::{Running, eventually};
use crate::WorkerSection;

#[tokio::test]
async fn a_client_is_handled_in_order_and_others_meanwhile() {
    let (mut worker, _gateway, mut link) = Running::linked().await;
    for client in [1, 2] {
        link.open(client).await;
        worker.expect(&format!("{client} connect")).await;
    }
    link.message(1, "hold a");
    link.message(1, "hold b");
    let last = link.message(1, "c");
    worker.expect("1 hold a").await;

    // The other client does not wait.
    let other = link.message(2, "x");
    assert_eq!(link.until_done(other).await, [text_to(2, "x")]);
    worker.expect("2 x").await;
    assert_eq!(worker.stats.events_in_flight.get(), 3);

    worker.let_pass(1);
    worker.expect("1 held").await;
    worker.expect("1 hold b").await;
    worker.expect_no_more();
    worker.let_pass(1);
    worker.expect("1 held").await;
    worker.expect("1 c").await;
    assert_eq!(link.until_done(last).await, [text_to(1, "c")]);
    eventually("the end of all events", || worker.stats.events_in_flight.get() == 0).await;
    assert_eq!(worker.stats.messages_in.get(), 4);
    assert_eq!(worker.stats.connections.get(), 2);
}

#[tokio::test]
async fn connect_messages_and_close_of_a_hasty_client_come_once_and_in_order() {
    let (mut worker, _gateway, mut link) = Running::linked().await;
    link.opened(1, "hold");
    for text in ["a", "b", "c"] {
        link.message(1, text);
    }
    let closed = link.closed(1);
    worker.expect("1 connect").await;
    worker.expect_no_more();
    worker.let_pass(1);
    for what in ["a", "b", "c", "close: client 1000: bye"] {
        worker.expect(&format!("1 {what}")).await;
    }
    let commands = link.until_done(closed).await;
    assert_eq!(commands[0], Command::Accept(wire::Accept { client: 1 }));
    assert_eq!(worker.stats.connections.get(), 0);
}

#[tokio::test]
async fn a_handler_that_fails_or_panics_is_counted_and_done() {
    let (mut worker, _gateway, mut link) = Running::linked().await;
    link.open(1).await;
    worker.expect("1 connect").await;
    for (n, text) in ["panic", "fail"].into_iter().enumerate() {
        let seq = link.message(1, text);
        assert_eq!(link.until_done(seq).await, []);
        assert_eq!(worker.stats.handler_errors.get(), n as u64 + 1);
        worker.expect(&format!("1 {text}")).await;
    }
    let change = wire::SessionChanged {
        set: [("panic".to_owned(), "yes".to_owned())].into(),
        remove: Vec::new(),
        clear: false,
    };
    link.event(1, Event::SessionChanged(change));
    let closed = link.closed(1);
    link.until_done(closed).await;
    assert_eq!(worker.stats.handler_errors.get(), 3);
    // The child lives, and the client is forgotten.
    assert_eq!(worker.stats.connections.get(), 0);
    link.open(2).await;
}

#[tokio::test]
async fn what_panics_beside_a_handler_ends_nothing_for_others() {
    let (mut worker, _gateway, mut link) = Running::linked().await;
    link.open(1).await;
    worker.expect("1 connect").await;
    link.message(1, "fail-badly");
    worker.expect("1 fail-badly").await;
    link.open(2).await;
    worker.expect("2 connect").await;
    assert_eq!(worker.stats.links.get(), 1);
}

#[tokio::test]
async fn each_event_is_done_once() {
    let (worker, _gateway, mut link) = Running::linked().await;
    let mut seqs = Vec::new();
    for client in 1..=20 {
        seqs.push(link.opened(client, ""));
        seqs.extend((0..20).map(|n| link.message(client, &n.to_string())));
        seqs.push(link.closed(client));
    }
    // About nobody, and about a client that is not known.
    seqs.push(link.message(99, "stray"));
    seqs.push(link.event(99, Event::Detached(wire::Detached {})));
    seqs.push(link.event_of_link(Event::Refused(wire::Refused::default())));
    let mut done = Vec::new();
    while done.len() < seqs.len() {
        if let Command::Done(more) = link.next().await {
            done.extend(more.seq);
        }
    }
    done.sort_unstable();
    assert_eq!(done, seqs);
    assert_eq!(worker.stats.failed_sends.get(), 1);
}

#[tokio::test]
async fn a_handler_can_tell_that_an_event_comes_again() {
    let (mut worker, _gateway, link) = Running::linked().await;
    for (seq, redelivered) in [(1, true), (2, false)] {
        link.push(wire::Event {
            delivery: Some(wire::Delivery {
                seq,
                redelivered,
                ..wire::Delivery::default()
            }),
            attach: redelivered.then(|| Box::new(attach(&[]))),
            ..about(5, message("m"))
        });
    }
    worker.expect("5 m again").await;
    worker.expect("5 m").await;
}

#[tokio::test]
async fn a_handler_that_takes_too_long_is_cut_off_and_its_event_comes_again() {
    let mut worker = Running::with(WorkerSection {
        handler_timeout: Duration::from_millis(100),
        ..WorkerSection::default()
    });
    let mut gateway = Gateway::start(1).await;
    worker.name(&gateway);
    let mut link = gateway.link().await;
    worker.expect("start, 0 gateways").await;
    link.open(1).await;
    worker.expect("1 connect").await;
    let first = link.message(1, "a");
    let held = link.message(1, "hold");
    let behind = link.message(1, "b");
    let mut done = Vec::new();
    loop {
        match link.next().await {
            Command::Done(wire::Done { seq }) => done.extend(seq),
            Command::Undone(wire::Undone { seq, .. }) => break assert_eq!(seq, held),
            _ => {}
        }
    }
    assert!(done.contains(&first), "what was done before is said before");
    assert!(!done.contains(&behind));
    for what in ["1 a", "1 hold"] {
        worker.expect(what).await;
    }
    // It comes again, and with it what is behind; what was on its way meanwhile is dropped.
    let on_its_way = link.message(1, "c");
    worker.let_pass(1);
    for (attach, text) in [(Some(attach(&[])), "hold"), (None, "b"), (None, "c")] {
        link.redelivered(1, attach, message(text));
    }
    for what in ["1 hold again", "1 held again", "1 b again", "1 c again"] {
        worker.expect(what).await;
    }
    link.until_done(on_its_way + 3).await;
    worker.expect_no_more();
    assert_eq!(worker.stats.handler_errors.get(), 1);
    eventually("the end of all events", || worker.stats.events_in_flight.get() == 0).await;
    assert_eq!(worker.stats.connections.get(), 1);
}

#[tokio::test]
async fn a_worker_that_drains_can_hand_an_event_back() {
    let (mut worker, _gateway, mut link) = Running::linked().await;
    link.open(1).await;
    worker.expect("1 connect").await;
    let back = link.message(1, "hand back");
    worker.expect("1 hand back").await;
    link.message(1, "behind");
    worker.request_stop();
    let mut draining = false;
    loop {
        match link.next().await {
            Command::Draining(_) => {
                draining = true;
                worker.let_pass(1);
            }
            Command::Undone(undone) => {
                assert!(draining, "the gateway knows already that this worker drains");
                assert_eq!((undone.seq, undone.handed_back), (back, true));
                break;
            }
            Command::Done(done) => assert!(!done.seq.contains(&back), "it was handed back"),
            _ => {}
        }
    }
    eventually("the client is forgotten", || worker.stats.connections.get() == 0).await;
    worker.expect_no_more();
    assert_eq!(worker.stats.handler_errors.get(), 0);
}

#[tokio::test]
async fn a_worker_that_drains_can_hand_the_end_of_a_client_back() {
    let (mut worker, _gateway, mut link) = Running::linked().await;
    link.open(1).await;
    worker.expect("1 connect").await;
    let set = link.message(1, "set hand-back yes");
    link.until_done(set).await;
    worker.expect("1 set hand-back yes").await;
    let back = link.closed(1);
    worker.expect("1 close: client 1000: bye").await;
    worker.request_stop();
    loop {
        match link.next().await {
            Command::Draining(_) => worker.let_pass(1),
            Command::Undone(undone) => {
                assert_eq!((undone.seq, undone.handed_back), (back, true));
                break;
            }
            Command::Done(done) => assert!(!done.seq.contains(&back), "it was handed back"),
            _ => {}
        }
    }
    eventually("the client is forgotten", || worker.stats.connections.get() == 0).await;
}
