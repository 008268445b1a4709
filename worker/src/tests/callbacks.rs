//! What a handler is told beside events of the usual course: send buffers, errors, and whether a client is read.

use std::time::Duration;

use meepo_proto::link as wire;
use meepo_proto::link::command::Body as Command;
use meepo_proto::link::event::Body as Event;

use super::gateway::{Gateway, Link, about, attach, message, text_to};
use super::{Running, eventually};
use crate::WorkerSection;

fn buffered(full: bool) -> Event {
    Event::SendBuffer(wire::SendBuffer { full })
}

/// The gateway refuses a command.
fn refuse(link: &Link, client: u64, command: &str, why: wire::RefusedWhy) {
    let refused = wire::Refused {
        command: command.into(),
        why: why.into(),
        detail: "no".into(),
    };
    link.push(about(client, Event::Refused(refused)));
}

/// A worker that is told of errors of the client 1, with what `on_error` does about them.
async fn told(worker: Running, on_error: &str) -> (Running, Gateway, Link) {
    let mut worker = worker;
    let mut gateway = Gateway::start(1).await;
    worker.name(&gateway);
    let link = gateway.link().await;
    worker.expect("start, 0 gateways").await;
    link.hand_over(1, &[("on_error", on_error)]);
    (worker, gateway, link)
}

#[tokio::test]
async fn news_of_a_send_buffer_come_in_order_and_are_done() {
    let (mut worker, _gateway, mut link) = Running::linked().await;
    link.open(1).await;
    worker.expect("1 connect").await;
    link.message(1, "hold");
    let full = link.event(1, buffered(true));
    worker.expect("1 hold").await;
    worker.expect_no_more();
    worker.let_pass(1);
    for what in ["1 held", "1 full"] {
        worker.expect(what).await;
    }
    link.until_done(full).await;
    let empty = link.redelivered(1, None, buffered(false));
    worker.expect("1 empty again").await;
    link.until_done(empty).await;
}

#[tokio::test]
async fn a_handler_is_told_what_went_wrong_before_the_next_event() {
    let (mut worker, _gateway, mut link) = told(Running::start(), "errors").await;
    let joins = Command::Join(wire::Join {
        client: 1,
        group: "errors".into(),
    });
    for (text, error) in [("fail", "asked to"), ("panic", "panic: asked to")] {
        let failed = link.message(1, text);
        link.message(1, "next");
        for what in [text, &format!("error: {error}"), "next"] {
            worker.expect(&format!("1 {what}")).await;
        }
        assert_eq!(link.until_done(failed).await.first(), Some(&joins), "before it is done");
    }
    assert_eq!(worker.stats.handler_errors.get(), 2);

    // What the gateway refuses comes when no handler of the client runs; of others, and of an `accept`, nothing comes.
    link.message(1, "hold");
    refuse(&link, 1, "join", wire::RefusedWhy::OverLimit);
    refuse(&link, 1, "accept", wire::RefusedWhy::Gone);
    refuse(&link, 2, "join", wire::RefusedWhy::Gone);
    worker.expect("1 hold").await;
    worker.let_pass(1);
    for what in ["1 held", "1 error: join was refused: no"] {
        worker.expect(what).await;
    }
    let last = link.message(1, "last");
    worker.expect("1 last").await;
    link.until_done(last).await;
    assert_eq!(worker.stats.failed_sends.get(), 3);
    assert_eq!(
        worker.stats.handler_errors.get(),
        2,
        "a refusal is no error of a handler"
    );

    // The others fail like that, too.
    let change = wire::SessionChanged {
        set: [("panic".to_owned(), "yes".to_owned())].into(),
        ..wire::SessionChanged::default()
    };
    link.event(1, Event::SessionChanged(change));
    link.event(1, buffered(true));
    link.closed(1);
    for what in [
        "full",
        "error: panic: asked to",
        "close: client 1000: bye",
        "error: panic: asked to",
    ] {
        worker.expect(&format!("1 {what}")).await;
    }
    worker.expect_no_more();
}

