//! Backpressure, and commands that do not fit.

use bytesize::ByteSize;
use meepo_proto::link::command::Body as Command;

use super::gateway::Gateway;
use super::{Running, eventually};
use crate::WorkerSection;

#[tokio::test]
async fn events_wait_when_the_gateway_does_not_read() {
    const EVENTS: usize = 200;
    const SIZE: usize = 256 << 10;
    const LIMIT: usize = 1 << 20;
    let mut worker = Running::with(WorkerSection {
        send_queue: ByteSize::b(LIMIT as u64),
        ..WorkerSection::default()
    });
    let mut gateway = Gateway::start(1).await;
    worker.name(&gateway);
    let mut link = gateway.link().await;
    worker.expect("start, 0 gateways").await;
    link.open(1).await;
    worker.expect("1 connect").await;
    for _ in 0..EVENTS {
        link.message(1, &format!("flood {SIZE}"));
    }

    // It goes on until the windows, the sockets and the queue are full, and one message more.
    let budget = worker.cluster().budget().clone();
    eventually("a full queue", || budget.queued() >= LIMIT).await;
    let stats = worker.stats;
    eventually("the client is held back", || stats.held_back.get() == 1).await;
    assert_eq!(stats.full_queues.get(), 1, "the link's; the whole child has room");
    let mut came = 0;
    while came < EVENTS {
        assert!(budget.queued() < LIMIT + SIZE + 1024);
        if let Command::Send(send) = link.next().await {
            assert_eq!(send.payload.len(), SIZE);
            came += 1;
        }
    }
    eventually("the end of all events", || stats.events_in_flight.get() == 0).await;
    assert_eq!((stats.full_queues.get(), stats.held_back.get()), (0, 0));
}

#[tokio::test]
async fn a_command_over_the_limit_is_refused_here() {
    let (worker, _gateway, mut link) = Running::linked().await;
    link.open(1).await;
    let seq = link.message(1, &format!("flood {}", 2 << 20));
    assert_eq!(link.until_done(seq).await, []);
    assert_eq!(worker.stats.failed_sends.get(), 1);
    assert_eq!(worker.stats.handler_errors.get(), 0);
}
