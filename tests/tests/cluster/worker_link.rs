//! What lies between gateways and workers: sessions, order, the loss of either side, and commands that cannot be done.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use meepo_tests::{Host, Incoming, Line, Node, Ws, processes, wait_for, wait_until};
use nix::sys::signal::Signal;

#[tokio::test]
async fn two_workers_write_to_one_session_and_lose_nothing() {
    const KEYS: u32 = 1000;
    let node = Node::test().set("gateway", "max_session = \"1MiB\"").start().await;
    let mut owner = Ws::connect(node.host().ws()).await;
    let id = owner.ask("id").await;
    // Others change the session as well, from whichever worker they are at.
    let mut others = Vec::new();
    for _ in 0..4 {
        others.push(Ws::connect(node.host().ws()).await);
    }
    owner.send(&format!("set-many own {KEYS}")).await;
    for number in 1..=KEYS {
        let other = &mut others[number as usize % 4];
        other.send(&format!("set-of {id} {number}")).await;
    }
    for other in &mut others {
        assert_eq!(other.ask("done").await, "done");
    }
    assert_eq!(owner.ask("done").await, "done");
    let session = others[0].ask(&format!("session-of {id}")).await;
    let session: BTreeMap<String, String> = serde_json::from_str(&session).expect("a session");
    for number in 1..=KEYS {
        assert_eq!(session.get(&format!("own{number}")), Some(&number.to_string()));
    }
    assert!(session.contains_key("k"));
}

#[tokio::test]
async fn a_session_is_read_as_it_was_written_and_outlives_its_worker() {
    let node = Node::test().start().await;
    let mut client = Ws::connect(node.host().ws()).await;
    for text in ["set k one", "get k", "set k two", "get k", "pid"] {
        client.send(text).await;
    }
    assert_eq!(client.text().await, "one");
    assert_eq!(client.text().await, "two");
    let pid: u32 = client.text().await.parse().expect("a pid");
    processes::signal(pid, Signal::SIGKILL);
    assert_eq!(client.ask("get k").await, "two");
    assert_ne!(client.ask("pid").await, pid.to_string());
    for text in ["set k three", "remove other"] {
        client.send(text).await;
    }
    client.close(1000, "").await;
    let close = node.events().wait("the close", |event| event.event == "close").await;
    // The worker writes down what the close handler reads of `k`.
    assert_eq!(close.query, "three");
}

#[tokio::test]
async fn a_killed_worker_loses_nothing_and_repeats_only_what_was_in_flight() {
    const MESSAGES: usize = 20_000;
    let node = Node::test().start().await;
    let mut client = Line::connect(node.host().line()).await;
    let pid: u32 = client.ask("pid").await.parse().expect("a pid");
    let lines: String = (1..=MESSAGES).map(|number| format!("quiet {number}\n")).collect();
    let events = node.events();
    let kill = async {
        wait_for("the middle", async || {
            (events.messages().len() > MESSAGES / 4).then_some(())
        })
        .await;
        processes::signal(pid, Signal::SIGKILL);
    };
    let send = async {
        for piece in lines.as_bytes().chunks(4096) {
            client.write(piece).await;
        }
    };
    tokio::join!(kill, send);
    assert_eq!(client.ask("the end").await, "the end");

    let numbers = |text: &str| {
        text.strip_prefix("quiet ")
            .and_then(|number| number.parse::<usize>().ok())
    };
    let messages = node.events().of("message");
    let mut seen = BTreeSet::new();
    let mut last = 0;
    for event in &messages {
        let Some(number) = numbers(&event.text) else { continue };
        if event.redelivered {
            assert!(
                number > last.min(number) || seen.contains(&number),
                "{number} was never sent before"
            );
        } else {
            assert!(number > last, "{number} after {last}, and not marked");
        }
        last = last.max(number);
        seen.insert(number);
    }
    assert_eq!(seen.len(), MESSAGES, "nothing is lost");
    let repeated = messages.iter().filter(|event| numbers(&event.text).is_some()).count() - MESSAGES;
    assert!(repeated <= 64, "{repeated} repeated: more than can be in flight");
    let after: Vec<_> = messages
        .iter()
        .filter(|event| event.pid != pid)
        .filter_map(|event| numbers(&event.text))
        .collect();
    assert!(after.is_sorted(), "order does not go back at the other worker");
}

#[tokio::test]
async fn a_message_that_kills_workers_is_given_up() {
    let node = Node::test().set("worker", "children = 3").start().await;
    let mut bystander = Ws::connect(node.host().ws()).await;
    let mut killer = Ws::connect(node.host().ws()).await;
    killer.send("exit").await;
    assert_eq!(killer.closed().await.0, 1011);
    let deaths = node.events().messages().iter().filter(|text| *text == "exit").count();
    assert_eq!(deaths, 3);
    assert_eq!(bystander.ask("still here").await, "still here");
    let close = node.events().wait("the close", |event| event.event == "close").await;
    assert_eq!(close.cause, "given up");
    node.status_when("the workers are back", |status| {
        status.all_serve() && status.instance("worker").restarts == 3
    })
    .await;
}

