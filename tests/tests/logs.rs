//! Logs: one line an event, text or JSON, to a file that can be moved away; a quiet system logs nothing.

use std::fs;
use std::time::Duration;

use meepo_tests::{Node, Ws, processes, wait_until};
use nix::sys::signal::Signal;

#[tokio::test]
async fn json_lines_go_to_a_file_that_is_opened_again() {
    let node = Node::test()
        .set("node", "log_file = \"{folder}/node.log\"\nlog_format = \"json\"")
        .start()
        .await;
    let path = node.folder().join("node.log");
    let moved = node.folder().join("node.1.log");
    let lines = |path: &std::path::Path| fs::read_to_string(path).unwrap_or_default();
    let mut client = Ws::connect(node.host().ws()).await;
    client.send("fail").await;
    wait_until("the error is logged", Duration::from_secs(10), async || {
        lines(&path).contains("asked to fail")
    })
    .await;

    fs::rename(&path, &moved).expect("the log can be moved");
    node.signal(Signal::SIGUSR1);
    wait_until("the log is opened again", Duration::from_secs(10), async || {
        path.exists()
    })
    .await;
    // Children of all kinds write to the new file.
    wait_until("children write to the new file", Duration::from_secs(10), async || {
        client.send("fail").await;
        lines(&path).contains("asked to fail")
    })
    .await;
    let old = lines(&moved);
    client.send("fail").await;
    assert_eq!(client.ask("x").await, "x");
    assert_eq!(lines(&moved), old, "nobody writes to the old file");
    for line in old.lines().chain(lines(&path).lines()) {
        let event: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(event.get("level").is_some(), "{line}");
    }

    // A file that is cut in place has no hole afterwards.
    fs::File::create(&path).expect("the log can be cut");
    client.send("fail").await;
    wait_until("it is written again", Duration::from_secs(10), async || {
        lines(&path).contains("asked to fail")
    })
    .await;
    assert!(!lines(&path).contains('\0'));
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
