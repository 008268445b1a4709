//! Log files: opened again, truncated, full.

mod common;

use common::{Node, signal, until};
use nix::sys::signal::Signal;

#[test]
fn a_quiet_node_logs_what_happens_and_no_more() {
    let node = Node::new();
    node.start();
    for _ in 0..5 {
        node.connect();
        node.run(&["status"]).ok();
    }
    assert_eq!(node.log().lines().count(), 1, "{}", node.log());
    assert!(node.log().contains("serving"));
}

#[test]
fn a_renamed_file_is_opened_again() {
    let node = Node::new();
    node.configure("log_level = \"info,echo=debug\"", "");
    node.start();
    let (log, old) = (node.run_dir().join("echo.log"), node.path("old"));
    std::fs::rename(&log, &old).unwrap();
    signal(node.master(), Signal::SIGUSR1);
    until("it is there again", || log.exists());
    let children = node.serving();
    // Each child says something when its master is gone, in the new file.
    node.run(&["reload"]).ok();
    until("the old children are gone", || {
        children.iter().all(|pid| !common::alive(*pid))
    });
    let before = std::fs::read_to_string(&old).unwrap();
    assert!(before.lines().all(|line| !line.contains("reload")), "{before}");
    assert!(node.log().contains("reloaded"));
    let master = node.master();
    assert_eq!(std::fs::read_link(format!("/proc/{master}/fd/2")).unwrap(), log);
    signal(master, Signal::SIGKILL);
    // Two of the echo, and the clock, whose predecessor may be there for a moment more.
    until("children have logged", || {
        node.log().matches("the master is gone").count() >= 3
    });
}

#[test]
fn children_open_it_again_too() {
    let node = Node::new();
    node.configure("stop_timeout = \"1s\"", "");
    node.start();
    let log = node.run_dir().join("echo.log");
    std::fs::rename(&log, node.path("old")).unwrap();
    let children = node.serving();
    signal(node.master(), Signal::SIGUSR1);
    for child in &children {
        until("the child has it open", || {
            let fds = std::fs::read_dir(format!("/proc/{child}/fd")).unwrap().flatten();
            let links: Vec<_> = fds.filter_map(|fd| std::fs::read_link(fd.path()).ok()).collect();
            links.contains(&log) && !links.contains(&node.path("old"))
        });
    }
}

#[test]
fn truncation_leaves_no_hole() {
    let node = Node::new();
    node.start();
    node.run(&["reload"]).ok();
    std::fs::File::options()
        .write(true)
        .truncate(true)
        .open(node.run_dir().join("echo.log"))
        .unwrap();
    node.run(&["reload"]).ok();
    let log = node.log();
    assert!(!log.contains('\0') && log.contains("reloaded"), "{log:?}");
    assert!(log.lines().all(|line| line.starts_with("20")), "{log}");
}

#[test]
fn a_full_disk_stops_no_service() {
    let node = Node::new();
    node.configure("log_file = \"/dev/full\"", "");
    node.start();
    assert_eq!(node.connect().echo("x").unwrap(), "x");
    node.run(&["reload"]).ok();
    signal(node.serving()[0], Signal::SIGKILL);
    until("it goes on", || {
        node.serving().len() == 2 && node.status()["instances"][0]["restarts"] == 1
    });
    let status = node.status();
    assert_eq!(status["problems"][0], "master: log lines cannot be written");
    assert!(status["lost_log_lines"].as_u64().unwrap() >= 4, "{status}");
    node.run(&["status"])
        .ok()
        .says("now: master: log lines cannot be written")
        .says(" log lines lost");
    // Another file has room.
    node.configure("log_file = \"log\"\nlog_format = \"json\"", "");
    node.run(&["reload"]).ok();
    until("it is told what was lost", || {
        node.status()["problems"] == serde_json::json!([])
    });
    let log = std::fs::read_to_string(node.path("log")).unwrap();
    let mut events = log
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let told = |event: &serde_json::Value| event["process"] == "master" && event["fields"]["lost"].is_number();
    let told = events.find(told).unwrap_or_else(|| panic!("{log}"));
    assert!(told["level"] == "ERROR" && told["timestamp"].is_string(), "{told}");
    node.run(&["stop"]).ok();
    node.assert_clean(&[]);
}

#[test]
fn json_is_one_object_a_line() {
    let node = Node::new();
    node.configure("log_format = \"json\"", "");
    node.start();
    node.trouble("panic");
    node.run(&["reload"]).is(1);
    node.trouble("");
    for line in node.log().lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(
            event["pid"].is_number() && event["process"].is_string() && event["timestamp"].is_string(),
            "{line}"
        );
    }
    assert!(node.log().contains("\"process\":\"echo/0\""), "{}", node.log());
    assert!(node.log().contains("panicked"));
}

#[test]
fn a_log_file_of_the_configuration_is_used_in_the_foreground_too() {
    let node = Node::new();
    node.configure("log_file = \"here.log\"", "");
    let mut master = node.foreground();
    node.run(&["stop"]).ok();
    master.wait();
    let log = std::fs::read_to_string(node.path("here.log")).unwrap();
    assert!(log.contains("serving") && log.contains("stopped"), "{log}");
    assert_eq!(std::fs::read_to_string(node.path("stderr")).unwrap(), "");
}

#[test]
fn a_reload_changes_the_logs() {
    let node = Node::new();
    node.start();
    node.configure("log_format = \"json\"\nlog_level = \"info,echo=debug\"", "");
    node.run(&["reload"]).ok();
    let child_says = |log: &str| {
        let mut lines = log.lines().filter(|line| line.starts_with('{'));
        lines.any(|line| line.contains("\"process\":\"echo/0\"") && line.contains("echo serves"))
    };
    assert!(node.log().lines().next().unwrap().starts_with("20"), "{}", node.log());
    assert!(child_says(&node.log()), "{}", node.log());
    node.configure(
        "log_file = \"other.log\"\nlog_format = \"json\"\nlog_level = \"info,echo=debug\"",
        "",
    );
    node.run(&["reload"]).ok();
    assert!(child_says(&std::fs::read_to_string(node.path("other.log")).unwrap()));
}

#[test]
fn a_log_file_that_cannot_be_opened_undoes_the_reload() {
    let node = Node::new();
    node.start();
    let before = node.serving();
    node.configure("log_file = \"no/such.log\"", "");
    node.run(&["reload"]).is(1).says("no/such.log");
    assert_eq!(node.serving(), before);
}
