//! What workers are told of a client beside what it sends, and how they hold it back.

use std::time::Duration;

use meepo_tests::raw::{self, FIN, TEXT};
use meepo_tests::{Cluster, Events, Frame, Incoming, Node, Raw, Record, Ws, processes, wait_for};
use nix::sys::signal::Signal;
use tokio::time::timeout;

/// A cluster whose clients miss messages when they do not read.
async fn lenient() -> Cluster {
    Cluster::with_gateways("send_buffer = \"64KiB\"\nslow_client = \"drop\"").await
}

/// A client that does not read, at the first gateway, with its id.
async fn deaf(cluster: &Cluster) -> (Ws, String) {
    let mut client = Ws::connect_with_buffer(cluster.clients()[0], "/", 64 << 10).await;
    let id = client.ask("id").await;
    (client, id)
}

/// Sends to a client until its buffer is full.
async fn fill(asker: &mut Ws, id: &str) {
    wait_for("the buffer is full", async || {
        asker.send(&format!("flood {id} 500000")).await;
        (asker.text().await == "Full").then_some(())
    })
    .await;
}

/// Reads what a client was sent, up to the answer to what it says now.
async fn catch_up(client: &mut Ws) {
    client.send("caught up").await;
    while client.text().await != "caught up" {}
}

/// What handlers were told of a client's buffer, in their order.
fn news(events: &Events, id: &str) -> Vec<Record> {
    let mut news = events.all();
    news.retain(|record| record.client == id && ["full", "empty"].contains(&record.event.as_str()));
    news
}

fn names(news: &[Record]) -> Vec<&str> {
    news.iter().map(|record| record.event.as_str()).collect()
}

/// Waits for so many news of a client's buffer.
async fn wait_news(cluster: &Cluster, id: &str, count: usize) -> Vec<Record> {
    wait_for(&format!("{count} news"), async || {
        Some(news(&cluster.events(), id)).filter(|news| news.len() >= count)
    })
    .await
}

async fn wait_event(cluster: &Cluster, event: &str, id: &str) -> Record {
    let right = |record: &Record| record.event == event && record.client == id;
    cluster.events().wait(event, right).await
}

#[tokio::test]
async fn a_buffer_fills_and_empties_once_and_its_worker_may_die_meanwhile() {
    let cluster = lenient().await;
    let mut asker = Ws::connect(cluster.clients()[1]).await;
    let (mut client, id) = deaf(&cluster).await;
    fill(&mut asker, &id).await;
    let full = wait_event(&cluster, "full", &id).await;
    fill(&mut asker, &id).await;
    processes::signal(full.pid, Signal::SIGKILL);
    catch_up(&mut client).await;
    let told = wait_news(&cluster, &id, 2).await;
    assert_eq!(names(&told), ["full", "empty"]);
    assert_ne!(told[1].pid, full.pid, "another worker is told");

    // The same again with workers that are replaced in order.
    fill(&mut asker, &id).await;
    let told = wait_news(&cluster, &id, 3).await;
    processes::signal(told[2].pid, Signal::SIGTERM);
    catch_up(&mut client).await;
    let told = wait_news(&cluster, &id, 4).await;
    assert_eq!(names(&told), ["full", "empty", "full", "empty"]);
    assert!(cluster.events().of("close").is_empty());
}

#[tokio::test]
async fn news_of_a_buffer_that_a_dead_worker_had_come_again() {
    let cluster = lenient().await;
    let mut asker = Ws::connect(cluster.clients()[1]).await;
    let (mut client, id) = deaf(&cluster).await;
    let pid: u32 = client.ask("pid").await.parse().expect("a pid");
    client.send("hang").await;
    fill(&mut asker, &id).await;
    cluster.gateways[0]
        .status_when("the worker has both", |status| {
            status.instance("gateway").sum(|child| child.events_in_flight) == 2
        })
        .await;
    assert!(news(&cluster.events(), &id).is_empty(), "in its turn");
    processes::signal(pid, Signal::SIGKILL);
    let full = wait_event(&cluster, "full", &id).await;
    assert!(full.redelivered && full.pid != pid, "{full:?}");
    catch_up(&mut client).await;
    let told = wait_news(&cluster, &id, 2).await;
    assert_eq!(names(&told), ["full", "empty"]);
    assert!(!told[1].redelivered);
}

