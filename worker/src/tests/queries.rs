//! Questions to all gateways.

use std::time::Duration;

use meepo_proto::link as wire;
use meepo_proto::link::command::Body as Command;
use meepo_proto::link::event::Body as Event;

use super::Running;
use super::gateway::{Gateway, Link, text_to};
use crate::instance::WorkerSection;

/// Answers the next question with a count.
async fn answer_count(link: &mut Link, count: u64) {
    loop {
        if let Command::Query(query) = link.next().await {
            assert!(matches!(query.body, Some(wire::query::Body::Count(_))));
            let body = Some(wire::reply::Body::Count(wire::Count { count }));
            let reply = wire::Reply { query: query.id, body };
            link.event(0, Event::Reply(reply));
            return;
        }
    }
}

#[tokio::test]
async fn answers_are_joined_and_silence_is_told() {
    let mut worker = Running::with(WorkerSection {
        query_timeout: Duration::from_millis(300),
        ..WorkerSection::default()
    });
    let mut links = Vec::new();
    for id in 1..=3 {
        let mut gateway = Gateway::start(id).await;
        worker.name(&gateway);
        links.push((gateway.link().await, gateway));
    }
    worker.expect("start, 0 gateways").await;
    super::eventually("all links", || worker.stats.links.get() == 3).await;
    let [(first, _), (second, _), (third, _)] = &mut links[..] else {
        panic!("there are three");
    };
    first.open(1).await;

    // All answer.
    let seq = first.message(1, "online");
    answer_count(first, 3).await;
    answer_count(second, 4).await;
    answer_count(third, 5).await;
    assert_eq!(first.until_done(seq).await, [text_to(1, "12 0")]);

    // One does not, and the link of one ends before it has answered.
    let seq = first.message(1, "online");
    answer_count(first, 3).await;
    third.end();
    assert_eq!(first.until_done(seq).await, [text_to(1, "3 2")]);
}
