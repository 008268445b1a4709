//! Pushing from outside, over HTTP and gRPC.

#[path = "push/description.rs"]
mod description;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use meepo_proto::push::push_client::PushClient;
use meepo_proto::push::{self as api, Delivery};
use meepo_tests::http::{self, Response};
use meepo_tests::{Cluster, Incoming, Node, Ws, processes, wait_for};
use meepo_worker::ClientId;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

const SETTINGS: &str = "push = { address = \"{ip}:19908\", token = [\"first\", \"second\"] }";

async fn post(address: SocketAddr, path: &str, body: &Value) -> (u16, Value) {
    let response = http::post(address, path, "first", &body.to_string()).await;
    (response.status, body_of(&response))
}

fn body_of(response: &Response) -> Value {
    serde_json::from_str(&response.body).unwrap_or_else(|error| panic!("{error} in {response:?}"))
}

/// Calls, and expects that it is done.
async fn done(address: SocketAddr, path: &str, body: Value) -> Value {
    let (status, answer) = post(address, path, &body).await;
    assert_eq!(status, 200, "{path} {body}: {answer}");
    answer
}

/// A command of which nothing is to be told.
async fn clean(address: SocketAddr, path: &str, body: Value) {
    let answer = done(address, path, body).await;
    assert_eq!(answer, json!({"gone": [], "refused": [], "missing": []}), "{path}");
}

/// A client that is connected, and its id.
async fn guest(address: SocketAddr) -> (Ws, String) {
    let mut socket = Ws::connect(address).await;
    let id = socket.ask("id").await;
    (socket, id)
}

async fn grpc(address: SocketAddr) -> PushClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    PushClient::new(endpoint.connect().await.expect("somebody listens"))
}

fn with_token<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {token}").parse().expect("it is ASCII");
    request.metadata_mut().insert("authorization", value);
    request
}

/// A message with the right token.
fn ask<T>(message: T) -> Request<T> {
    with_token("second", message)
}

fn to(target: api::Target, text: &str) -> Request<api::SendRequest> {
    ask(api::SendRequest {
        to: Some(target),
        text: Some(text.into()),
        ..api::SendRequest::default()
    })
}

