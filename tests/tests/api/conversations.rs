//! Timers of clients and requests to them, while workers come and go.

use std::collections::BTreeSet;

use meepo_tests::{Cluster, Ws, processes, wait_for};
use nix::sys::signal::Signal;

/// So many clients, at all gateways.
async fn crowd(cluster: &Cluster, count: usize) -> Vec<Ws> {
    let gateways = cluster.clients();
    let mut clients = Vec::new();
    for number in 0..count {
        clients.push(Ws::connect(gateways[number % gateways.len()]).await);
    }
    clients
}

async fn server(client: &mut Ws) -> u32 {
    client.ask("pid").await.parse().expect("a process id")
}

#[tokio::test]
async fn clients_are_asked_by_handlers_and_timers_of_all_workers() {
    let cluster = Cluster::start().await;
    let mut clients = crowd(&cluster, 16).await;
    let mut servers = BTreeSet::new();
    for client in &mut clients {
        servers.insert(server(client).await);
        client.send("request name?").await;
    }
    assert_eq!(servers.len(), 4, "each worker child serves some");
    for client in &mut clients {
        assert_eq!(client.text().await, "name?");
        assert_eq!(client.ask("42").await, "reply: 42");
        client.send("request-after 1 age?").await;
        assert_eq!(client.text().await, "age?");
        assert_eq!(client.ask("43").await, "reply: 43");
        assert_eq!(client.ask("after 1 time is up").await, "time is up");
        assert_eq!(client.ask("44").await, "44");
    }
    let messages = cluster.events().messages();
    let count = |text: &str| messages.iter().filter(|message| *message == text).count();
    assert_eq!(["42", "43", "44"].map(count), [0, 0, 16], "a reply is no message");
}

#[tokio::test]
async fn what_is_no_reply_waits_in_its_order() {
    let cluster = Cluster::start().await;
    let mut clients = crowd(&cluster, 2).await;
    let client = &mut clients[0];
    client.send("request-re 3600000 ready?").await;
    for number in 0..50 {
        client.send(&number.to_string()).await;
    }
    assert_eq!(client.text().await, "ready?");
    client.send("re:yes").await;
    client.send("last").await;
    assert_eq!(client.text().await, "reply: re:yes");
    for number in 0..50 {
        assert_eq!(client.text().await, number.to_string());
    }
    assert_eq!(client.text().await, "last");

    // More than a worker may have of one client hold the reply back, until the deadline.
    let client = &mut clients[1];
    client.send("request-re 300 ready?").await;
    for number in 0..64 {
        client.send(&number.to_string()).await;
    }
    assert_eq!(client.text().await, "ready?");
    client.send("re:yes").await;
    assert_eq!(client.text().await, "no reply: Deadline");
    for number in 0..64 {
        assert_eq!(client.text().await, number.to_string());
    }
    assert_eq!(client.text().await, "re:yes");
}

#[tokio::test]
async fn a_worker_that_dies_while_it_asks_is_replaced_by_one_that_asks_again() {
    let cluster = Cluster::start().await;
    let mut client = Ws::connect(cluster.clients()[0]).await;
    let first = server(&mut client).await;
    client.send("request name?").await;
    assert_eq!(client.text().await, "name?");
    client.send("x").await;
    assert_eq!(client.text().await, "reply: x");
    client.send("request name?").await;
    assert_eq!(client.text().await, "name?");
    processes::signal(first, Signal::SIGKILL);
    assert_eq!(client.text().await, "name?", "another one asks");
    assert_eq!(client.ask("ann").await, "reply: ann");
    assert_ne!(server(&mut client).await, first);
    let events = cluster.events();
    let asked: Vec<_> = events
        .of("message")
        .into_iter()
        .filter(|record| record.text == "request name?")
        .map(|record| (record.pid == first, record.redelivered))
        .collect();
    assert_eq!(asked, [(true, false), (true, false), (false, true)]);
}

#[tokio::test]
async fn a_worker_that_drains_ends_its_requests_and_timers() {
    let cluster = Cluster::start().await;
    let mut clients = crowd(&cluster, 2).await;
    let (mut asked, mut ticked) = (clients.remove(0), clients.remove(0));
    let first = server(&mut asked).await;
    asked.send("request name?").await;
    assert_eq!(asked.text().await, "name?");
    processes::signal(first, Signal::SIGTERM);
    assert_eq!(asked.text().await, "no reply: Moved");
    // The reply goes to the next worker, as any message.
    assert_eq!(asked.ask("ann").await, "ann");
    let second = server(&mut asked).await;
    assert_ne!(second, first);

    let first = server(&mut ticked).await;
    ticked.send("every 5 tick").await;
    for _ in 0..3 {
        assert_eq!(ticked.text().await, "tick");
    }
    processes::signal(first, Signal::SIGTERM);
    wait_for("the worker has gone", async || {
        (!processes::running(first)).then_some(())
    })
    .await;
    ticked.send("pid").await;
    let second = loop {
        match ticked.text().await {
            tick if tick == "tick" => {}
            pid => break pid,
        }
    };
    assert_ne!(second, first.to_string());
    assert_eq!(ticked.ask("sleep 100").await, "slept", "no tick");
}

#[tokio::test]
async fn a_client_that_goes_while_it_is_asked_is_closed_at_once() {
    let cluster = Cluster::start().await;
    let events = cluster.events();
    for close in [true, false] {
        let mut client = Ws::connect(cluster.clients()[0]).await;
        let id = client.ask("id").await;
        client.send("every 5 tick").await;
        client.send("request name?").await;
        while client.text().await != "name?" {}
        match close {
            true => drop(client.close(1000, "").await),
            false => client.reset(),
        }
        events
            .wait("its end", |event| event.event == "close" && event.client == id)
            .await;
    }
    // Nothing is left in flight.
    for worker in &cluster.workers {
        worker
            .status_when("nothing is left to do", |status| {
                status.instance("worker").sum(|child| child.events_in_flight) == 0
            })
            .await;
    }
}
