//! Several registries: those that know nothing of each other, and those that share an etcd.

use std::time::Duration;

use futures_util::stream;
use meepo_proto::registry::registry_client::RegistryClient;
use meepo_proto::registry::{Announce, Kind, ListRequest};
use meepo_tests::{Cluster, Etcd, Load, Node, Verdict, in_time, processes, wait_for};
use nix::sys::signal::Signal;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tonic::transport::Channel;

/// Nobody noticed anything.
async fn undisturbed(cluster: Cluster, load: Load) -> Verdict {
    cluster.more(200).await;
    let verdict = cluster.verdict(load).await;
    verdict.unnoticed();
    assert_eq!(verdict.marked, 0, "nothing was seen twice");
    verdict
}

#[tokio::test]
async fn either_of_two_registries_may_be_away() {
    let mut cluster = Cluster::start_with(&["", ""]).await;
    cluster.registered().await;
    let load = cluster.load(16).await;
    for which in [0, 1] {
        cluster.registries[which].kill_all().await;
        // Nodes that start meanwhile are found through the other one.
        cluster.grow().await;
        cluster.linked().await;
        cluster.more(400).await;
        cluster.registries[which].start().await;
        // Everybody is in both again, those who came meanwhile too.
        cluster.registered().await;
    }
    undisturbed(cluster, load).await;
}

/// Two registries of two children each, which share an etcd.
async fn over_etcd() -> Option<(Etcd, Cluster, Load)> {
    let etcd = Etcd::start().await?;
    let settings = format!("children = 2\n{}", etcd.settings());
    let cluster = Cluster::start_with(&[&settings, &settings]).await;
    cluster.registered().await;
    let load = cluster.load(16).await;
    Some((etcd, cluster, load))
}

#[tokio::test]
async fn either_of_two_registries_over_etcd_may_die() {
    let Some((_etcd, mut cluster, load)) = over_etcd().await else {
        return;
    };
    for which in [0, 1] {
        cluster.registries[which].kill_all().await;
        cluster.grow().await;
        cluster.linked().await;
        // Until what the dead one has put into etcd has gone.
        sleep(Duration::from_secs(10)).await;
        cluster.more(200).await;
        cluster.registries[which].start().await;
        cluster.registered().await;
    }
    undisturbed(cluster, load).await;
}

#[tokio::test]
async fn nodes_that_know_one_registry_find_those_that_know_another() {
    let Some((_etcd, mut cluster, load)) = over_etcd().await else {
        return;
    };
    let places: Vec<_> = cluster
        .registries
        .iter()
        .map(|registry| registry.host().clone())
        .collect();
    let worker = cluster.worker().registry(&places[0]).start().await;
    cluster.workers.push(worker);
    let gateway = Node::build("meepo-gateway").registry(&places[1]).start().await;
    cluster.gateways.push(gateway);
    cluster.linked().await;
    undisturbed(cluster, load).await;
}

#[tokio::test]
async fn any_member_of_etcd_may_die() {
    let Some((mut etcd, mut cluster, load)) = over_etcd().await else {
        return;
    };
    let leader = etcd.leader().await;
    for which in [leader, (leader + 1) % etcd.size(), (leader + 2) % etcd.size()] {
        etcd.kill(which).await;
        etcd.agree().await;
        let worker = cluster.worker().start().await;
        cluster.workers.push(worker);
        cluster.linked().await;
        etcd.begin(which);
        etcd.agree().await;
    }
    cluster.grow().await;
    cluster.linked().await;
    undisturbed(cluster, load).await;
}

#[tokio::test]
async fn any_member_of_etcd_may_be_cut_off() {
    let Some((mut etcd, mut cluster, load)) = over_etcd().await else {
        return;
    };
    let leader = etcd.leader().await;
    for which in [leader, (leader + 1) % etcd.size(), (leader + 2) % etcd.size()] {
        // Connections to it stand, and nothing answers; the others forget what happens meanwhile.
        etcd.freeze(which);
        let worker = cluster.worker().start().await;
        cluster.workers.push(worker);
        cluster.linked().await;
        etcd.compact().await;
        etcd.thaw(which);
        etcd.agree().await;
    }
    cluster.grow().await;
    cluster.linked().await;
    undisturbed(cluster, load).await;
}

#[tokio::test]
async fn without_etcd_links_stand_and_later_nodes_are_found() {
    let Some((mut etcd, mut cluster, load)) = over_etcd().await else {
        return;
    };
    for which in 0..etcd.size() {
        etcd.kill(which).await;
    }
    // Not awaited: the time is the fault's length, more than leases last.
    sleep(Duration::from_secs(20)).await;
    cluster.registered().await;
    cluster.more(200).await;
    // Both wait until etcd is back.
    cluster.grow().await;
    for which in 0..etcd.size() {
        etcd.begin(which);
    }
    etcd.agree().await;
    cluster.linked().await;
    cluster.registered().await;
    undisturbed(cluster, load).await;
}

