//! Calls from outside: when they are answered, and with what.

use std::task::Poll;

use bytesize::ByteSize;
use meepo_proto::link as wire;
use meepo_proto::link::command::Body as Command;
use meepo_proto::link::event::Body as Event;
use meepo_proto::link::query::Body as Question;
use meepo_proto::link::reply::Body as Reply;
use meepo_proto::push::*;
use meepo_proto::{ClientId, GatewayId};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::gateway::{Gateway, Link, text_to_some};
use super::{Running, eventually, soon};
use crate::WorkerSection;
use crate::push::calls::Call;
use crate::push::problem::Problem;

/// A worker with one link, which it has taken up.
async fn linked() -> (Running, Gateway, Link) {
    let (worker, gateway, link) = Running::linked().await;
    eventually("a link", || worker.stats.links.get() == 1).await;
    (worker, gateway, link)
}

/// Calls in a task.
fn call<C: Call>(worker: &Running, call: C) -> JoinHandle<Result<C::Reply, Problem>>
where
    C::Reply: 'static,
{
    let cluster = worker.cluster().clone();
    tokio::spawn(async move { call.carry_out(&cluster).await })
}

async fn answer<T>(called: JoinHandle<Result<T, Problem>>) -> Result<T, Problem> {
    soon("an answer", called).await.expect("no panic")
}

fn id(client: u64) -> String {
    ClientId::new(GatewayId(1), client).to_string()
}

fn to(clients: &[u64]) -> Option<Target> {
    Some(Target {
        clients: clients.iter().copied().map(id).collect(),
        ..Target::default()
    })
}

fn send(clients: &[u64], text: &str) -> SendRequest {
    SendRequest {
        to: to(clients),
        text: Some(text.into()),
        ..SendRequest::default()
    }
}

/// The next question, and its number.
async fn question(link: &mut Link) -> (u64, Question) {
    match link.next().await {
        Command::Query(query) => (query.id, query.body.expect("it asks something")),
        other => panic!("no question: {other:?}"),
    }
}

fn reply(link: &Link, query: u64, body: Reply) {
    let reply = wire::Reply {
        query,
        body: Some(body),
    };
    link.push(wire::Event {
        body: Some(Event::Reply(reply)),
        ..wire::Event::default()
    });
}

/// A reply that these clients are there.
fn there(clients: &[wire::ClientInfo]) -> Reply {
    Reply::Selected(wire::Selected {
        clients: clients.to_vec(),
    })
}

fn found(client: u64) -> wire::ClientInfo {
    wire::ClientInfo {
        client,
        ..wire::ClientInfo::default()
    }
}

fn code(problem: &Problem) -> serde_json::Value {
    serde_json::to_value(problem).expect("it is JSON")["code"].clone()
}

#[tokio::test]
async fn a_send_is_answered_when_the_gateway_has_answered_after_it() {
    let (worker, _gateway, mut link) = linked().await;
    let called = call(&worker, send(&[5], "hello"));
    assert_eq!(link.next().await, text_to_some(&[5], "hello"));
    let (query, asked) = question(&mut link).await;
    let Question::Select(select) = asked else {
        panic!("not who is there: {asked:?}")
    };
    assert_eq!(select.filter.expect("it names clients").clients, [5]);
    assert!(!called.is_finished());
    reply(&link, query, there(&[]));
    let reply = answer(called).await.expect("it is answered");
    assert_eq!((reply.gone, reply.missing), (vec![id(5)], Vec::new()));
}

#[tokio::test]
async fn a_link_that_ends_before_it_has_answered_is_missing() {
    let (worker, mut gateway, mut link) = linked().await;
    let called = call(&worker, send(&[5], "hello"));
    assert_eq!(link.next().await, text_to_some(&[5], "hello"));
    link.end();
    drop(link);
    let problem = answer(called).await.expect_err("nobody has answered");
    let problem = serde_json::to_value(&problem).expect("it is JSON");
    assert_eq!(problem["missing"], json!([GatewayId(1).to_string()]), "{problem}");
    // Not even if there is a new one, which knows nothing of it.
    let mut link = gateway.link().await;
    eventually("the new link", || worker.stats.links.get() == 1).await;
    let called = call(&worker, send(&[5], "again"));
    assert_eq!(link.next().await, text_to_some(&[5], "again"));
    let (query, _) = question(&mut link).await;
    reply(&link, query, there(&[found(5)]));
    assert_eq!(answer(called).await.expect("it is answered"), SendReply::default());
}

#[tokio::test]
async fn who_is_closed_was_there() {
    let (worker, _gateway, mut link) = linked().await;
    let close = CloseRequest {
        to: to(&[5, 6]),
        at_once: true,
        ..CloseRequest::default()
    };
    let called = call(&worker, close);
    let (who, _) = question(&mut link).await;
    assert!(matches!(link.next().await, Command::Close(_)));
    let (barrier, _) = question(&mut link).await;
    reply(&link, who, there(&[found(5)]));
    assert!(!called.is_finished());
    reply(&link, barrier, Reply::Count(wire::Count { count: 0 }));
    let reply = answer(called).await.expect("it is answered");
    assert_eq!(reply.gone, [id(6)]);
}

#[tokio::test]
async fn what_a_gateway_has_refused_is_seen() {
    let (worker, _gateway, mut link) = linked().await;
    let join = JoinRequest {
        clients: [5, 6].map(id).into(),
        group: "g".into(),
    };
    let called = call(&worker, join);
    assert!(matches!(link.next().await, Command::Join(_)));
    assert!(matches!(link.next().await, Command::Join(_)));
    let (query, _) = question(&mut link).await;
    let member = wire::ClientInfo {
        groups: vec!["g".into()],
        ..found(5)
    };
    reply(&link, query, there(&[member, found(6)]));
    let reply = answer(called).await.expect("it is answered");
    assert_eq!((reply.refused, reply.gone), (vec![id(6)], Vec::new()));
}

