//! What degrades, and how it is seen, when something is exhausted: the disk of the logs, send buffers, queues. For file
//! descriptors see `descriptors.rs`.

use std::fs;

use meepo_tests::{Builder, DEADLINE, Disk, Incoming, Node, Scrape, Ws, in_time, processes, wait_for, wait_until};
use nix::sys::signal::Signal;
use tokio::task::JoinSet;

const GATEWAY: [(&str, &str); 1] = [("kind", "gateway")];

fn node() -> Builder {
    Node::test().set("node", "metrics = \"{ip}:19920\"")
}

#[tokio::test]
async fn a_full_disk_stops_the_log_and_not_the_service() {
    let Some(disk) = Disk::small() else { return };
    let log = disk.path().join("node.log");
    let node = node()
        .set("node", &format!("log_file = {log:?}"))
        .set("worker", "children = 1")
        .start()
        .await;
    let mut client = Ws::connect(node.host().ws()).await;
    disk.fill();
    let failed = wait_for("the disk is full for the log", async || {
        // There may be room for some lines in the last block of the file.
        for _ in 0..20 {
            client.send("fail").await;
        }
        assert_eq!(client.ask("x").await, "x");
        let status = node.status().await;
        let told = status
            .problems
            .contains(&"worker 0: log lines cannot be written".to_owned());
        told.then_some(status.instance("worker").sum(|child| child.lost_log_lines))
    })
    .await;
    assert!(failed > 0);
    let status = node.command(&["status"]).await;
    assert_eq!(status.code, Some(0), "it serves: {status:?}");
    assert!(
        status.stdout.contains("\nnow: worker 0: log lines cannot be written\n"),
        "{status:?}"
    );
    let scrape = Scrape::of(node.host().metrics()).await;
    let worker = [("kind", "worker")];
    assert_eq!(scrape.sum("meepo_log_failing", &worker), 1.0);
    assert!(scrape.sum("meepo_lost_log_lines_total", &worker) >= failed as f64);
    // Children that die are replaced, new clients come in.
    let victim = node.pids("worker").await[0];
    processes::signal(victim, Signal::SIGKILL);
    node.status_when("the worker is replaced", |status| {
        status.all_serve() && !status.instance("worker").pids().contains(&victim)
    })
    .await;
    let mut another = Ws::connect(node.host().ws()).await;
    assert_eq!(another.ask("y").await, "y");
    assert_eq!(client.ask("x").await, "x");
    client.send("fail").await;
    assert_eq!(client.ask("x").await, "x");
    let status = node.status().await;
    assert!(status.problems.len() >= 2, "the master lost a line too: {status:?}");

    disk.empty();
    // Nobody logs anything meanwhile.
    node.status_when("the logs are well", |status| status.problems.is_empty())
        .await;
    client.send("fail").await;
    let log = wait_for("it is logged again", async || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let last = text.lines().last()?;
        (text.ends_with('\n') && last.contains("asked to fail")).then_some(text)
    })
    .await;
    for process in ["master", "worker/0"] {
        let told = |line: &str| line.contains("could not be written and are lost lost=") && line.contains(process);
        assert!(log.lines().any(told), "{process} in {log}");
    }
    assert!(!log.contains('\0'), "no hole");
    let whole = log.lines().filter(|line| line.starts_with("20")).count();
    // Where it became full, each process may have left a part of a line.
    assert!(log.lines().count() - whole <= 4, "{log}");
    let scrape = Scrape::of(node.host().metrics()).await;
    assert!(scrape.sum("meepo_lost_log_lines_total", &worker) > failed as f64);
    assert_eq!(scrape.sum("meepo_log_failing", &[]), 0.0);
}

/// Clients that never read, in a group that is sent more than anybody keeps for them.
async fn broadcast_to_nobody(slow_client: &str) -> (Node, Vec<Ws>, Ws) {
    const CLIENTS: usize = 100;
    const MESSAGES: usize = 400;
    let node = node()
        .set(
            "gateway",
            &format!("children = 1\nsend_buffer = \"64KiB\"\nslow_client = {slow_client:?}"),
        )
        .start()
        .await;
    let address = node.host().ws();
    let gateway = node.pids("gateway").await[0];
    let mut deaf = Vec::new();
    for _ in 0..CLIENTS {
        deaf.push(Ws::connect_narrow(address, "/?join=room").await);
    }
    let mut sender = Ws::connect(address).await;
    assert_eq!(sender.ask("count room").await, CLIENTS.to_string());
    let before = processes::memory(gateway);
    let mut most = 0;
    let text = format!("send-group room {}", "x".repeat(16 << 10));
    for _ in 0..MESSAGES {
        sender.send(&text).await;
        most = most.max(processes::memory(gateway));
    }
    // Who comes now is served, and so is who was there.
    let mut newcomer = Ws::connect(address).await;
    assert_eq!(newcomer.ask("x").await, "x");
    assert_eq!(sender.ask("x").await, "x");
    most = most.max(processes::memory(gateway));
    // What waits for all of them together is the same: at most four send buffers of it, not as many for each.
    assert!(most < before + (16 << 20), "memory grows from {before} to {most}");
    let scrape = wait_for("all are found to be slow", async || {
        sender.send(&text).await;
        let scrape = Scrape::of(node.host().metrics()).await;
        let dropped = scrape.sum("meepo_dropped_sends_total", &GATEWAY) >= CLIENTS as f64;
        let closed = scrape.sum("meepo_slow_clients_total", &GATEWAY);
        (dropped || closed == CLIENTS as f64).then_some(scrape)
    })
    .await;
    assert_eq!(node.pids("gateway").await, [gateway]);
    let failed = scrape.sum("meepo_failed_sends_total", &GATEWAY);
    assert!(failed >= scrape.sum("meepo_dropped_sends_total", &GATEWAY));
    (node, deaf, newcomer)
}

