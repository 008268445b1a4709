//! Processes that die, pid files that lie, and starts that fail.

use std::time::Duration;

use meepo_tests::{Finished, Host, Node, Ws, processes};
use nix::sys::signal::Signal;

fn fine(finished: &Finished) {
    assert_eq!(finished.code, Some(0), "{finished:?}");
}

fn failed(finished: &Finished) {
    assert!(finished.code.is_some_and(|code| code != 0), "{finished:?}");
    assert!(!finished.stderr.trim().is_empty(), "the reason is told: {finished:?}");
    assert!(!finished.stderr.contains("panicked"), "{finished:?}");
}

#[tokio::test]
async fn a_killed_child_is_replaced_while_others_serve() {
    let node = Node::test().start().await;
    let mut client = Ws::connect(node.host().ws()).await;
    for instance in ["worker", "registry", "gateway"] {
        let status = node.status().await;
        let others: Vec<_> = status
            .instances
            .iter()
            .filter(|other| other.name != instance)
            .flat_map(|other| other.pids())
            .collect();
        let old = status.instance(instance).pids();
        processes::signal(old[0], Signal::SIGKILL);
        let now = node
            .status_when("the child is replaced", |status| {
                let new = status.instance(instance).pids();
                status.all_serve() && new.len() == old.len() && !new.contains(&old[0])
            })
            .await;
        let now_instance = now.instance(instance);
        assert_eq!(now_instance.restarts, 1);
        let last_exit = now_instance.last_exit.clone().unwrap_or_default();
        assert!(last_exit.contains("KILL") || last_exit.contains('9'), "{last_exit}");
        let pids: Vec<_> = now.children().filter_map(|child| child.pid).collect();
        assert!(
            others.iter().all(|pid| pids.contains(pid)),
            "other children are untouched"
        );
        if instance != "gateway" {
            assert_eq!(client.ask("still here").await, "still here");
        }
    }
}

#[tokio::test]
async fn children_of_a_killed_master_leave() {
    for name in ["meepo-test-node", "meepo-registry", "meepo-gateway"] {
        let node = Node::build(name).set("node", "stop_timeout = \"3s\"").prepare();
        fine(&node.start_daemon().await);
        let client = match name {
            "meepo-test-node" => Some(Ws::connect(node.host().ws()).await),
            _ => None,
        };
        let master = node.status().await.pid;
        processes::signal(master, Signal::SIGKILL);
        node.gone(Duration::from_secs(10)).await;
        if let Some(mut client) = client {
            assert_eq!(client.closed().await.0, 1001);
        }
        assert_eq!(node.command(&["status"]).await.code, Some(3));
        fine(&node.start_daemon().await);
        fine(&node.command(&["stop"]).await);
    }
}

#[tokio::test]
async fn a_pid_file_never_makes_us_signal_a_stranger() {
    let mut stranger = tokio::process::Command::new("sleep")
        .arg("600")
        .kill_on_drop(true)
        .spawn()
        .expect("sleep runs");
    let pid = stranger.id().expect("it runs").to_string();
    let node = Node::test().prepare();
    fine(&node.start_daemon().await);
    let files = node.run_files();
    let file = files
        .iter()
        .find(|file| file.ends_with(".pid"))
        .unwrap_or_else(|| panic!("a pid file in {files:?}"));
    let file = node.run_dir().join(file);
    fine(&node.command(&["stop"]).await);

    let contents = ["1", &pid, "", "text", "99999999999999999999", "-1", "0"];
    for content in contents {
        let put = || std::fs::write(&file, content).expect("the folder is writable");
        for (command, code) in [("status", 3), ("stop", 0), ("reload", 1), ("kill", 0)] {
            put();
            let finished = node.command(&[command]).await;
            assert_eq!(finished.code, Some(code), "{command} with {content:?}: {finished:?}");
            assert!(!finished.stderr.contains("panicked"), "{finished:?}");
        }
        put();
        fine(&node.start_daemon().await);
        assert!(node.status().await.all_serve());
        // While the master runs, what is written over the file does not count either.
        put();
        for command in ["status", "reload", "stop"] {
            fine(&node.command(&[command]).await);
        }
        assert_eq!(node.processes(), [0u32; 0]);
    }
    assert!(matches!(stranger.try_wait(), Ok(None)), "the stranger lives");
}

