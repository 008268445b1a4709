//! Links that come and go.

use std::time::Duration;

use meepo_node::{local, rpc};
use meepo_proto::link as wire;
use meepo_proto::link::command::Body as Command;
use meepo_proto::link::event::Body as Event;
use meepo_proto::registry::State;

use super::gateway::{Gateway, attach, message, text_to};
use super::{Running, eventually, soon};

#[tokio::test]
async fn a_link_says_the_secret_and_the_child_is_ready_once_it_is_up() {
    let mut worker = Running::start();
    let mut gateway = Gateway::start(1).await;
    worker.name(&gateway);
    let mut link = gateway.silent_link().await;
    assert_eq!(link.secret, "the secret");
    assert!(matches!(link.next().await, Command::Hello(_)));
    assert!(worker.ready.try_recv().is_err());
    link.welcome(1);
    soon("ready", worker.ready.recv()).await;
    eventually("the link", || worker.stats.links.get() == 1).await;
}

#[tokio::test]
async fn a_gateway_that_cannot_be_reached_within_the_host_is_reached_over_the_network() {
    let id = fastrand::u64(1 << 32..);
    let broken = local::listen(id).expect("the name is free");
    let breaks = tokio::spawn(async move { while broken.accept().await.is_ok() {} });
    let worker = Running::start();
    let mut gateway = Gateway::start(id).await;
    worker.name(&gateway);
    let _link = gateway.link().await;
    eventually("the link", || worker.stats.links.get() == 1).await;
    breaks.abort();
}

#[tokio::test]
async fn a_child_without_gateways_is_ready_too() {
    let mut worker = Running::start();
    soon("ready", worker.ready.recv()).await;
}

#[tokio::test]
async fn a_link_stands_when_the_registry_forgets_the_gateway() {
    let (mut worker, gateway, mut link) = Running::linked().await;
    link.open(1).await;
    worker.expect("1 connect").await;
    worker.forget(&gateway);
    let seq = link.message(1, "x");
    assert_eq!(link.until_done(seq).await, [text_to(1, "x")]);
    assert_eq!(worker.stats.links.get(), 1);
}

#[tokio::test]
async fn clients_of_a_gateway_that_dies_are_closed_once() {
    let (mut worker, gateway, mut link) = Running::linked().await;
    link.open(1).await;
    worker.expect("1 connect").await;
    // One is handled when it happens, one was never let in.
    link.attached(2, Some(attach(&[])), message("hold"));
    worker.expect("2 hold").await;
    link.message(2, "not begun");
    link.opened(3, "hold-reject");
    worker.expect("3 connect").await;

    worker.forget(&gateway);
    drop(link);
    drop(gateway);
    worker.expect("1 close: gateway lost").await;
    worker.let_pass(2);
    let mut told = [worker.told().await, worker.told().await];
    told.sort();
    assert_eq!(told, ["2 close: gateway lost", "2 held"]);
    eventually("the end of all events", || worker.stats.events_in_flight.get() == 0).await;
    worker.expect_no_more();
    assert_eq!(worker.stats.connections.get(), 0);
    assert_eq!(worker.stats.links.get(), 0);
}

#[tokio::test]
async fn clients_of_a_gateway_that_is_done_are_forgotten_silently() {
    // Whether the worker hears of its leaving, or was away until all was over.
    for leaving in [true, false] {
        let (mut worker, mut gateway, mut link) = Running::linked().await;
        link.open(1).await;
        worker.expect("1 connect").await;
        if leaving {
            worker.name_as(&gateway, State::Draining);
        }
        drop(link);
        gateway.silent_link().await.refuse();
        worker.name_as(&gateway, State::Drained);
        eventually("silence about the client", || worker.stats.connections.get() == 0).await;
        worker.forget(&gateway);
        eventually("the end of all events", || worker.stats.events_in_flight.get() == 0).await;
        worker.expect_no_more();
    }
}

#[tokio::test]
async fn a_worker_that_comes_helps_a_gateway_that_leaves() {
    let mut worker = Running::start();
    let mut gateway = Gateway::start(1).await;
    worker.name_as(&gateway, State::Draining);
    let mut link = gateway.link().await;
    worker.expect("start, 0 gateways").await;
    link.hand_over(1, &[]);
    let seq = link.closed(1);
    link.until_done(seq).await;
    assert!(worker.told().await.starts_with("1 close: "));
}