#[tokio::test]
async fn clients_wait_for_a_worker_to_come() {
    let mut front = Node::test()
        .set(
            "gateway",
            "connect_timeout = \"25s\"\nwaiting = \"1MiB\"\nclient_waiting = \"4KiB\"",
        )
        .only("gateway")
        .prepare();
    let registry = Node::build("meepo-registry").host(front.host()).start().await;
    front.start().await;
    let address = front.host().ws();
    let mut waiting = tokio::task::JoinSet::new();
    for number in 0..50 {
        waiting.spawn(async move {
            let mut client = Ws::connect(address).await;
            assert_eq!(client.ask(&number.to_string()).await, number.to_string());
            client
        });
    }
    wait_until("they wait", Duration::from_secs(10), async || {
        front
            .status()
            .await
            .instance("gateway")
            .sum(|child| child.events_waiting)
            >= 50
    })
    .await;
    let workers = Node::test().registry(front.host()).only("worker").start().await;
    let clients = waiting.join_all().await;
    assert_eq!(clients.len(), 50);

    // Messages wait as well while there is no worker.
    let mut client = clients.into_iter().next().expect("there are fifty");
    for pid in workers.processes() {
        processes::signal(pid, Signal::SIGKILL);
    }
    for number in 0..100 {
        client.send(&number.to_string()).await;
    }
    let later = Node::test().registry(front.host()).only("worker").start().await;
    for number in 0..100 {
        assert_eq!(client.next().await, Incoming::Text(number.to_string()));
    }
    assert!(
        front.output().lines().count() < 100,
        "few log lines:\n{}",
        front.output()
    );
    drop((registry, later));
}

#[tokio::test]
async fn a_client_that_has_gone_is_never_taken_for_another() {
    const ROUNDS: usize = 10;
    let place = Host::new();
    let _registry = Node::build("meepo-registry").host(&place).start().await;
    let worker = Node::test().registry(&place).only("worker").start().await;
    let mut gateway = Node::build("meepo-gateway")
        .registry(&place)
        .set("gateway", "children = 1")
        .prepare();
    let address = gateway.host().ws();
    let mut ids = BTreeSet::new();
    for _ in 0..ROUNDS {
        gateway.start().await;
        let mut a = Ws::connect(address).await;
        let id = a.ask("id").await;
        assert!(ids.insert(id.clone()), "{id} comes twice");
        gateway.kill_all().await;
        gateway.start().await;
        let mut b = Ws::connect(address).await;
        let mut c = Ws::connect(address).await;
        let other = b.ask("id").await;
        assert!(ids.insert(other.clone()), "{other} comes twice");
        for command in ["send-to", "set-of", "join-of", "close-of"] {
            c.send(&format!("{command} {id} stranger")).await;
        }
        assert_eq!(
            c.ask(&format!("session-of {id}")).await,
            "null",
            "who asks learns that the client has gone"
        );
        assert_eq!(b.ask("get k").await, "-");
        assert_eq!(b.ask("groups").await, "{}");
        assert_eq!(b.ask("nothing else came").await, "nothing else came");
        drop((a, b, c));
        gateway.stop().await;
    }
    let status = worker.status().await;
    assert!(
        status.instance("worker").sum(|child| child.failed_sends) >= 1,
        "sends to nobody are counted"
    );
}

#[tokio::test]
async fn commands_that_cannot_be_done_harm_nothing() {
    let node = Node::test().start().await;
    let mut client = Ws::connect(node.host().ws()).await;
    let mut other = Ws::connect(node.host().ws()).await;
    let gone = other.ask("id").await;
    other.close(1000, "").await;
    node.events().wait("the close", |event| event.event == "close").await;
    let before = node.pids("worker").await;
    let long = "g".repeat(100_000);
    for command in [
        format!("send-to {gone} hello"),
        format!("close-of {gone} bye"),
        format!("join-of {gone} room"),
        format!("set-of {gone} v"),
        "send-to malformed hello".into(),
        "send-group  hello".into(),
        "send-group nobody hello".into(),
        "join ".into(),
        format!("join {long}"),
        format!("leave {long}"),
        format!("send-group {long} hello"),
        format!("set big {}", "v".repeat(200_000)),
        "big 3000000".into(),
        "leave never-joined".into(),
    ] {
        client.send(&command).await;
    }
    let mut last = String::new();
    // Nothing that was refused reaches the client, and all that comes later does.
    client.send("the end").await;
    while last != "the end" {
        last = client.text().await;
        assert!(last == "the end" || last.len() < 100, "{last:.100}");
    }
    assert_eq!(client.ask("get k").await, "-");
    assert_eq!(client.ask("count room").await, "0");
    assert_eq!(client.ask("online").await, "1");
    assert_eq!(node.pids("worker").await, before);
    let status = node.status().await;
    assert_eq!(status.instance("worker").sum(|child| child.links), 4, "links stand");
    assert_eq!(status.instance("worker").restarts, 0);
}