#[tokio::test]
async fn when_no_client_reads_all_are_closed_and_new_ones_served() {
    let (node, deaf, mut newcomer) = broadcast_to_nobody("close").await;
    wait_until("all are closed", DEADLINE, async || {
        let scrape = Scrape::of(node.host().metrics()).await;
        scrape.sum("meepo_slow_clients_total", &GATEWAY) == deaf.len() as f64
            && scrape.sum("meepo_connections", &GATEWAY) == 1.0
    })
    .await;
    assert_eq!(newcomer.ask("count room").await, "0");
    let status = node.command(&["status"]).await.stdout;
    let told = format!("since the start: gateway: {} slow clients closed", deaf.len());
    assert!(status.contains(&told), "{status}");
}

#[tokio::test]
async fn when_no_client_reads_they_can_miss_messages_and_stay() {
    let (node, deaf, mut newcomer) = broadcast_to_nobody("drop").await;
    assert_eq!(newcomer.ask("count room").await, deaf.len().to_string());
    let scrape = Scrape::of(node.host().metrics()).await;
    assert_eq!(scrape.sum("meepo_slow_clients_total", &GATEWAY), 0.0);
    // They still get what waits for them, and what comes once they read again.
    let mut readers = JoinSet::new();
    for mut client in deaf {
        readers.spawn(async move {
            loop {
                match client.next().await {
                    Incoming::Text(text) if text == "last" => return true,
                    Incoming::Text(_) => {}
                    _ => return false,
                }
            }
        });
    }
    let heard = async {
        while !readers.is_empty() {
            newcomer.send("send-group room last").await;
            while let Some(read) = readers.try_join_next() {
                assert!(read.expect("a reader does not panic"), "a client was closed");
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    in_time("all hear the last message", heard).await;
}

#[tokio::test]
async fn when_too_much_waits_for_workers_clients_are_held_back_and_that_is_told() {
    const CLIENTS: usize = 20;
    const MESSAGES: usize = 200;
    const FULL: &str = "gateway 0: a queue is full, clients held back: ";
    let mut front = node()
        .set(
            "gateway",
            "children = 1\nwaiting = \"64KiB\"\nclient_waiting = \"16KiB\"",
        )
        .only("gateway")
        .prepare();
    let _registry = Node::build("meepo-registry").host(front.host()).start().await;
    front.start().await;
    let workers = Node::test().registry(front.host()).only("worker").start().await;
    let linked =
        |links| move |status: &meepo_tests::Status| status.instance("gateway").sum(|child| child.links) == links;
    front.status_when("the workers are linked", linked(2)).await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Ws::connect(front.host().ws()).await);
    }
    let gateway = front.pids("gateway").await[0];
    let before = processes::memory(gateway);
    for pid in workers.processes() {
        processes::signal(pid, Signal::SIGKILL);
    }
    front.status_when("no worker is linked", linked(0)).await;

    let mut senders = JoinSet::new();
    for (number, mut client) in clients.into_iter().enumerate() {
        senders.spawn(async move {
            for message in 0..MESSAGES {
                client.send(&format!("{number} {message} {}", "x".repeat(2000))).await;
            }
            for message in 0..MESSAGES {
                let text = client.text().await;
                assert!(
                    text.starts_with(&format!("{number} {message} ")),
                    "{number}, not {message}"
                );
            }
            client
        });
    }
    let status = front
        .status_when("it is told", |status| {
            status.problems.iter().any(|problem| problem.starts_with(FULL))
        })
        .await;
    assert!(
        status.instance("gateway").sum(|child| child.held_back) > 0,
        "{status:?}"
    );
    let scrape = wait_for("all are held back", async || {
        let scrape = Scrape::of(front.host().metrics()).await;
        (scrape.sum("meepo_held_back_clients", &[]) == CLIENTS as f64).then_some(scrape)
    })
    .await;
    assert_eq!(scrape.sum("meepo_full_queues", &[]), 1.0);
    let now = processes::memory(gateway);
    assert!(now < before + (16 << 20), "memory grows from {before} to {now}");

    let later = Node::test().registry(front.host()).only("worker").start().await;
    while let Some(sender) = in_time("all answers", senders.join_next()).await {
        sender.expect("all answers come in their order");
    }
    let status = front
        .status_when("nothing is held back", |status| {
            status.problems.is_empty() && status.instance("gateway").sum(|child| child.held_back) == 0
        })
        .await;
    assert_eq!(status.instance("gateway").pids(), [gateway]);
    assert_eq!(later.events().messages().len(), CLIENTS * MESSAGES);
}