#[tokio::test]
async fn what_goes_wrong_in_on_error_is_counted_and_goes_no_further() {
    let (mut worker, _gateway, mut link) = told(Running::start(), "panic").await;
    let failed = link.message(1, "fail");
    link.until_done(failed).await;
    refuse(&link, 1, "join", wire::RefusedWhy::Invalid);
    let last = link.message(1, "last");
    link.until_done(last).await;
    for what in ["fail", "error: asked to", "error: join was refused: no", "last"] {
        worker.expect(&format!("1 {what}")).await;
    }
    worker.expect_no_more();
    assert_eq!(worker.stats.handler_errors.get(), 3);
}

#[tokio::test]
async fn on_error_that_hangs_holds_up_neither_its_event_nor_the_client() {
    let worker = Running::with(WorkerSection {
        handler_timeout: Duration::from_millis(100),
        ..WorkerSection::default()
    });
    let (mut worker, _gateway, mut link) = told(worker, "hang").await;
    let failed = link.message(1, "fail");
    for what in ["1 fail", "1 error: asked to"] {
        worker.expect(what).await;
    }
    link.until_done(failed).await;
    assert_eq!(worker.stats.handler_errors.get(), 2);

    // One that was cut off hears of it, and its event comes again all the same.
    let held = link.message(1, "hold");
    while link.next().await
        != Command::Undone(wire::Undone {
            seq: held,
            handed_back: false,
        })
    {}
    for what in ["1 hold", "1 error: it has taken longer than 100ms and was cut off"] {
        worker.expect(what).await;
    }
    link.redelivered(1, Some(attach(&[])), message("b"));
    worker.expect("1 b again").await;
    worker.expect_no_more();
}

#[tokio::test]
async fn a_refusal_that_on_error_causes_does_not_come_for_ever() {
    let (mut worker, _gateway, mut link) = told(Running::start(), "again").await;
    let mut told = 0;
    refuse(&link, 1, "join", wire::RefusedWhy::Invalid);
    // Each time it is told, it sends what is refused.
    while told < crate::runtime::client_queues::REFUSALS {
        worker.expect("1 error: join was refused: no").await;
        assert!(matches!(link.next().await, Command::Join(_)));
        refuse(&link, 1, "join", wire::RefusedWhy::Invalid);
        told += 1;
    }
    let next = link.message(1, "next");
    worker.expect("1 next").await;
    link.until_done(next).await;
    worker.expect_no_more();
    // After an event of the client it is told again.
    refuse(&link, 1, "join", wire::RefusedWhy::Invalid);
    worker.expect("1 error: join was refused: no").await;
}

#[tokio::test]
async fn a_worker_knows_whether_a_client_is_paused() {
    let (mut worker, _gateway, mut link) = Running::linked().await;
    link.open(1).await;
    let reading = |paused| Command::Pause(wire::Pause { client: 1, paused });
    for (text, commands) in [
        ("paused", vec![text_to(1, "false")]),
        ("pause", vec![reading(true)]),
        ("pause", vec![reading(true)]),
        ("paused", vec![text_to(1, "true")]),
        ("resume", vec![reading(false)]),
        ("paused", vec![text_to(1, "false")]),
    ] {
        let seq = link.message(1, text);
        assert_eq!(link.until_done(seq).await, commands, "{text}");
    }
    // By its id, as others of this worker do.
    let id = crate::ClientId::new(crate::GatewayId(1), 1);
    worker.cluster().client(id).pause();
    assert_eq!(link.next().await, reading(true));
    let seq = link.message(1, "paused");
    assert_eq!(link.until_done(seq).await, [text_to(1, "true")]);
    // By another worker.
    link.event(1, Event::PauseChanged(wire::PauseChanged { paused: false }));
    let seq = link.message(1, "paused");
    assert_eq!(link.until_done(seq).await, [text_to(1, "false")]);
    // As it came from another worker.
    let paused = wire::Attach {
        paused: true,
        ..attach(&[])
    };
    let seq = link.attached(2, Some(paused), message("paused"));
    assert_eq!(link.until_done(seq).await, [text_to(2, "true")]);
    eventually("the end of all events", || worker.stats.events_in_flight.get() == 0).await;
    worker.log.close();
}