#[tokio::test]
async fn leases_that_have_ended_are_mended() {
    let Some((etcd, mut cluster, load)) = over_etcd().await else {
        return;
    };
    etcd.revoke_all().await;
    cluster.grow().await;
    cluster.linked().await;
    // Registries that are frozen for longer than their leases last, while etcd goes on and forgets.
    let frozen: Vec<_> = cluster.registries.iter().flat_map(Node::processes).collect();
    for &process in &frozen {
        processes::signal(process, Signal::SIGSTOP);
    }
    sleep(Duration::from_secs(12)).await;
    etcd.compact().await;
    for process in frozen {
        processes::signal(process, Signal::SIGCONT);
    }
    cluster.registered().await;
    cluster.grow().await;
    cluster.linked().await;
    undisturbed(cluster, load).await;
}

#[tokio::test]
async fn a_node_that_changes_while_etcd_is_away_stays_registered() {
    let Some(mut etcd) = Etcd::start().await else { return };
    let registry = Node::build("meepo-registry")
        .set("registry", &etcd.settings())
        .start()
        .await;
    let address = format!("http://{}", registry.host().registry());
    let mut client = RegistryClient::connect(address).await.expect("the registry is there");
    let announce = |name: &str| Announce {
        node: Some(meepo_proto::registry::Node {
            id: 7,
            kind: Kind::Worker.into(),
            name: name.into(),
            ..Default::default()
        }),
    };
    let names = async |client: &mut RegistryClient<Channel>| {
        let list = in_time("the list", client.list(ListRequest {})).await.ok()?;
        Some(
            list.into_inner()
                .nodes
                .into_iter()
                .map(|node| node.name)
                .collect::<Vec<_>>(),
        )
    };
    let (beats, outgoing) = mpsc::channel(4);
    let outgoing = stream::unfold(outgoing, async |mut beats| Some((beats.recv().await?, beats)));
    beats.send(announce("before")).await.expect("the stream is open");
    let mut acks = client.register(outgoing).await.expect("it can register").into_inner();
    let mut ack = async || in_time("an answer", acks.message()).await.expect("it stays registered");
    ack().await.expect("an answer");
    for which in 0..etcd.size() {
        etcd.kill(which).await;
    }
    beats.send(announce("after")).await.expect("the stream is open");
    ack().await.expect("an answer");
    assert_eq!(
        names(&mut client).await.expect("a list"),
        ["before"],
        "etcd does not know it yet"
    );
    for which in 0..etcd.size() {
        etcd.begin(which);
    }
    wait_for("etcd is told", async || {
        beats.send(announce("after")).await.expect("the stream is open");
        ack().await.expect("an answer");
        (names(&mut client).await? == ["after"]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_registry_starts_before_its_etcd_and_says_which_one_it_misses() {
    let Some(mut etcd) = Etcd::start().await else { return };
    for which in 0..etcd.size() {
        etcd.kill(which).await;
    }
    let registry = Node::build("meepo-registry")
        .set("registry", &etcd.settings())
        .start()
        .await;
    let worker = Node::test().registry(registry.host()).only("worker").start().await;
    wait_for("the log names all members", async || {
        let output = registry.output();
        etcd.endpoints()
            .iter()
            .all(|endpoint| output.contains(endpoint))
            .then_some(())
    })
    .await;
    for which in 0..etcd.size() {
        etcd.begin(which);
    }
    registry
        .status_when("the worker has come", |status| {
            status.children().all(|child| child.connections == 2)
        })
        .await;
    assert!(!worker.output().contains("refused this node"), "{}", worker.output());
}

#[tokio::test]
async fn a_member_of_etcd_that_has_lost_the_others_is_not_believed() {
    let Some(mut etcd) = Etcd::start().await else { return };
    let alone = &etcd.endpoints()[..1];
    let registry = Node::build("meepo-registry")
        .set("node", "log_level = \"info,meepo_registry=debug\"")
        .set("registry", &format!("store = \"etcd\"\netcd.endpoints = {alone:?}"))
        .start()
        .await;
    let worker = Node::test().registry(registry.host()).only("worker").start().await;
    let has_come = async |nodes: u64| {
        registry
            .status_when("the worker has come", |status| {
                status.children().all(|child| child.connections == nodes)
            })
            .await;
    };
    has_come(2).await;
    etcd.kill(1).await;
    etcd.kill(2).await;
    // It answers, but may have missed something.
    wait_for("the watch ends", async || {
        registry.output().contains("the watch at etcd has ended").then_some(())
    })
    .await;
    has_come(2).await;
    etcd.begin(1);
    let later = Node::test().registry(registry.host()).only("worker").start().await;
    has_come(4).await;
    drop((worker, later));
}
