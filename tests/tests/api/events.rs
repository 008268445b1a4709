//! What a handler sees of a client: everything, once, in order, and one reason at the end.

use std::time::Duration;

use meepo_tests::raw::{self, CLOSE, FIN, TEXT};
use meepo_tests::{DEADLINE, Incoming, Line, Node, Raw, Record, Ws, processes, wait_until};
use nix::sys::signal::Signal;
use tokio::task::JoinSet;

/// The events of each client.
fn by_client(events: Vec<Record>) -> std::collections::BTreeMap<String, Vec<Record>> {
    let mut clients = std::collections::BTreeMap::<_, Vec<_>>::new();
    for event in events {
        if !event.client.is_empty() && event.event != "handled" {
            clients.entry(event.client.clone()).or_default().push(event);
        }
    }
    clients
}

#[tokio::test]
async fn a_short_life_is_seen_whole_and_in_order() {
    const CLIENTS: usize = 1000;
    let node = Node::test().start().await;
    let address = node.host().ws();
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(async move {
            let mut client = Ws::connect_to(address, "/?sleep=500").await;
            for text in ["quiet 1", "quiet 2", "quiet 3"] {
                client.send(text).await;
            }
            client.close(1000, "done").await;
        });
    }
    clients.join_all().await;
    node.events().wait_count("close", CLIENTS).await;
    let clients = by_client(node.events().all());
    assert_eq!(clients.len(), CLIENTS);
    for (client, events) in clients {
        let seen: Vec<_> = events
            .iter()
            .map(|event| (event.event.as_str(), event.text.as_str()))
            .collect();
        let expected = [
            ("connect", ""),
            ("connected", ""),
            ("message", "quiet 1"),
            ("message", "quiet 2"),
            ("message", "quiet 3"),
            ("close", "done"),
        ];
        assert_eq!(seen, expected, "{client}");
        assert!(events.iter().all(|event| !event.redelivered), "{client}");
    }
}

#[tokio::test]
async fn each_worker_child_starts_and_stops_once() {
    let mut node = Node::test().set("worker", "children = 3").start().await;
    let pids = node.pids("worker").await;
    let mut client = Ws::connect(node.host().ws()).await;
    // What a worker has begun, it ends before it stops.
    client.send("sleep 500").await;
    node.events()
        .wait("the sleeper", |event| event.text == "sleep 500")
        .await;
    let ((), (code, _)) = tokio::join!(node.stop(), client.closed());
    assert_eq!(code, 1001);
    assert_eq!(node.events().of("handled").len(), 1);
    for event in ["start", "stop"] {
        let mut seen: Vec<_> = node.events().of(event).iter().map(|event| event.pid).collect();
        seen.sort();
        let mut expected = pids.clone();
        expected.sort();
        assert_eq!(seen, expected, "{event}");
    }
    let last = node.events().all();
    let close = last.iter().rposition(|event| event.event == "close").expect("a close");
    assert_eq!(last[close].cause, "gateway stop");
}

#[tokio::test]
async fn a_slow_handler_slows_only_its_own_client() {
    let node = Node::test().set("worker", "children = 1").start().await;
    let mut slow = Ws::connect(node.host().ws()).await;
    let mut quick = Ws::connect(node.host().ws()).await;
    // Longer than the whole test may take: whoever waited for it would fail.
    slow.send("sleep 600000").await;
    slow.send("later").await;
    node.events()
        .wait("the slow one", |event| event.text == "sleep 600000")
        .await;
    for number in 0..100 {
        let text = number.to_string();
        assert_eq!(quick.ask(&text).await, text);
    }
    assert!(!node.events().messages().contains(&"later".into()));
}

#[tokio::test]
async fn errors_and_panics_of_a_handler_are_counted_and_the_child_lives() {
    let node = Node::test().set("worker", "children = 1").start().await;
    let before = node.pids("worker").await;
    let mut client = Ws::connect(node.host().ws()).await;
    let id = client.ask("id").await;
    client.send("panic").await;
    client.send("fail").await;
    assert_eq!(client.ask("still here").await, "still here");
    let status = node.status().await;
    assert_eq!(status.instance("worker").sum(|child| child.handler_errors), 2);
    assert_eq!(status.instance("worker").pids(), before);
    let log = node.output();
    assert!(log.contains(&id), "the log names the client {id}:\n{log}");
    assert!(log.contains("asked to fail") && log.contains("asked to panic"), "{log}");
    assert!(!node.events().all().iter().any(|event| event.redelivered));
}

