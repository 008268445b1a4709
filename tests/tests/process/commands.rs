//! The commands of the real programs. What holds for every program is tested with the node.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use meepo_tests::{Node, Ws, processes, wait_until};
use nix::sys::signal::Signal;
use tokio::task::JoinSet;

/// One node of each program, on the registry of a host of its own.
fn programs() -> Vec<(&'static str, Node)> {
    ["chat", "meepo-registry", "meepo-gateway", "meepo-test-node"]
        .into_iter()
        .map(|name| (name, Node::build(name).shell("umask 077").prepare()))
        .collect()
}

#[tokio::test]
async fn a_daemon_is_started_watched_and_stopped() {
    for (name, node) in programs() {
        let started = node.start_daemon().await;
        started.fine();
        // All children serve once the prompt is back.
        let status = node.status().await;
        assert!(status.all_serve(), "{name}: {status:?}");
        assert!(
            started.stdout.contains(&status.pid.to_string()),
            "the pid is told: {started:?}"
        );
        assert_eq!(status.name, name);
        assert_eq!(status.version, env!("CARGO_PKG_VERSION"));
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", status.pid)).expect("it runs");
        let fields: Vec<_> = stat.rsplit(')').next().expect("a stat").split_whitespace().collect();
        assert_ne!(fields[3], std::process::id().to_string());
        assert_eq!(fields[1], "1", "a daemon's parent is gone: {stat}");
        assert_eq!(fields[4], "0", "a daemon has no terminal: {stat}");
        let folder = std::fs::read_link(format!("/proc/{}/cwd", status.pid)).expect("it runs");
        assert_eq!(folder.to_str(), Some("/"), "a daemon's working directory");
        let about = std::fs::read_to_string(format!("/proc/{}/status", status.pid)).expect("it runs");
        let umask = about
            .lines()
            .find_map(|line| line.strip_prefix("Umask:"))
            .map(str::trim);
        assert_eq!(umask, Some("0027"), "a daemon's umask is not the one of its shell");
        for pid in status.children().filter_map(|child| child.pid) {
            assert!(processes::children(status.pid).contains(&pid));
        }

        let shown = node.command(&["status"]).await;
        shown.fine();
        for child in status.children() {
            let pid = child.pid.expect("a child that serves has a pid");
            assert!(shown.stdout.contains(&pid.to_string()), "{shown:?}");
        }

        node.command(&["restart", "-d"]).await.fine();
        let again = node.status().await;
        assert_ne!(again.pid, status.pid);
        assert!(again.all_serve());

        node.command(&["reload"]).await.fine();
        let reloaded = node.status_when("the children are new", |now| {
            let old: Vec<_> = again.children().filter_map(|child| child.pid).collect();
            now.all_serve()
                && now
                    .children()
                    .all(|child| !old.contains(&child.pid.unwrap_or_default()))
        });
        assert_eq!(reloaded.await.pid, again.pid, "a reload keeps the master");

        node.command(&["stop"]).await.fine();
        assert_eq!(node.processes(), [0u32; 0], "{name}: stop leaves no process");
        assert_eq!(node.run_files(), [""; 0], "{name}: stop leaves no file");
        assert_eq!(node.command(&["status", "--json"]).await.code, Some(3));

        node.start_daemon().await.fine();
        node.command(&["kill"]).await.fine();
        assert_eq!(node.processes(), [0u32; 0], "{name}: kill leaves no process");
        assert_eq!(node.run_files(), [""; 0], "{name}: kill leaves no file");
    }
}

#[tokio::test]
async fn help_version_and_check_need_no_master() {
    for (name, node) in programs() {
        let help = node.command(&["--help"]).await;
        help.fine();
        for command in ["start", "stop", "restart", "reload", "status", "kill", "check"] {
            assert!(
                help.stdout.contains(command),
                "{name} --help does not tell of {command}: {help:?}"
            );
        }
        let version = node.command(&["--version"]).await;
        version.fine();
        assert_eq!(version.stdout.trim(), format!("{name} {}", env!("CARGO_PKG_VERSION")));
        let check = node.command(&["check"]).await;
        check.fine();
        assert!(
            check.stdout.contains("stop_timeout"),
            "the effective settings are shown: {check:?}"
        );
        node.command(&["dance"]).await.failed();
        assert_eq!(node.processes(), [0u32; 0]);
    }
}

