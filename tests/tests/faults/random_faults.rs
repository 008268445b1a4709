//! Faults at random, from a seed, under load.
//!
//! `MEEPO_TEST_FAULT_SECONDS` is how long it goes on (20), `MEEPO_TEST_FAULT_SEED` repeats a run's faults.

use std::env;
use std::time::{Duration, Instant};

use fastrand::Rng;
use meepo_tests::network::{INNER, REGISTRY, Way};
use meepo_tests::{Cluster, Network, Node, processes};
use nix::sys::signal::Signal;
use tokio::time::sleep;

#[derive(Debug, Clone, Copy)]
enum Fault {
    KillWorkerChild,
    KillWorkerNode,
    FreezeWorkerChild,
    ReloadWorker,
    RestartWorker,
    KillGatewayChild,
    ReloadGateway,
    KillRegistryChild,
    CutLinks,
    CutRegistry,
    BadNetwork,
}

const CLIENTS: u64 = 24;

const FAULTS: [Fault; 11] = [
    Fault::KillWorkerChild,
    Fault::KillWorkerNode,
    Fault::FreezeWorkerChild,
    Fault::ReloadWorker,
    Fault::RestartWorker,
    Fault::KillGatewayChild,
    Fault::ReloadGateway,
    Fault::KillRegistryChild,
    Fault::CutLinks,
    Fault::CutRegistry,
    Fault::BadNetwork,
];

#[tokio::test]
async fn nothing_is_lost_whatever_fails() {
    let number = |key| env::var(key).ok().and_then(|text| text.parse::<u64>().ok());
    let time = Duration::from_secs(number("MEEPO_TEST_FAULT_SECONDS").unwrap_or(20));
    let seed = number("MEEPO_TEST_FAULT_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
    println!("MEEPO_TEST_FAULT_SEED={seed}");
    let mut rng = Rng::with_seed(seed);

    let Some(network) = Network::own() else { return };
    let (mut cluster, load) = Cluster::under_load_across(&network, CLIENTS as usize).await;
    let start = Instant::now();
    while start.elapsed() < time {
        let fault = *rng.choice(FAULTS.iter()).expect("there are faults");
        println!("{:6.1} s: {fault:?}", start.elapsed().as_secs_f64());
        strike(fault, &mut cluster, &network, &mut rng).await;
        sleep(Duration::from_millis(rng.u64(0..2000))).await;
    }
    network.heal();
    cluster.linked().await;
    cluster.settled(CLIENTS).await;
    cluster.more(400).await;
    cluster.verdict(load).await.fine();
}

/// Lets something fail, and mends it.
async fn strike(fault: Fault, cluster: &mut Cluster, network: &Network, rng: &mut Rng) {
    let which = rng.usize(..2);
    let length = Duration::from_millis(rng.u64(100..10_000));
    match fault {
        Fault::KillWorkerChild => kill_child(&cluster.workers[which], "worker", rng).await,
        Fault::KillGatewayChild => {
            kill_child(&cluster.gateways[which], "gateway", rng).await;
            // A worker that dies before it has told of its clients takes the news along.
            cluster.settled(CLIENTS).await;
        }
        Fault::KillRegistryChild => kill_child(&cluster.registries[0], "registry", rng).await,
        Fault::KillWorkerNode => {
            let node = &mut cluster.workers[which];
            node.kill_all().await;
            sleep(length).await;
            node.start().await;
        }
        Fault::FreezeWorkerChild => {
            let pids = cluster.workers[which].pids("worker").await;
            let Some(&pid) = rng.choice(pids.iter()) else { return };
            processes::signal(pid, Signal::SIGSTOP);
            sleep(length).await;
            processes::signal(pid, Signal::SIGCONT);
        }
        Fault::ReloadWorker => cluster.workers[which].command(&["reload"]).await.fine(),
        Fault::ReloadGateway => cluster.gateways[which].command(&["reload"]).await.fine(),
        Fault::RestartWorker => {
            cluster.workers[which].stop().await;
            sleep(length / 4).await;
            cluster.workers[which].start().await;
        }
        Fault::CutLinks | Fault::CutRegistry => {
            let way = *rng.choice(&[Way::To, Way::From, Way::Both]).expect("there are ways");
            match fault {
                Fault::CutLinks => network.cut(cluster.gateways[which].host().ip(), INNER, way),
                _ => network.cut(cluster.registries[0].host().ip(), REGISTRY, way),
            }
            sleep(length).await;
            network.heal();
        }
        Fault::BadNetwork => {
            network.worsen("19911:19919", 0.03, "20mbit");
            sleep(length).await;
            network.heal();
        }
    }
}

async fn kill_child(node: &Node, instance: &str, rng: &mut Rng) {
    // One that drains and is killed counts as lost, also to those who were away when it gave its clients to others.
    let status = node.status().await;
    let children = status.instance(instance).children.iter();
    let serving: Vec<_> = children.filter(|child| child.state == "serving").collect();
    if let Some(pid) = rng.choice(serving).and_then(|child| child.pid) {
        processes::signal(pid, Signal::SIGKILL);
        node.status_when("the child is replaced", |status| {
            status.all_serve() && !status.instance(instance).pids().contains(&pid)
        })
        .await;
    }
}
