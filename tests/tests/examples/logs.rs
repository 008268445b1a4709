//! The example `logs`: real agents follow real files.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use meepo_tests::binaries::binary;
use meepo_tests::{Line, Node, Ws, in_time, processes};
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// An agent that follows a file. When dropped, it is killed.
async fn agent(node: &Node, machine: &str, file: &Path) -> Child {
    let to = node.host().line().to_string();
    let mut agent = Command::new(binary("logs"))
        .args(["agent", "--to", &to, "--machine", machine])
        .arg(file)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the program runs");
    let mut lines = BufReader::new(agent.stdout.take().expect("its output is piped")).lines();
    let line = in_time("the agent", lines.next_line()).await;
    assert_eq!(line.expect("its output is text").as_deref(), Some("following 1 files"));
    agent
}

async fn viewer(node: &Node, filter: &str) -> Line {
    let mut viewer = Line::connect(node.host().line()).await;
    viewer.send(filter).await;
    viewer.until(&format!("* You see {filter}")).await;
    viewer
}

fn append(path: &Path, text: &str) {
    let file = File::options().append(true).create(true).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.expect("the folder is writable");
}

#[tokio::test]
async fn each_viewer_gets_the_lines_of_all_machines_that_meet_his_filter() {
    let node = Node::build("logs").start().await;
    let [a, b] = ["a.log", "b.log"].map(|name| node.folder().join(name));
    append(&a, "an error from before\n");
    let _agents = [agent(&node, "alpha", &a).await, agent(&node, "beta", &b).await];
    let mut errors = viewer(&node, "Error").await;
    let mut beta = viewer(&node, "beta").await;
    let mut page = Ws::connect_to(node.host().ws(), "/ws").await;
    assert_eq!(page.ask("*").await, r#"{"filter":"*"}"#);

    append(&a, "fine\nan ERROR \u{1b}[2J\nfine again\n");
    assert_eq!(errors.text().await, format!("alpha {}: an ERROR  [2J", a.display()));
    let batch: Value = serde_json::from_str(&page.text().await).expect("JSON comes from the server");
    assert_eq!(batch["machine"], "alpha");
    assert_eq!(batch["lines"][0], "fine");
    append(&b, "quiet\n");
    assert_eq!(beta.text().await, format!("beta {}: quiet", b.display()));
    append(&b, "error in b\n");
    assert_eq!(errors.text().await, format!("beta {}: error in b", b.display()));

    // Another filter takes the place of the first.
    errors.send("quiet").await;
    errors.until("* You see quiet").await;
    append(&b, "an error that he does not want\n");
    beta.until("does not want").await;
    append(&b, "quiet again\n");
    assert!(errors.text().await.ends_with("quiet again"));
    errors.send(&"x".repeat(61)).await;
    errors.until("1 to 60").await;
    errors.send("/lines nonsense").await;
    errors.until("refused: ").await;
}

#[tokio::test]
async fn an_agent_survives_rotation_truncation_and_the_death_of_all_nodes() {
    let node = Node::build("logs").start().await;
    let log = node.folder().join("app.log");
    append(&log, "before\n");
    let _agent = agent(&node, "alpha", &log).await;
    let mut all = viewer(&node, "*").await;
    append(&log, "one\n");
    assert!(all.text().await.ends_with(": one"));
    fs::rename(&log, node.folder().join("app.log.1")).expect("the folder is writable");
    append(&log, "two\n");
    assert!(all.text().await.ends_with(": two"));
    append(&log, "a line that makes it longer\n");
    all.until("longer").await;
    File::create(&log).expect("the folder is writable");
    append(&log, "three\n");
    assert!(all.text().await.ends_with(": three"));

    for instance in ["gateway", "worker"] {
        for pid in node.pids(instance).await {
            processes::signal(pid, Signal::SIGKILL);
        }
        // A worker that has no link yet to a viewer's gateway does not reach him.
        node.status_when("all serve again, with all links", |status| {
            let linked = status
                .instance("worker")
                .children
                .iter()
                .all(|worker| worker.links == 2);
            status.instance(instance).restarts == 2 && status.all_serve() && linked
        })
        .await;
    }
    assert_eq!(all.next().await, None);
    let mut all = viewer(&node, "*").await;
    append(&log, "four\n");
    assert!(all.text().await.ends_with(": four"));
}
