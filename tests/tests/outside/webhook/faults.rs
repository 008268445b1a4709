//! `meepo-worker` and what fails: the endpoint, workers, a gateway.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use meepo_tests::{Endpoint, Host, Line, Post, Reply, Status, WebhookCluster, Ws, processes, wait_for};
use nix::sys::signal::Signal;
use tokio::sync::Semaphore;

/// What each client has said, in the order of the first time; nothing comes twice without a mark.
fn said(posts: &[Post]) -> BTreeMap<String, Vec<usize>> {
    let mut ids = BTreeSet::new();
    let mut said = BTreeMap::<String, Vec<usize>>::new();
    for post in posts {
        let fresh = ids.insert(post.header("ce-id").to_owned());
        assert!(fresh || post.redelivered(), "twice without a mark: {post:?}");
        if fresh && post.kind() == "message" {
            let numbers = said.entry(post.header("ce-subject").into()).or_default();
            numbers.push(post.text().parse().expect("a number was said"));
        }
    }
    said
}

#[tokio::test]
async fn an_endpoint_that_dies_loses_nothing_and_keeps_the_order() {
    const CLIENTS: usize = 20;
    const MESSAGES: usize = 60;
    let host = Host::new();
    let mut endpoint = Endpoint::start(host.endpoint(), |_| Reply::none()).await;
    let cluster = WebhookCluster::start(&host, "connections = 8").await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Line::connect(host.line()).await);
    }
    endpoint.when("opened", CLIENTS).await;
    for number in 0..MESSAGES {
        for client in &mut clients {
            client.send(&number.to_string()).await;
        }
        if number % 20 == 10 {
            endpoint.down().await;
        }
        if number % 20 == 15 {
            // It is missed.
            cluster
                .worker
                .status_when("events wait", |status| {
                    status.children().any(|child| child.held_back > 0)
                })
                .await;
            endpoint.up().await;
        }
    }
    cluster.idle().await;
    let said = said(&endpoint.posts());
    assert_eq!(said.len(), CLIENTS);
    for (client, numbers) in said {
        assert_eq!(numbers, (0..MESSAGES).collect::<Vec<_>>(), "{client}");
    }
    cluster.failed(0).await;
}

#[tokio::test]
async fn a_slow_answer_holds_up_its_own_client_alone() {
    let host = Host::new();
    let gate = Arc::new(Semaphore::new(0));
    let hold = gate.clone();
    let endpoint = Endpoint::start(host.endpoint(), move |post| match post.text().as_str() {
        "slow" => Reply::bytes("text/plain", "slow").behind(&hold),
        text if post.kind() == "message" => Reply::bytes("text/plain", text),
        _ => Reply::none(),
    })
    .await;
    let cluster = WebhookCluster::start(&host, "connections = 2").await;
    let (mut slow, mut quick) = (cluster.client("/").await, cluster.client("/").await);
    slow.send("slow").await;
    slow.send("behind").await;
    endpoint.when("message", 1).await;
    for number in 0..50 {
        assert_eq!(quick.ask(&number.to_string()).await, number.to_string());
    }
    assert!(endpoint.of("message").iter().all(|post| post.text() != "behind"));
    gate.add_permits(1);
    assert_eq!((slow.text().await, slow.text().await), ("slow".into(), "behind".into()));
}

#[tokio::test]
async fn an_answer_that_never_comes_is_asked_for_again() {
    let host = Host::new();
    let gate = Arc::new(Semaphore::new(0));
    let (hold, first) = (gate.clone(), AtomicBool::new(true));
    let endpoint = Endpoint::start(host.endpoint(), move |post| match post.kind() {
        "message" if first.swap(false, Ordering::Relaxed) => Reply::none().behind(&hold),
        "message" => Reply::bytes("text/plain", post.text()),
        _ => Reply::none(),
    })
    .await;
    let cluster = WebhookCluster::start(&host, "timeout = \"500ms\"").await;
    let mut client = cluster.client("/").await;
    assert_eq!(client.ask("1").await, "1");
    let posts = endpoint.of("message");
    assert_eq!(posts.len(), 2);
    assert_eq!(posts[0].header("ce-id"), posts[1].header("ce-id"));
    assert!(posts[1].redelivered() && !posts[0].redelivered());
}

