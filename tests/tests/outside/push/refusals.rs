//! What is refused, and how that is said.

use meepo_proto::push as api;
use meepo_tests::{Node, http, wait_for};
use serde_json::json;
use tonic::{Code, Request};

use super::{body_of, grpc, guest};

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
            // The gateway is new as well, and may not be there yet.
            let answer = wait_for("an answer", async || {
                let response = http::post(push, "/api/query/groups", token, "{}").await;
                (response.status != 503).then_some(response.status)
            });
            assert_eq!(answer.await, status, "{token} of {text:?}");
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
