//! The gRPC calls, each of them made by hand.

use meepo_proto::registry::change::Change;
use meepo_proto::registry::{Ack, Announce, Node, Snapshot, WatchRequest};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::harness::*;

/// A registration whose heartbeats the test sends itself.
struct ManualNode {
    heartbeats: mpsc::Sender<Announce>,
    acks: Streaming<Ack>,
}

impl ManualNode {
    async fn register(server: &Server, node: Node) -> Self {
        let (heartbeats, outgoing) = mpsc::channel(4);
        heartbeats.send(Announce { node: Some(node) }).await.unwrap();
        let response = server.client().await.register(ReceiverStream::new(outgoing)).await;
        Self {
            heartbeats,
            acks: response.unwrap().into_inner(),
        }
    }

    async fn heartbeat(&self, node: Node) {
        self.heartbeats.send(Announce { node: Some(node) }).await.unwrap();
    }

    async fn ack(&mut self) -> Result<Option<Ack>, Status> {
        timeout(DEADLINE, self.acks.message()).await.unwrap()
    }
}

async fn next(changes: &mut Streaming<meepo_proto::registry::Change>) -> Option<Change> {
    timeout(DEADLINE, changes.message()).await.unwrap().unwrap()?.change
}

#[tokio::test]
async fn watch_gets_a_snapshot_then_changes_while_heartbeats_are_answered() {
    let server = Server::start(patient(), "").await;
    let mut first = ManualNode::register(&server, worker(1)).await;
    assert_eq!(first.ack().await.unwrap(), Some(Ack { heartbeat_ms: 100 }));

    let mut changes = server.client().await.watch(WatchRequest {}).await.unwrap().into_inner();
    let snapshot = Snapshot { nodes: vec![worker(1)] };
    assert_eq!(next(&mut changes).await, Some(Change::Snapshot(snapshot)));

    let mut second = ManualNode::register(&server, gateway(2, "a:1")).await;
    assert_eq!(next(&mut changes).await, Some(Change::Joined(gateway(2, "a:1"))));
    assert_eq!(server.ids().await, [1, 2]);
    assert_eq!(
        (server.stats.connections.get(), server.stats.connections_total.get()),
        (2, 2)
    );

    for _ in 0..3 {
        first.heartbeat(worker(1)).await;
        assert!(first.ack().await.unwrap().is_some());
    }
    // Heartbeats are no changes: the next change is the departure.
    drop(second.heartbeats);
    assert!(second.acks.message().await.unwrap().is_some());
    assert_eq!(second.acks.message().await.unwrap(), None);
    assert_eq!(next(&mut changes).await, Some(Change::Left(2)));
    assert_eq!(server.ids().await, [1]);
}

#[tokio::test]
async fn a_frozen_node_expires_and_is_told_why() {
    let server = Server::start(brisk(), "").await;
    let mut frozen = ManualNode::register(&server, worker(1)).await;
    server.wait_for(&[1]).await;
    // The node holds its stream open and is silent.
    server.wait_for(&[]).await;
    assert!(frozen.ack().await.unwrap().is_some());
    assert_eq!(frozen.ack().await.unwrap_err().code(), Code::DeadlineExceeded);
    timeout(DEADLINE, async {
        while server.stats.connections.get() != 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_node_restarted_at_its_address_takes_it_from_the_frozen_one() {
    let server = Server::start(brisk(), "").await;
    let mut old = ManualNode::register(&server, gateway(1, "a:1")).await;
    old.ack().await.unwrap();
    let mut changes = server.client().await.watch(WatchRequest {}).await.unwrap().into_inner();
    next(&mut changes).await;

    let membership = membership(&[server.address.to_string()], "");
    let new = Member::announce(&membership, gateway(2, "a:1"));
    assert_eq!(next(&mut changes).await, Some(Change::Left(1)));
    assert_eq!(next(&mut changes).await, Some(Change::Joined(gateway(2, "a:1"))));

    // The old node wakes up, and does not give up.
    old.heartbeat(gateway(1, "a:1")).await;
    assert_eq!(old.ack().await.unwrap_err().code(), Code::AlreadyExists);
    for _ in 0..3 {
        let mut again = ManualNode::register(&server, gateway(1, "a:1")).await;
        assert_eq!(again.ack().await.unwrap_err().code(), Code::AlreadyExists);
    }
    // Long after the old node has expired, nothing else has changed.
    let quiet = timeout(brisk().expiry * 3, changes.message()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    assert_eq!(server.ids().await, [2]);
    new.leave().await;
    assert_eq!(next(&mut changes).await, Some(Change::Left(2)));
}

#[tokio::test]
async fn a_node_that_others_could_not_use_is_refused() {
    let server = Server::start(patient(), "").await;
    let nameless = Node { kind: 0, ..worker(1) };
    let wordy = Node {
        name: "x".repeat(600),
        ..worker(1)
    };
    for node in [worker(0), gateway(1, ""), nameless, wordy] {
        let mut node = ManualNode::register(&server, node).await;
        assert_eq!(node.ack().await.unwrap_err().code(), Code::InvalidArgument);
    }
    let mut two = ManualNode::register(&server, worker(1)).await;
    two.ack().await.unwrap();
    two.heartbeat(worker(2)).await;
    assert_eq!(two.ack().await.unwrap_err().code(), Code::InvalidArgument);
    server.wait_for(&[]).await;
}

#[tokio::test]
async fn a_drain_ends_all_streams_promptly_and_tells_of_no_node_that_it_left() {
    let mut server = Server::start(patient(), "").await;
    let mut node = ManualNode::register(&server, worker(1)).await;
    node.ack().await.unwrap();
    let mut changes = server.client().await.watch(WatchRequest {}).await.unwrap().into_inner();
    next(&mut changes).await;
    // A connection that never sends a byte must not hold up the drain.
    let _silent = tokio::net::TcpStream::connect(server.address).await.unwrap();

    let began = Instant::now();
    server.stop.cancel();
    assert_eq!(next(&mut changes).await, None);
    assert_eq!(node.ack().await.unwrap(), None);
    timeout(DEADLINE, &mut server.ended).await.unwrap().unwrap().unwrap();
    assert!(began.elapsed().as_secs() < 3, "{:?}", began.elapsed());
    assert!(tokio::net::TcpStream::connect(server.address).await.is_err());
}
