//! Registry, gateways and workers as programs of their own, each on an address of its own, started in any order.

use std::time::Duration;

use meepo_tests::{Events, Host, Node, Ws, wait_for, wait_until};

fn registry(host: &Host) -> meepo_tests::Builder {
    Node::build("meepo-registry").host(host)
}

fn gateway(registry: &Host) -> meepo_tests::Builder {
    Node::build("meepo-gateway").registry(registry)
}

fn worker(registry: &Host) -> meepo_tests::Builder {
    Node::test().registry(registry).only("worker")
}

/// Waits until each child of each worker has a link to each child of each gateway.
async fn linked(gateways: &[&Node], workers: &[&Node]) {
    for (nodes, others) in [(workers, gateways.len()), (gateways, workers.len())] {
        for node in nodes {
            node.status_when("all links are up", |status| {
                status.children().count() == 2 && status.children().all(|child| child.links == 2 * others as u64)
            })
            .await;
        }
    }
}

/// Sends to a group until everyone has got it.
async fn talk(from: &mut Ws, to: &mut [&mut Ws], text: &str) {
    from.send(&format!("send-others room {text}")).await;
    for client in to {
        assert_eq!(client.text().await, text);
    }
}

async fn member(gateway: &Node) -> Ws {
    let mut client = Ws::connect_to(gateway.host().ws(), "/?join=room").await;
    assert_eq!(client.ask("in").await, "in");
    client
}

#[tokio::test]
async fn seven_masters_in_any_order_are_one_cluster() {
    let place = Host::new();
    // Workers first, the registry last.
    let mut worker_1 = worker(&place).start().await;
    let mut gateway_1 = gateway(&place).start().await;
    let mut worker_2 = worker(&place).start().await;
    let mut gateway_2 = gateway(&place).start().await;
    let mut registry = registry(&place).start().await;
    linked(&[&gateway_1, &gateway_2], &[&worker_1, &worker_2]).await;

    let (mut a, mut b) = (member(&gateway_1).await, member(&gateway_1).await);
    let (mut c, mut d) = (member(&gateway_2).await, member(&gateway_2).await);
    talk(&mut a, &mut [&mut b, &mut c, &mut d], "from a").await;
    talk(&mut d, &mut [&mut a, &mut b, &mut c], "from d").await;
    assert_eq!(a.ask("count room").await, "4");
    assert_eq!(c.ask("online").await, "4");
    let id = d.ask("id").await;
    a.send(&format!("send-to {id} only for you")).await;
    assert_eq!(d.text().await, "only for you");

    // Nodes that come later are taken up within a second or two.
    let mut gateway_3 = gateway(&place).start().await;
    let mut worker_3 = worker(&place).start().await;
    let soon = Duration::from_secs(5);
    wait_until("the third gateway and the third worker are linked", soon, async || {
        let status = gateway_3.status().await;
        let up = status.children().all(|child| child.links == 6);
        up && worker_3.status().await.children().all(|child| child.links == 6)
    })
    .await;
    let mut e = member(&gateway_3).await;
    talk(&mut e, &mut [&mut a, &mut b, &mut c, &mut d], "from e").await;

    // A gateway that goes takes its own clients along, and nobody else.
    let ((), (code, _)) = tokio::join!(gateway_3.stop(), e.closed());
    assert_eq!(code, 1001);
    wait_until("the stopped gateway is forgotten", soon, async || {
        worker_1.status().await.children().all(|child| child.links == 4)
    })
    .await;
    assert_eq!(a.ask("online").await, "4");

    // A worker that goes leaves its clients to others.
    worker_1.stop().await;
    worker_3.stop().await;
    talk(&mut a, &mut [&mut b, &mut c, &mut d], "from a again").await;
    assert_eq!(b.ask("count room").await, "4");

    drop((a, b, c, d));
    for node in [&mut gateway_1, &mut gateway_2, &mut worker_2, &mut registry] {
        node.stop().await;
        node.gone(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn the_loss_of_the_registry_is_not_noticed() {
    let place = Host::new();
    let mut registry = registry(&place).start().await;
    let gateway_1 = gateway(&place).start().await;
    let gateway_2 = gateway(&place).start().await;
    let worker_1 = worker(&place).start().await;
    let worker_2 = worker(&place).start().await;
    linked(&[&gateway_1, &gateway_2], &[&worker_1, &worker_2]).await;
    let mut a = member(&gateway_1).await;
    let mut b = member(&gateway_2).await;

    registry.kill_all().await;
    let mut worker_3 = worker(&place).prepare();
    worker_3.start().await;
    for number in 0..50 {
        talk(&mut a, &mut [&mut b], &number.to_string()).await;
        talk(&mut b, &mut [&mut a], &number.to_string()).await;
    }
    let mut late = member(&gateway_1).await;
    talk(&mut late, &mut [&mut a, &mut b], "late").await;

    // It comes back and knows nothing.
    registry.start().await;
    wait_until("the third worker joins", Duration::from_secs(10), async || {
        worker_3.status().await.children().all(|child| child.links == 4)
    })
    .await;
    wait_for("all nodes are registered", async || {
        let status = registry.status().await;
        // Two gateways and three workers with two children each.
        (status.instance("registry").sum(|child| child.connections) == 10).then_some(())
    })
    .await;
    talk(&mut a, &mut [&mut b, &mut late], "after").await;
    // Links that stood were not touched: nobody saw anything twice, and nobody was closed.
    for node in [&worker_1, &worker_2, &worker_3] {
        let events: Events = node.events();
        assert!(events.of("close").is_empty());
        assert!(events.all().iter().all(|event| !event.redelivered));
    }
}

#[tokio::test]
async fn a_wrong_secret_keeps_nodes_apart() {
    let place = Host::new();
    let registry = Node::build("meepo-registry")
        .host(&place)
        .set("node", "secret = \"right\"")
        .start()
        .await;
    let gateway = gateway(&place).set("node", "secret = \"right\"").start().await;
    let stranger = worker(&place).set("node", "secret = \"wrong-secret\"").start().await;
    let fine = worker(&place).set("node", "secret = \"right\"").start().await;
    fine.status_when("the right one is linked", |status| {
        status.children().all(|child| child.links == 2)
    })
    .await;
    let mut client = member(&gateway).await;
    assert_eq!(client.ask("x").await, "x");
    assert!(stranger.status().await.children().all(|child| child.links == 0));
    wait_until("the refusal is logged", Duration::from_secs(10), async || {
        registry.output().contains("secret")
    })
    .await;
    for node in [&registry, &gateway, &stranger] {
        assert!(!node.output().contains("wrong-secret"), "a log shows a secret");
    }
}

#[tokio::test]
async fn an_advertised_port_holds_for_all_children_and_their_successors() {
    let node = Node::test()
        .set("gateway", "advertise = \"{ip}:19912\"")
        .set("gateway", "reload_spread = \"0s\"")
        .start()
        .await;
    for round in 0..3 {
        node.status_when("all links are up", |status| {
            status.all_serve() && status.instance("worker").sum(|child| child.links) == 4
        })
        .await;
        let mut clients = Vec::new();
        for number in 0..20 {
            let mut client = Ws::connect(node.host().ws()).await;
            let text = format!("{number} of {round}");
            assert_eq!(client.ask(&text).await, text);
            clients.push(client);
        }
        node.command(&["reload"]).await.fine();
        for client in &mut clients {
            assert_eq!(client.closed().await.0, 1012);
        }
    }
    let mut client = Ws::connect(node.host().ws()).await;
    assert_eq!(client.ask("x").await, "x");
}
