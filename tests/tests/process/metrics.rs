//! Metrics: any child tells of the whole node, also after crashes, reloads and upgrades.

use std::collections::BTreeMap;
use std::net::TcpListener;

use meepo_tests::{Builder, DEADLINE, Node, Scrape, Ws, binaries, http, processes, wait_for, wait_until};
use nix::sys::signal::Signal;

fn node() -> Builder {
    Node::test().set("node", "metrics = \"{ip}:19920\"")
}

const GATEWAY: (&str, &str) = ("kind", "gateway");

/// The metrics and their types as the handbook lists them.
fn documented() -> BTreeMap<String, String> {
    let page = binaries::workspace().join("docs/src/operations.md");
    let page = std::fs::read_to_string(page).expect("the page is there");
    let mut metrics = BTreeMap::new();
    for row in page.lines().filter(|line| line.starts_with("| `meepo_")) {
        let cells: Vec<_> = row.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        metrics.insert(cells[1].to_owned(), cells[2].to_owned());
    }
    metrics
}

#[tokio::test]
async fn what_is_served_is_right_and_documented() {
    let node = node().start().await;
    let address = node.host().metrics();
    let mut clients = Vec::new();
    for number in 0..5 {
        let mut client = Ws::connect(node.host().ws()).await;
        let text = number.to_string();
        assert_eq!(client.ask(&text).await, text);
        clients.push(client);
    }
    clients[0].send("fail").await;
    clients.pop();
    let right = async || {
        let scrape = Scrape::of(address).await;
        let all = scrape.sum("meepo_connections", &[GATEWAY]) == 4.0
            && scrape.sum("meepo_handler_errors_total", &[]) == 1.0
            && scrape.sum("meepo_in_flight_events", &[]) == 0.0;
        all.then_some(scrape)
    };
    let scrape = wait_for("all is counted", right).await;
    assert_eq!(scrape.types, documented());
    let labels: Vec<_> = scrape.labels().into_iter().collect();
    assert_eq!(labels, ["child", "kind", "name", "state", "version"]);
    let status = node.status().await;
    for (metric, expected) in [
        ("meepo_connections_opened_total", 5.0),
        ("meepo_received_messages_total", 6.0),
        ("meepo_received_bytes_total", 9.0),
        ("meepo_sent_messages_total", 5.0),
        ("meepo_sent_bytes_total", 5.0),
        (
            "meepo_links",
            status.instance("gateway").sum(|child| child.links) as f64,
        ),
        ("meepo_lost_log_lines_total", 0.0),
    ] {
        assert_eq!(scrape.sum(metric, &[GATEWAY]), expected, "{metric}");
    }
    for kind in ["registry", "gateway", "worker"] {
        let children = status.instance(kind).children.len();
        let serving = [("kind", kind), ("state", "serving")];
        assert_eq!(scrape.sum("meepo_children", &serving), children as f64);
        for child in 0..children {
            let memory = scrape.sum("meepo_memory_bytes", &[("kind", kind), ("child", &child.to_string())]);
            assert!(memory > 1e6, "{memory}");
        }
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let age = now.expect("it is after 1970").as_secs_f64() - scrape.sum("meepo_start_time_seconds", &[]);
    assert!((-1.0..3600.0).contains(&age), "{age}");
    let version = [("name", status.name.as_str()), ("version", status.version.as_str())];
    assert_eq!(scrape.sum("meepo_node_info", &version), 1.0);

    assert_eq!(http::get(address, "/health").await.status, 200);
    assert_eq!(http::get(address, "/").await.status, 404);
    let post = http::request(
        address,
        "POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n",
    )
    .await;
    assert_eq!(post.expect("an answer").status, 405);
    let text = node.command(&["status"]).await.stdout;
    assert!(text.contains(&format!("http://{address}/metrics")), "{text}");
}

#[tokio::test]
async fn any_child_tells_of_all() {
    let node = node().start().await;
    let client = Ws::connect(node.host().ws()).await;
    let status = node.status().await;
    let all: Vec<u32> = status.children().filter_map(|child| child.pid).collect();
    for answering in &all {
        let others: Vec<u32> = all.iter().copied().filter(|pid| pid != answering).collect();
        others.iter().for_each(|pid| processes::signal(*pid, Signal::SIGSTOP));
        // A child may have been stopped with a connection that it has just accepted.
        let scrape = wait_for("an answer", async || {
            let limit = std::time::Duration::from_secs(2);
            let scrape = tokio::time::timeout(limit, Scrape::try_of(node.host().metrics()));
            scrape.await.ok().flatten()
        })
        .await;
        assert_eq!(scrape.sum("meepo_connections", &[GATEWAY]), 1.0);
        assert_eq!(scrape.sum("meepo_children", &[("state", "serving")]), all.len() as f64);
        others.iter().for_each(|pid| processes::signal(*pid, Signal::SIGCONT));
    }
    drop(client);
}

#[tokio::test]
async fn counters_never_go_back() {
    let node = node().start().await;
    let address = node.host().metrics();
    let mut before = BTreeMap::new();
    let mut check = async || {
        let scrape = Scrape::of(address).await;
        for (key, value) in scrape.counters() {
            let before = before.insert(key.clone(), value).unwrap_or(0.0);
            assert!(value >= before, "{key:?} goes back from {before} to {value}");
        }
        scrape
    };
    for round in 1..=3 {
        let mut client = Ws::connect(node.host().ws()).await;
        for _ in 0..50 {
            assert_eq!(client.ask("x").await, "x");
        }
        check().await;
        let victims = [node.pids("gateway").await[0], node.pids("worker").await[1]];
        victims.iter().for_each(|pid| processes::signal(*pid, Signal::SIGKILL));
        wait_until("they are replaced", DEADLINE, async || {
            let scrape = check().await;
            scrape.sum("meepo_restarts_total", &[]) == f64::from(2 * round)
                && scrape.sum("meepo_children", &[("state", "serving")]) == 5.0
        })
        .await;
    }
    node.command(&["reload"]).await.fine();
    let old = node.pids("gateway").await;
    node.signal(Signal::SIGUSR2);
    wait_until("the old ones are gone", DEADLINE, async || {
        let scrape = check().await;
        let serving = scrape.sum("meepo_children", &[("state", "serving")]);
        let draining = scrape.sum("meepo_children", &[("state", "draining")]);
        serving == 5.0 && draining == 0.0 && !old.iter().any(|pid| processes::running(*pid))
    })
    .await;
    let scrape = check().await;
    assert_eq!(scrape.sum("meepo_received_messages_total", &[GATEWAY]), 150.0);
}

#[tokio::test]
async fn a_reload_moves_opens_and_closes_the_listener() {
    let node = Node::test().start().await;
    let [first, second] = [19920, 19921].map(|port| node.host().port(port));
    let set = |from: &str, to: &str| node.edit(&[(from, to)]);
    let answers = async |address| {
        tokio::net::TcpStream::connect(address).await.is_ok() && Scrape::try_of(address).await.is_some()
    };
    assert!(!answers(first).await);

    let taken = TcpListener::bind(first).expect("the port is free");
    set("[node]\n", &format!("[node]\nmetrics = \"{first}\"\n"));
    let reload = node.command(&["reload"]).await;
    reload.failed();
    assert!(reload.stderr.contains("meepo.toml:2: node.metrics"), "{reload:?}");
    assert!(reload.stderr.contains(&first.to_string()), "{reload:?}");
    drop(taken);
    node.command(&["reload"]).await.fine();
    assert!(answers(first).await);

    set(&first.to_string(), &second.to_string());
    node.command(&["reload"]).await.fine();
    assert!(answers(second).await);
    wait_until("the first is closed", DEADLINE, async || {
        tokio::net::TcpStream::connect(first).await.is_err()
    })
    .await;

    set(&format!("metrics = \"{second}\"\n"), "");
    node.command(&["reload"]).await.fine();
    wait_until("the second is closed", DEADLINE, async || {
        tokio::net::TcpStream::connect(second).await.is_err()
    })
    .await;
    set("[node]\n", &format!("[node]\nmetrics = \"{}\"\n", node.host().ws()));
    let check = node.command(&["check"]).await;
    assert_eq!(check.code, Some(64), "{check:?}");
    assert!(check.stderr.contains("node.metrics"), "{check:?}");
}

#[tokio::test]
async fn health_is_bad_while_an_instance_has_no_child_that_serves() {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let crash = folder.path().join("crash");
    let node = node()
        .env("MEEPO_TEST_CRASH", crash.to_str().expect("a path of text"))
        .start()
        .await;
    let address = node.host().metrics();
    assert_eq!(http::get(address, "/health").await.body, "ok\n");
    std::fs::write(&crash, "").expect("the folder is writable");
    for pid in node.pids("worker").await {
        processes::signal(pid, Signal::SIGKILL);
    }
    wait_until("it is told", DEADLINE, async || {
        let health = http::get(address, "/health").await;
        let scrape = Scrape::of(address).await;
        let state = |state| scrape.sum("meepo_children", &[("kind", "worker"), ("state", state)]);
        let down = (health.status, &*health.body) == (503, "no child serves: worker\n");
        down && state("backing_off") == 2.0 && state("serving") == 0.0
    })
    .await;
    assert_eq!(node.command(&["status"]).await.code, Some(4));
    std::fs::remove_file(&crash).expect("it is there");
    wait_until("it is well again", DEADLINE, async || {
        http::get(address, "/health").await.status == 200
    })
    .await;
}
