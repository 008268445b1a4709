//! Requests to clients, and their replies.

use std::time::Duration;

use meepo_proto::link as wire;
use meepo_proto::link::command::Body as Command;
use meepo_proto::link::event::Body as Event;
use meepo_proto::link::query::Body as Question;
use meepo_proto::link::reply::Body as Reply;
use tokio::task::JoinHandle;

use super::gateway::{Gateway, Link, about, attach, message, text_to};
use super::{PATIENCE, Running, eventually, soon};
use crate::WorkerSection;
use crate::{Client, Message, Receipt, RequestError, Result};

/// The next request that is sent to a client: its number as a query, and what it says.
async fn request(link: &mut Link) -> (u64, String) {
    loop {
        match link.next().await {
            Command::Done(_) | Command::Accept(_) => {}
            Command::Query(query) => {
                let Some(Question::Confirm(send)) = query.body else {
                    panic!("it is a message")
                };
                return (query.id, String::from_utf8_lossy(&send.payload).into_owned());
            }
            other => panic!("not a request: {other:?}"),
        }
    }
}

fn tell_receipt(link: &mut Link, query: u64, receipt: wire::Receipt) {
    let body = Some(Reply::Receipt(receipt.into()));
    link.event_of_link(Event::Reply(wire::Reply { query, body }));
}

/// A request that is made outside of a handler.
fn ask(client: &Client, text: &str, deadline: Duration) -> JoinHandle<Result<Message, RequestError>> {
    let (client, text) = (client.clone(), text.to_owned());
    tokio::spawn(async move { client.request(text, deadline).await })
}

async fn answer(asked: JoinHandle<Result<Message, RequestError>>) -> Result<String, RequestError> {
    let reply = soon("an answer", asked).await.expect("no panic")?;
    Ok(reply.text().unwrap_or("binary").to_owned())
}

/// A worker with a link, and a client that is let in.
async fn with_client() -> (Running, Gateway, Link, Client) {
    let (mut worker, gateway, mut link) = Running::linked().await;
    link.open(1).await;
    worker.expect("1 connect").await;
    let client = worker.client(1).await;
    (worker, gateway, link, client)
}

#[tokio::test]
async fn a_handler_asks_its_own_client_while_others_wait_behind_it() {
    let (mut worker, _gateway, mut link, _client) = with_client().await;
    let asking = link.message(1, "ask name?");
    worker.expect("1 ask name?").await;
    assert_eq!(request(&mut link).await.1, "name?");
    // It was given to a worker before, so it is older than the request.
    link.redelivered(1, None, message("old"));
    let reply = link.message(1, "ann");
    let last = link.message(1, "x");
    let mut done = Vec::new();
    while !done.contains(&last) {
        if let Command::Done(more) = link.next().await {
            done.extend(more.seq);
        }
    }
    assert_eq!(done[0], reply, "it does not wait for the handler");
    assert_eq!(done[1], asking);
    for what in [r#"1 reply: Ok(Text("ann"))"#, "1 old again", "1 x"] {
        worker.expect(what).await;
    }
    worker.expect_no_more();
    let stats = worker.stats;
    eventually("the end of all events", || stats.events_in_flight.get() == 0).await;
    assert_eq!(stats.handler_errors.get(), 0);
}

#[tokio::test]
async fn what_came_before_a_request_is_not_its_reply() {
    let (mut worker, _gateway, mut link, client) = with_client().await;
    link.message(1, "hold");
    worker.expect("1 hold").await;
    link.message(1, "early");
    let stats = worker.stats;
    eventually("it waits in the lane", || stats.events_in_flight.get() == 2).await;
    let asked = ask(&client, "?", PATIENCE);
    request(&mut link).await;
    link.message(1, "reply");
    assert_eq!(answer(asked).await.as_deref(), Ok("reply"));
    worker.let_pass(1);
    worker.expect("1 held").await;
    worker.expect("1 early").await;
}

