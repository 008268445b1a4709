//! The session: cached here, merged at the gateway.

use meepo_proto::link as wire;
use meepo_proto::link::command::Body as Command;
use meepo_proto::link::event::Body as Event;
use meepo_proto::link::query::Body as Question;
use meepo_proto::link::reply::Body as Reply;
use meepo_proto::{ClientId, ClientNumber, GatewayId};

use super::gateway::{Link, attach, message, text_to};
use super::{Running, eventually};
#[cfg(feature = "webhook")]
use crate::webhook::commands;

const ONE: ClientId = ClientId {
    gateway: GatewayId(1),
    number: ClientNumber(1),
};

fn set_to(client: u64, key: &str, value: &str) -> Command {
    Command::Session(wire::SessionUpdate {
        client,
        set: [(key.to_owned(), value.to_owned())].into(),
        remove: Vec::new(),
        clear: false,
    })
}

/// The next question, which is about a client's session.
async fn question(link: &mut Link) -> u64 {
    let Command::Query(query) = command(link).await else {
        panic!("not a question")
    };
    let of_one = wire::Select {
        filter: Some(wire::Filter {
            clients: vec![1],
            ..wire::Filter::default()
        }),
        session: true,
        ..wire::Select::default()
    };
    assert_eq!(query.body, Some(Question::Select(of_one)));
    query.id
}

fn answer(link: &mut Link, query: u64, session: &[(&str, &str)]) {
    let session = attach(session).session;
    let found = wire::ClientInfo {
        client: 1,
        session,
        ..wire::ClientInfo::default()
    };
    let body = Some(Reply::Selected(wire::Selected { clients: vec![found] }));
    link.event_of_link(Event::Reply(wire::Reply { query, body }));
}

fn refuse(link: &mut Link) {
    let refused = wire::Refused {
        command: "session".into(),
        why: wire::RefusedWhy::OverLimit.into(),
        ..wire::Refused::default()
    };
    link.event(1, Event::Refused(refused));
}

/// The next command that is not `done`.
async fn command(link: &mut Link) -> Command {
    loop {
        match link.next().await {
            Command::Done(_) => {}
            command => return command,
        }
    }
}

#[tokio::test]
async fn the_copy_is_read_and_changes_are_merged() {
    let (mut worker, _gateway, mut link) = Running::linked().await;
    link.attached(1, Some(attach(&[("name", "ann"), ("room", "a")])), message("get name"));
    let set = link.message(1, "set room b");
    assert_eq!(link.until_done(set).await, [text_to(1, "ann"), set_to(1, "room", "b")]);

    // A read right behind a write, without the gateway's word.
    let get = link.message(1, "get room");
    assert_eq!(link.until_done(get).await, [text_to(1, "b")]);

    // Another worker changes it.
    let change = wire::SessionChanged {
        set: [("mood".to_owned(), "good".to_owned())].into(),
        // What is set is there afterwards.
        remove: vec!["room".into(), "mood".into()],
        clear: false,
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
        clear: false,
    });
    assert_eq!(link.until_done(remove).await, [update]);
    while worker.told().await != "1 remove name" {}
}

#[tokio::test]
async fn what_is_changed_through_the_cluster_is_in_the_copy() {
    let (worker, _gateway, mut link) = Running::linked().await;
    link.hand_over(1, &[("room", "a"), ("name", "ann")]);
    eventually("the client", || worker.stats.connections.get() == 1).await;
    let client = worker.cluster().client(ONE);
    client.set("room", "b");
    client.remove("name");
    assert_eq!(link.next().await, set_to(1, "room", "b"));
    assert!(matches!(link.next().await, Command::Session(update) if update.remove == ["name"]));
    link.message(1, "get room");
    let get = link.message(1, "get name");
    assert_eq!(link.until_done(get).await, [text_to(1, "b"), text_to(1, "")]);

    // What cannot be sent is not in the copy either.
    client.set("room", "x".repeat(2 << 20));
    let get = link.message(1, "get room");
    assert_eq!(link.until_done(get).await, [text_to(1, "b")]);
    assert_eq!(worker.stats.failed_sends.get(), 1);
}

#[tokio::test]
async fn what_a_handler_does_after_its_link_has_ended_is_refused() {
    let (mut worker, mut gateway, mut link) = Running::linked().await;
    link.attached(1, Some(attach(&[("room", "a")])), message("late-set room b"));
    worker.expect("1 late-set room b").await;
    link.end();
    link.ended().await;
    let mut again = gateway.link().await;
    again.hand_over(1, &[("room", "a")]);
    let get = again.message(1, "get room");
    eventually("the client", || worker.stats.messages_in.get() == 2).await;
    worker.let_pass(1);
    let commands = again.until_done(get).await;
    // The gateway has given its event to another worker: nothing of it is seen here.
    assert_eq!(commands, [text_to(1, "a")]);
    assert_eq!(worker.stats.failed_sends.get(), 2);
}

#[tokio::test]
async fn a_refused_change_is_taken_back() {
    let (worker, _gateway, mut link) = Running::linked().await;
    link.hand_over(1, &[("room", "a")]);
    eventually("the client", || worker.stats.connections.get() == 1).await;
    let client = worker.cluster().client(ONE);
    client.set("room", "too much");
    client.set("mood", "too much");
    for key in ["room", "mood"] {
        assert_eq!(command(&mut link).await, set_to(1, key, "too much"));
    }
    refuse(&mut link);
    refuse(&mut link);
    // It is asked once, and once more as the copy has changed meanwhile.
    let query = question(&mut link).await;
    client.set("name", "ann");
    assert_eq!(command(&mut link).await, set_to(1, "name", "ann"));
    answer(&mut link, query, &[("room", "a")]);
    let query = question(&mut link).await;
    answer(&mut link, query, &[("room", "a"), ("name", "ann")]);
    let mut get = link.message(1, "get room");
    while link.until_done(get).await != [text_to(1, "a")] {
        get = link.message(1, "get room");
    }
    for (key, value) in [("mood", ""), ("name", "ann")] {
        let get = link.message(1, &format!("get {key}"));
        assert_eq!(link.until_done(get).await, [text_to(1, value)]);
    }
    assert_eq!(worker.stats.failed_sends.get(), 2);
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

#[cfg(feature = "webhook")]
#[tokio::test]
async fn what_a_webhook_changes_it_changes_at_once() {
    let (worker, _gateway, mut link) = Running::linked().await;
    link.hand_over(1, &[("guest", "yes"), ("other", "1")]);
    let client = worker.client(1).await;
    let answer = r#"[{"do": "session", "remove": ["guest", "name"], "set": {"name": "Ann"}}]"#;
    for change in commands::read(answer.as_bytes(), 1000).expect("it is a list") {
        change.carry_out(&client);
    }
    let update = Command::Session(wire::SessionUpdate {
        client: 1,
        set: [("name".to_owned(), "Ann".to_owned())].into(),
        remove: vec!["guest".into(), "name".into()],
        clear: false,
    });
    assert_eq!(command(&mut link).await, update);
    assert_eq!((client.get("guest"), client.get("name")), (None, Some("Ann".into())));
}
