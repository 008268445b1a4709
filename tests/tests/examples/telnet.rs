//! Group talk for telnet, as its users see it.

use meepo_tests::{Line, Node, processes};
use nix::sys::signal::Signal;

async fn telnet() -> Node {
    Node::build("telnet").start().await
}

async fn come_in(node: &Node, nick: &str) -> Line {
    let mut line = Line::connect(node.host().line()).await;
    line.until("You are guest-").await;
    line.until("You talk in lobby").await;
    line.send(&format!("/nick {nick}")).await;
    line.until(&format!("* You are {nick}")).await;
    line
}

#[tokio::test]
async fn everyone_is_told_who_joins_and_leaves() {
    let node = telnet().await;
    let mut ada = come_in(&node, "Ada").await;
    ada.send("/leave lobby").await;
    ada.until("You are in no group").await;
    let mut bob = come_in(&node, "Bob").await;
    let joined = ada.until(" joined").await;
    assert!(joined.starts_with("* guest-"), "{joined}");
    ada.until(" is now Bob").await;
    bob.send("/quit").await;
    assert!(bob.rest().await.ends_with("closed: goodbye\n"));
    assert_eq!(ada.text().await, "* Bob left");
    // Also who just hangs up.
    drop(come_in(&node, "Eve").await);
    ada.until("* Eve left").await;
}

#[tokio::test]
async fn a_group_hears_its_members_and_nobody_else_does() {
    let node = telnet().await;
    let mut ada = come_in(&node, "Ada").await;
    let mut bob = come_in(&node, "Bob").await;
    let mut eve = come_in(&node, "Eve").await;
    for line in [&mut ada, &mut bob] {
        line.send("/join Rust").await;
        line.until("You talk in rust").await;
    }
    ada.until("* Bob joined rust").await;
    ada.send("only for \u{1b}[2Jrust").await;
    assert_eq!(bob.until("only for").await, "[rust] Ada: only for  [2Jrust");
    ada.send("/leave rust").await;
    ada.until("You talk in lobby").await;
    bob.until("* Ada left rust").await;
    ada.send("for the lobby").await;
    bob.until("[lobby] Ada: for the lobby").await;
    loop {
        let line = eve.text().await;
        assert!(!line.contains("rust"), "{line}");
        if line == "[lobby] Ada: for the lobby" {
            break;
        }
    }
    ada.send("/leave lobby").await;
    ada.until("You are in no group").await;
    ada.send("anyone?").await;
    ada.until("/join GROUP").await;
    ada.send("/leave lobby").await;
    ada.until("You are not in lobby").await;
}

#[tokio::test]
async fn a_nick_is_one_persons_and_finds_him() {
    let node = telnet().await;
    let mut ada = come_in(&node, "Ada").await;
    let mut bob = come_in(&node, "Bob").await;
    for (line, answer) in [
        ("/nick ADA", "The nick ADA is taken"),
        ("/nick two words", "/nick NAME"),
        ("/nick seventeen-letters", "1 to 16"),
        ("/tell nobody hello", "Nobody here is called nobody"),
        ("/who", "* 2 here: Ada, Bob"),
        ("/who lobby", "* 2 here: Ada, Bob"),
        ("/who rust", "* 0 here: "),
        ("/help", "/tell NICK TEXT"),
    ] {
        bob.send(line).await;
        bob.until(answer).await;
    }
    bob.send("/tell ADA good  morning").await;
    assert_eq!(ada.until("morning").await, "Bob to you: good  morning");
    // A nick is free again when its holder takes another one, and is found by that one.
    ada.send("/nick Ida").await;
    bob.until("* Ada is now Ida").await;
    bob.send("/nick ada").await;
    bob.until("* You are ada").await;
    bob.send("/tell ida hello").await;
    ada.until("ada to you: hello").await;
}

#[tokio::test]
async fn everyone_is_told_that_the_service_stops() {
    let mut node = Node::build("telnet").set("gateway", "children = 3").start().await;
    let mut lines = Vec::new();
    for number in 0..12 {
        lines.push(come_in(&node, &format!("nick-{number}")).await);
        lines.push(Line::connect(node.host().line()).await);
        lines
            .last_mut()
            .expect("it was pushed")
            .until("You talk in lobby")
            .await;
    }
    // A nick that somebody tried to take is still its owner's.
    lines[1].send("/nick NICK-0").await;
    lines[1].until("is taken").await;
    let status = node.status().await;
    let gateways = &status.instance("gateway").children;
    assert!(gateways.iter().all(|gateway| gateway.connections > 0), "{gateways:?}");
    node.stop().await;
    for line in &mut lines {
        let rest = line.rest().await;
        let told: Vec<_> = rest.matches("* The service is stopping, goodbye\n").collect();
        assert_eq!(told.len(), 1, "{rest:?}");
        assert!(rest.ends_with("closed: gateway stops\n"), "{rest:?}");
    }
}

#[tokio::test]
async fn nick_and_groups_outlive_the_workers() {
    let node = telnet().await;
    let mut ada = come_in(&node, "Ada").await;
    let mut bob = come_in(&node, "Bob").await;
    ada.send("/join rust").await;
    ada.until("You talk in rust").await;
    bob.send("/join rust").await;
    ada.until("* Bob joined rust").await;
    for worker in node.pids("worker").await {
        processes::signal(worker, Signal::SIGKILL);
    }
    // A worker that has no link yet to Bob's gateway does not reach him.
    node.status_when("new workers have all links", |status| {
        let workers = status.instance("worker");
        workers.restarts == 2 && workers.children.iter().all(|worker| worker.links == 2)
    })
    .await;
    ada.send("still here").await;
    bob.until("[rust] Ada: still here").await;
}
