//! Whom a message goes to, from outside of a handler.

use meepo_proto::link as wire;
use meepo_proto::link::command::Body as Command;
use meepo_proto::link::event::Body as Event;
use meepo_proto::link::query::Body as Question;
use meepo_proto::link::reply::Body as Reply;
use meepo_proto::link::send::To;
use meepo_proto::{ClientId, ClientNumber, GatewayId};

use super::gateway::Gateway;
use super::{Running, eventually};
use crate::api::targets::only;
use crate::{CloseCause, CloseReason, Receipt};

fn id(gateway: u64, number: u64) -> ClientId {
    ClientId::new(GatewayId(gateway), number)
}

fn sent(text: &str, to: wire::Target) -> Command {
    Command::Send(wire::Send {
        payload: text.to_owned().into(),
        binary: false,
        to: Some(To::Target(Box::new(to))),
    })
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn each_gateway_gets_its_part() {
    let worker = Running::start();
    let (mut first, mut second) = (Gateway::start(1).await, Gateway::start(2).await);
    worker.name(&first);
    worker.name(&second);
    let (mut one, mut two) = (first.link().await, second.link().await);
    eventually("both links", || worker.stats.links.get() == 2).await;
    let cluster = worker.cluster();

    cluster
        .group("g")
        .except(id(2, 7))
        .except(id(2, 8))
        .send("to the group");
    let mut group = wire::Target {
        groups: strings(&["g"]),
        ..wire::Target::default()
    };
    assert_eq!(one.next().await, sent("to the group", group.clone()));
    group.except = vec![7, 8];
    assert_eq!(two.next().await, sent("to the group", group));

    cluster.all().except(id(1, 5)).send("to all");
    let mut everyone = wire::Target {
        everyone: true,
        ..wire::Target::default()
    };
    assert_eq!(two.next().await, sent("to all", everyone.clone()));
    everyone.except = vec![5];
    assert_eq!(one.next().await, sent("to all", everyone));

    let uids = cluster.uids(["ann", "bob"]).except_uid("cid");
    uids.send("to users");
    uids.close(4001, "enough");
    uids.destroy();
    let target = Some(wire::Target {
        uids: strings(&["ann", "bob"]),
        except_uids: strings(&["cid"]),
        ..wire::Target::default()
    });
    for link in [&mut one, &mut two] {
        assert_eq!(link.next().await, sent("to users", target.clone().expect("it is some")));
        let close = |code, reason: &str, at_once| {
            let (target, reason) = (target.clone(), reason.to_owned());
            Command::Close(Box::new(wire::Close {
                target,
                code,
                reason,
                at_once,
            }))
        };
        assert_eq!(link.next().await, close(Some(4001), "enough", false));
        assert_eq!(link.next().await, close(None, "", true));
    }
    cluster.dissolve("g");
    for link in [&mut one, &mut two] {
        assert_eq!(
            link.next().await,
            Command::Dissolve(wire::Dissolve { group: "g".into() })
        );
    }

    let some = [id(1, 1), id(2, 1), id(1, 2), id(3, 1)];
    cluster.clients(some).except(id(1, 2)).send("to some");
    assert_eq!(one.next().await, sent("to some", only(ClientNumber(1))));
    assert_eq!(two.next().await, sent("to some", only(ClientNumber(1))));
    // Nobody knows a gateway 3.
    assert_eq!(worker.stats.failed_sends.get(), 1);
    assert_eq!(worker.stats.messages_out.get(), 4);

    // A gateway that lives and has no link is told as a failed send, too.
    two.end();
    eventually("the end of a link", || worker.stats.links.get() == 1).await;
    cluster.all().send("to all");
    assert_eq!(worker.stats.failed_sends.get(), 2);
}

#[tokio::test]
async fn one_client_can_be_told_all() {
    let (worker, _gateway, mut link) = Running::linked().await;
    eventually("the link", || worker.stats.links.get() == 1).await;
    let client = worker.cluster().client(id(1, 9));
    client.send(vec![1, 2]);
    client.join("g");
    client.leave("g");
    client.set("k", "v");
    client.bind("ann");
    client.unbind();
    client.replace_session([("a", "b")]);
    client.close(4001, "ä".repeat(100));
    client.close(1006, "");
    worker.cluster().client(id(2, 9)).close(4000, "nobody");

    let Command::Send(send) = link.next().await else {
        panic!("a send comes first")
    };
    assert!(send.binary);
    assert_eq!((&send.payload[..], send.to), (&[1, 2][..], Some(To::Client(9))));
    let group = || "g".to_owned();
    let (client, group_of) = (9, group());
    assert_eq!(
        link.next().await,
        Command::Join(wire::Join {
            client,
            group: group_of
        })
    );
    assert_eq!(
        link.next().await,
        Command::Leave(wire::Leave { client, group: group() })
    );
    let set = [("k".to_owned(), "v".to_owned())].into();
    let remove = Vec::new();
    assert_eq!(
        link.next().await,
        Command::Session(wire::SessionUpdate {
            client,
            set,
            remove,
            clear: false
        })
    );
    let uid = "ann".to_owned();
    assert_eq!(link.next().await, Command::Bind(wire::Bind { client, uid }));
    assert_eq!(link.next().await, Command::Unbind(wire::Unbind { client }));
    let set = [("a".to_owned(), "b".to_owned())].into();
    let replaced = wire::SessionUpdate {
        client,
        set,
        clear: true,
        ..wire::SessionUpdate::default()
    };
    assert_eq!(link.next().await, Command::Session(replaced));
    // A reason is cut between two characters, and a code that nobody may send becomes 1000.
    for (code, reason) in [(4001, "ä".repeat(61)), (1000, String::new())] {
        let (target, at_once) = (Some(only(ClientNumber(client))), false);
        assert_eq!(
            link.next().await,
            Command::Close(Box::new(wire::Close {
                target,
                code: Some(code),
                reason,
                at_once
            }))
        );
    }
    assert_eq!(worker.stats.failed_sends.get(), 1);
}

#[tokio::test]
async fn what_became_of_a_message_is_told() {
    let (worker, _gateway, mut link) = Running::linked().await;
    eventually("the link", || worker.stats.links.get() == 1).await;
    for (said, heard) in [
        (wire::Receipt::Delivered, Receipt::Delivered),
        (wire::Receipt::ClientGone, Receipt::Gone),
        (wire::Receipt::BufferFull, Receipt::Full),
        (wire::Receipt::NotValid, Receipt::Refused),
    ] {
        let cluster = worker.cluster().clone();
        let asked = tokio::spawn(async move { cluster.client(id(1, 9)).send_and_confirm("hello").await });
        let query = loop {
            if let Command::Query(query) = link.next().await {
                break query;
            }
        };
        let Some(Question::Confirm(send)) = query.body else {
            panic!("it is about a message")
        };
        assert_eq!((&send.payload[..], send.to), (&b"hello"[..], Some(To::Client(9))));
        let body = Some(Reply::Receipt(said.into()));
        link.event_of_link(Event::Reply(wire::Reply { query: query.id, body }));
        assert_eq!(asked.await.expect("no panic"), heard);
    }
    assert_eq!(
        worker.cluster().client(id(2, 9)).send_and_confirm("hello").await,
        Receipt::Gone
    );
    assert_eq!(worker.stats.failed_sends.get(), 4);
}

#[test]
fn a_close_reason_reads_well() {
    let reason = |code, text: &str| CloseReason {
        cause: CloseCause::Kicked,
        code,
        text: text.into(),
    };
    assert_eq!(reason(Some(4001), "rude").to_string(), "kicked 4001: rude");
    assert_eq!(reason(None, "").to_string(), "kicked");
}
