//! Nothing is lost: each kind of fault under load, on a cluster of two gateways and two workers with two children each.
//!
//! Clients number what they send, handlers write down what they see, and the checker compares.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use meepo_tests::{Cluster, Node, Record, Ws, processes, wait_for};
use nix::sys::signal::Signal;
use tokio::time::sleep;

async fn replaced(node: &Node, instance: &str, old: u32) {
    node.status_when("the child is replaced", |status| {
        status.all_serve() && !status.instance(instance).pids().contains(&old)
    })
    .await;
}

#[tokio::test]
async fn workers_that_are_killed_lose_nothing() {
    let (cluster, load) = Cluster::under_load(24).await;
    for worker in [0, 1, 0] {
        let victim = cluster.workers[worker].pids("worker").await[0];
        processes::signal(victim, Signal::SIGKILL);
        replaced(&cluster.workers[worker], "worker", victim).await;
        cluster.more(200).await;
    }
    cluster.verdict(load).await.unnoticed();
}

#[tokio::test]
async fn a_worker_machine_that_goes_at_once_loses_nothing() {
    let (mut cluster, load) = Cluster::under_load(24).await;
    for process in cluster.workers[0].processes() {
        processes::signal(process, Signal::SIGKILL);
    }
    cluster.workers[0].ended().await;
    cluster.more(400).await;
    cluster.workers[0].start().await;
    cluster.linked().await;
    cluster.more(200).await;
    cluster.verdict(load).await.unnoticed();
}

#[tokio::test]
async fn several_machines_that_go_at_once_are_not_the_doing_of_a_message() {
    let (mut cluster, load) = Cluster::under_load(24).await;
    let worker = cluster.worker().start().await;
    cluster.workers.push(worker);
    cluster.linked().await;
    // Six children: more than an event may end.
    for worker in &cluster.workers {
        for process in worker.processes() {
            processes::signal(process, Signal::SIGKILL);
        }
    }
    for worker in &mut cluster.workers {
        worker.ended().await;
        worker.start().await;
    }
    cluster.linked().await;
    cluster.more(200).await;
    cluster.verdict(load).await.unnoticed();
}

#[tokio::test]
async fn workers_that_are_replaced_lose_and_repeat_nothing() {
    let (mut cluster, load) = Cluster::under_load(24).await;
    for worker in &cluster.workers {
        worker.command(&["reload"]).await.fine();
        cluster.more(100).await;
    }
    // Scaled down, and up again.
    cluster.workers[0].stop().await;
    cluster.more(200).await;
    cluster.workers[0].start().await;
    cluster.linked().await;
    cluster.more(200).await;
    let verdict = cluster.verdict(load).await;
    verdict.unnoticed();
    assert_eq!(verdict.marked, 0, "nothing was seen twice");
    assert_eq!(verdict.seen, verdict.sent);
}

#[tokio::test]
async fn without_any_worker_everything_waits() {
    let (mut cluster, load) = Cluster::under_load(24).await;
    cluster.workers[0].stop().await;
    for process in cluster.workers[1].processes() {
        processes::signal(process, Signal::SIGKILL);
    }
    cluster.workers[1].ended().await;
    for gateway in &cluster.gateways {
        gateway
            .status_when("events wait for workers", |status| {
                let gateway = status.instance("gateway");
                gateway.sum(|child| child.links) == 0 && gateway.sum(|child| child.events_waiting) > 200
            })
            .await;
    }
    for worker in &mut cluster.workers {
        worker.start().await;
    }
    cluster.more(1000).await;
    cluster.verdict(load).await.unnoticed();
}

#[tokio::test]
async fn a_worker_that_is_frozen_is_set_aside_and_comes_back() {
    let (cluster, load) = Cluster::under_load(24).await;
    let frozen = cluster.workers[0].pids("worker").await[0];
    processes::signal(frozen, Signal::SIGSTOP);
    for gateway in &cluster.gateways {
        gateway
            .status_when("the frozen worker is given up", |status| {
                status.children().all(|child| child.links == 3)
            })
            .await;
    }
    cluster.more(400).await;
    processes::signal(frozen, Signal::SIGCONT);
    cluster.linked().await;
    cluster.more(400).await;
    cluster.verdict(load).await.unnoticed();
}