#[tokio::test]
async fn a_client_that_recovers_within_the_grace_is_told_of_and_stays() {
    let cluster = Cluster::with_gateways("send_buffer = \"64KiB\"").await;
    let mut asker = Ws::connect(cluster.clients()[1]).await;
    let burst = "x".repeat(20_000);
    // It has a second to read: where others keep the machine busy, it may come too late.
    let id = wait_for("one that recovers", async || {
        let (mut client, id) = deaf(&cluster).await;
        let mut sent = 0;
        while news(&cluster.events(), &id).is_empty()
            && cluster.events().of("close").iter().all(|close| close.client != id)
        {
            // What is known to be sent is in the buffer, or with the client's system.
            asker.send(&format!("send-to {id} {burst}")).await;
            asker.send(&format!("is-online {id}")).await;
            if asker.text().await == "false" {
                break;
            }
            sent += 1;
        }
        for _ in 0..sent {
            if client.next().await != Incoming::Text(burst.clone()) {
                return None;
            }
        }
        client.send("still here").await;
        (client.next().await == Incoming::Text("still here".into())).then_some(id)
    })
    .await;
    assert_eq!(names(&wait_news(&cluster, &id, 2).await), ["full", "empty"]);
}

/// Numbered messages, more than the kernel takes when nobody reads.
fn numbered(count: usize) -> Vec<u8> {
    let filler = "x".repeat(60_000);
    (0..count)
        .flat_map(|number| raw::frame(FIN | TEXT, format!("quiet {number} {filler}").as_bytes()))
        .collect()
}

/// The numbers that handlers have seen of a client.
fn seen(events: &Events, id: &str) -> Vec<usize> {
    let mut seen = events.of("message");
    seen.retain(|record| record.client == id && record.text.starts_with("quiet "));
    let number = |record: Record| record.text.split(' ').nth(1).and_then(|number| number.parse().ok());
    seen.into_iter().filter_map(number).collect()
}

/// A client that writes by hand, and its id.
async fn raw_client(cluster: &Cluster) -> (Raw, String) {
    let mut client = Raw::connect(cluster.clients()[0]).await;
    client.frame(FIN | TEXT, b"id").await;
    let Frame { payload, .. } = client.next().await.expect("an answer");
    (client, String::from_utf8(payload).expect("an id is text"))
}

/// Has a client paused by its own worker.
async fn pause(cluster: &Cluster, client: &mut Raw, id: &str) {
    client.frame(FIN | TEXT, b"pause").await;
    let paused = |record: &Record| record.event == "handled" && record.client == id && record.paused;
    cluster.events().wait("the pause", paused).await;
}

/// Waits until a worker's process is replaced.
async fn replaced(cluster: &Cluster, pid: u32) {
    for worker in &cluster.workers {
        worker
            .status_when("the worker is replaced", |status| {
                status.all_serve() && !status.instance("worker").pids().contains(&pid)
            })
            .await;
    }
    cluster.linked().await;
}

