//! What clients see of a reload: nothing, or a close that says: come back.

use std::time::Duration;

use meepo_tests::{Incoming, Node, Ws, processes, wait_until};
use nix::sys::signal::Signal;

/// Clients that ask for an echo again and again. Gives how many echoes each got, and fails if one is closed.
async fn echo(mut clients: Vec<Ws>, until: tokio::sync::watch::Receiver<bool>) -> Vec<Ws> {
    let mut number = 0;
    while !*until.borrow() {
        number += 1;
        for client in &mut clients {
            let text = format!("{number}");
            assert_eq!(client.ask(&text).await, text);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    clients
}

#[tokio::test]
async fn workers_are_replaced_without_a_client_noticing() {
    const CLIENTS: usize = 200;
    let node = Node::test().start().await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Ws::connect_to(node.host().ws(), "/?join=room").await);
    }
    let (end, until) = tokio::sync::watch::channel(false);
    let load = tokio::spawn(echo(clients, until));

    // A crash of a worker child.
    let before = node.status().await;
    let victim = before.instance("worker").pids()[0];
    processes::signal(victim, Signal::SIGKILL);
    let after = node
        .status_when("the worker child is replaced", |status| {
            status.all_serve() && !status.instance("worker").pids().contains(&victim)
        })
        .await;
    assert_eq!(after.instance("gateway").pids(), before.instance("gateway").pids());
    let gateway_before = after.instance("gateway").pids();

    // A graceful replacement of all worker children, by a reload of another master's would-be configuration.
    for pid in after.instance("worker").pids() {
        processes::signal(pid, Signal::SIGTERM);
        node.status_when("the worker child is replaced", |status| {
            status.all_serve() && !status.instance("worker").pids().contains(&pid)
        })
        .await;
    }
    let now = node.status().await;
    assert_eq!(
        now.instance("gateway").pids(),
        gateway_before,
        "no gateway child was touched"
    );

    end.send(true).expect("the load runs");
    let mut clients = load.await.expect("no client was closed");
    assert_eq!(clients[0].ask("count room").await, CLIENTS.to_string());

    // A reload of all closes the gateway's clients with a code that says: come back.
    node.command(&["reload"]).await.fine();
    for client in &mut clients {
        assert_eq!(client.closed().await.0, 1012);
    }
    node.status_when("all is new", |status| {
        let old = now.children().filter_map(|child| child.pid).collect::<Vec<_>>();
        status.all_serve()
            && status
                .children()
                .all(|child| child.pid.is_some_and(|pid| !old.contains(&pid)))
    })
    .await;
    wait_until("old children are gone", Duration::from_secs(30), async || {
        node.processes().len() == 6
    })
    .await;
    let mut again = Ws::connect(node.host().ws()).await;
    assert_eq!(again.ask("x").await, "x");
    assert_eq!(again.ask("online").await, "1");
}

#[tokio::test]
async fn a_worker_program_is_reloaded_and_a_rolling_restart_repeats_nothing() {
    let front = Node::test().only("gateway").prepare();
    let registry = Node::build("meepo-registry").host(front.host()).start().await;
    let mut front = front;
    front.start().await;
    let workers = Node::test().registry(front.host()).only("worker").start().await;
    let mut client = Ws::connect(front.host().ws()).await;
    const MESSAGES: usize = 3000;
    let sender = tokio::spawn(async move {
        for number in 0..MESSAGES {
            client.send(&number.to_string()).await;
            assert_eq!(client.next().await, Incoming::Text(number.to_string()));
        }
        client
    });
    for _ in 0..3 {
        let old = workers.pids("worker").await;
        workers.command(&["reload"]).await.fine();
        workers
            .status_when("the workers are new", |status| {
                status.all_serve() && status.instance("worker").pids().iter().all(|pid| !old.contains(pid))
            })
            .await;
    }
    sender.await.expect("the client noticed nothing");
    let messages = workers.events().of("message");
    let texts: Vec<_> = messages
        .iter()
        .map(|event| event.text.parse::<usize>().expect("a number"))
        .collect();
    assert_eq!(
        texts,
        (0..MESSAGES).collect::<Vec<_>>(),
        "nothing is lost, repeated or out of order"
    );
    assert!(messages.iter().all(|event| !event.redelivered));
    drop(registry);
}

#[tokio::test]
async fn a_refused_reload_touches_no_client_and_one_that_goes_well_opens_listeners() {
    let node = Node::test().set("gateway", "children = 3").start().await;
    let good = std::fs::read_to_string(node.config()).expect("the configuration is there");
    let mut client = Ws::connect(node.host().ws()).await;
    let pids = async || -> Vec<_> { node.status().await.children().map(|child| child.pid).collect() };
    let before = pids().await;
    let taken = std::net::TcpListener::bind(node.host().port(19950)).expect("the port is free");
    let listener = format!(
        "[[gateway.listen]]\nprotocol = \"line\"\naddress = \"{}:19950\"\n",
        node.host().ip()
    );

    std::fs::write(node.config(), format!("{good}\n{listener}")).expect("the folder is writable");
    let reload = node.command(&["reload"]).await;
    reload.failed();
    assert!(reload.stderr.contains("19950"), "{reload:?}");
    assert_eq!(client.ask("still here").await, "still here");
    assert_eq!(pids().await, before);

    drop(taken);
    let fixed = format!("{}\n{listener}", good.replace("children = 3", "children = 1"));
    std::fs::write(node.config(), fixed).expect("the folder is writable");
    node.command(&["reload"]).await.fine();
    node.status_when("there are fewer children", |status| {
        status.all_serve() && status.instance("gateway").children.len() == 1
    })
    .await;
    assert_eq!(client.closed().await.0, 1012);
    let mut line = meepo_tests::Line::connect(node.host().port(19950)).await;
    assert_eq!(line.ask("x").await, "x");
}
