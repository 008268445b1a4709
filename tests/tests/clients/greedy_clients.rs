//! Clients that take more than their share: of time, of memory, or of a link.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use meepo_tests::raw::{self, CONTINUATION, FIN, PING, TEXT};
use meepo_tests::{DEADLINE, Incoming, Line, Node, Raw, Ws, in_time, processes, wait_until};
use tokio::task::JoinSet;

#[tokio::test]
async fn a_client_that_pings_and_never_reads_is_closed_and_costs_no_memory() {
    let node = Node::test()
        .set(
            "gateway",
            "children = 1\nping_interval = \"1s\"\nheartbeat_timeout = \"3s\"\nsend_buffer = \"256KiB\"",
        )
        .start()
        .await;
    let gateway = node.pids("gateway").await[0];
    let before = processes::memory(gateway);
    let (mut client, _) = Raw::connect_with(node.host().ws(), "", Some(4096)).await;
    let pings = raw::frame(FIN | PING, &[b'p'; 125]).repeat(500);
    let mut most = 0;
    in_time("the end of the client", async {
        while client.try_write(&pings).await.is_ok() {
            most = most.max(processes::memory(gateway));
        }
    })
    .await;
    most = most.max(processes::memory(gateway));
    assert!(most < before + (16 << 20), "memory grows from {before} to {most}");
    node.events().wait("the close", |event| event.event == "close").await;
    assert_eq!(node.events().of("close").len(), 1);
}

/// Another client gets its echoes although somebody sends what is no message.
async fn echoes_meanwhile(address: SocketAddr, sent: &AtomicUsize) {
    let mut other = Ws::connect(address).await;
    for number in 0..20 {
        let text = number.to_string();
        assert_eq!(other.ask(&text).await, text);
    }
    wait_until("the flood flows", DEADLINE, async || {
        sent.load(Ordering::Relaxed) > 1 << 20
    })
    .await;
    for number in 0..20 {
        let text = number.to_string();
        assert_eq!(other.ask(&text).await, text);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_empty_lines_delay_nobody() {
    let node = Node::test().set("gateway", "children = 1").start().await;
    let mut client = Line::connect(node.host().line()).await;
    let bytes = [b'\n'; 1 << 16];
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let flood = tokio::spawn(async move {
        while client.try_write(&bytes).await.is_ok() {
            counted.fetch_add(bytes.len(), Ordering::Relaxed);
        }
    });
    echoes_meanwhile(node.host().ws(), &sent).await;
    flood.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_empty_frames_delay_nobody() {
    let node = Node::test().set("gateway", "children = 1").start().await;
    let mut client = Raw::connect(node.host().ws()).await;
    client.frame(TEXT, b"").await;
    let bytes = raw::frame(CONTINUATION, b"").repeat(10_000);
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let flood = tokio::spawn(async move {
        while client.try_write(&bytes).await.is_ok() {
            counted.fetch_add(bytes.len(), Ordering::Relaxed);
        }
    });
    echoes_meanwhile(node.host().ws(), &sent).await;
    flood.abort();
}

#[tokio::test]
async fn a_large_message_gets_its_turn_on_a_busy_link() {
    const BUSY: usize = 40;
    const AHEAD: usize = 20;
    let node = Node::test()
        .set("gateway", "children = 1\nmax_message = \"8MiB\"")
        .set("worker", "children = 1")
        .start()
        .await;
    let address = node.host().ws();
    // Together they have more on its way than a link carries at a time, and each follows up as soon as it can.
    let work = format!("sleep 50 {}", "x".repeat(20_000));
    let mut load = JoinSet::new();
    for _ in 0..BUSY {
        let work = work.clone();
        load.spawn(async move {
            let mut client = Ws::connect(address).await;
            for _ in 0..AHEAD {
                client.send(&work).await;
            }
            loop {
                assert_eq!(client.text().await, "slept");
                client.send(&work).await;
            }
        });
    }
    node.status_when("events wait", |status| {
        status.instance("gateway").sum(|child| child.events_waiting) > 0
    })
    .await;
    let mut large = Ws::connect(address).await;
    let size = 7 << 20;
    large.send_binary(vec![b'x'; size]).await;
    match large.next().await {
        Incoming::Binary(echo) => assert_eq!(echo.len(), size),
        other => panic!("not the echo: {other:?}"),
    }
    assert!(load.try_join_next().is_none(), "the others go on");
}

#[tokio::test]
async fn a_burst_of_large_messages_does_not_make_a_reader_slow() {
    const SIZE: usize = 700 << 10;
    let node = Node::test().start().await;
    let mut client = Ws::connect_with_buffer(node.host().ws(), "/", 64 << 10).await;
    for round in 0..3 {
        client.send(&format!("burst 3 {}", "x".repeat(SIZE))).await;
        for number in 0..3 {
            let text = client.text().await;
            assert!(
                text.len() == SIZE + 1 && text.starts_with(&number.to_string()),
                "round {round}"
            );
        }
    }
    assert_eq!(client.ask("still here").await, "still here");
    assert!(node.events().of("close").is_empty());
}
