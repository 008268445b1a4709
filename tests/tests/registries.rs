//! Several registries that know nothing of each other: nodes come to all of them, and use the union.

use meepo_tests::{Cluster, processes};
use nix::sys::signal::Signal;

#[tokio::test]
async fn either_of_two_registries_may_be_away() {
    let mut cluster = Cluster::start_with(&["", ""]).await;
    cluster.registered().await;
    let load = cluster.load(16).await;
    for which in [0, 1] {
        for process in cluster.registries[which].processes() {
            processes::signal(process, Signal::SIGKILL);
        }
        cluster.registries[which].ended().await;
        // Nodes that start meanwhile are found through the other one.
        cluster.grow().await;
        cluster.linked().await;
        cluster.more(400).await;
        cluster.registries[which].start().await;
        // Everybody is in both again, those who came meanwhile too.
        cluster.registered().await;
    }
    cluster.more(200).await;
    let verdict = cluster.verdict(load).await;
    verdict.unnoticed();
    assert_eq!(verdict.marked, 0, "nothing was seen twice");
}
