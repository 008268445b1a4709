//! The last word of a handler, before a gateway that stops or is reloaded closes its clients.

use std::collections::BTreeSet;

use meepo_tests::{Builder, Incoming, Node, Ws, processes};
use nix::sys::signal::Signal;

fn polite(node: Builder) -> Builder {
    node.env("MEEPO_TEST_FAREWELL", "say")
}

async fn clients(node: &Node, count: usize) -> Vec<Ws> {
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(Ws::connect(node.host().ws()).await);
    }
    let gateways = node.status().await.instance("gateway").children.clone();
    let all = gateways.iter().all(|gateway| gateway.connections > 0);
    assert!(all, "each gateway child has clients: {gateways:?}");
    clients
}

/// All that each client reads to its end, and its close code, while something is done.
async fn read_while(clients: Vec<Ws>, done: impl Future<Output = ()>) -> Vec<(Vec<String>, u16)> {
    let reads: Vec<_> = clients
        .into_iter()
        .map(|client| tokio::spawn(to_the_end(client)))
        .collect();
    done.await;
    let mut all = Vec::new();
    for read in reads {
        all.push(read.await.expect("the client reads to its end"));
    }
    all
}

async fn to_the_end(mut client: Ws) -> (Vec<String>, u16) {
    let mut texts = Vec::new();
    loop {
        match client.next().await {
            Incoming::Text(text) => texts.push(text),
            Incoming::Close(Some((code, _))) => {
                assert_eq!(client.next().await, Incoming::End, "nothing comes after a close");
                return (texts, code);
            }
            other => panic!("{other:?}"),
        }
    }
}

fn told(text: &str, code: u16) -> (Vec<String>, u16) {
    (vec![text.into()], code)
}

/// A gateway, and workers with a master of their own.
async fn apart() -> (Node, Node, Node) {
    let mut front = polite(Node::test()).only("gateway").prepare();
    let registry = Node::build("meepo-registry").host(front.host()).start().await;
    front.start().await;
    let workers = polite(Node::test()).registry(front.host()).only("worker");
    let workers = workers.start().await;
    workers
        .status_when("all links are up", |status| {
            status.children().all(|worker| worker.links == 2)
        })
        .await;
    (registry, front, workers)
}

#[tokio::test]
async fn a_stop_and_a_reload_are_told_once_each_before_the_close() {
    let mut node = polite(Node::test()).start().await;
    // Workers are replaced at the same time.
    let there = clients(&node, 40).await;
    for read in read_while(there, async { node.command(&["reload"]).await.fine() }).await {
        assert_eq!(read, told("farewell: Reload", 1012));
    }
    node.status_when("the new ones serve alone", |status| {
        status.all_serve() && status.children().count() == 5
    })
    .await;

    let mut there = clients(&node, 40).await;
    there[0].send("sleep 300").await;
    let events = node.events();
    events.wait("the message", |event| event.text == "sleep 300").await;
    let mut reads = read_while(there, node.stop()).await;
    // What was asked before is answered before.
    assert_eq!(reads[0].0.remove(0), "slept");
    for read in reads {
        assert_eq!(read, told("farewell: Stop", 1001));
    }
    let events = events.all();
    let of = |kind: &str| -> Vec<_> { events.iter().filter(|event| event.event == kind).collect() };
    assert_eq!((of("farewell").len(), of("close").len()), (80, 80));
    for farewell in of("farewell") {
        let of_client = events.iter().filter(|event| event.client == farewell.client);
        let order: Vec<_> = of_client.map(|event| event.event.as_str()).collect();
        assert_eq!(order[order.len() - 2..], ["farewell", "close"], "{order:?}");
    }
}

#[tokio::test]
async fn a_worker_that_is_frozen_costs_its_clients_the_last_word_and_nobody_else_anything() {
    let (_registry, mut front, workers) = apart().await;
    let mut there = clients(&front, 20).await;
    let mut served = Vec::new();
    for client in &mut there {
        served.push(client.ask("pid").await.parse::<u32>().expect("a pid"));
    }
    let both: BTreeSet<_> = served.iter().collect();
    assert_eq!(both.len(), 2, "both workers have clients");
    let frozen = served[0];
    processes::signal(frozen, Signal::SIGSTOP);
    for (read, worker) in read_while(there, front.stop()).await.into_iter().zip(served) {
        if worker == frozen {
            assert_eq!(read, (vec![], 1001));
        } else {
            assert_eq!(read, told("farewell: Stop", 1001));
        }
    }
    // The other worker has handled the end of all.
    let closes = workers.events().of("close");
    let closed: BTreeSet<_> = closes.iter().map(|event| &event.client).collect();
    assert_eq!(closed.len(), 20, "{}", front.output());
    assert!(closes.iter().all(|event| event.pid != frozen));
}

#[tokio::test]
async fn a_last_word_without_end_is_cut_off_within_the_time_for_the_stop() {
    let node = Node::test().env("MEEPO_TEST_FAREWELL", "hang");
    let node = node.set("node", "stop_timeout = \"10s\"");
    let mut node = node.set("gateway", "stop_spread = \"0s\"").start().await;
    let there = clients(&node, 10).await;
    for read in read_while(there, node.stop()).await {
        assert_eq!(read, told("farewell: Stop", 1001));
    }
    let output = node.output();
    assert!(output.contains("and was cut off"), "{output}");
    for late in ["ended by force", "before all was handled", "drain takes too long"] {
        assert!(!output.contains(late), "{output}");
    }
    assert_eq!(node.events().of("close").len(), 10);
}

#[tokio::test]
async fn clients_without_a_worker_are_closed_as_ever() {
    let (_registry, mut front, mut workers) = apart().await;
    let there = clients(&front, 8).await;
    workers.stop().await;
    for read in read_while(there, front.stop()).await {
        assert_eq!(read, (vec![], 1001));
    }
}