#[tokio::test]
async fn a_reload_under_load_loses_and_repeats_nothing() {
    const MESSAGES: usize = 400;
    let host = Host::new();
    let endpoint = Endpoint::start(host.endpoint(), |post| match post.kind() {
        "message" => Reply::bytes("text/plain", post.text()),
        _ => Reply::none(),
    })
    .await;
    let cluster = WebhookCluster::start(&host, "").await;
    let mut client = cluster.client("/").await;
    let sender = tokio::spawn(async move {
        for number in 0..MESSAGES {
            assert_eq!(client.ask(&number.to_string()).await, number.to_string());
        }
    });
    for round in 1..=2 {
        endpoint.when("message", round * MESSAGES / 4).await;
        cluster.worker.command(&["reload"]).await.fine();
    }
    sender.await.expect("the client noticed nothing");
    let messages = endpoint.of("message");
    let numbers: Vec<_> = messages
        .iter()
        .map(|post| post.text().parse::<usize>().expect("a number"))
        .collect();
    assert_eq!(numbers, (0..MESSAGES).collect::<Vec<_>>());
    assert!(messages.iter().all(|post| !post.redelivered()));
    let ids: BTreeSet<_> = messages.iter().map(|post| post.header("ce-id")).collect();
    assert_eq!(ids.len(), MESSAGES, "names are not used again by another worker");
}

#[tokio::test]
async fn workers_that_are_replaced_while_the_endpoint_is_away_hand_events_back() {
    const MESSAGES: usize = 10;
    let host = Host::new();
    let mut endpoint = Endpoint::start(host.endpoint(), |post| match post.kind() {
        "message" => Reply::bytes("text/plain", post.text()),
        _ => Reply::none(),
    })
    .await;
    let cluster = WebhookCluster::start(&host, "").await;
    let mut client = cluster.client("/").await;
    endpoint.when("opened", 1).await;
    endpoint.down().await;
    for number in 0..MESSAGES {
        client.send(&number.to_string()).await;
    }
    // Oftener than an event may come back from handlers that were cut off.
    for _ in 0..5 {
        let held = |status: &Status| status.children().any(|child| child.held_back > 0);
        let old = cluster
            .worker
            .status_when("events wait", held)
            .await
            .instance("worker")
            .pids();
        cluster.worker.command(&["reload"]).await.fine();
        let gone = |status: &Status| {
            status.all_serve() && status.instance("worker").pids().iter().all(|pid| !old.contains(pid))
        };
        cluster.worker.status_when("the old worker has gone", gone).await;
    }
    let log = cluster.worker.output();
    assert!(!log.contains("drain takes too long"), "{log}");
    endpoint.up().await;
    for number in 0..MESSAGES {
        assert_eq!(client.text().await, number.to_string());
    }
    assert_eq!(said(&endpoint.posts()).values().next(), Some(&(0..MESSAGES).collect()));
    cluster.failed(0).await;
}

#[tokio::test]
async fn a_worker_that_dies_leaves_its_event_to_another_one() {
    let host = Host::new();
    let gate = Arc::new(Semaphore::new(0));
    let (hold, first) = (gate.clone(), AtomicBool::new(true));
    let endpoint = Endpoint::start(host.endpoint(), move |post| match post.kind() {
        "message" if first.swap(false, Ordering::Relaxed) => Reply::none().behind(&hold),
        "message" => Reply::bytes("text/plain", post.text()),
        _ => Reply::none(),
    })
    .await;
    let cluster = WebhookCluster::start(&host, "").await;
    let mut client = cluster.client("/").await;
    client.send("1").await;
    endpoint.when("message", 1).await;
    processes::signal(cluster.worker.pids("worker").await[0], Signal::SIGKILL);
    assert_eq!(client.text().await, "1");
    let posts = endpoint.of("message");
    let (before, after) = (&posts[0], &posts[1]);
    assert_eq!(before.header("ce-id"), after.header("ce-id"));
    assert_eq!((after.header("ce-meepoattempt"), after.redelivered()), ("1", true));
    assert!(!before.redelivered());
}