#[tokio::test]
async fn the_close_of_a_killed_gateways_clients_is_told() {
    let (cluster, load) = Cluster::under_load(24).await;
    for gateway in &cluster.gateways {
        let status = gateway.status().await;
        // Children share the clients, but not evenly.
        let fullest = status.children().max_by_key(|child| child.connections);
        let victim = fullest.and_then(|child| child.pid).expect("a child serves");
        processes::signal(victim, Signal::SIGKILL);
        replaced(gateway, "gateway", victim).await;
        cluster.linked().await;
        cluster.more(200).await;
    }
    let verdict = cluster.verdict(load).await;
    verdict.fine();
    assert!(verdict.lost_lives > 0, "clients noticed: {verdict:?}");
    let closes = cluster.events().of("close");
    let lost = closes.iter().filter(|close| close.cause == "gateway lost").count();
    assert!(lost > 0 && lost <= verdict.lost_lives, "{lost} of {verdict:?}");
}

#[tokio::test]
async fn a_gateway_that_is_reloaded_passes_on_all_that_it_took() {
    let (cluster, load) = Cluster::under_load(24).await;
    for gateway in &cluster.gateways {
        gateway.command(&["reload"]).await.fine();
        cluster.linked().await;
        cluster.more(200).await;
    }
    let verdict = cluster.verdict(load).await;
    verdict.fine();
    assert_eq!(verdict.marked, 0, "nothing was seen twice");
    let closes = cluster.events().of("close");
    assert!(
        closes.iter().any(|close| close.code == Some(1012)),
        "clients were told to come again"
    );
    assert!(
        closes.iter().all(|close| matches!(close.code, Some(1000 | 1012))),
        "nobody was cut off"
    );
}

#[tokio::test]
async fn a_worker_that_sleeps_while_it_is_given_up_and_the_gateway_dies_tells_with_the_mark() {
    let (cluster, load) = Cluster::under_load(24).await;
    let frozen = cluster.workers[0].pids("worker").await;
    for &pid in &frozen {
        processes::signal(pid, Signal::SIGSTOP);
    }
    let gateway = &cluster.gateways[0];
    gateway
        .status_when("the frozen worker is given up", |status| {
            status.children().all(|child| child.links == 2)
        })
        .await;
    // What it had is with the others now.
    cluster.more(400).await;
    for pid in gateway.pids("gateway").await {
        processes::signal(pid, Signal::SIGKILL);
        replaced(gateway, "gateway", pid).await;
    }
    for &pid in &frozen {
        processes::signal(pid, Signal::SIGCONT);
    }
    cluster.linked().await;
    cluster.settled(24).await;
    cluster.more(400).await;
    cluster.verdict(load).await.fine();
    let lost = |close: &&Record| close.cause == "gateway lost";
    let closes = cluster.events().of("close");
    assert!(
        closes.iter().filter(lost).any(|close| close.redelivered),
        "the frozen worker has told too"
    );
}

#[tokio::test]
async fn a_worker_that_sleeps_through_a_gateways_reload_does_not_take_it_for_dead() {
    let (cluster, load) = Cluster::under_load(24).await;
    let frozen = cluster.workers[0].pids("worker").await[0];
    processes::signal(frozen, Signal::SIGSTOP);
    let gateway = &cluster.gateways[0];
    let old = gateway.pids("gateway").await;
    gateway.command(&["reload"]).await.fine();
    // They wait for the frozen worker until they give it up, and pass on what it had.
    wait_for("the old children have gone", async || {
        let running = gateway.processes();
        old.iter().all(|pid| !running.contains(pid)).then_some(())
    })
    .await;
    processes::signal(frozen, Signal::SIGCONT);
    cluster.linked().await;
    // Whatever the frozen worker makes of the clients that it had.
    cluster.settled(24).await;
    cluster.more(400).await;
    cluster.verdict(load).await.fine();
    let closes = cluster.events().of("close");
    assert!(closes.iter().any(|close| close.code == Some(1012)));
    assert!(
        closes.iter().all(|close| close.cause != "gateway lost"),
        "no gateway was lost"
    );
    let told: BTreeSet<_> = closes.iter().map(|close| &close.client).collect();
    assert_eq!(told.len(), closes.len(), "each close was told once");
}

#[tokio::test]
async fn workers_that_come_while_a_gateway_drains_help_it_to_finish() {
    let (mut cluster, load) = Cluster::under_load(24).await;
    cluster.gateways[0].command(&["reload"]).await.fine();
    // All that it had a link to have gone before the last of its clients are closed.
    for worker in &mut cluster.workers {
        worker.stop().await;
        worker.start().await;
    }
    cluster.linked().await;
    cluster.more(400).await;
    let verdict = cluster.verdict(load).await;
    verdict.fine();
    assert_eq!(verdict.marked, 0, "nothing was seen twice");
    let closes = cluster.events().of("close");
    assert!(
        closes.iter().all(|close| matches!(close.code, Some(1000 | 1012))),
        "nobody was cut off"
    );
}

