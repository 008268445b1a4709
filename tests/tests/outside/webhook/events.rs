//! `meepo-worker`: events as POSTs to an endpoint, and commands in its answers.

use std::sync::atomic::{AtomicUsize, Ordering};

use meepo_tests::{Endpoint, Host, Incoming, Node, Post, Reply, WebhookCluster, http};
use serde_json::{Value, json};

#[tokio::test]
async fn wrong_settings_are_named_and_other_programs_pass_over_the_section() {
    let check = async |settings: &str| {
        let worker = Node::build("meepo-worker").set("webhook", settings).prepare();
        worker.command(&["check"]).await
    };
    let fine = check("url = \"https://app.example/hook?hush\"\nsecret = \"hush\"").await;
    fine.fine();
    assert!(
        fine.stdout.contains("[webhook]") && fine.stdout.contains("https://app.example/hook"),
        "{fine:?}"
    );
    assert!(
        !fine.stdout.contains("hush") && !fine.stdout.contains("handler_timeout"),
        "{fine:?}"
    );
    for (settings, key, line) in [
        ("", "webhook.url", ""),
        (
            "url = \"http://a/\"\ntimeuot = \"1s\"",
            "webhook.timeuot",
            "meepo.toml:",
        ),
        (
            "url = \"http://a/\"\nsecret_file = \"nowhere\"",
            "webhook.secret_file",
            "meepo.toml:",
        ),
    ] {
        let wrong = check(settings).await;
        assert_eq!(wrong.code, Some(64), "{settings}: {wrong:?}");
        assert!(
            wrong.stderr.contains(key) && wrong.stderr.contains(line),
            "{settings}: {wrong:?}"
        );
    }
    let open = Node::build("meepo-worker")
        .set("worker", "push = { address = \"0.0.0.0:19908\" }")
        .set("webhook", "url = \"http://a/\"")
        .prepare();
    let open = open.command(&["check"]).await;
    assert!(
        open.code == Some(64) && open.stderr.contains("worker.push.address"),
        "{open:?}"
    );
    let gateway = Node::build("meepo-gateway")
        .set("webhook", "url = \"http://a/\"")
        .prepare();
    gateway.command(&["check"]).await.fine();
}

/// What `a_client_and_an_endpoint_speak` has of the endpoint.
fn speak(post: &Post) -> Reply {
    let text = post.text();
    match (post.kind(), text.as_str()) {
        ("opened", _) => Reply::commands(&json!([
            {"do": "join", "group": "room"},
            {"do": "bind", "uid": "ann"},
            {"do": "session", "set": {"näme": "Ann \"%\"", "other": "1"}},
            {"do": "send", "text": "welcome"},
        ])),
        ("message", "reply") => Reply::bytes("text/plain", "a reply"),
        ("message", "bytes") => Reply::bytes("application/octet-stream", [0, 255]),
        ("message", "to all") => Reply::commands(&json!([
            {"do": "send", "to": {"all": true, "except": [post.header("ce-subject")]}, "text": "not to me"},
            {"do": "send", "to": {"groups": ["room", "empty"]}, "base64": "AAH/"},
            {"do": "send", "to": {"uid": "ann", "except_uids": ["bob"]}, "text": "to ann"},
        ])),
        ("message", "leave") => Reply::commands(&json!([
            {"do": "leave", "group": "room"},
            {"do": "unbind"},
            {"do": "session", "remove": ["näme"]},
            {"do": "send", "to": {"group": "room"}, "text": "nobody"},
            {"do": "send", "to": {"uid": "ann"}, "text": "nobody"},
            {"do": "join", "group": "other"},
            {"do": "dissolve", "group": "other"},
            {"do": "send", "to": {"group": "other"}, "text": "nobody"},
            {"do": "send", "to": {"client": post.header("ce-subject")}, "text": "left"},
        ])),
        ("message", "bye") => Reply::commands(&json!([{"do": "close", "code": 4001, "reason": "that was it"}])),
        _ => Reply::none(),
    }
}