#[tokio::test]
async fn a_gateway_that_dies_is_told_of() {
    let host = Host::new();
    let endpoint = Endpoint::start(host.endpoint(), |_| Reply::none()).await;
    let cluster = WebhookCluster::start(&host, "").await;
    let _client = cluster.client("/").await;
    let opened = endpoint.when("opened", 1).await;
    let gateway = cluster.front.pids("gateway").await[0];
    processes::signal(gateway, Signal::SIGKILL);
    let closed = endpoint.when("closed", 1).await;
    assert_eq!(closed[0].header("ce-subject"), opened[0].header("ce-subject"));
    assert_eq!(
        closed[0].header("ce-id"),
        format!("{}:closed", opened[0].header("ce-subject"))
    );
    assert!(closed[0].text().contains("gateway lost"), "{}", closed[0].text());
    let _ = wait_for("the gateway is back", async || {
        Ws::try_connect(host.ws(), "/").await.ok()
    })
    .await;
}

#[tokio::test]
async fn an_outage_is_not_counted_against_an_event() {
    let host = Host::new();
    let attempts = AtomicUsize::new(0);
    let mut endpoint = Endpoint::start(host.endpoint(), move |post| match post.kind() {
        "message" => match attempts.fetch_add(1, Ordering::Relaxed) {
            0..20 => Reply::status(503, ""),
            20 => Reply::status(500, ""),
            _ => Reply::bytes("text/plain", post.text()),
        },
        _ => Reply::none(),
    })
    .await;
    let cluster = WebhookCluster::start(&host, "attempts = 2").await;
    let mut client = cluster.client("/").await;
    endpoint.down().await;
    client.send("patience").await;
    cluster
        .worker
        .status_when("the event waits", |status| {
            status.children().any(|child| child.held_back > 0)
        })
        .await;
    endpoint.up().await;
    assert_eq!(client.text().await, "patience");
    cluster.failed(0).await;
}

#[tokio::test]
async fn an_event_that_is_never_answered_is_given_up_while_others_are() {
    let host = Host::new();
    let never = Arc::new(Semaphore::new(0));
    let endpoint = Endpoint::start(host.endpoint(), move |post| match post.text().as_str() {
        "poison" => Reply::none().behind(&never),
        "gateway" => Reply::status(504, ""),
        text if post.kind() == "message" => Reply::bytes("text/plain", text),
        _ => Reply::none(),
    })
    .await;
    let cluster = WebhookCluster::start(&host, "attempts = 3\ntimeout = \"200ms\"\nconnections = 2").await;
    let mut poisons = Vec::new();
    for text in ["poison", "gateway", "poison"] {
        let mut client = cluster.client("/").await;
        client.send(text).await;
        client.send("behind").await;
        poisons.push(client);
    }
    // While nobody else is answered, nobody is to blame.
    let attempts = |endpoint: &Endpoint| endpoint.of("message").len();
    wait_for("they are sent again and again", async || {
        (attempts(&endpoint) > 40).then_some(())
    })
    .await;
    cluster.failed(0).await;
    let mut other = cluster.client("/").await;
    let others = tokio::spawn(async move {
        loop {
            assert_eq!(other.ask("on").await, "on");
        }
    });
    for client in &mut poisons {
        assert_eq!(client.text().await, "behind");
    }
    cluster.failed(3).await;
    others.abort();
    let log = cluster.worker.output();
    for why in ["no answer within 200ms", "504"] {
        let line = log.lines().find(|line| line.contains(why) && line.contains("3 times"));
        assert!(line.is_some_and(|line| line.contains("other events")), "{log}");
    }
}