#[tokio::test]
async fn a_registry_that_is_away_disturbs_nobody() {
    let (mut cluster, load) = Cluster::under_load(24).await;
    cluster.registries[0].kill_all().await;
    // Not awaited: the time is the fault's length, more than registrations last.
    sleep(Duration::from_secs(10)).await;
    cluster.more(200).await;
    let back = Instant::now();
    cluster.registries[0].start().await;
    // Gateways and workers come back by themselves, and a new worker finds them.
    cluster.registered().await;
    println!(
        "all nodes are registered {:?} after the registry was started",
        back.elapsed()
    );
    let worker = cluster.worker().start().await;
    cluster.workers.push(worker);
    cluster.linked().await;
    cluster.more(200).await;
    let verdict = cluster.verdict(load).await;
    verdict.unnoticed();
    assert_eq!(verdict.marked, 0, "nothing was seen twice");
}

#[tokio::test]
async fn a_gateway_that_goes_while_the_registry_is_frozen_is_forgotten() {
    let (mut cluster, load) = Cluster::under_load(24).await;
    let registry = cluster.registries[0].pids("registry").await[0];
    processes::signal(registry, Signal::SIGSTOP);
    for process in cluster.gateways[0].processes() {
        processes::signal(process, Signal::SIGKILL);
    }
    cluster.gateways[0].ended().await;
    // Not awaited: the time is the fault's length, more than registrations last.
    sleep(Duration::from_secs(10)).await;
    processes::signal(registry, Signal::SIGCONT);
    let nodes = 2 * (1 + cluster.workers.len()) as u64;
    cluster.registries[0]
        .status_when("the dead children are forgotten, and the others are not", |status| {
            status.children().all(|child| child.connections == nodes)
        })
        .await;
    // Its successor at the same addresses is found, and nobody is linked twice.
    cluster.gateways[0].start().await;
    cluster.registered().await;
    cluster.linked().await;
    cluster.more(400).await;
    let verdict = cluster.verdict(load).await;
    verdict.fine();
    assert!(verdict.lost_lives > 0, "clients noticed: {verdict:?}");
}

#[tokio::test]
async fn a_message_that_ends_its_worker_each_time_is_given_up() {
    let (cluster, load) = Cluster::under_load(24).await;
    let mut client = Ws::connect(cluster.clients()[0]).await;
    client.send("exit").await;
    assert_eq!(client.closed().await.0, 1011);
    let tries = cluster
        .events()
        .messages()
        .iter()
        .filter(|text| *text == "exit")
        .count();
    assert_eq!(tries, 3, "it is tried this often, as documented");
    cluster.linked().await;
    cluster.more(200).await;
    cluster.verdict(load).await.unnoticed();
}

#[tokio::test]
async fn a_handler_that_never_ends_is_cut_off() {
    let (mut cluster, load) = Cluster::under_load(24).await;
    // Only workers with a short limit stay.
    let limit = ("MEEPO_WORKER__HANDLER_TIMEOUT", "1s");
    let worker = cluster.worker().env(limit.0, limit.1).start().await;
    for mut other in std::mem::replace(&mut cluster.workers, vec![worker]) {
        other.stop().await;
    }
    cluster.linked().await;
    let mut client = Ws::connect(cluster.clients()[0]).await;
    client.send("hang").await;
    client.send("later").await;
    for answer in ["hang", "later"] {
        assert_eq!(client.text().await, answer);
    }
    // One that hangs each time is given up.
    client.send("hang-always").await;
    assert_eq!(client.closed().await.0, 1011);
    assert_eq!(
        cluster
            .events()
            .messages()
            .iter()
            .filter(|text| *text == "hang-always")
            .count(),
        3
    );
    cluster.more(200).await;
    cluster.verdict(load).await.unnoticed();
}

#[tokio::test]
async fn a_handler_that_never_ends_does_not_hold_up_a_replacement() {
    let (mut cluster, load) = Cluster::under_load(24).await;
    let worker = cluster.worker().env("MEEPO_NODE__STOP_TIMEOUT", "4s").start().await;
    for mut other in std::mem::replace(&mut cluster.workers, vec![worker]) {
        other.stop().await;
    }
    cluster.linked().await;
    let mut client = Ws::connect(cluster.clients()[0]).await;
    client.send("hang").await;
    cluster
        .events()
        .wait("the handler hangs", |record| record.text == "hang")
        .await;
    client.send("later").await;
    cluster.workers[0].command(&["reload"]).await.fine();
    for answer in ["hang", "later"] {
        assert_eq!(client.text().await, answer);
    }
    cluster.more(200).await;
    let verdict = cluster.verdict(load).await;
    verdict.unnoticed();
    assert_eq!(verdict.marked, 0, "nobody else saw anything twice");
}