#[tokio::test]
async fn each_end_has_its_own_reason_and_comes_once() {
    let mut node = Node::test()
        .set(
            "gateway",
            "children = 1\nmax_message = \"64KiB\"\nping_interval = \"1s\"\nheartbeat_timeout = \"2s\"",
        )
        .start()
        .await;
    let address = node.host().ws();
    let seen = node.events();
    let last = async |count: usize| {
        let closes = seen.wait_count("close", count).await;
        assert_eq!(closes.len(), count, "one close for each client: {closes:?}");
        let close = closes.last().expect("there is one").clone();
        (close.cause, close.code, close.text)
    };

    let mut client = Raw::connect(address).await;
    client
        .frame(FIN | CLOSE, &[&4321u16.to_be_bytes()[..], b"bye"].concat())
        .await;
    assert_eq!(last(1).await, ("client".into(), Some(4321), "bye".into()));

    let client = Ws::connect(address).await;
    drop(client);
    assert_eq!(last(2).await.0, "eof");

    let client = Ws::connect(address).await;
    client.reset();
    assert_eq!(last(3).await.0, "reset");

    let mut client = Ws::connect(address).await;
    client.send("close 4002 out").await;
    assert_eq!(client.closed().await, (4002, "out".into()));
    assert_eq!(last(4).await, ("kicked".into(), Some(4002), "out".into()));

    let mut client = Raw::connect(address).await;
    let _ = client.try_write(&raw::frame(FIN | TEXT, &[b'x'; 70_000])).await;
    assert_eq!(client.closed().await, Some(1009));
    assert_eq!(last(5).await.0, "too big");

    // This one answers no ping.
    let client = Raw::connect(address).await;
    assert_eq!(last(6).await.0, "heartbeat");
    drop(client);

    let mut client = Raw::connect(address).await;
    client.frame(FIN | 3, b"").await;
    assert_eq!(client.closed().await, Some(1002));
    assert_eq!(last(7).await.0, "protocol");

    let client = Ws::connect(address).await;
    let victim = node.pids("gateway").await[0];
    processes::signal(victim, Signal::SIGKILL);
    assert_eq!(last(8).await.0, "gateway lost");
    drop(client);
    node.status_when("the gateway child is replaced", |status| {
        status.all_serve() && status.instance("gateway").pids() != [victim]
    })
    .await;

    let mut client = connect_again(&node).await;
    node.signal(Signal::SIGTERM);
    let (code, _) = client.closed().await;
    assert_eq!(code, 1001);
    assert_eq!(node.ended().await, Some(0));
    assert_eq!(last(9).await.0, "gateway stop");
    assert_eq!(node.events().of("connect").len(), 9);
}

/// A client of a gateway whose worker may still be on its way.
async fn connect_again(node: &Node) -> Ws {
    meepo_tests::wait_for("a connection", async || {
        Ws::try_connect(node.host().ws(), "/").await.ok()
    })
    .await
}

#[tokio::test]
async fn a_close_follows_all_that_was_sent_before() {
    let node = Node::test()
        .set(
            "gateway",
            "max_message = \"2MiB\"\nsend_buffer = \"2MiB\"\nclose_timeout = \"2s\"",
        )
        .start()
        .await;
    let mut client = Ws::connect(node.host().ws()).await;
    client.send("big-then-close 1048576 that is all").await;
    assert_eq!(client.text().await.len(), 1 << 20);
    assert_eq!(client.closed().await, (4001, "that is all".into()));

    // A client that does not read is gone after the close timeout.
    let mut stuck = Ws::connect_narrow(node.host().ws(), "/").await;
    stuck.send("big-then-close 1500000 that is all").await;
    node.events().wait_count("close", 2).await;
    node.status_when("the stuck client is gone", |status| {
        status.instance("gateway").sum(|child| child.connections) == 0
    })
    .await;
    drop(stuck);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_dropped_and_disturbs_nobody() {
    let node = Node::test().set("gateway", "send_buffer = \"256KiB\"").start().await;
    let address = node.host().ws();
    let mut stuck = Ws::connect_narrow(address, "/?join=room").await;
    assert_eq!(stuck.ask("in").await, "in");
    let mut reader = Ws::connect_to(address, "/?join=room").await;
    let mut sender = Ws::connect(address).await;
    let payload = "x".repeat(60_000);
    let command = format!("send-group room {payload}");
    for _ in 0..200 {
        sender.send(&command).await;
        assert_eq!(reader.next().await, Incoming::Text(payload.clone()));
    }
    let close = node.events().wait("the close", |event| event.event == "close").await;
    assert_eq!((close.cause.as_str(), close.code), ("slow", Some(1008)));
    drop(stuck);
}

#[tokio::test]
async fn a_burst_reaches_a_client_that_reads() {
    let node = Node::test().start().await;
    let mut client = Ws::connect(node.host().ws()).await;
    client.send("burst 20000 twenty bytes long").await;
    for number in 0..20_000 {
        assert_eq!(client.text().await, format!("{number}twenty bytes long"));
    }
}

#[tokio::test]
async fn who_left_during_the_connect_handler_leaves_nothing_behind() {
    const CLIENTS: usize = 500;
    let node = Node::test().start().await;
    let address = node.host().ws();
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(Ws::connect_to(address, "/?sleep=3000&join=room&set=v"));
    }
    node.events().wait_count("connect", CLIENTS).await;
    // The clients give up before their handlers are done.
    clients.shutdown().await;
    node.events().wait_count("connected", CLIENTS).await;
    let mut client = Ws::connect(address).await;
    wait_until("all are gone", Duration::from_secs(10), async || {
        client.ask("online").await == "1"
    })
    .await;
    assert_eq!(client.ask("groups").await, "{}");
    // The handler let them in, so it is told that they have gone.
    node.events().wait_count("close", CLIENTS).await;
    for (id, events) in by_client(node.events().all()) {
        let closes = events.iter().filter(|event| event.event == "close").count();
        assert!(closes <= 1, "{id}: {events:?}");
    }
    assert_eq!(node.events().of("close").len(), CLIENTS);
    assert_eq!(client.ask("groups").await, "{}");
}