#[tokio::test]
async fn every_call_works_over_http() {
    let cluster = Cluster::with_workers(SETTINGS).await;
    let (mut ann, ann_id) = guest(cluster.clients()[0]).await;
    let (mut bob, bob_id) = guest(cluster.clients()[1]).await;
    // Each call comes to another worker.
    let pushes: Vec<_> = cluster.workers.iter().map(|worker| worker.host().push()).collect();
    let (here, there) = (pushes[0], pushes[1]);

    clean(here, "/api/join", json!({"clients": [ann_id, bob_id], "group": "red"})).await;
    clean(there, "/api/bind", json!({"clients": [ann_id], "uid": "ann"})).await;
    clean(
        here,
        "/api/session/update",
        json!({"client": ann_id, "set": {"a": "1", "b": "2"}}),
    )
    .await;
    clean(
        there,
        "/api/session/update",
        json!({"client": ann_id, "set": {"c": "3"}, "remove": ["b"]}),
    )
    .await;
    let session = done(here, "/api/session/get", json!({"client": ann_id})).await;
    assert_eq!(session, json!({"online": true, "session": {"a": "1", "c": "3"}}));
    clean(
        here,
        "/api/session/replace",
        json!({"client": ann_id, "session": {"d": "4"}}),
    )
    .await;

    for (path, body, answer) in [
        ("/api/query/count", json!({}), json!({"count": 2, "missing": []})),
        (
            "/api/query/count",
            json!({"filter": {"groups": ["red"], "uids": ["ann"]}}),
            json!({"count": 1, "missing": []}),
        ),
        (
            "/api/query/online",
            json!({"uid": "ann"}),
            json!({"online": true, "missing": []}),
        ),
        (
            "/api/query/online",
            json!({"uid": "bob"}),
            json!({"online": false, "missing": []}),
        ),
        (
            "/api/query/online",
            json!({"client": bob_id}),
            json!({"online": true, "missing": []}),
        ),
        (
            "/api/query/groups",
            json!({}),
            json!({"groups": {"red": 2}, "missing": []}),
        ),
        (
            "/api/query/uids",
            json!({"filter": {"groups": ["red"]}}),
            json!({"uids": ["ann"], "missing": []}),
        ),
        (
            "/api/query/select",
            json!({"filter": {"session": {"d": "4"}}, "uid": true, "groups": true, "session": true}),
            json!({"clients": [{"id": ann_id, "uid": "ann", "groups": ["red"], "session": {"d": "4"}}], "missing": []}),
        ),
        (
            "/api/query/select",
            json!({"filter": {"clients": [bob_id]}}),
            json!({"clients": [{"id": bob_id, "uid": null, "groups": [], "session": {}}], "missing": []}),
        ),
    ] {
        assert_eq!(done(there, path, body.clone()).await, answer, "{path} {body}");
    }

    let sent = json!({"gone": [], "missing": []});
    for (target, to_ann, to_bob) in [
        (json!({"all": true}), true, true),
        (json!({"clients": [ann_id]}), true, false),
        (json!({"uids": ["ann", "nobody"]}), true, false),
        (json!({"groups": ["red"], "except": [ann_id]}), false, true),
        (json!({"groups": ["red"], "except_uids": ["ann"]}), false, true),
    ] {
        let text = target.to_string();
        let send = json!({"to": target, "text": text});
        assert_eq!(done(here, "/api/send", send).await, sent);
        for (socket, gets) in [(&mut ann, to_ann), (&mut bob, to_bob)] {
            // What it is asked comes after what it is sent.
            socket.send("marker").await;
            if gets {
                assert_eq!(socket.text().await, text);
            }
            assert_eq!(socket.text().await, "marker", "{text}");
        }
    }
    done(here, "/api/send", json!({"to": {"uids": ["ann"]}, "binary": "AP8="})).await;
    assert_eq!(ann.next().await, Incoming::Binary(vec![0, 255]));
    let confirmed = done(
        there,
        "/api/send",
        json!({"to": {"clients": [bob_id]}, "text": "sure", "confirm": true}),
    )
    .await;
    assert_eq!(confirmed, json!({"gone": [], "missing": [], "delivery": "delivered"}));
    assert_eq!(bob.text().await, "sure");

    clean(here, "/api/leave", json!({"clients": [ann_id], "group": "red"})).await;
    clean(there, "/api/unbind", json!({"clients": [ann_id]})).await;
    clean(here, "/api/dissolve", json!({"group": "red"})).await;
    let bare = done(there, "/api/query/select", json!({"uid": true, "groups": true})).await;
    for client in bare["clients"].as_array().expect("a list") {
        assert_eq!(
            (&client["uid"], &client["groups"]),
            (&Value::Null, &json!([])),
            "{bare}"
        );
    }

    clean(
        here,
        "/api/close",
        json!({"to": {"clients": [ann_id]}, "code": 4001, "reason": "bye"}),
    )
    .await;
    assert_eq!(ann.closed().await, (4001, "bye".into()));
    clean(there, "/api/close", json!({"to": {"all": true}, "at_once": true})).await;
    assert_eq!(bob.next().await, Incoming::End);

    // Those who have gone are named, whatever is asked of them.
    wait_for("both are gone", async || {
        let count = done(here, "/api/query/count", json!({})).await;
        (count["count"] == 0).then_some(())
    })
    .await;
    let gone = json!([ann_id]);
    for (path, body) in [
        ("/api/send", json!({"to": {"clients": [ann_id]}, "text": "x"})),
        (
            "/api/send",
            json!({"to": {"clients": [ann_id]}, "text": "x", "confirm": true}),
        ),
        ("/api/close", json!({"to": {"clients": [ann_id]}})),
        ("/api/join", json!({"clients": [ann_id], "group": "red"})),
        ("/api/session/update", json!({"client": ann_id, "set": {"a": "1"}})),
    ] {
        assert_eq!(done(here, path, body).await["gone"], gone, "{path}");
    }
    let session = done(here, "/api/session/get", json!({"client": ann_id})).await;
    assert_eq!(session, json!({"online": false, "session": {}}));
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
    assert_eq!(confirmed.delivery(), Delivery::Delivered);
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

#[tokio::test]
async fn what_is_wrong_is_said() {
    let node = Node::test()
        .set(
            "worker",
            "push = { address = \"{ip}:19908\", token_file = \"tokens\", max_request = \"2MiB\" }",
        )
        .prepare();
    let tokens = node.folder().join("tokens");
    std::fs::write(&tokens, "first\n").expect("the folder is writable");
    let mut node = node;
    node.start().await;
    let push = node.host().push();
    let (_ann, id) = guest(node.host().ws()).await;

    for token in ["", "wrong", "first2", "firs"] {
        let refused = http::post(push, "/api/query/groups", token, "{}").await;
        assert_eq!(
            (refused.status, refused.header("www-authenticate")),
            (401, Some("Bearer")),
            "{token:?}"
        );
        assert_eq!(refused.header("content-type"), Some("application/problem+json"));
        assert_eq!(body_of(&refused)["status"], 401);
    }
    assert!(!node.output().contains("first2"), "no token is logged");
    for (path, body, status, field) in [
        ("/api/nothing", "{}".into(), 404, None),
        ("/", "{}".into(), 404, None),
        ("/api/openapi.json", "{}".into(), 405, None),
        ("/api/send", "{".into(), 400, None),
        ("/api/send", "{}".into(), 400, Some("to")),
        ("/api/send", json!({"to": {}, "text": "x"}).to_string(), 400, Some("to")),
        ("/api/send", json!({"to": {"all": true}}).to_string(), 400, Some("text")),
        (
            "/api/send",
            json!({"to": {"all": true}, "txt": "x"}).to_string(),
            400,
            Some("txt"),
        ),
        (
            "/api/send",
            json!({"to": {"clients": ["x"]}, "text": "x"}).to_string(),
            400,
            Some("to.clients[0]"),
        ),
        (
            "/api/send",
            json!({"to": {"all": true}, "text": "x", "confirm": true}).to_string(),
            400,
            Some("confirm"),
        ),
        (
            "/api/send",
            json!({"to": {"groups": ["x".repeat(256)]}, "text": "x"}).to_string(),
            400,
            Some("to.groups[0]"),
        ),
        (
            "/api/send",
            json!({"to": {"all": true}, "text": "x".repeat(1 << 20 | 1)}).to_string(),
            413,
            Some("text"),
        ),
        (
            "/api/send",
            json!({"to": {"all": true}, "text": "x".repeat(3 << 20)}).to_string(),
            413,
            None,
        ),
        (
            "/api/close",
            json!({"to": {"all": true}, "code": 1006}).to_string(),
            400,
            Some("code"),
        ),
        (
            "/api/close",
            json!({"to": {"all": true}, "reason": "x".repeat(124)}).to_string(),
            400,
            Some("reason"),
        ),
        (
            "/api/join",
            json!({"clients": [id], "group": ""}).to_string(),
            400,
            Some("group"),
        ),
        (
            "/api/query/online",
            json!({"client": id, "uid": "u"}).to_string(),
            400,
            Some("client"),
        ),
    ] {
        let response = http::post(push, path, "first", &body).await;
        let shown = &body[..body.len().min(100)];
        assert_eq!(response.status, status, "{path} {shown}: {response:?}");
        let problem = body_of(&response);
        assert_eq!(problem["field"].as_str(), field, "{path} {shown}: {problem}");
        assert_eq!(
            (problem["status"].as_u64(), response.header("content-type")),
            (Some(u64::from(status)), Some("application/problem+json"))
        );
    }
    let head = format!("host: {push}\r\nconnection: close\r\nauthorization: Bearer first\r\n");
    let got = http::request(push, &format!("GET /api/send HTTP/1.1\r\n{head}\r\n"))
        .await
        .expect("an answer");
    assert_eq!((got.status, got.header("allow")), (405, Some("POST")));
    let form = format!("POST /api/send HTTP/1.1\r\n{head}content-type: text/plain\r\ncontent-length: 2\r\n\r\n{{}}");
    let form = http::request(push, &form).await.expect("an answer");
    assert_eq!(form.status, 415);

    // What the gateway refuses is told too.
    let big = json!({"client": id, "set": {"k": "x".repeat(65 << 10)}});
    let refused = http::post(push, "/api/session/update", "first", &big.to_string()).await;
    assert_eq!((refused.status, &body_of(&refused)["refused"]), (200, &json!([id])));

    // A token is rotated: both, and then the new one only.
    for (text, first, second) in [("first\n\nsecond", 200, 200), ("second\n", 401, 200)] {
        std::fs::write(&tokens, text).expect("the folder is writable");
        let old = node.pids("worker").await;
        node.command(&["reload"]).await.fine();
        wait_for("the new children have it alone", async || {
            let left = node.processes();
            old.iter().all(|pid| !left.contains(pid)).then_some(())
        })
        .await;
        for (token, status) in [("first", first), ("second", second)] {
            let response = http::post(push, "/api/query/groups", token, "{}").await;
            assert_eq!(response.status, status, "{token} of {text:?}");
        }
    }
    std::fs::write(&tokens, "\n").expect("the folder is writable");
    let refused = node.command(&["reload"]).await;
    refused.failed();
    assert!(refused.stderr.contains("worker.push.token_file"), "{refused:?}");

    let open = Node::test()
        .set("worker", "push = { address = \"0.0.0.0:19908\" }")
        .prepare();
    let refused = open.command(&["start"]).await;
    assert_eq!(refused.code, Some(64), "{refused:?}");
    assert!(
        refused.stderr.contains("meepo.toml:") && refused.stderr.contains("worker.push.address"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn without_a_gateway_or_a_token() {
    let alone = Node::test()
        .only("worker")
        .set("worker", "push = { address = \"{ip}:19908\" }")
        .start()
        .await;
    let push = alone.host().push();
    for (path, body) in [
        ("/api/send", r#"{"to": {"all": true}, "text": "x"}"#),
        ("/api/query/count", "{}"),
        ("/api/query/groups", "{}"),
    ] {
        let response = http::post(push, path, "", body).await;
        assert_eq!(
            (response.status, response.header("retry-after")),
            (503, Some("1")),
            "{response:?}"
        );
        assert_eq!(body_of(&response)["code"], "no_gateway");
    }
    let refused = grpc(push).await.groups(Request::new(api::GroupsRequest {})).await;
    assert_eq!(refused.expect_err("nobody is there").code(), Code::Unavailable);
    assert!(
        alone
            .output()
            .contains("everyone who reaches this address is let in to push"),
        "{}",
        alone.output()
    );
}

#[tokio::test]
async fn a_gateway_that_is_frozen_is_named_and_its_queue_is_bounded() {
    let settings = format!("query_timeout = \"1s\"\nsend_queue = \"512KiB\"\n{SETTINGS}");
    let cluster = Cluster::with_workers(&settings).await;
    let (_ann, ann_id) = guest(cluster.clients()[0]).await;
    let (mut bob, bob_id) = guest(cluster.clients()[1]).await;
    let push = cluster.workers[0].host().push();
    let frozen = ann_id.parse::<ClientId>().expect("an id").gateway.to_string();
    let pids = cluster.gateways[0].pids("gateway").await;
    for pid in &pids {
        processes::signal(*pid, Signal::SIGSTOP);
    }
    let missing = |answer: &Value| -> bool {
        let list = answer["missing"].as_array().expect("a list");
        list.contains(&json!(frozen)) && list.len() == 2
    };

    let count = done(push, "/api/query/count", json!({})).await;
    assert!(count["count"] == 1 && missing(&count), "{count}");
    let sent = done(push, "/api/send", json!({"to": {"all": true}, "text": "hello"})).await;
    assert!(missing(&sent), "{sent}");
    assert_eq!(bob.text().await, "hello");
    let both = json!({"to": {"clients": [ann_id, bob_id]}, "text": "both"});
    assert_eq!(
        done(push, "/api/send", both).await,
        json!({"gone": [], "missing": [frozen]})
    );
    assert_eq!(bob.text().await, "both");
    let (status, problem) = post(push, "/api/send", &json!({"to": {"clients": [ann_id]}, "text": "x"})).await;
    assert_eq!(
        (status, &problem["code"], &problem["missing"]),
        (503, &json!("unanswered"), &json!([frozen]))
    );
    let only_ann = api::Target {
        clients: vec![ann_id.clone()],
        ..api::Target::default()
    };
    let refused = grpc(push)
        .await
        .send(to(only_ann, "x"))
        .await
        .expect_err("it does not answer");
    assert!(
        refused.code() == Code::Unavailable && refused.message().contains(&frozen),
        "{refused:?}"
    );

    // What it does not take is queued, but only so much.
    let flood = json!({"to": {"clients": [ann_id]}, "text": "x".repeat(200_000)}).to_string();
    wait_for("the queue is full", async || {
        let mut sends = JoinSet::new();
        for _ in 0..16 {
            let flood = flood.clone();
            sends.spawn(async move { http::post(push, "/api/send", "first", &flood).await });
        }
        let full = |response: &Response| body_of(response)["code"] == "queue_full";
        let responses = sends.join_all().await;
        let full = responses.into_iter().find(full)?;
        assert_eq!((full.status, full.header("retry-after")), (503, Some("1")));
        Some(())
    })
    .await;
    // Others are served.
    let sent = done(push, "/api/send", json!({"to": {"clients": [bob_id]}, "text": "on"})).await;
    assert_eq!(sent, json!({"gone": [], "missing": []}));
    assert_eq!(bob.text().await, "on");
    for pid in pids {
        processes::signal(pid, Signal::SIGCONT);
    }
}

#[tokio::test]
async fn a_reload_under_pushes_loses_none_and_repeats_none() {
    let cluster = Cluster::with_workers(SETTINGS).await;
    let mut guests = Vec::new();
    for gateway in cluster.clients() {
        let mut guest = Ws::connect_to(gateway, "/?join=all").await;
        guest.ask("ready").await;
        guests.push(guest);
    }
    let answered = Arc::new(Mutex::new(Vec::<String>::new()));
    let end = Arc::new(AtomicBool::new(false));
    let mut pushers = JoinSet::new();
    for (number, worker) in cluster.workers.iter().chain(&cluster.workers).enumerate() {
        let (push, answered, end) = (worker.host().push(), answered.clone(), end.clone());
        pushers.spawn(async move {
            for count in 0.. {
                if end.load(Ordering::Relaxed) {
                    break;
                }
                let text = format!("{number}-{count}");
                let body = json!({"to": {"groups": ["all"]}, "text": text});
                // Each has a connection of its own, and each is answered.
                let answer = done(push, "/api/send", body).await;
                assert_eq!(answer, json!({"gone": [], "missing": []}));
                answered.lock().expect("nobody panics").push(text);
            }
        });
    }
    let so_many = |more: usize| {
        let before = answered.lock().expect("nobody panics").len();
        let answered = answered.clone();
        async move {
            let more_came = async || (answered.lock().expect("nobody panics").len() >= before + more).then_some(());
            wait_for("pushes are answered", more_came).await;
        }
    };
    so_many(50).await;
    for worker in &cluster.workers {
        let old = worker.pids("worker").await;
        worker.command(&["reload"]).await.fine();
        wait_for("old children are gone", async || {
            let left = worker.processes();
            old.iter().all(|pid| !left.contains(pid)).then_some(())
        })
        .await;
        so_many(50).await;
    }
    end.store(true, Ordering::Relaxed);
    while let Some(pusher) = pushers.join_next().await {
        pusher.expect("every push was answered with 200");
    }
    let mut answered = answered.lock().expect("nobody panics").clone();
    answered.sort();
    for guest in &mut guests {
        guest.send("the end").await;
        let mut got = Vec::new();
        loop {
            match guest.text().await {
                text if text == "the end" => break,
                text => got.push(text),
            }
        }
        got.sort();
        assert_eq!(got, answered, "each that was answered comes once");
    }
}
