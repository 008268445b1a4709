//! Nodes find each other, whatever happens to registries and networks.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use meepo_proto::registry::State;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::harness::*;

#[tokio::test]
async fn a_watcher_sees_the_union_of_two_registries() {
    let (one, two) = (Server::start(patient(), "").await, Server::start(patient(), "").await);
    let (at_one, at_two) = (one.address.to_string(), two.address.to_string());
    let both = membership(&[at_one.clone(), at_two.clone()], "");
    let mut nodes = both.watch(CancellationToken::new());
    let a = Member::announce(&membership(&[at_one], ""), gateway(1, "a:1"));
    let b = Member::announce(&membership(&[at_two], ""), gateway(2, "b:1"));
    let c = Member::announce(&both, worker(3));
    wait_for(&mut nodes, &[1, 2, 3]).await;
    one.wait_for(&[1, 3]).await;
    two.wait_for(&[2, 3]).await;
    a.leave().await;
    wait_for(&mut nodes, &[2, 3]).await;
    // One registry is away: the nodes that it alone knows stay, and other changes are seen.
    one.kill();
    b.leave().await;
    wait_for(&mut nodes, &[3]).await;
    c.leave().await;
    wait_for(&mut nodes, &[]).await;
}

#[tokio::test]
async fn leaving_is_known_at_once() {
    let server = Server::start(patient(), "").await;
    let membership = membership(&[server.address.to_string()], "");
    let polite = Member::announce(&membership, worker(1));
    let abrupt = Member::announce(&membership, worker(2));
    server.wait_for(&[1, 2]).await;
    polite.leave().await;
    assert_eq!(server.ids().await, [2], "the registry has confirmed it");
    // As if its process had died: the registry sees only that the connection ends.
    abrupt.task.abort();
    server.wait_for(&[]).await;
}

#[tokio::test]
async fn a_draining_gateway_is_in_no_list_and_is_remembered_when_it_has_drained() {
    let server = Server::start(patient(), "").await;
    let membership = membership(&[server.address.to_string()], "");
    let mut early = membership.watch(CancellationToken::new());
    for (id, drained) in [(1, true), (2, false)] {
        let (node, announced) = watch::channel(gateway(id, "a:1"));
        let until = CancellationToken::new();
        let (members, token) = (membership.clone(), until.clone());
        let task = tokio::spawn(async move { members.announce_changing(&announced, token).await });
        server.wait_for(&[id]).await;

        node.send_modify(|node| node.set_state(State::Draining));
        server.wait_for(&[]).await;
        wait_for_state(&mut early, id, Some(State::Draining)).await;
        // The last announcement comes together with the end of the stream.
        if drained {
            node.send_modify(|node| node.set_state(State::Drained));
        }
        until.cancel();
        tokio::time::timeout(DEADLINE, task).await.unwrap().unwrap();
        let expected = drained.then_some(State::Drained);
        wait_for_state(&mut early, id, expected).await;
        let mut late = membership.watch(CancellationToken::new());
        wait_for_state(&mut late, 1, Some(State::Drained)).await;
        wait_for_state(&mut late, id, expected).await;
        assert_eq!(server.ids().await, [0u64; 0]);
    }
    assert_eq!(server.stats.connections.get(), 0);
}

#[tokio::test]
async fn nodes_do_not_vanish_when_a_registry_restarts_with_nothing() {
    // No registry listens there at first: nodes may start before it. The host name is resolved at each attempt.
    let address = Server::start(patient(), "").await.kill();
    let membership = membership(&[format!("localhost:{}", address.port())], "");
    let mut nodes = membership.watch(CancellationToken::new());
    let gateway = Member::announce(&membership, gateway(1, "a:1"));
    let worker = Member::announce(&membership, worker(2));

    let mut server = Server::start_at(address, patient(), "").await;
    wait_for(&mut nodes, &[1, 2]).await;

    let mut views = nodes.clone();
    views.mark_unchanged();
    for _ in 0..2 {
        server = Server::start_at(server.kill(), patient(), "").await;
        server.wait_for(&[1, 2]).await;
    }
    assert!(!views.has_changed().unwrap(), "{:?}", views.borrow());

    gateway.leave().await;
    wait_for(&mut nodes, &[2]).await;
    worker.leave().await;
    wait_for(&mut nodes, &[]).await;
}

#[tokio::test]
async fn a_connection_that_is_half_open_is_given_up() {
    let server = Server::start(brisk(), "").await;
    let proxy = Proxy::start(server.address).await;
    let direct = membership(&[server.address.to_string()], "");
    let through = membership(&[proxy.address.to_string()], "");
    let mut nodes = through.watch(CancellationToken::new());
    let near = Member::announce(&through, worker(1));
    wait_for(&mut nodes, &[1]).await;

    // All packets are lost, and neither side sees the connection end.
    proxy.freeze();
    server.wait_for(&[]).await;
    server.wait_for(&[1]).await;
    // The watcher is told later of a node that comes meanwhile.
    let far = Member::announce(&direct, worker(2));
    wait_for(&mut nodes, &[1, 2]).await;
    near.leave().await;
    far.leave().await;
    wait_for(&mut nodes, &[]).await;
}

/// Stands between nodes and a registry, and can lose all that connections carry without ending them.
struct Proxy {
    address: SocketAddr,
    frozen: Arc<Mutex<CancellationToken>>,
}

impl Proxy {
    async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let frozen = Arc::new(Mutex::new(CancellationToken::new()));
        let current = Arc::clone(&frozen);
        tokio::spawn(async move {
            while let Ok((mut node, _)) = listener.accept().await {
                let frozen = current.lock().unwrap().clone();
                tokio::spawn(async move {
                    let mut registry = TcpStream::connect(to).await.unwrap();
                    let both = tokio::io::copy_bidirectional(&mut node, &mut registry);
                    if frozen.run_until_cancelled(both).await.is_none() {
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        Self { address, frozen }
    }

    /// Freezes the connections that stand, for ever. Later ones work.
    fn freeze(&self) {
        std::mem::take(&mut *self.frozen.lock().unwrap()).cancel();
    }
}