#[tokio::test]
async fn clients_of_a_gateway_that_dies_while_it_leaves_are_closed() {
    let (mut worker, gateway, mut link) = Running::linked().await;
    link.open(1).await;
    worker.expect("1 connect").await;
    worker.name_as(&gateway, State::Draining);
    drop(link);
    eventually("the link's end", || worker.stats.links.get() == 0).await;
    worker.forget(&gateway);
    drop(gateway);
    worker.expect("1 close: gateway lost").await;
    worker.expect_no_more();
}

#[tokio::test]
async fn clients_of_a_gateway_that_may_have_given_the_link_up_are_closed_with_the_mark() {
    for (answers, told) in [(true, "1 close: gateway lost"), (false, "1 close: gateway lost again")] {
        let (mut worker, gateway, mut link) = Running::linked().await;
        link.open(1).await;
        worker.expect("1 connect").await;
        let silence = rpc::UNHEARD + Duration::from_millis(500);
        match answers {
            // Who waits for commands answers; none is to come.
            true => assert!(tokio::time::timeout(silence, link.next()).await.is_err()),
            // Not awaited: it is the silence's length.
            false => tokio::time::sleep(silence).await,
        }
        worker.forget(&gateway);
        drop(link);
        drop(gateway);
        worker.expect(told).await;
        worker.expect_no_more();
    }
}

#[tokio::test]
async fn another_gateway_at_the_address_means_the_first_is_lost() {
    let (mut worker, gateway, mut link) = Running::linked().await;
    link.open(1).await;
    worker.expect("1 connect").await;
    let address = gateway.address.clone();
    drop(link);
    drop(gateway);
    // The registry names the first one still.
    let mut second = Gateway::start_at(2, &address).await;
    let mut stranger = second.silent_link().await;
    assert!(matches!(stranger.next().await, Command::Hello(hello) if hello.gateway_id == Some(1)));
    stranger.refuse();
    worker.expect("1 close: gateway lost").await;
    stranger.ended().await;
    assert_eq!(worker.stats.links.get(), 0);

    // It gets a link of its own as soon as the registry names it.
    worker.name(&second);
    let own = loop {
        let mut link = second.silent_link().await;
        match link.next().await {
            Command::Hello(hello) if hello.gateway_id == Some(2) => break link,
            _ => link.refuse(),
        }
    };
    own.welcome(2);
    eventually("the link", || worker.stats.links.get() == 1).await;
    worker.expect_no_more();
}

#[tokio::test]
async fn a_gateway_that_says_another_id_gets_no_link() {
    let (mut worker, gateway, mut link) = Running::linked().await;
    link.open(1).await;
    worker.expect("1 connect").await;
    let address = gateway.address.clone();
    drop(link);
    drop(gateway);
    let mut second = Gateway::start_at(2, &address).await;
    let mut stranger = second.silent_link().await;
    stranger.welcome(2);
    worker.expect("1 close: gateway lost").await;
    stranger.ended().await;
    assert_eq!(worker.stats.links.get(), 0);
}

#[tokio::test]
async fn clients_are_forgotten_silently_when_the_link_comes_back() {
    let (mut worker, mut gateway, mut link) = Running::linked().await;
    link.open(1).await;
    worker.expect("1 connect").await;
    link.message(1, "hold");
    worker.expect("1 hold").await;
    link.message(1, "not begun");
    link.end();
    link.ended().await;

    let mut again = gateway.link().await;
    eventually("the link", || worker.stats.links.get() == 1).await;
    eventually("silence about the client", || worker.stats.connections.get() == 0).await;
    // What was begun on the first link finishes before the client's next event.
    let seq = again.attached(1, Some(attach(&[])), message("hold"));
    assert_eq!(worker.stats.connections.get(), 0);
    worker.let_pass(2);
    worker.expect("1 held").await;
    worker.expect("1 hold").await;
    worker.expect("1 held").await;
    assert_eq!(again.until_done(seq).await, []);
    worker.expect_no_more();
}

#[tokio::test]
async fn a_client_that_is_handed_over_is_closed_when_its_gateway_dies() {
    let (mut worker, gateway, mut link) = Running::linked().await;
    link.hand_over(1, &[("name", "ann")]);
    eventually("the client", || worker.stats.connections.get() == 1).await;
    // No handler runs, and nothing is answered.
    let seq = link.message(1, "get name");
    assert_eq!(link.next().await, text_to(1, "ann"));
    assert_eq!(link.next().await, Command::Done(wire::Done { seq: vec![seq] }));
    worker.expect("1 get name").await;

    worker.forget(&gateway);
    drop(link);
    drop(gateway);
    worker.expect("1 close: gateway lost").await;
    eventually("the end of all events", || worker.stats.events_in_flight.get() == 0).await;
    worker.expect_no_more();
    assert_eq!(worker.stats.connections.get(), 0);
}

