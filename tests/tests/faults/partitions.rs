//! Nothing is lost when the network between nodes is cut, one way or both, or bad.

use std::time::Duration;

use meepo_tests::network::{INNER, REGISTRY, Way};
use meepo_tests::{Cluster, Network};
use tokio::time::sleep;

/// A load on a cluster whose second gateway is cut off from all workers for a while.
async fn gateway_without_workers(network: &Network, way: Way, time: Duration) {
    let (cluster, load) = Cluster::under_load_across(network, 16).await;
    network.cut(cluster.gateways[1].host().ip(), INNER, way);
    // Not awaited: the time is the fault's length.
    sleep(time).await;
    network.heal();
    cluster.linked().await;
    cluster.more(400).await;
    cluster.verdict(load).await.unnoticed();
}

#[tokio::test]
async fn a_gateway_is_cut_off_from_workers_for_a_second() {
    let Some(network) = Network::own() else { return };
    gateway_without_workers(&network, Way::Both, Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_gateway_is_cut_off_from_workers_for_a_minute() {
    let Some(network) = Network::own() else { return };
    gateway_without_workers(&network, Way::Both, Duration::from_secs(60)).await;
}

#[tokio::test]
async fn a_gateway_does_not_hear_workers() {
    let Some(network) = Network::own() else { return };
    gateway_without_workers(&network, Way::To, Duration::from_secs(15)).await;
}

#[tokio::test]
async fn workers_do_not_hear_a_gateway() {
    let Some(network) = Network::own() else { return };
    gateway_without_workers(&network, Way::From, Duration::from_secs(15)).await;
}

#[tokio::test]
async fn a_registry_that_is_cut_off_disturbs_nobody() {
    let Some(network) = Network::own() else { return };
    let (cluster, load) = Cluster::under_load_across(&network, 16).await;
    for way in [Way::To, Way::From, Way::Both] {
        network.cut(cluster.registries[0].host().ip(), REGISTRY, way);
        // Longer than registrations last.
        sleep(Duration::from_secs(12)).await;
        network.heal();
        cluster.registered().await;
    }
    cluster.more(400).await;
    let verdict = cluster.verdict(load).await;
    verdict.unnoticed();
    assert_eq!(verdict.marked, 0, "nothing was seen twice");
}

#[tokio::test]
async fn a_slow_and_lossy_network_only_delays() {
    let Some(network) = Network::own() else { return };
    let (cluster, load) = Cluster::under_load_across(&network, 16).await;
    network.worsen("19911:19919", 0.03, "20mbit");
    sleep(Duration::from_secs(15)).await;
    network.heal();
    cluster.linked().await;
    cluster.more(400).await;
    cluster.verdict(load).await.unnoticed();
}