#[tokio::test]
async fn only_a_message_that_matches_is_the_reply() {
    let (mut worker, _gateway, mut link, client) = with_client().await;
    let matching = |start: &'static str| {
        let client = client.clone();
        tokio::spawn(async move {
            let matches = move |message: &Message| {
                let text = message.text().expect("a panic is none of the others' business");
                text.starts_with(start)
            };
            client.request_matching(start, PATIENCE, matches).await
        })
    };
    let first = matching("a");
    assert_eq!(request(&mut link).await.1, "a");
    let second = matching("b");
    assert_eq!(request(&mut link).await.1, "b");
    link.push(about(
        1,
        Event::Message(wire::Message {
            payload: b"\xff"[..].into(),
            binary: true,
        }),
    ));
    for text in ["c", "b1", "b2", "a1", "a2"] {
        link.message(1, text);
    }
    assert_eq!(answer(second).await.as_deref(), Ok("b1"));
    assert_eq!(answer(first).await.as_deref(), Ok("a1"));
    for what in ["1 binary", "1 c", "1 b2", "1 a2"] {
        worker.expect(what).await;
    }
    worker.expect_no_more();
    assert_eq!(worker.stats.handler_errors.get(), 2);
}

#[tokio::test]
async fn several_requests_are_answered_in_the_order_of_asking() {
    let (mut worker, _gateway, mut link, client) = with_client().await;
    let mut asked = Vec::new();
    for number in 0..16 {
        asked.push(ask(&client, &number.to_string(), PATIENCE));
        assert_eq!(request(&mut link).await.1, number.to_string());
    }
    assert_eq!(client.request("?", PATIENCE).await, Err(RequestError::TooMany));
    // One who no longer waits gets none.
    asked.remove(3).abort();
    eventually("room", || asked.len() == 15 && !client.served().requests().is_full()).await;
    for number in 0..15 {
        link.message(1, &format!("answer {number}"));
    }
    link.message(1, "x");
    for (number, asked) in asked.into_iter().enumerate() {
        assert_eq!(answer(asked).await, Ok(format!("answer {number}")));
    }
    worker.expect("1 x").await;
}

#[tokio::test]
async fn what_comes_after_the_deadline_is_a_message() {
    let (mut worker, _gateway, mut link, client) = with_client().await;
    for deadline in [Duration::ZERO, Duration::from_millis(5)] {
        let asked = client.request("?", deadline).await;
        assert_eq!(asked, Err(RequestError::Deadline));
        assert_eq!(request(&mut link).await.1, "?");
        let late = link.message(1, "late");
        assert_eq!(link.until_done(late).await, [text_to(1, "late")]);
        worker.expect("1 late").await;
    }
    let asked = ask(&client, "?", Duration::MAX);
    request(&mut link).await;
    link.message(1, "in time");
    assert_eq!(answer(asked).await.as_deref(), Ok("in time"));
}

#[tokio::test]
async fn a_request_ends_at_once_when_its_client_goes() {
    let (mut worker, _gateway, mut link, client) = with_client().await;
    let outside = ask(&client, "you?", PATIENCE);
    request(&mut link).await;
    link.message(1, "taken");
    assert_eq!(answer(outside).await.as_deref(), Ok("taken"));
    link.message(1, "ask name?");
    worker.expect("1 ask name?").await;
    request(&mut link).await;
    let outside = ask(&client, "you?", PATIENCE);
    request(&mut link).await;
    // The handler that waits is in front of the end.
    let closed = link.closed(1);
    worker.expect("1 reply: Err(Gone)").await;
    worker.expect("1 close: client 1000: bye").await;
    assert_eq!(answer(outside).await, Err(RequestError::Gone));
    link.until_done(closed).await;
    assert_eq!(client.request("?", PATIENCE).await, Err(RequestError::Gone));
}