#[tokio::test]
async fn status_shows_all_figures() {
    let node = Node::test().start().await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = Ws::connect(node.host().ws()).await;
        assert_eq!(client.ask("12345").await, "12345");
        client.send("fail").await;
        assert_eq!(client.ask("67890").await, "67890");
        clients.push(client);
    }
    clients.pop().expect("there is one").close(1000, "").await;
    let status = node
        .status_when("the figures are up to date", |status| {
            let links = |instance| status.instance(instance).sum(|child| child.links);
            status.instance("gateway").sum(|child| child.connections) == 3
                && [links("gateway"), links("worker")] == [4, 4]
        })
        .await;
    let gateway = status.instance("gateway");
    assert_eq!(gateway.sum(|child| child.connections_total), 4);
    assert_eq!(gateway.sum(|child| child.messages_in), 12);
    assert_eq!(gateway.sum(|child| child.bytes_in), 4 * 14);
    assert_eq!(gateway.sum(|child| child.messages_out), 8);
    assert_eq!(gateway.sum(|child| child.bytes_out), 4 * 10);
    assert_eq!(status.instance("worker").sum(|child| child.handler_errors), 4);
    assert!(
        status
            .children()
            .all(|child| child.memory_bytes > 1 << 20 && child.cpu_s < 60.0)
    );
    let labels: Vec<_> = gateway
        .listeners
        .iter()
        .map(|listener| listener.label.as_str())
        .collect();
    assert_eq!(labels, ["ws", "line"]);
    assert_eq!(gateway.listeners[0].address, node.host().ws().to_string());

    let mut client = Ws::connect(node.host().ws()).await;
    client.send("sleep 20000").await;
    client.send("waits").await;
    node.status_when("an event is in flight", |status| {
        status.instance("gateway").sum(|child| child.events_in_flight) >= 1
    })
    .await;
}

#[tokio::test]
async fn stop_is_bounded_and_start_follows_at_once() {
    let mut node = Node::test()
        .set("node", "stop_timeout = \"3s\"")
        .set("gateway", "close_timeout = \"1s\"")
        .start()
        .await;
    let address = node.host().ws();
    let mut stuck = Ws::connect_narrow(address, "/").await;
    stuck.send("burst 100 ").await;
    for _ in 0..20 {
        stuck.send(&format!("big {}", 100_000)).await;
    }
    let handshake = tokio::net::TcpStream::connect(address).await.expect("a connection");
    let idle = tokio::net::TcpStream::connect(node.host().port(19912))
        .await
        .expect("a connection");
    let mut busy = Ws::connect(address).await;
    busy.send("sleep 60000").await;
    node.events()
        .wait("the sleeper", |event| event.text == "sleep 60000")
        .await;

    // It ends long before the busy handler would.
    node.stop().await;
    assert_eq!(node.processes(), [0u32; 0]);
    node.start().await;
    let mut client = Ws::connect(address).await;
    assert_eq!(client.ask("x").await, "x");
    drop((stuck, handshake, idle, busy));
}