#[tokio::test]
async fn a_close_in_the_connect_handler_comes_after_the_handshake() {
    let node = Node::test().start().await;
    let mut client = Ws::connect_to(node.host().ws(), "/?close=4401").await;
    assert_eq!(client.closed().await, (4401, "why".into()));
    let close = node.events().wait("the close", |event| event.event == "close").await;
    assert_eq!((close.cause.as_str(), close.code), ("kicked", Some(4401)));
}

#[tokio::test]
async fn who_is_not_in_yet_gets_nothing_that_goes_to_all() {
    let node = Node::test()
        .set("gateway", "children = 1")
        .env("MEEPO_TEST_LINE_QUERY", "sleep=3000&reject=403")
        .start()
        .await;
    let mut sender = Ws::connect(node.host().ws()).await;
    let mut stranger = Line::connect(node.host().line()).await;
    node.events()
        .wait("the stranger", |event| {
            event.event == "connect" && event.protocol == "line"
        })
        .await;
    sender.send("send-all to those who are in").await;
    assert_eq!(sender.text().await, "those who are in");
    let told = stranger.rest().await;
    assert!(told.contains("not today") && !told.contains("those"), "{told:?}");
    assert!(
        node.events().of("close").is_empty(),
        "who was rejected has no close event"
    );
}

#[tokio::test]
async fn the_loss_of_a_gateway_is_told_to_workers_that_came_after_its_clients() {
    const CLIENTS: usize = 20;
    let mut front = Node::test().set("gateway", "children = 1").only("gateway").prepare();
    let _registry = Node::build("meepo-registry").host(front.host()).start().await;
    front.start().await;
    let workers = Node::test().registry(front.host()).only("worker").start().await;
    let mut idle = Vec::new();
    for number in 0..CLIENTS {
        let mut client = Ws::connect(front.host().ws()).await;
        client.send(&format!("set k {number}")).await;
        assert_eq!(client.ask("in").await, "in");
        idle.push(client);
    }
    // They say nothing from here on, and none of the workers that know them stays.
    workers.command(&["reload"]).await.fine();
    wait_until("the old workers are gone", DEADLINE, async || {
        workers.processes().len() == 3
    })
    .await;
    workers
        .status_when("the new ones are linked", |status| {
            status
                .children()
                .all(|child| child.state == "serving" && child.links == 1)
        })
        .await;
    assert!(workers.events().of("close").is_empty());
    processes::signal(front.pids("gateway").await[0], Signal::SIGKILL);
    let closes = workers.events().wait_count("close", CLIENTS).await;
    assert_eq!(closes.len(), CLIENTS, "one close for each client");
    assert!(closes.iter().all(|close| close.cause == "gateway lost"), "{closes:?}");
    let mut sessions: Vec<_> = closes
        .iter()
        .filter_map(|close| close.query.parse::<usize>().ok())
        .collect();
    sessions.sort();
    assert_eq!(
        sessions,
        (0..CLIENTS).collect::<Vec<_>>(),
        "their sessions can still be read"
    );
}