#[tokio::test]
async fn a_start_that_fails_says_why() {
    let taken = Host::new();
    let _listener = std::net::TcpListener::bind(taken.ws()).expect("the port is free");
    let node = Node::test().host(&taken).prepare();
    let finished = node.start_daemon().await;
    failed(&finished);
    assert!(
        finished.stderr.contains(&taken.ws().to_string()),
        "the address is told: {finished:?}"
    );
    failed(&node.command(&["start"]).await);
    node.gone(Duration::from_secs(2)).await;
    assert_eq!(node.run_files(), [""; 0]);

    // A worker whose start code fails.
    let node = Node::test()
        .env("MEEPO_TEST_CRASH", "/proc/self/status")
        .only("worker")
        .prepare();
    let finished = node.start_daemon().await;
    failed(&finished);
    node.gone(Duration::from_secs(2)).await;
}

#[tokio::test]
async fn a_child_that_keeps_dying_backs_off() {
    let flag = tempfile::NamedTempFile::new().expect("a temporary file");
    let path = flag.path().to_str().expect("a path of text").to_owned();
    let crash = flag.path().with_extension("crash");
    let node = Node::test()
        .env("MEEPO_TEST_CRASH", crash.to_str().expect("a path of text"))
        .set("worker", "children = 1")
        .start()
        .await;
    std::fs::write(&crash, path).expect("the folder is writable");
    processes::signal(node.pids("worker").await[0], Signal::SIGKILL);
    let status = node
        .status_when("the worker backs off", |status| {
            let child = &status.instance("worker").children[0];
            child.state == "backing_off" && child.restarts >= 3
        })
        .await;
    let worker = status.instance("worker");
    assert!(
        worker.children[0]
            .last_exit
            .as_ref()
            .is_some_and(|why| why.contains('3')),
        "{worker:?}"
    );
    let before = (processes::cpu_ticks(node.master()), node.output().lines().count());
    let starts = node.events().of("start").len();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let used = processes::cpu_ticks(node.master()) - before.0;
    assert!(used <= 5, "the master uses {used} % of a second in five");
    assert!(
        node.output().lines().count() - before.1 <= 12,
        "few log lines:\n{}",
        node.output()
    );
    assert!(node.events().of("start").len() - starts <= 3);
    // What is put right works again by itself.
    std::fs::remove_file(&crash).expect("it is there");
    node.status_when("the worker serves", |status| status.all_serve()).await;
}

#[tokio::test]
async fn pipes_that_close_early_harm_nobody() {
    use std::process::Stdio;

    let node = Node::test().start().await;
    for reader in ["head -1", "false", "true"] {
        let mut status = node.prepare(&["status"]);
        let child = status
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let mut child = child;
        let pipe: Stdio = child.stdout.take().expect("a pipe").try_into().expect("a pipe");
        let mut words = reader.split(' ');
        let mut end = tokio::process::Command::new(words.next().expect("a word"))
            .args(words)
            .stdin(pipe)
            .stdout(Stdio::null())
            .spawn()
            .expect("it runs");
        let _ = meepo_tests::in_time("the reader", end.wait()).await;
        let output = meepo_tests::in_time("status", child.wait_with_output())
            .await
            .expect("it ends");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!error.contains("panicked"), "{error}");
        let code = output.status.code();
        assert!(matches!(code, None | Some(0 | 141)), "{reader}: {code:?} {error}");
    }

    // A master whose output nobody reads any more serves on.
    let node = Node::test().prepare();
    let mut master = node
        .prepare(&["start"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    drop((master.stdout.take(), master.stderr.take()));
    node.status_when("it serves", |status| status.all_serve()).await;
    let mut client = Ws::connect(node.host().ws()).await;
    client.send("panic").await;
    assert_eq!(client.ask("still here").await, "still here");
    fine(&node.command(&["stop"]).await);
    let status = meepo_tests::in_time("the end", master.wait()).await.expect("it ends");
    assert_eq!(status.code(), Some(0));
}