#[tokio::test]
async fn the_signals_of_a_terminal_and_of_an_init_system() {
    for signals in [
        &[Signal::SIGTERM][..],
        &[Signal::SIGINT],
        &[Signal::SIGQUIT],
        &[Signal::SIGTERM, Signal::SIGTERM],
        &[Signal::SIGINT, Signal::SIGINT],
    ] {
        let mut node = Node::test().start().await;
        let mut clients = Vec::new();
        for _ in 0..50 {
            clients.push(Ws::connect(node.host().ws()).await);
        }
        for signal in signals {
            node.signal(*signal);
        }
        let graceful = signals.len() == 1 || signals[0] == Signal::SIGTERM;
        if graceful {
            for client in &mut clients {
                assert_eq!(client.closed().await.0, 1001, "{signals:?}");
            }
        }
        let code = node.ended().await;
        assert!(!graceful || code == Some(0), "{signals:?}: {code:?}");
        node.gone(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn a_stop_spreads_the_closes_and_finishes_what_was_begun() {
    const CLIENTS: usize = 60;
    let mut node = Node::test().set("gateway", "stop_spread = \"3s\"").start().await;
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let mut client = Ws::connect(node.host().ws()).await;
        client.send("sleep 500").await;
        clients.spawn(async move { (client.closed().await.0, Instant::now()) });
    }
    node.events().wait_count("message", CLIENTS).await;
    node.signal(Signal::SIGTERM);
    let (mut codes, mut moments) = (Vec::new(), Vec::new());
    while let Some(closed) = clients.join_next().await {
        let (code, moment) = closed.expect("it does not panic");
        codes.push(code);
        moments.push(moment);
    }
    assert_eq!(codes, [1001; CLIENTS]);
    moments.sort();
    let took = moments[CLIENTS - 1] - moments[0];
    assert!(
        took > Duration::from_secs(1),
        "they do not all come back at once: {took:?}"
    );
    assert_eq!(node.ended().await, Some(0));
    assert_eq!(node.events().of("handled").len(), CLIENTS);
    let closes = node.events().of("close");
    let told: BTreeSet<_> = closes.iter().map(|close| close.client.as_str()).collect();
    assert_eq!((told.len(), closes.len()), (CLIENTS, CLIENTS), "each once");
    for close in &closes {
        assert_eq!((close.cause.as_str(), close.code), ("gateway stop", Some(1001)));
    }
}

#[tokio::test]
async fn a_daemon_outlives_the_terminal_that_it_was_started_from() {
    let node = Node::test().prepare();
    let start = node.prepare(&["start", "-d"]);
    let start = start.as_std();
    let line: Vec<_> = std::iter::once(start.get_program()).chain(start.get_args()).collect();
    let line = line.join(std::ffi::OsStr::new(" "));
    // `script` gives it a terminal, and closes that when the command has ended.
    let mut terminal = tokio::process::Command::new("script");
    terminal
        .args(["--quiet", "--return", "--command"])
        .arg(line)
        .arg("/dev/null");
    for (key, value) in start.get_envs() {
        match value {
            Some(value) => terminal.env(key, value),
            None => terminal.env_remove(key),
        };
    }
    let status = terminal
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .status();
    let status = meepo_tests::in_time("the start", status).await.expect("script runs");
    assert!(status.success(), "{status:?}");
    let mut client = Ws::connect(node.host().ws()).await;
    client.send("fail").await;
    assert_eq!(client.ask("still here").await, "still here");
    assert!(node.status().await.all_serve());
    drop(client);
    node.command(&["stop"]).await.fine();
}

#[tokio::test]
async fn commands_at_the_same_time_leave_one_master_or_none() {
    let node = Node::test().set("node", "stop_timeout = \"5s\"").prepare();
    let (first, second) = tokio::join!(node.start_daemon(), node.start_daemon());
    let mut codes = [first.code, second.code];
    codes.sort();
    assert_eq!(codes[0], Some(0), "{first:?} {second:?}");
    assert_ne!(codes[1], Some(0), "{first:?} {second:?}");

    for _ in 0..20 {
        let reload = node.command(&["reload"]).await;
        assert!(reload.code == Some(0) || !reload.stderr.is_empty(), "{reload:?}");
    }
    wait_until("old children are gone", Duration::from_secs(20), async || {
        let status = node.status().await;
        // The master, one registry, two gateways, two workers.
        status.all_serve() && node.processes().len() == 6
    })
    .await;
    let status = node.status().await;
    for (instance, count) in [("registry", 1), ("gateway", 2), ("worker", 2)] {
        assert_eq!(status.instance(instance).children.len(), count);
    }

    let (_, stop) = tokio::join!(node.command(&["reload"]), node.command(&["stop"]));
    stop.fine();
    node.gone(Duration::from_secs(10)).await;

    node.start_daemon().await.fine();
    let (stop, restart) = tokio::join!(node.command(&["stop"]), node.command(&["restart", "-d"]));
    stop.fine();
    wait_until("one master or none", Duration::from_secs(20), async || {
        let count = node.processes().len();
        count == 0 || (count == 6 && node.try_status().await.is_some_and(|status| status.all_serve()))
    })
    .await;
    if restart.code == Some(0) {
        assert!(
            node.status().await.all_serve(),
            "a restart that went well leaves a master"
        );
    }
}
