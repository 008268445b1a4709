//! The example with sites, an API and a WebSocket.

use meepo_tests::http::Response;
use meepo_tests::{Http, Node, Ws, processes, web};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

struct Browser(Http, String);

impl Browser {
    async fn ask(&mut self, method: &str, path: &str, host: &str, body: &str) -> Response {
        let cookie = &self.1;
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\ncookie: {cookie}\r\n");
        self.0
            .send(format!("{head}content-length: {length}\r\n\r\n{body}"))
            .await;
        let bodyless = method == "DELETE" || method == "PUT";
        let answer = if bodyless {
            self.0.head().await
        } else {
            self.0.answer().await
        };
        let answer = answer.expect("an answer");
        if let Some(cookie) = answer.header("set-cookie") {
            self.1 = cookie.split(';').next().unwrap_or_default().to_owned();
        }
        answer
    }

    async fn json(&mut self, method: &str, path: &str, body: &str) -> Value {
        let answer = self.ask(method, path, "localhost", body).await;
        serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
    }
}

#[tokio::test]
async fn both_sites_are_served_with_their_own_error_pages() {
    let node = web::start().await;
    let mut browser = Browser(Http::connect(node.host().ws()).await, String::new());
    for (host, path, status, part) in [
        ("127.0.0.1:19910", "/", 200, "<h1>Talk</h1>"),
        ("127.0.0.1:19910", "/app.js", 200, "new WebSocket"),
        ("anything.test", "/nothing", 404, "Nobody talks here"),
        ("help.localhost:19910", "/", 200, "Help for the talk"),
        ("HELP.example.org", "/style.css", 200, "color-scheme"),
        ("help.example.org", "/app.js", 404, "No help here"),
        // The API is there on every host, and says 404 in its own way.
        ("help.example.org", "/api/nothing", 404, "\"error\""),
    ] {
        let answer = browser.ask("GET", path, host, "").await;
        assert_eq!(answer.status, status, "{host} {path}");
        assert!(answer.body.contains(part), "{host} {path}: {answer:?}");
    }
}

#[tokio::test]
async fn what_is_said_over_the_api_is_heard_over_websockets() {
    let node = web::start().await;
    let mut ada = Browser(Http::connect(node.host().ws()).await, String::new());
    let mut pages = Vec::new();
    for _ in 0..3 {
        let mut page = Ws::connect_to(node.host().ws(), "/ws").await;
        assert!(page.ask("hello").await.contains("over the API"));
        pages.push(page);
    }
    assert_eq!(
        ada.json("GET", "/api/online", "").await,
        json!({"online": 3, "complete": true})
    );
    assert_eq!(ada.json("GET", "/api/me", "").await, json!({"name": null}));
    assert_eq!(ada.ask("POST", "/api/says", "a", r#"{"text": "hi"}"#).await.status, 401);
    let bad = ada.0.ask("PUT", "/api/me", r#"{"name": "<b>"}"#).await;
    assert!(bad.status == 400 && bad.body.contains("letters"), "{bad:?}");
    assert_eq!(ada.ask("PUT", "/api/me", "a", r#"{"name": "Ada"}"#).await.status, 204);
    for worker in node.pids("worker").await {
        processes::signal(worker, Signal::SIGKILL);
    }
    // Who she is says her cookie: it needs no worker that knows her.
    assert_eq!(ada.json("GET", "/api/me", "").await, json!({"name": "Ada"}));
    assert_eq!(ada.ask("POST", "/api/says", "a", "hello").await.status, 400);
    assert_eq!(ada.ask("POST", "/api/says", "a", r#"{"text": " "}"#).await.status, 400);
    node.status_when("the workers are back", |status| {
        status.all_serve() && status.instance("gateway").children.iter().all(|child| child.links == 2)
    })
    .await;
    let said = ada.ask("POST", "/api/says", "a", r#"{"text": "Hi <all>"}"#).await;
    assert_eq!(said.status, 202);
    for page in &mut pages {
        assert_eq!(page.text().await, r#"{"name":"Ada","text":"Hi <all>"}"#);
    }
    assert_eq!(ada.ask("DELETE", "/api/me", "a", "").await.status, 204);
    assert_eq!(ada.json("GET", "/api/me", "").await, json!({"name": null}));
    let wrong = ada.0.ask("GET", "/api/says", "").await;
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("POST")));
}

#[tokio::test]
async fn it_starts_without_a_file() {
    // What `cargo run -p web -- start` runs, as `check` tells.
    let finished = Node::build("web").no_config().prepare().command(&["check"]).await;
    finished.fine();
    for part in ["requests = [", "help.localhost", "not_found"] {
        assert!(finished.stdout.contains(part), "{finished:?}");
    }
}
