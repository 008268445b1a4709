//! Descriptors: a gateway that has none left goes on, and one whose clients have left lets theirs go.

use std::time::{Duration, Instant};

use meepo_tests::{DEADLINE, Line, Node, Scrape, Ws, processes, wait_until};
use nix::sys::signal::Signal;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

#[tokio::test]
async fn a_gateway_without_free_descriptors_serves_on_and_takes_clients_again() {
    const LIMIT: usize = 256;
    const CLIENTS: usize = 400;
    const WARNING: &str = "cannot accept connections";
    const PROBLEM: &str = "gateway 0: no free file descriptors, new connections wait";
    let node = Node::test()
        .shell(&format!("ulimit -n {LIMIT}"))
        // Those that cannot come in wait at the listener, however long this takes.
        .set("gateway", "children = 1")
        .set("node", "metrics = \"{ip}:19920\"")
        .start()
        .await;
    let address = node.host().ws();
    let mut first = Vec::new();
    for _ in 0..100 {
        first.push(Ws::connect(address).await);
    }
    let started = Instant::now();
    let mut others = JoinSet::new();
    for _ in 100..CLIENTS {
        // A connection that is ended without an answer is as good as one that waits.
        others.spawn(async move { tokio::time::timeout(Duration::from_secs(5), Ws::try_connect(address, "/")).await });
    }
    wait_until("the shortage is logged", DEADLINE, async || {
        node.output().contains(WARNING)
    })
    .await;
    let status = node
        .status_when("it is told", |status| status.problems == [PROBLEM])
        .await;
    assert_eq!(status.instance("gateway").sum(|child| child.blocked_listeners), 1);
    let text = node.command(&["status"]).await;
    assert_eq!(text.code, Some(0));
    assert!(text.stdout.contains(&format!("\nnow: {PROBLEM}\n")), "{text:?}");
    let scrape = Scrape::of(node.host().metrics()).await;
    let gateway = [("kind", "gateway")];
    assert_eq!(scrape.sum("meepo_blocked_listeners", &gateway), 1.0);
    assert!(scrape.sum("meepo_failed_accepts_total", &gateway) >= 1.0);
    let pid = node.pids("gateway").await[0];
    let used = processes::cpu_ticks(pid);
    for number in 0..20 {
        for client in &mut first {
            let text = number.to_string();
            assert_eq!(client.ask(&text).await, text);
        }
    }
    // More than a link takes at once: to wait for room in it takes no descriptor.
    let large = "x".repeat(1 << 19);
    for client in first.iter_mut().take(8) {
        assert!(client.ask(&large).await == large);
    }
    let others = others.join_all().await;
    let others: Vec<_> = others.into_iter().filter_map(|client| client.ok()?.ok()).collect();
    assert!(others.len() < LIMIT - 100, "{} came in", 100 + others.len());
    assert!(
        processes::descriptors(pid) <= LIMIT && processes::cpu_ticks(pid) - used < 400,
        "it does not spin"
    );
    // A listener warns every 10 s at most, however long the steps above take.
    let most = 4 + started.elapsed().as_secs() as usize / 10;
    let warnings = node.output().matches(WARNING).count();
    assert!(warnings <= most, "{warnings} warnings");

    drop(others);
    // A new one comes in as soon as there is room.
    let mut late = meepo_tests::wait_for("a new client", async || Ws::try_connect(address, "/").await.ok()).await;
    assert_eq!(late.ask("late").await, "late");
    for client in &mut first {
        assert_eq!(client.ask("still here").await, "still here");
    }
    assert_eq!(node.pids("gateway").await, [pid]);
    node.status_when("all is well", |status| status.problems.is_empty())
        .await;
    let text = node.command(&["status"]).await.stdout;
    assert!(
        text.contains("since the start: gateway: ") && text.contains("accepts failed"),
        "{text}"
    );
}

#[tokio::test]
async fn a_gateway_alone_without_descriptors_still_shows_its_metrics() {
    let mut node = Node::test()
        .shell("ulimit -n 64")
        .only("gateway")
        .set("gateway", "children = 1\nconnect_timeout = \"10m\"")
        .set("node", "metrics = \"{ip}:19920\"")
        .prepare();
    node.start().await;
    let mut waiting = Vec::new();
    for _ in 0..100 {
        waiting.push(TcpStream::connect(node.host().line()).await.expect("a connection"));
    }
    wait_until("there is none left", DEADLINE, async || {
        Scrape::of(node.host().metrics())
            .await
            .sum("meepo_blocked_listeners", &[])
            == 1.0
    })
    .await;
    let pid = node.pids("gateway").await[0];
    for _ in 0..20 {
        let scrape = Scrape::of(node.host().metrics()).await;
        assert_eq!(scrape.sum("meepo_blocked_listeners", &[]), 1.0);
        assert!(scrape.sum("meepo_memory_bytes", &[]) > 0.0);
    }
    for client in waiting {
        client.set_zero_linger().expect("a socket can linger");
    }
    wait_until("all is well", DEADLINE, async || {
        Scrape::of(node.host().metrics())
            .await
            .sum("meepo_blocked_listeners", &[])
            == 0.0
    })
    .await;
    assert_eq!(node.pids("gateway").await, [pid]);
}

#[tokio::test]
async fn clients_that_leave_while_no_worker_is_there_hold_no_descriptor() {
    const CLIENTS: usize = 50;
    let mut front = Node::test().set("gateway", "children = 1").only("gateway").prepare();
    let registry = Node::build("meepo-registry").host(front.host()).start().await;
    front.start().await;
    let workers = Node::test().registry(front.host()).only("worker").start().await;
    let pid = front.pids("gateway").await[0];
    front
        .status_when("the workers are linked", |status| {
            status.instance("gateway").sum(|child| child.links) == 2
        })
        .await;
    let before = processes::descriptors(pid);

    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push((
            Ws::connect(front.host().ws()).await,
            Line::connect(front.host().line()).await,
        ));
    }
    for (ws, line) in &mut clients {
        assert_eq!(ws.ask("x").await, "x");
        assert_eq!(line.ask("x").await, "x");
    }
    assert!(processes::descriptors(pid) >= before + 2 * CLIENTS);
    for pid in workers.processes() {
        processes::signal(pid, Signal::SIGKILL);
    }
    front
        .status_when("no worker is linked", |status| {
            status.instance("gateway").sum(|child| child.links) == 0
        })
        .await;
    for (ws, line) in &mut clients {
        ws.send("nobody reads this").await;
        line.send("nor this").await;
    }
    drop(clients);
    wait_until("their descriptors are free", DEADLINE, async || {
        processes::descriptors(pid) <= before
    })
    .await;

    // What they sent, and that they went, is told to those who come.
    let later = Node::test().registry(front.host()).only("worker").start().await;
    let closes = later.events().wait_count("close", 2 * CLIENTS).await;
    assert_eq!(closes.len(), 2 * CLIENTS);
    assert_eq!(later.events().messages().len(), 2 * CLIENTS);
    drop(registry);
}
