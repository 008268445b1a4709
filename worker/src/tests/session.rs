//! The session: cached here, merged at the gateway.

use meepo_proto::link as wire;
use meepo_proto::link::command::Body as Command;
use meepo_proto::link::event::Body as Event;

use super::Running;
use super::gateway::{attach, message, text_to};

#[tokio::test]
async fn the_copy_is_read_and_changes_are_merged() {
    let (mut worker, _gateway, mut link) = Running::linked().await;
    link.attached(1, Some(attach(&[("name", "ann"), ("room", "a")])), message("get name"));
    let set = link.message(1, "set room b");
    let update = Command::Session(wire::SessionUpdate {
        client: 1,
        set: [("room".to_owned(), "b".to_owned())].into(),
        remove: Vec::new(),
    });
    assert_eq!(link.until_done(set).await, [text_to(1, "ann"), update]);

    // A read right behind a write, without the gateway's word.
    let get = link.message(1, "get room");
    assert_eq!(link.until_done(get).await, [text_to(1, "b")]);

    // Another worker changes it.
    let change = wire::SessionChanged {
        set: [("mood".to_owned(), "good".to_owned())].into(),
        remove: vec!["room".into()],
    };
    link.event(1, Event::SessionChanged(change));
    link.message(1, "get mood");
    link.message(1, "get room");
    let get = link.message(1, "get name");
    let texts = ["good", "", "ann"].map(|text| text_to(1, text));
    assert_eq!(link.until_done(get).await, texts);

    let remove = link.message(1, "remove name");
    let update = Command::Session(wire::SessionUpdate {
        client: 1,
        set: Default::default(),
        remove: vec!["name".into()],
    });
    assert_eq!(link.until_done(remove).await, [update]);
    while worker.told().await != "1 remove name" {}
}

#[tokio::test]
async fn a_client_that_moves_away_is_forgotten_and_comes_back_as_it_is_then() {
    let (mut worker, _gateway, mut link) = Running::linked().await;
    let get = link.attached(1, Some(attach(&[("name", "ann")])), message("get name"));
    assert_eq!(link.until_done(get).await, [text_to(1, "ann")]);
    let detached = link.event(1, Event::Detached(wire::Detached {}));
    link.until_done(detached).await;
    let again = link.attached(1, Some(attach(&[("name", "bob")])), message("get name"));
    assert_eq!(link.until_done(again).await, [text_to(1, "bob")]);
    assert_eq!(worker.stats.connections.get(), 1);
    worker.expect("1 get name").await;
    worker.expect("1 get name").await;
    worker.expect_no_more();
}
