//! Who comes in and who does not.

use meepo_proto::link as wire;
use meepo_proto::link::command::Body as Command;

use super::Running;
use super::gateway::text_to;

fn reject(client: u64, status: u32, reason: &str) -> Command {
    Command::Reject(wire::Reject {
        client,
        status,
        reason: reason.into(),
    })
}

#[tokio::test]
async fn accept_comes_after_what_was_sent_and_before_done() {
    let (_worker, _gateway, mut link) = Running::linked().await;
    let seq = link.opened(1, "");
    let accept = Command::Accept(wire::Accept { client: 1 });
    assert_eq!(link.until_done(seq).await, [text_to(1, "welcome"), accept]);
}

#[tokio::test]
async fn a_rejected_client_gets_no_close() {
    let (mut worker, _gateway, mut link) = Running::linked().await;
    let seq = link.opened(1, "reject");
    assert_eq!(link.until_done(seq).await, [reject(1, 403, "no")]);
    assert_eq!(worker.stats.handler_errors.get(), 0);
    assert_eq!(worker.stats.connections.get(), 0);
    let seq = link.closed(1);
    link.until_done(seq).await;
    worker.expect("1 connect").await;

    // The same if it goes while the handler thinks about it.
    link.opened(2, "hold-reject");
    let seq = link.closed(2);
    worker.expect("2 connect").await;
    worker.let_pass(1);
    assert_eq!(link.until_done(seq).await, [reject(2, 403, "no")]);
    worker.expect_no_more();
}

#[tokio::test]
async fn a_long_reason_is_cut_and_told() {
    let (worker, _gateway, mut link) = Running::linked().await;
    let seq = link.opened(1, "reject-long");
    assert_eq!(link.until_done(seq).await, [reject(1, 403, &"ä".repeat(512))]);
    assert_eq!(worker.stats.failed_sends.get(), 0);
}

#[tokio::test]
async fn a_panic_in_on_connect_rejects() {
    let (worker, _gateway, mut link) = Running::linked().await;
    let seq = link.opened(1, "panic");
    assert_eq!(link.until_done(seq).await, [reject(1, 500, "internal error")]);
    assert_eq!(worker.stats.handler_errors.get(), 1);
}