#[tokio::test]
async fn a_worker_that_stops_tells_of_a_gateway_that_died_just_before() {
    let (mut worker, gateway, mut link) = Running::linked().await;
    link.open(1).await;
    worker.expect("1 connect").await;
    // The registry has not noticed yet.
    drop(link);
    drop(gateway);
    eventually("the end of the link", || worker.stats.links.get() == 0).await;
    worker.request_stop();
    worker.expect("1 close: gateway lost").await;
    worker.expect("stop, 0 gateways").await;
}

#[tokio::test]
async fn a_client_that_is_handed_away_and_back_is_recorded_once() {
    let (mut worker, mut gateway, mut link) = Running::linked().await;
    for client in 1..=3 {
        link.open(client).await;
        worker.expect(&format!("{client} connect")).await;
    }
    // On one link.
    let detached = link.event(1, Event::Detached(wire::Detached {}));
    link.until_done(detached).await;
    assert_eq!(worker.stats.connections.get(), 2);
    link.hand_over(1, &[]);
    eventually("the client", || worker.stats.connections.get() == 3).await;

    // Over two: one is told as detached before the first ends, one is not, one does not come back.
    let detached = link.event(1, Event::Detached(wire::Detached {}));
    link.until_done(detached).await;
    link.end();
    link.ended().await;
    let mut again = gateway.link().await;
    again.hand_over(1, &[]);
    again.hand_over(2, &[]);
    let seq = again.message(2, "x");
    again.until_done(seq).await;
    worker.expect("2 x").await;
    assert_eq!(worker.stats.connections.get(), 2);

    worker.forget(&gateway);
    drop(again);
    drop(gateway);
    let mut told = [worker.told().await, worker.told().await];
    told.sort();
    assert_eq!(told, [1, 2].map(|client| format!("{client} close: gateway lost")));
    eventually("the end of all events", || worker.stats.events_in_flight.get() == 0).await;
    worker.expect_no_more();
    assert_eq!(worker.stats.connections.get(), 0);
}

#[tokio::test]
async fn a_drain_finishes_what_is_in_flight() {
    let (mut worker, gateway, mut link) = Running::linked().await;
    link.open(1).await;
    worker.expect("1 connect").await;
    let seq = link.message(1, "hold");
    worker.expect("1 hold").await;
    // Clients of a link that drains are not lost, whatever the registry says.
    worker.forget(&gateway);
    worker.request_stop();
    assert_eq!(link.next().await, Command::Draining(wire::Draining {}));
    worker.let_pass(1);
    assert_eq!(link.until_done(seq).await, []);
    link.end();
    link.ended().await;
    worker.expect("1 held").await;
    let mut log = worker.stopped().await;
    assert_eq!(log.recv().await.as_deref(), Some("stop, 0 gateways"));
    assert_eq!(log.recv().await, None);
}

#[tokio::test]
async fn a_worker_that_drains_sends_to_all_gateways_until_its_last_handler_has_finished() {
    let (mut worker, _gateway, mut link) = Running::linked().await;
    let mut second = Gateway::start(2).await;
    worker.name(&second);
    let mut other = second.link().await;
    eventually("both links", || worker.stats.links.get() == 2).await;
    link.open(1).await;
    worker.expect("1 connect").await;
    let seq = link.message(1, "hold all late");
    worker.expect("1 hold all late").await;
    worker.request_stop();
    for link in [&mut link, &mut other] {
        assert_eq!(link.next().await, Command::Draining(wire::Draining {}));
    }
    // Nothing is in flight over this one.
    other.push(drained());
    worker.let_pass(1);
    let Command::Send(send) = other.next().await else {
        panic!("it is a send")
    };
    assert_eq!(&send.payload[..], b"late");
    link.until_done(seq).await;
    link.push(drained());
    for mut link in [link, other] {
        link.ended().await;
        link.end();
    }
    worker.stopped().await;
}

fn drained() -> wire::Event {
    wire::Event {
        body: Some(Event::Drained(wire::Drained {})),
        ..wire::Event::default()
    }
}

#[tokio::test]
async fn a_drain_is_bounded() {
    let (mut worker, _gateway, mut link) = Running::linked().await;
    link.opened(1, "hold");
    worker.expect("1 connect").await;
    worker.request_stop();
    let mut log = worker.stopped().await;
    assert_eq!(log.recv().await.as_deref(), Some("stop, 0 gateways"));
    link.ended().await;
}
