//! Each call over gRPC.

use std::collections::BTreeSet;

use meepo_proto::push::{self as api, Receipt};
use meepo_tests::{Cluster, Incoming, wait_for};
use tonic::{Code, Request, Status};

use super::{SETTINGS, ask, grpc, guest, to, with_token};

#[tokio::test]
async fn what_is_too_long_is_refused_as_it_is_written() {
    let node = meepo_tests::Node::test()
        .set(
            "worker",
            "push = { address = \"{ip}:19908\", token = \"second\", max_request = \"8KiB\" }",
        )
        .start()
        .await;
    let mut push = grpc(node.host().push()).await;
    let everyone = api::Target {
        all: true,
        ..api::Target::default()
    };
    let fits = push.send(to(everyone.clone(), &"x".repeat(8000))).await;
    assert!(fits.is_ok(), "{fits:?}");
    let refused = push.send(to(everyone, &"x".repeat(9000))).await;
    assert_eq!(refused.expect_err("it is over max_request").code(), Code::OutOfRange);
}

#[tokio::test]
async fn every_call_works_over_grpc() {
    let cluster = Cluster::with_workers(SETTINGS).await;
    let (mut ann, ann_id) = guest(cluster.clients()[0]).await;
    let (mut bob, bob_id) = guest(cluster.clients()[1]).await;
    let mut push = grpc(cluster.workers[0].host().push()).await;
    let ids = vec![ann_id.clone(), bob_id.clone()];
    let fine = api::CommandReply::default();

    let join = api::JoinRequest {
        clients: ids.clone(),
        group: "red".into(),
    };
    assert_eq!(push.join(ask(join)).await.expect("it works").into_inner(), fine);
    let bind = api::BindRequest {
        clients: vec![ann_id.clone()],
        uid: "ann".into(),
    };
    assert_eq!(push.bind(ask(bind)).await.expect("it works").into_inner(), fine);
    let update = api::UpdateSessionRequest {
        client: ann_id.clone(),
        set: [("a".into(), "1".into())].into(),
        remove: Vec::new(),
    };
    assert_eq!(
        push.update_session(ask(update)).await.expect("it works").into_inner(),
        fine
    );
    let replace = api::ReplaceSessionRequest {
        client: ann_id.clone(),
        session: [("b".into(), "2".into())].into(),
    };
    assert_eq!(
        push.replace_session(ask(replace)).await.expect("it works").into_inner(),
        fine
    );
    let session = push
        .get_session(ask(api::GetSessionRequest { client: ann_id.clone() }))
        .await;
    let session = session.expect("it works").into_inner();
    assert_eq!(
        (session.online, session.session),
        (true, [("b".into(), "2".into())].into())
    );

    let red = || {
        Some(api::Filter {
            groups: vec!["red".into()],
            ..api::Filter::default()
        })
    };
    let count = push
        .count(ask(api::CountRequest { filter: red() }))
        .await
        .expect("it works");
    assert_eq!(count.into_inner().count, 2);
    let online = api::OnlineRequest {
        uid: Some("ann".into()),
        client: None,
    };
    assert!(push.online(ask(online)).await.expect("it works").into_inner().online);
    let select = api::SelectRequest {
        filter: red(),
        uid: true,
        groups: true,
        session: true,
    };
    let found = push.select(ask(select)).await.expect("it works").into_inner();
    let found: BTreeSet<_> = found
        .clients
        .into_iter()
        .map(|member| (member.id, member.uid))
        .collect();
    assert_eq!(
        found,
        [(ann_id.clone(), Some("ann".into())), (bob_id.clone(), None)].into()
    );
    let uids = push
        .uids(ask(api::UidsRequest { filter: None }))
        .await
        .expect("it works");
    assert_eq!(uids.into_inner().uids, ["ann"]);
    let groups = push.groups(ask(api::GroupsRequest {})).await.expect("it works");
    assert_eq!(groups.into_inner().groups, [("red".into(), 2)].into());

    let red_but_ann = api::Target {
        groups: vec!["red".into()],
        except_uids: vec!["ann".into()],
        ..api::Target::default()
    };
    push.send(to(red_but_ann, "hello")).await.expect("it works");
    assert_eq!(bob.text().await, "hello");
    let mut binary = to(
        api::Target {
            all: true,
            ..api::Target::default()
        },
        "",
    )
    .into_inner();
    (binary.text, binary.binary) = (None, Some(vec![1, 2].into()));
    push.send(ask(binary)).await.expect("it works");
    assert_eq!(ann.next().await, Incoming::Binary(vec![1, 2]));
    assert_eq!(bob.next().await, Incoming::Binary(vec![1, 2]));
    let only_ann = api::Target {
        clients: vec![ann_id.clone()],
        ..api::Target::default()
    };
    let mut confirmed = to(only_ann.clone(), "sure").into_inner();
    confirmed.confirm = true;
    let confirmed = push.send(ask(confirmed)).await.expect("it works").into_inner();
    assert_eq!(confirmed.receipt(), Receipt::Delivered);
    assert_eq!(ann.text().await, "sure");

    let unbind = api::UnbindRequest { clients: ids.clone() };
    assert_eq!(push.unbind(ask(unbind)).await.expect("it works").into_inner(), fine);
    let leave = api::LeaveRequest {
        clients: vec![ann_id.clone()],
        group: "red".into(),
    };
    assert_eq!(push.leave(ask(leave)).await.expect("it works").into_inner(), fine);
    let dissolve = api::DissolveRequest { group: "red".into() };
    assert_eq!(push.dissolve(ask(dissolve)).await.expect("it works").into_inner(), fine);
    let groups = push.groups(ask(api::GroupsRequest {})).await.expect("it works");
    assert!(groups.into_inner().groups.is_empty());
    let close = api::CloseRequest {
        to: Some(only_ann.clone()),
        code: Some(4001),
        reason: Some("bye".into()),
        at_once: false,
    };
    assert_eq!(push.close(ask(close)).await.expect("it works").into_inner(), fine);
    assert_eq!(ann.closed().await, (4001, "bye".into()));
    wait_for("the client is gone", async || {
        let sent = push
            .send(to(only_ann.clone(), "x"))
            .await
            .expect("it works")
            .into_inner();
        (sent.gone == [ann_id.clone()]).then_some(())
    })
    .await;

    // What is wrong has a code of gRPC.
    let nobody = push
        .send(to(api::Target::default(), "x"))
        .await
        .expect_err("nobody is named");
    assert_eq!((nobody.code(), field(&nobody)), (Code::InvalidArgument, "to"));
    let nonsense = api::Target {
        clients: vec![bob_id.clone(), "nonsense".into()],
        ..api::Target::default()
    };
    let nonsense = push.send(to(nonsense, "x")).await.expect_err("it is no id");
    assert_eq!(
        (nonsense.code(), field(&nonsense)),
        (Code::InvalidArgument, "to.clients[1]")
    );
    for token in ["", "wrong", "firs", "first2"] {
        let refused = push.groups(with_token(token, api::GroupsRequest {})).await;
        assert_eq!(
            refused.expect_err("it is refused").code(),
            Code::Unauthenticated,
            "{token:?}"
        );
    }
    let refused = push.groups(Request::new(api::GroupsRequest {})).await;
    assert_eq!(refused.expect_err("it is refused").code(), Code::Unauthenticated);
    assert_eq!(bob.ask("still here").await, "still here");
}

/// What a message begins with.
fn field(status: &Status) -> &str {
    status.message().split(": ").next().unwrap_or_default()
}