#[tokio::test]
async fn a_client_is_paused_whoever_serves_it_until_it_is_resumed() {
    const MESSAGES: usize = 100;
    let cluster = Cluster::start().await;
    let mut asker = Ws::connect(cluster.clients()[1]).await;
    let (mut client, id) = raw_client(&cluster).await;
    pause(&cluster, &mut client, &id).await;
    // Again, by another worker, which changes nothing.
    asker.send(&format!("pause-of {id}")).await;
    assert_eq!(asker.ask("done").await, "done");
    // Nobody reads: what is between the two fills, and what was read before comes through.
    let bytes = numbered(MESSAGES);
    let mut writing = Box::pin(client.write(&bytes));
    let mut took_nothing = async || timeout(Duration::from_millis(200), &mut writing).await.is_err();
    assert!(took_nothing().await, "all was taken");
    let first = wait_event(&cluster, "handled", &id).await.pid;
    processes::signal(first, Signal::SIGKILL);
    replaced(&cluster, first).await;
    cluster.gateways[0]
        .status_when("nothing waits", |status| {
            status
                .children()
                .all(|child| child.events_in_flight + child.events_waiting == 0)
        })
        .await;
    let before = seen(&cluster.events(), &id).len();
    assert!(before < MESSAGES / 2, "{before} of the messages were read");
    assert!(took_nothing().await, "all was taken");
    assert_eq!(seen(&cluster.events(), &id).len(), before, "it is still paused");

    asker.send(&format!("resume-of {id}")).await;
    writing.await;
    client.frame(FIN | TEXT, b"the end").await;
    let last = |record: &Record| record.text == "the end";
    let last = cluster.events().wait("the end", last).await;
    assert!(!last.paused && last.pid != first, "{last:?}");
    let mut numbers = seen(&cluster.events(), &id);
    numbers.dedup();
    assert_eq!(numbers, (0..MESSAGES).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_paused_client_may_be_silent_and_is_closed_or_missed_when_it_goes() {
    let cluster = Cluster::with_gateways("ping_interval = \"1s\"\nheartbeat_timeout = \"4s\"").await;
    let mut paused = Vec::new();
    for _ in 0..3 {
        let (mut client, id) = raw_client(&cluster).await;
        pause(&cluster, &mut client, &id).await;
        paused.push((client, id));
    }
    let mut asker = Ws::connect(cluster.clients()[1]).await;
    // One that came after them and is as silent is closed for it.
    let (_silent, silent) = raw_client(&cluster).await;
    // The one that asks is not silent.
    let heartbeat = wait_for("the heartbeat", async || {
        assert_eq!(asker.ask("alive").await, "alive");
        cluster.events().of("close").pop()
    })
    .await;
    assert_eq!((heartbeat.client, heartbeat.cause.as_str()), (silent, "heartbeat"));

    // One vanishes, one ends its connection in good order, one is closed.
    let (reset, reset_id) = paused.pop().expect("a client");
    reset.reset();
    let (ended, ended_id) = paused.pop().expect("a client");
    ended.end();
    for id in [reset_id, ended_id] {
        let close = wait_for("the close", async || {
            assert_eq!(asker.ask("alive").await, "alive");
            cluster
                .events()
                .of("close")
                .into_iter()
                .find(|close| close.client == id)
        })
        .await;
        assert!(close.paused);
    }
    let (mut client, id) = paused.pop().expect("a client");
    let pid = wait_event(&cluster, "handled", &id).await.pid;
    processes::signal(pid, Signal::SIGKILL);
    let alive = async {
        loop {
            assert_eq!(asker.ask("alive").await, "alive");
        }
    };
    tokio::select! {
        () = alive => {}
        () = replaced(&cluster, pid) => {}
    }
    let mut asker = Ws::connect(cluster.clients()[1]).await;
    asker.send(&format!("close-of {id} bye")).await;
    assert_eq!(client.closed().await, Some(4000));
    let close = wait_event(&cluster, "close", &id).await;
    assert!(close.paused && close.pid != pid, "the new worker knows it: {close:?}");
}

#[tokio::test]
async fn what_went_wrong_with_a_client_is_told_to_its_worker() {
    let cluster = Cluster::start().await;
    let mut client = Ws::connect(cluster.clients()[0]).await;
    let id = client.ask("id").await;
    let long = format!("join {}", "g".repeat(256));
    let text = format!("set k {}", "v".repeat(70_000));
    for command in ["fail", "panic", &long, &text] {
        client.send(command).await;
    }
    assert_eq!(client.ask("still here").await, "still here");
    let errors = wait_for("all errors", async || {
        let mut errors = cluster.events().of("error");
        errors.retain(|error| error.client == id);
        (errors.len() == 4).then_some(errors)
    })
    .await;
    let errors: Vec<_> = errors.iter().map(|error| error.text.as_str()).collect();
    assert_eq!(errors[..2], ["asked to fail", "panic: asked to panic"]);
    assert_eq!(
        errors[2..],
        [
            "join was refused: the name is longer than 255 bytes",
            "session was refused: the session is over `max_session`"
        ]
    );
}

#[tokio::test]
async fn a_pause_of_a_client_that_is_gone_is_refused() {
    let node = Node::test().set("worker", "children = 1").start().await;
    let mut asker = Ws::connect(node.host().ws()).await;
    let mut other = Ws::connect(node.host().ws()).await;
    let id = other.ask("id").await;
    other.close(1000, "").await;
    node.events().wait("the close", |event| event.event == "close").await;
    asker.send(&format!("pause-of {id}")).await;
    asker.send(&format!("resume-of {id}")).await;
    assert_eq!(asker.ask("still here").await, "still here");
    node.status_when("both are counted as failed", |status| {
        status.instance("worker").sum(|child| child.failed_sends) == 2
    })
    .await;
}
