//! Questions to all gateways.

use std::time::Duration;

use meepo_proto::link as wire;
use meepo_proto::link::command::Body as Command;
use meepo_proto::link::event::Body as Event;
use meepo_proto::link::query::Body as Question;
use meepo_proto::link::reply::Body as Reply;
use meepo_proto::{ClientId, GatewayId};

use super::Running;
use super::gateway::{Gateway, Link, text_to};
use crate::WorkerSection;
use crate::{Answer, Member};

/// Answers the next question.
async fn answer(link: &mut Link, reply: impl FnOnce(Question) -> Reply) {
    loop {
        if let Command::Query(query) = link.next().await {
            let body = reply(query.body.expect("it asks something"));
            let reply = wire::Reply {
                query: query.id,
                body: Some(body),
            };
            link.event_of_link(Event::Reply(reply));
            return;
        }
    }
}

fn count(count: u64) -> impl FnOnce(Question) -> Reply {
    move |question| {
        assert!(matches!(question, Question::Count(_)));
        Reply::Count(wire::Count { count })
    }
}

fn groups(groups: &[(&str, u64)]) -> Reply {
    Reply::Groups(wire::Groups {
        groups: groups
            .iter()
            .map(|(name, members)| (name.to_string(), *members))
            .collect(),
    })
}

async fn linked_to<const N: usize>(query_timeout: Duration) -> (Running, Vec<Gateway>, [Link; N]) {
    let mut worker = Running::with(WorkerSection {
        query_timeout,
        ..WorkerSection::default()
    });
    let (mut gateways, mut links) = (Vec::new(), Vec::new());
    for id in 1..=N as u64 {
        let mut gateway = Gateway::start(id).await;
        worker.name(&gateway);
        links.push(gateway.link().await);
        gateways.push(gateway);
    }
    worker.expect("start, 0 gateways").await;
    super::eventually("all links", || worker.stats.links.get() == N as u64).await;
    let links = links.try_into().ok().expect("there are as many");
    (worker, gateways, links)
}

#[tokio::test]
async fn a_handler_that_asks_does_not_wait_in_vain_for_those_who_are_silent() {
    let (_worker, _gateways, [mut first, mut second, mut third]) = linked_to(Duration::from_millis(300)).await;
    first.open(1).await;

    // All answer.
    let seq = first.message(1, "online");
    answer(&mut first, count(3)).await;
    answer(&mut second, count(4)).await;
    answer(&mut third, count(5)).await;
    assert_eq!(first.until_done(seq).await, [text_to(1, "12 0")]);

    // One does not, and the link of one ends before it has answered.
    let seq = first.message(1, "online");
    answer(&mut first, count(3)).await;
    third.end();
    assert_eq!(first.until_done(seq).await, [text_to(1, "3 2")]);
}

#[tokio::test]
async fn members_groups_and_sessions_are_joined() {
    let (worker, _gateways, [mut first, mut second]) = linked_to(super::PATIENCE).await;
    let cluster = worker.cluster();
    let id = |gateway, number| ClientId::new(GatewayId(gateway), number);

    let member = |client, name: &str| {
        let session = [("name".to_owned(), name.to_owned())].into();
        move |question| {
            let Question::Select(select) = question else {
                panic!("it selects")
            };
            assert_eq!(select.filter.map(|filter| filter.groups), Some(vec!["g".to_owned()]));
            assert!(select.session && select.uid && !select.groups);
            let found = wire::ClientInfo {
                client,
                session,
                uid: Some("u".into()),
                ..wire::ClientInfo::default()
            };
            Reply::Selected(wire::Selected { clients: vec![found] })
        }
    };
    let (members, ..) = tokio::join!(
        cluster.members("g"),
        answer(&mut first, member(5, "ann")),
        answer(&mut second, member(5, "bob")),
    );
    assert!(members.is_complete());
    let of = |id, name: &str| Member {
        id,
        uid: Some("u".into()),
        groups: Default::default(),
        session: [("name".to_owned(), name.to_owned())].into(),
    };
    assert_eq!(members.value, [of(id(1, 5), "ann"), of(id(2, 5), "bob")]);

    let (both, ..) = tokio::join!(
        cluster.group_sizes(),
        answer(&mut first, |_| groups(&[("a", 1), ("b", 2)])),
        answer(&mut second, |_| groups(&[("b", 3)])),
    );
    let sum = [("a".to_owned(), 1), ("b".to_owned(), 5)].into();
    let missing = Vec::new();
    assert_eq!(both, Answer { value: sum, missing });

    // Only the client's own gateway is asked.
    let session = |online| {
        move |question| {
            let Question::Select(select) = question else {
                panic!("it selects")
            };
            assert_eq!(select.filter.map(|filter| filter.clients), Some(vec![7]));
            let found = wire::ClientInfo {
                client: 7,
                session: [("k".to_owned(), "v".to_owned())].into(),
                ..wire::ClientInfo::default()
            };
            let clients = if online { vec![found] } else { vec![] };
            Reply::Selected(wire::Selected { clients })
        }
    };
    let (here, ()) = tokio::join!(cluster.session(id(2, 7)), answer(&mut second, session(true)));
    assert_eq!(
        here.value.and_then(|session| session.get("k").cloned()).as_deref(),
        Some("v")
    );
    let (gone, ()) = tokio::join!(cluster.session(id(2, 7)), answer(&mut second, session(false)));
    assert_eq!((gone.value, gone.missing), (None, vec![]));
    // A gateway that nobody knows has gone, and its clients with it.
    let never = cluster.session(id(3, 7)).await;
    assert_eq!((never.value, never.missing), (None, vec![]));
}

#[tokio::test]
async fn a_selection_goes_to_those_who_can_have_such_clients() {
    let (worker, _gateways, [mut first, mut second]) = linked_to(super::PATIENCE).await;
    let cluster = worker.cluster();
    let id = |gateway, number| ClientId::new(GatewayId(gateway), number);

    let asked = |expected: wire::Filter, count| {
        move |question| {
            assert_eq!(question, Question::Count(expected));
            Reply::Count(wire::Count { count })
        }
    };
    let filter = |clients: &[u64]| wire::Filter {
        clients: clients.to_vec(),
        uids: vec!["ann".into()],
        groups: vec!["a".into(), "b".into()],
        session: [("k".to_owned(), "v".to_owned())].into(),
    };
    let select = cluster.select().uid("ann").group("a").group("b").session("k", "v");
    let (both, ..) = tokio::join!(
        select.count(),
        answer(&mut first, asked(filter(&[]), 1)),
        answer(&mut second, asked(filter(&[]), 2)),
    );
    assert_eq!(both.value, 3);
    let narrowed = select.client(id(2, 5)).client(id(2, 6)).client(id(3, 1));
    let (one, ()) = tokio::join!(narrowed.count(), answer(&mut second, asked(filter(&[5, 6]), 2)));
    assert_eq!((one.value, one.missing), (2, vec![]));

    let uids = |uids: &'static [&'static str]| {
        move |question| {
            assert!(matches!(question, Question::Uids(_)));
            Reply::Uids(wire::Uids {
                uids: uids.iter().map(ToString::to_string).collect(),
            })
        }
    };
    let (all, ..) = tokio::join!(
        cluster.online_uids(),
        answer(&mut first, uids(&["ann", "bob"])),
        answer(&mut second, uids(&["ann", "cid"])),
    );
    assert_eq!(
        all.value.into_iter().collect::<Vec<_>>(),
        ["ann", "bob", "cid"],
        "each once"
    );
}
