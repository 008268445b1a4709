//! The robot, as its page hears it.

use meepo_tests::{Line, Node, Ws, http, processes};
use nix::sys::signal::Signal;

async fn robot() -> Node {
    Node::build("chat_robot").start().await
}

async fn page(node: &Node) -> Ws {
    let mut page = Ws::connect_to(node.host().ws(), "/ws").await;
    let hello = page.text().await;
    assert!(hello.contains("I am a robot"), "{hello}");
    page
}

#[tokio::test]
async fn it_answers_and_each_person_has_a_conversation_of_his_own() {
    let node = robot().await;
    let (mut ada, mut bob) = (page(&node).await, page(&node).await);
    let answer = ada.ask("I am tired of my work").await;
    assert_eq!(answer, "Since when are you tired of your work?");
    assert_eq!(bob.ask("Rain again").await, "Go on.");
    assert_eq!(bob.ask("Rain again").await, "I see. And then?");
    // Nor does what Ada spoke of come up with him.
    assert_eq!(bob.ask("Rain again").await, "Can you give me an example?");
    let mut tel = Line::connect(node.host().line()).await;
    tel.until("I am a robot").await;
    assert_eq!(tel.ask("hello").await, "Hello to you. How has the day been so far?");
    ada.send_binary(vec![1]).await;
    assert!(ada.text().await.contains("1 to 1000"));
    assert!(ada.ask(&"ä".repeat(1001)).await.contains("1 to 1000"));
    assert_eq!(ada.ask("I am sad").await, "How is it to be sad?");
}

#[tokio::test]
async fn it_remembers_what_was_spoken_of_when_its_workers_die() {
    let node = robot().await;
    let mut ada = page(&node).await;
    ada.ask("I miss my old house").await;
    ada.ask("Well").await;
    for worker in node.pids("worker").await {
        processes::signal(worker, Signal::SIGKILL);
    }
    assert_eq!(
        ada.ask("Rain again").await,
        "Earlier you spoke of your old house. Does this have to do with it?"
    );
}

#[tokio::test]
async fn the_page_is_served_beside_the_websocket() {
    let node = robot().await;
    for (path, part) in [
        ("/", "A robot"),
        ("/app.js", "new WebSocket"),
        ("/style.css", "color-scheme"),
    ] {
        let response = http::get(node.host().ws(), path).await;
        assert_eq!(response.status, 200, "{path}");
        assert!(response.body.contains(part), "{path}");
    }
}