#[tokio::test]
async fn a_client_and_an_endpoint_speak() {
    let host = Host::new();
    let endpoint = Endpoint::start(host.endpoint(), speak).await;
    let cluster = WebhookCluster::start(&host, "session = [\"näme\"]\nsource = \"/test\"").await;
    let mut client = cluster.client("/ws?name=Ann&x=%20").await;
    assert_eq!(client.text().await, "welcome");
    let opened = &endpoint.of("opened")[0];
    assert_eq!(opened.line, "POST /hook?key=1 HTTP/1.1");
    assert_eq!(opened.header("content-type"), "application/json");
    let hello: Value = serde_json::from_slice(&opened.body).expect("it is JSON");
    assert_eq!(
        (&hello["path"], &hello["query"], &hello["protocol"]),
        (&json!("/ws"), &json!("name=Ann&x=%20"), &json!("ws"))
    );
    assert_eq!(hello["headers"]["upgrade"], json!(["websocket"]));
    assert!(
        hello["peer"].as_str().is_some_and(|peer| peer.starts_with("127.")),
        "{hello}"
    );
    let id = opened.header("ce-subject").to_owned();
    assert_eq!(hello["client"], json!(id));
    assert_eq!(opened.header("ce-id"), format!("{id}:opened"));

    assert_eq!(client.ask("reply").await, "a reply");
    client.send("bytes").await;
    assert_eq!(client.next().await, Incoming::Binary(vec![0, 255]));
    client.send("to all").await;
    assert_eq!(client.next().await, Incoming::Binary(vec![0, 1, 255]));
    assert_eq!(client.text().await, "to ann");
    client.send("").await;
    client.send_binary(vec![7, 0, 200]).await;
    assert_eq!(client.ask("leave").await, "left");
    client.send("bye").await;
    assert_eq!(client.closed().await, (4001, "that was it".into()));
    let closed = &endpoint.when("closed", 1).await[0];
    assert_eq!(
        serde_json::from_slice::<Value>(&closed.body).expect("it is JSON"),
        json!({"client": id, "cause": "kicked", "code": 4001, "reason": "that was it"})
    );
    assert_eq!(closed.header("ce-id"), format!("{id}:closed"));

    let messages = endpoint.of("message");
    let kinds: Vec<_> = messages.iter().map(|post| post.header("content-type")).collect();
    let text = "text/plain;charset=utf-8";
    assert_eq!(kinds, [text, text, text, text, "application/octet-stream", text, text]);
    assert_eq!(
        (messages[3].body.as_slice(), messages[4].body.as_slice()),
        (&b""[..], &[7, 0, 200][..])
    );
    for (index, post) in messages.iter().enumerate() {
        let session = if index < 6 {
            "{%22n%C3%A4me%22:%22Ann%20\\%22%25\\%22%22}"
        } else {
            ""
        };
        assert_eq!(post.header("ce-meeposession"), session, "{index}");
        assert_eq!(post.header("ce-id"), format!("{id}:{}", index + 2));
        assert_eq!(post.header("ce-specversion"), "1.0");
        assert_eq!(post.header("ce-source"), "/test");
        assert_eq!(post.header("ce-type"), "meepo.client.message");
        assert!(post.header("ce-time").ends_with('Z'));
        assert_eq!((post.header("ce-meepoattempt"), post.redelivered()), ("1", false));
        assert_eq!(
            post.header("webhook-signature"),
            "",
            "without a secret nothing is signed"
        );
    }
    cluster.failed(0).await;
    assert!(endpoint.connections() < 4, "connections are used again");
}