#[tokio::test]
async fn what_does_not_fit_is_refused_before_any_of_it_is_sent() {
    let mut worker = Running::with(WorkerSection {
        send_queue: ByteSize::kib(64),
        ..WorkerSection::default()
    });
    let mut gateway = Gateway::start(1).await;
    worker.name(&gateway);
    let mut link = gateway.link().await;
    worker.expect("start, 0 gateways").await;
    eventually("a link", || worker.stats.links.get() == 1).await;

    let problem = answer(call(&worker, send(&[5], &"x".repeat(1 << 20 | 1)))).await;
    assert_eq!(code(&problem.expect_err("it is too large")), "too_large");
    let many: Vec<String> = (0..4096).map(|number| format!("{number:0255}")).collect();
    let wide = SendRequest {
        to: Some(Target {
            groups: many,
            ..Target::default()
        }),
        text: Some("x".repeat(1 << 20)),
        ..SendRequest::default()
    };
    assert_eq!(
        code(&answer(call(&worker, wide)).await.expect_err("it is too large")),
        "too_large"
    );

    // One message may exceed the half that is for pushes, and then there is no room before it has left.
    let cluster = worker.cluster();
    let mut first = Box::pin(send(&[5], &"x".repeat(40 << 10)).carry_out(cluster));
    assert!(poll_once(&mut first).await.is_none());
    let second = poll_once(&mut Box::pin(send(&[5], "x").carry_out(cluster))).await;
    let full = second.expect("it is answered at once").expect_err("it is full");
    assert_eq!(code(&full), "queue_full");
    let confirmed = SendRequest {
        confirm: true,
        ..send(&[5], "x")
    };
    let third = poll_once(&mut Box::pin(confirmed.carry_out(cluster))).await;
    assert_eq!(code(&third.expect("at once").expect_err("it is full")), "queue_full");
    // What was taken is sent, and nothing of what was refused.
    assert!(matches!(link.next().await, Command::Send(_)));
    let (query, _) = question(&mut link).await;
    reply(&link, query, there(&[found(5)]));
    assert_eq!(
        soon("an answer", first).await.expect("it is answered"),
        SendReply::default()
    );
    let called = call(&worker, send(&[5], "again"));
    assert_eq!(link.next().await, text_to_some(&[5], "again"));
    let (query, _) = question(&mut link).await;
    reply(&link, query, there(&[found(5)]));
    answer(called).await.expect("it is answered");
}

/// A request with one connection.
async fn post(socket: &mut TcpStream, path: &str, body: &str) {
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    socket.write_all(request.as_bytes()).await.expect("it is connected");
}

/// What comes up to a text, or the end.
async fn read_until(socket: &mut TcpStream, end: &str) -> String {
    let mut all = String::new();
    soon("an answer", async {
        let mut some = [0; 1024];
        while !all.ends_with(end) {
            match socket.read(&mut some).await {
                Ok(0) | Err(_) => break,
                Ok(read) => all.push_str(&String::from_utf8_lossy(&some[..read])),
            }
        }
    })
    .await;
    all
}

#[tokio::test]
async fn a_worker_that_stops_answers_those_who_push_before_its_links_drain() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    let mut worker = Running::with_push(WorkerSection::default(), listener);
    let mut gateway = Gateway::start(1).await;
    worker.name(&gateway);
    let mut link = gateway.link().await;
    worker.expect("start, 0 gateways").await;
    eventually("a link", || worker.stats.links.get() == 1).await;

    // Accepted, by the time that the next one is answered, and has said nothing yet.
    let mut new = TcpStream::connect(address).await.expect("somebody listens");
    let mut idle = TcpStream::connect(address).await.expect("somebody listens");
    post(&mut idle, "/api/query/count", "{}").await;
    let (query, _) = question(&mut link).await;
    reply(&link, query, Reply::Count(wire::Count { count: 7 }));
    let answer = read_until(&mut idle, "}").await;
    assert!(answer.ends_with(r#"{"count":7,"missing":[]}"#), "{answer}");
    let mut busy = TcpStream::connect(address).await.expect("somebody listens");
    let body = serde_json::json!({"to": {"clients": [id(5)]}, "text": "hello"}).to_string();
    post(&mut busy, "/api/send", &body).await;
    assert_eq!(link.next().await, text_to_some(&[5], "hello"));
    let (query, _) = question(&mut link).await;

    worker.request_stop();
    assert_eq!(read_until(&mut idle, "never").await, "", "one that is idle is closed");
    post(&mut new, "/api/send", &body).await;
    assert_eq!(link.next().await, text_to_some(&[5], "hello"));
    let (other, _) = question(&mut link).await;
    for (socket, query) in [(&mut new, other), (&mut busy, query)] {
        reply(&link, query, there(&[found(5)]));
        let answer = read_until(socket, "never").await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with(r#""missing":[]}"#),
            "{answer}"
        );
    }
    assert_eq!(link.next().await, Command::Draining(wire::Draining {}));
    link.push(wire::Event {
        body: Some(Event::Drained(wire::Drained {})),
        ..wire::Event::default()
    });
    link.ended().await;
    link.end();
    worker.stopped().await;
}

async fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|context| match std::pin::Pin::new(&mut *future).poll(context) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}
