//! Processes that die, and what their clients see of it. How a master deals with them is tested with the node.

use std::process::Stdio;
use std::time::Duration;

use meepo_tests::{Node, Ws, processes};
use nix::sys::signal::Signal;

#[tokio::test]
async fn a_killed_child_is_replaced_while_others_serve() {
    let node = Node::test().start().await;
    let mut client = Ws::connect(node.host().ws()).await;
    for instance in ["worker", "registry", "gateway"] {
        let status = node.status().await;
        let others: Vec<_> = status
            .instances
            .iter()
            .filter(|other| other.name != instance)
            .flat_map(|other| other.pids())
            .collect();
        let old = status.instance(instance).pids();
        processes::signal(old[0], Signal::SIGKILL);
        let now = node
            .status_when("the child is replaced", |status| {
                let new = status.instance(instance).pids();
                status.all_serve() && new.len() == old.len() && !new.contains(&old[0])
            })
            .await;
        let pids: Vec<_> = now.children().filter_map(|child| child.pid).collect();
        assert!(
            others.iter().all(|pid| pids.contains(pid)),
            "the other instances are untouched"
        );
        if instance != "gateway" {
            assert_eq!(client.ask("still here").await, "still here");
        }
    }
}

#[tokio::test]
async fn children_of_a_killed_master_drain_and_leave() {
    let mut node = Node::test().set("node", "stop_timeout = \"3s\"").start().await;
    let mut client = Ws::connect(node.host().ws()).await;
    node.signal(Signal::SIGKILL);
    assert_eq!(client.closed().await.0, 1001);
    node.gone(Duration::from_secs(20)).await;
    assert_eq!(node.events().of("stop").len(), 2, "each worker child stopped in order");
    node.ended().await;
    node.start().await;
}

#[tokio::test]
async fn a_worker_whose_start_code_fails_is_not_started() {
    let node = Node::test()
        .env("MEEPO_TEST_CRASH", "/proc/self/status")
        .only("worker")
        .prepare();
    node.start_daemon().await.failed();
    node.gone(Duration::from_secs(20)).await;
}

#[tokio::test]
async fn a_handler_panics_although_nobody_reads_the_output() {
    let node = Node::test().prepare();
    let mut master = node
        .prepare(&["start"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    drop((master.stdout.take(), master.stderr.take()));
    node.status_when("it serves", |status| status.all_serve()).await;
    let mut client = Ws::connect(node.host().ws()).await;
    client.send("panic").await;
    assert_eq!(client.ask("still here").await, "still here");
    node.command(&["stop"]).await.fine();
    let status = meepo_tests::in_time("the end", master.wait()).await.expect("it ends");
    assert_eq!(status.code(), Some(0));
}