#[tokio::test]
async fn each_status_has_its_consequence() {
    let host = Host::new();
    let times = AtomicUsize::new(0);
    let endpoint = Endpoint::start(host.endpoint(), move |post| {
        let text = post.text();
        match (post.kind(), text.as_str()) {
            ("opened", hello) if hello.contains("stranger") => Reply::status(403, "members only\n"),
            ("opened", hello) if hello.contains("fault") => Reply::status(500, "a trace"),
            ("opened", hello) if hello.contains("page") => Reply::bytes("text/html", "<b>Warning</b>"),
            ("opened", hello) if hello.contains("broken") => Reply::bytes("application/json", "[{"),
            ("opened", hello) if hello.contains("half") => {
                Reply::commands(&json!([{"do": "send", "to": {"all": true}, "text": "no"}, {"do": "sned"}]))
            }
            ("opened", _) if times.fetch_add(1, Ordering::Relaxed) < 2 => Reply::status(503, ""),
            ("message", "busy") if post.header("ce-meepoattempt") == "1" => {
                Reply::status(429, "").with_header("retry-after", "1")
            }
            ("message", "bad") => Reply::status(404, "what?"),
            ("message", "fault") => Reply::status(500, "a trace"),
            ("message", "elsewhere") => Reply::status(302, "").with_header("location", "/there?key=1"),
            ("message", "proxy") if post.header("ce-meepoattempt") == "1" => Reply::status(503, &"x".repeat(2000)),
            ("message", "large") => Reply::commands(&json!([
                {"do": "send", "text": "no"},
                {"do": "session", "set": {"a": "1"}},
                {"do": "send", "text": "x".repeat(600)},
            ])),
            ("message", "large reply") => Reply::bytes("text/plain", "x".repeat(600)),
            ("message", "long") => Reply::bytes("text/plain", "x".repeat(2000)),
            ("message", "page") => Reply::bytes("text/html", "<b>Warning</b>"),
            ("message", "latin") => Reply::bytes("text/plain", [0xe4]),
            ("message", "half") => Reply::commands(
                &json!([{"do": "send", "text": "no"}, {"do": "send", "to": {"grup": "x"}, "text": "no"}]),
            ),
            ("message", _) => Reply::bytes("text/plain", text.as_str()),
            _ => Reply::none(),
        }
    })
    .await;
    let sections = [
        ("gateway", "max_message = \"512B\""),
        ("webhook", "attempts = 3\nmax_response = \"1KiB\""),
    ];
    let cluster = WebhookCluster::start_with(&host, &sections).await;
    let mut client = cluster.client("/").await;
    let opened = endpoint.of("opened");
    let attempts: Vec<_> = opened
        .iter()
        .map(|post| (post.header("ce-meepoattempt"), post.redelivered()))
        .collect();
    assert_eq!(attempts, [("1", false), ("2", true), ("3", true)]);

    for text in ["busy", "proxy"] {
        assert_eq!(client.ask(text).await, text);
    }
    for text in [
        "bad",
        "fault",
        "elsewhere",
        "long",
        "page",
        "latin",
        "half",
        "large",
        "large reply",
    ] {
        client.send(text).await;
    }
    assert_eq!(client.ask("end").await, "end", "nothing else was sent to the client");
    cluster.failed(9).await;
    let count = |text: &str| endpoint.of("message").iter().filter(|post| post.text() == text).count();
    assert_eq!(
        (
            count("busy"),
            count("bad"),
            count("fault"),
            count("elsewhere"),
            count("half")
        ),
        (2, 1, 3, 1, 1)
    );
    let log = cluster.worker.output();
    assert!(
        log.contains("commands[1].to") && log.contains("unknown field `grup`"),
        "{log}"
    );
    assert!(!log.contains("key=1"), "a query may be a secret: {log}");
    assert!(
        log.contains("commands[2].text") && log.contains("limit of 512"),
        "{log}"
    );
    assert!(log.contains("/there") && log.contains("not followed"), "{log}");

    let ask = |query: &str| {
        let head = "connection: upgrade, close\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==";
        format!("GET /?{query} HTTP/1.1\r\nhost: a\r\n{head}\r\n\r\n")
    };
    let refused = http::request(host.ws(), &ask("stranger"))
        .await
        .expect("there is an answer");
    assert_eq!((refused.status, refused.body.trim()), (403, "members only"));
    for query in ["fault", "page", "broken", "half"] {
        let refused = http::request(host.ws(), &ask(query)).await.expect("there is an answer");
        assert_eq!(refused.status, 500, "{query}");
        assert!(!refused.body.contains("trace"), "{refused:?}");
    }
    cluster.failed(13).await;
    assert_eq!(client.ask("end").await, "end", "nothing was sent by half");
    drop(client);
    assert_eq!(
        endpoint.when("closed", 1).await.len(),
        1,
        "who was refused is not closed"
    );
}

#[tokio::test]
async fn it_takes_pushes_from_outside() {
    let host = Host::new();
    let _endpoint = Endpoint::start(host.endpoint(), |post| match post.kind() {
        "opened" => Reply::commands(&json!([{"do": "join", "group": "lobby"}])),
        _ => Reply::none(),
    })
    .await;
    let push = "push = { address = \"{ip}:19908\", token = \"hush\" }";
    let cluster = WebhookCluster::start_with(&host, &[("worker", push)]).await;
    let mut client = cluster.client("/").await;
    let send = json!({"to": {"groups": ["lobby"]}, "text": "tea is ready"}).to_string();
    let sent = http::post(host.push(), "/api/send", "hush", &send).await;
    assert_eq!((sent.status, sent.body.as_str()), (200, "{\"gone\":[],\"missing\":[]}"));
    assert_eq!(client.text().await, "tea is ready");
    let stranger = http::post(host.push(), "/api/send", "hash", &send).await;
    assert_eq!(stranger.status, 401);
}