#[tokio::test]
async fn a_request_ends_when_another_worker_serves_the_client() {
    let (mut worker, mut gateway, mut link, client) = with_client().await;
    let asked = ask(&client, "?", PATIENCE);
    request(&mut link).await;
    link.event(1, Event::Detached(wire::Detached {}));
    assert_eq!(answer(asked).await, Err(RequestError::Moved));
    link.hand_over(1, &[]);
    worker.client(1).await;
    link.message(1, "ask name?");
    worker.expect("1 ask name?").await;
    request(&mut link).await;
    link.end();
    link.ended().await;
    worker.expect("1 reply: Err(Moved)").await;
    // The answer goes to whom the client is given to, as any message.
    let mut again = gateway.link().await;
    let seq = again.attached(1, Some(attach(&[])), message("ann"));
    again.until_done(seq).await;
    worker.expect("1 ann").await;
    assert_eq!(client.request("?", PATIENCE).await, Err(RequestError::Moved));
}

#[tokio::test]
async fn a_drain_does_not_wait_for_replies() {
    let (mut worker, _gateway, mut link, client) = with_client().await;
    let asking = link.message(1, "ask name?");
    worker.expect("1 ask name?").await;
    request(&mut link).await;
    worker.request_stop();
    worker.expect("1 reply: Err(Moved)").await;
    assert_eq!(client.request("?", PATIENCE).await, Err(RequestError::Moved));
    link.until_done(asking).await;
    link.end();
    link.ended().await;
    worker.stopped().await;
}

#[tokio::test]
async fn a_request_that_is_not_sent_says_so() {
    let (worker, _gateway, mut link, client) = with_client().await;
    for (said, error) in [
        (wire::Receipt::BufferFull, RequestError::NotSent(Receipt::Full)),
        (wire::Receipt::NotValid, RequestError::NotSent(Receipt::Refused)),
        (wire::Receipt::ClientGone, RequestError::Gone),
    ] {
        let asked = ask(&client, "?", PATIENCE);
        let (query, _) = request(&mut link).await;
        tell_receipt(&mut link, query, said);
        assert_eq!(answer(asked).await, Err(error));
    }
    let asked = client.request("x".repeat(2 << 20), PATIENCE).await;
    assert_eq!(asked, Err(RequestError::NotSent(Receipt::Refused)));
    assert_eq!(worker.stats.failed_sends.get(), 4);
    // It was delivered, and the reply is waited for.
    let asked = ask(&client, "?", PATIENCE);
    let (query, _) = request(&mut link).await;
    tell_receipt(&mut link, query, wire::Receipt::Delivered);
    link.message(1, "here");
    assert_eq!(answer(asked).await.as_deref(), Ok("here"));
    assert_eq!(worker.stats.failed_sends.get(), 4);
}

#[tokio::test]
async fn nobody_is_asked_before_being_let_in() {
    let (mut worker, _gateway, mut link) = Running::linked().await;
    let seq = link.opened(1, "ask");
    let accept = Command::Accept(wire::Accept { client: 1 });
    assert_eq!(link.until_done(seq).await, [accept]);
    worker.expect("1 connect").await;
    worker.expect("1 reply: Err(NotConnected)").await;
}

#[tokio::test]
async fn a_handler_that_is_cut_off_no_longer_waits() {
    let mut worker = Running::with(WorkerSection {
        handler_timeout: Duration::from_millis(50),
        ..WorkerSection::default()
    });
    let mut gateway = Gateway::start(1).await;
    worker.name(&gateway);
    let mut link = gateway.link().await;
    worker.expect("start, 0 gateways").await;
    link.open(1).await;
    worker.expect("1 connect").await;
    link.message(1, "ask name?");
    worker.expect("1 ask name?").await;
    request(&mut link).await;
    while !matches!(link.next().await, Command::Undone(_)) {}
    link.redelivered(1, Some(attach(&[])), message("x"));
    link.message(1, "y");
    worker.expect("1 x again").await;
    worker.expect("1 y").await;
}
