//! Last words to clients before their gateway closes them.

use meepo_proto::link as wire;
use meepo_proto::link::command::Body as Command;
use meepo_proto::link::event::Body as Event;

use super::gateway::{Gateway, Link, about, text_to};
use super::{Running, eventually};

/// The gateway is about to close its clients, and waits so long.
fn leave(link: &Link, reload: bool, wait_ms: u32) {
    link.push(wire::Event {
        body: Some(Event::LastWords(wire::LastWords { reload, wait_ms })),
        ..wire::Event::default()
    });
}

/// All commands before `parted`, without `done`.
async fn until_last_words_sent(link: &mut Link) -> Vec<Command> {
    let mut before = Vec::new();
    loop {
        match link.next().await {
            Command::LastWordsSent(_) => return before,
            Command::Done(_) => {}
            command => before.push(command),
        }
    }
}

async fn come(worker: &mut Running, link: &mut Link, client: u64, query: &str) {
    let seq = link.opened(client, query);
    link.until_done(seq).await;
    worker.expect(&format!("{client} connect")).await;
}

#[tokio::test]
async fn each_client_is_told_in_its_turn_and_parted_follows() {
    let (mut worker, _gateway, mut link) = Running::linked().await;
    come(&mut worker, &mut link, 1, "").await;
    come(&mut worker, &mut link, 2, "reject").await;
    link.hand_over(3, &[]);
    link.message(1, "hold x");
    worker.expect("1 hold x").await;
    // Neither one that waits to be let in, nor one that is not, is told.
    link.opened(4, "hold-reject");
    worker.expect("4 connect").await;

    leave(&link, false, 10_000);
    worker.expect("3 last words: Stop").await;
    worker.let_pass(2);
    worker.expect("1 held").await;
    worker.expect("1 last words: Stop").await;
    let told = until_last_words_sent(&mut link).await;
    let told: Vec<_> = told
        .iter()
        .filter(|command| matches!(command, Command::Send(_)))
        .collect();
    assert_eq!(told, [&text_to(3, "goodbye"), &text_to(1, "goodbye")]);
    worker.expect_no_more();

    // They are served on, and closed as ever.
    let last = link.message(1, "more");
    assert_eq!(link.until_done(last).await, [text_to(1, "more")]);
    worker.expect("1 more").await;
    link.closed(1);
    worker.expect("1 close: client 1000: bye").await;
    leave(&link, true, 10_000);
    worker.expect("3 last words: Reload").await;
    assert_eq!(until_last_words_sent(&mut link).await, [text_to(3, "goodbye")]);
    worker.expect_no_more();
}

#[tokio::test]
async fn only_clients_of_the_gateway_that_leaves_are_told() {
    let (mut worker, _gateway, mut link) = Running::linked().await;
    let mut other = Gateway::start(2).await;
    worker.name(&other);
    let mut stays = other.link().await;
    come(&mut worker, &mut link, 1, "").await;
    come(&mut worker, &mut stays, 1, "").await;
    leave(&link, false, 10_000);
    assert_eq!(until_last_words_sent(&mut link).await, [text_to(1, "goodbye")]);
    worker.expect("1 last words: Stop").await;
    let seq = stays.message(1, "x");
    assert_eq!(stays.until_done(seq).await, [text_to(1, "x")]);
    worker.expect("1 x").await;
    worker.expect_no_more();
}

#[tokio::test]
async fn one_that_hangs_or_panics_holds_nobody_up_and_is_served_on() {
    let (mut worker, _gateway, mut link) = Running::linked().await;
    come(&mut worker, &mut link, 1, "last-words-hang").await;
    come(&mut worker, &mut link, 2, "last-words-panic").await;
    leave(&link, false, 300);
    let mut told = [worker.told().await, worker.told().await];
    told.sort();
    assert_eq!(told, ["1 last words: Stop", "2 last words: Stop"]);
    assert_eq!(until_last_words_sent(&mut link).await, []);
    assert_eq!(worker.stats.handler_errors.get(), 2);
    for client in [1, 2] {
        let seq = link.message(client, "x");
        assert_eq!(link.until_done(seq).await, [text_to(client, "x")]);
        worker.expect(&format!("{client} x")).await;
    }
    eventually("the end of all events", || worker.stats.events_in_flight.get() == 0).await;
}

#[tokio::test]
async fn one_whose_turn_comes_too_late_is_not_told() {
    let (mut worker, _gateway, mut link) = Running::linked().await;
    come(&mut worker, &mut link, 1, "").await;
    link.message(1, "hold x");
    worker.expect("1 hold x").await;
    leave(&link, false, 0);
    worker.let_pass(1);
    worker.expect("1 held").await;
    assert_eq!(until_last_words_sent(&mut link).await, []);
    worker.expect_no_more();
    assert_eq!(worker.stats.handler_errors.get(), 0);
}

#[tokio::test]
async fn one_that_is_moved_meanwhile_is_told_no_more() {
    let (mut worker, _gateway, mut link) = Running::linked().await;
    come(&mut worker, &mut link, 1, "").await;
    link.message(1, "hold x");
    worker.expect("1 hold x").await;
    leave(&link, true, 10_000);
    link.push(about(1, Event::Detached(wire::Detached {})));
    // Whoever is told something comes after that.
    come(&mut worker, &mut link, 2, "").await;
    worker.let_pass(1);
    worker.expect("1 held").await;
    assert_eq!(until_last_words_sent(&mut link).await, []);
    worker.expect_no_more();
}

#[tokio::test]
async fn a_handler_without_last_words_is_not_asked_and_nobody_waits_for_those_who_run() {
    let mut worker = Running::without_last_words();
    let mut gateway = Gateway::start(1).await;
    worker.name(&gateway);
    let mut link = gateway.link().await;
    worker.expect("start, 0 gateways").await;
    come(&mut worker, &mut link, 1, "").await;
    link.message(1, "hold x");
    worker.expect("1 hold x").await;
    leave(&link, false, 10_000);
    assert_eq!(until_last_words_sent(&mut link).await, []);
    worker.let_pass(1);
    worker.expect("1 held").await;
    worker.expect_no_more();
}
