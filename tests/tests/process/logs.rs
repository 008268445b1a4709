//! Logs of the real instances: JSON if wanted, and nothing of a quiet system. Log files are tested with the node.

use std::fs;
use std::time::Duration;

use meepo_tests::{Node, Ws, processes, wait_for};

#[tokio::test]
async fn errors_of_a_handler_are_json_lines_in_the_file() {
    let node = Node::test()
        .set("node", "log_file = \"{folder}/node.log\"\nlog_format = \"json\"")
        .start()
        .await;
    let mut client = Ws::connect(node.host().ws()).await;
    client.send("fail").await;
    client.send("panic").await;
    let log = wait_for("both are logged", async || {
        let log = fs::read_to_string(node.folder().join("node.log")).unwrap_or_default();
        let complete = log.ends_with('\n') && log.contains("asked to fail") && log.contains("asked to panic");
        complete.then_some(log)
    })
    .await;
    for line in log.lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(event.get("level").is_some(), "{line}");
    }
}

#[tokio::test]
async fn a_quiet_system_logs_nothing() {
    let node = Node::test().start().await;
    let mut client = Ws::connect(node.host().ws()).await;
    assert_eq!(client.ask("x").await, "x");
    // The links may still be coming up.
    node.status_when("all links are up", |status| {
        status.instance("worker").sum(|child| child.links) == 4
    })
    .await;
    let before = node.output();
    let ticks = |pids: &[u32]| pids.iter().map(|pid| processes::cpu_ticks(*pid)).sum::<u64>();
    let pids = node.processes();
    let used = ticks(&pids);
    tokio::time::sleep(Duration::from_secs(5)).await;
    for number in 0..100 {
        let text = number.to_string();
        assert_eq!(client.ask(&text).await, text);
    }
    client.close(1000, "").await;
    assert_eq!(node.output(), before);
    assert!(ticks(&pids) - used < 100, "a quiet system is idle");
}
