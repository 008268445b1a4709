//! `chat start`, with no configuration at all: it says what runs where, and serves a page.
//!
//! This is the only test on the default addresses, so it waits until they are free.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use meepo_tests::{Line, Node, http, wait_until};

#[tokio::test]
async fn one_command_starts_everything_and_says_where() {
    let ports = [19909, 19910, 19911, 19912, 19908];
    let here = |port| SocketAddr::from(([127, 0, 0, 1], port));
    wait_until("the default ports are free", Duration::from_secs(60), async || {
        ports.iter().all(|port| TcpListener::bind(here(*port)).is_ok())
    })
    .await;
    let mut node = Node::build("chat").no_config().start().await;
    let status = node.status().await;
    for (name, children) in [("registry", 1), ("gateway", 2), ("worker", 2)] {
        assert_eq!(status.instance(name).children.len(), children);
    }
    let table = node.output();
    for text in [
        &status.pid.to_string(),
        "registry",
        "gateway",
        "worker",
        "127.0.0.1:19909",
        "127.0.0.1:19910",
        "127.0.0.1:19911",
        "http://127.0.0.1:19910/",
    ] {
        assert!(table.contains(text), "{text} is not told:\n{table}");
    }
    let page = http::get(here(19910), "/").await;
    assert_eq!(page.status, 200);
    assert!(page.body.contains("<html") && page.header("content-type").is_some_and(|kind| kind.contains("html")));

    let mut ann = Line::connect(here(19909)).await;
    let mut bob = Line::connect(here(19909)).await;
    ann.send("/name ann").await;
    ann.until("ann").await;
    bob.send("/name bob").await;
    bob.until("bob").await;
    ann.send("good morning").await;
    assert!(bob.until("good morning").await.contains("ann"));
    node.stop().await;
}
