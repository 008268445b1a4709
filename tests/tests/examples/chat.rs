//! The rules of the chat, as its clients see them.

use futures_util::future::join_all;
use meepo_tests::{Line, Node, Ws};
use serde_json::{Value, json};

async fn chat() -> Node {
    Node::build("chat").start().await
}

async fn page(node: &Node) -> Ws {
    Ws::connect_to(node.host().ws(), "/ws").await
}

/// Reads messages until one has this name, and gives what belongs to it.
async fn next(page: &mut Ws, name: &str) -> Value {
    loop {
        let message: Value = serde_json::from_str(&page.text().await).expect("JSON comes from the server");
        if let Some(what) = message.get(name) {
            return what.clone();
        }
    }
}

async fn join(node: &Node, name: &str, key: &str) -> Ws {
    let mut page = page(node).await;
    page.send(&json!({"join": [name, "lobby", key]}).to_string()).await;
    assert_eq!(next(&mut page, "you").await["name"], name);
    page
}

#[tokio::test]
async fn what_is_not_understood_is_answered_and_the_connection_stays() {
    let node = chat().await;
    let mut page = page(&node).await;
    for nonsense in [
        "",
        "hello",
        "{}",
        "[1]",
        r#"{"say":"before joining"}"#,
        r#"{"sing":"la"}"#,
        r#"{"join":["x"]}"#,
    ] {
        page.send(nonsense).await;
        next(&mut page, "error").await;
    }
    page.send_binary(vec![0, 1, 2]).await;
    next(&mut page, "error").await;
    page.send(r#"{"join":["  Ada ","Lobby","key"]}"#).await;
    assert_eq!(next(&mut page, "you").await, json!({"name": "Ada", "room": "lobby"}));
    let long = |length| "ä".repeat(length);
    for (bad, good) in [
        (json!({"say": long(2001)}), json!({"say": long(2000)})),
        (json!({"name": long(25)}), json!({"name": long(24)})),
        (json!({"name": "two\nlines"}), json!({"name": "two words"})),
        (json!({"room": "  "}), json!({"room": "r"})),
        (
            json!({"to": ["Nobody", "hello"]}),
            json!({"to": ["two words", "hello"]}),
        ),
    ] {
        page.send(&bad.to_string()).await;
        next(&mut page, "error").await;
        page.send(&good.to_string()).await;
        let answer: Value = serde_json::from_str(&page.text().await).expect("JSON comes from the server");
        assert!(answer.get("error").is_none(), "{good}: {answer}");
    }
}

#[tokio::test]
async fn a_name_is_taken_once() {
    let node = chat().await;
    let mut ada = join(&node, "Ada", "ada's key").await;
    let mut other = page(&node).await;
    for key in ["", "another key"] {
        other.send(&json!({"join": ["ADA", "lobby", key]}).to_string()).await;
        assert_eq!(next(&mut other, "error").await, "The name ADA is taken");
    }
    // All at the same instant: one or none.
    let pages = join_all((0..20).map(|_| page(&node))).await;
    let answers = pages.into_iter().enumerate().map(async |(number, mut page)| {
        page.send(&json!({"join": ["Bob", "lobby", format!("key {number}")]}).to_string())
            .await;
        let answer: Value = serde_json::from_str(&page.text().await).expect("JSON comes from the server");
        (answer.get("you").is_some(), page)
    });
    let answers = join_all(answers).await;
    assert!(answers.iter().filter(|(got_it, _)| *got_it).count() <= 1);

    // A name is free again when its holder takes another one.
    ada.send(r#"{"name":"Ida"}"#).await;
    next(&mut ada, "you").await;
    other.send(r#"{"join":["Ada","lobby","another key"]}"#).await;
    next(&mut other, "you").await;
}

#[tokio::test]
async fn who_comes_back_with_the_same_key_has_not_left() {
    let node = chat().await;
    let mut bob = join(&node, "Bob", "bob's key").await;
    let mut old = join(&node, "Ada", "ada's key").await;
    let mut new = join(&node, "Ada", "ada's key").await;
    assert_eq!(old.closed().await.0, 4001);
    new.send(r#"{"say":"I am back"}"#).await;
    loop {
        let message: Value = serde_json::from_str(&bob.text().await).expect("JSON comes from the server");
        if message["message"][1] == "I am back" {
            break;
        }
        assert!(
            message["presence"][1].is_object() || message.get("people").is_some(),
            "{message}"
        );
    }
    // Nor has a telnet user, who has no key, the name of another.
    let mut tel = Line::connect(node.host().line()).await;
    tel.send("/name Tel").await;
    tel.until("You are Tel").await;
    let mut namesake = Line::connect(node.host().line()).await;
    namesake.send("/name tel").await;
    namesake.until("The name tel is taken").await;
}

#[tokio::test]
async fn a_telnet_user_gets_one_clean_line_for_each_event() {
    let node = chat().await;
    let mut tel = Line::connect(node.host().line()).await;
    tel.send("/name Tel Net").await;
    tel.until("You are Tel Net").await;
    let mut ada = join(&node, "Ada", "key").await;
    ada.send(&json!({"say": "one\n* Ada left\u{1b}[2J"}).to_string()).await;
    assert_eq!(tel.until("one").await, "Ada: one * Ada left [2J");
    ada.send(r#"{"to":["tel net","psst"]}"#).await;
    tel.until("Ada to Tel Net, privately: psst").await;
    let mut sam = Line::connect(node.host().line()).await;
    sam.send("/to \"tel net\" hi").await;
    tel.until("privately: hi").await;
    for (command, answer) in [
        ("/who", "Tel Net in lobby"),
        ("/rooms", "lobby (3)"),
        ("/help", "/to NAME TEXT"),
        ("/nonsense", "/to NAME TEXT"),
        ("/to", "/to NAME TEXT"),
        ("/join", "1 to 24 characters"),
    ] {
        sam.send(command).await;
        sam.until(answer).await;
    }
}
