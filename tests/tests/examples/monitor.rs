//! The example `monitor`: real agents, several gateways and workers, and the database that the workers share.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{SystemTime, UNIX_EPOCH};

use meepo_tests::binaries::binary;
use meepo_tests::{Line, Node, Ws, in_time, processes, wait_for};
use nix::sys::signal::Signal;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// Two gateways and one worker, each with two children, and their database.
struct Monitor {
    gateways: [Node; 2],
    workers: Node,
    _registry: Node,
    folder: TempDir,
}

impl Monitor {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let registry = Node::build("meepo-registry").start().await;
        let part = |name: &str| Node::build("monitor").registry(registry.host()).only(name);
        let database = folder.path().join("db");
        let database = database.to_str().expect("the name of a temporary file");
        let workers = part("worker").env("MONITOR_DATABASE", database).start().await;
        let gateways = [part("gateway").start().await, part("gateway").start().await];
        let monitor = Self {
            gateways,
            workers,
            _registry: registry,
            folder,
        };
        monitor.linked(&[]).await;
        monitor
    }

    /// Waits until workers that are none of these have a link to each gateway child.
    async fn linked(&self, gone: &[u32]) {
        let linked = |worker: &meepo_tests::status::Child| worker.links == 4;
        self.workers
            .status_when("all links are up", |status| {
                let pids = status.instance("worker").pids();
                status.all_serve() && pids.iter().all(|pid| !gone.contains(pid)) && status.children().all(linked)
            })
            .await;
    }

    fn database(&self) -> PathBuf {
        self.folder.path().join("db")
    }

    async fn page(&self, gateway: usize) -> Ws {
        let host = self.gateways[gateway].host();
        Ws::connect_to(host.ws(), "/ws").await
    }
}

/// A real agent. When dropped, it is killed.
async fn agent(node: &Node, host: &str) -> Child {
    let to = node.host().line().to_string();
    let mut agent = Command::new(binary("monitor"))
        .args(["agent", "--to", &to, "--host", host, "--every", "100ms"])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the program runs");
    let mut lines = BufReader::new(agent.stdout.take().expect("its output is piped")).lines();
    let line = in_time("the agent", lines.next_line()).await;
    let line = line.expect("its output is text");
    assert_eq!(line, Some(format!("measuring {host} every 100ms")));
    agent
}

/// The times of all samples of a host in the database, once each.
fn rows(database: &Path, host: &str) -> Vec<i64> {
    let open = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("there is a database");
    let mut select = open
        .prepare("SELECT at FROM samples WHERE host = ? ORDER BY at")
        .expect("a table");
    let rows = select.query_map([host], |row| row.get(0)).expect("rows");
    rows.collect::<Result<_, _>>().expect("numbers")
}

async fn json(page: &mut Ws) -> Value {
    serde_json::from_str(&page.text().await).expect("JSON comes from the server")
}

/// The next samples that come to a page as they are measured, of this host.
async fn live(page: &mut Ws, host: &str) -> Vec<Value> {
    loop {
        let mut message = json(page).await;
        if message["live"]["host"] == host {
            let samples = message["live"]["samples"].take();
            return samples.as_array().expect("samples").clone();
        }
    }
}

/// What a page is told of the past when it asks, by host.
async fn past(page: &mut Ws, seconds: u32) -> Vec<(String, BTreeSet<i64>)> {
    page.send(&format!("history {seconds}")).await;
    let mut hosts = Vec::new();
    loop {
        let message = json(page).await;
        if let Value::Object(past) = &message["past"] {
            let host = past["host"].as_str().expect("a name").to_owned();
            let samples = past["samples"].as_array().expect("samples");
            hosts.push((host, samples.iter().filter_map(|sample| sample[0].as_i64()).collect()));
        }
        if !message["now"].is_null() {
            assert_eq!(message["hosts"], hosts.len());
            return hosts;
        }
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
    since.as_millis().try_into().expect("a time of today")
}

#[tokio::test]
async fn samples_are_stored_shown_as_they_come_and_remembered() {
    let monitor = Monitor::start().await;
    let mut page = monitor.page(0).await;
    assert_eq!(past(&mut page, 300).await, [], "there is nothing yet");
    let _alpha = agent(&monitor.gateways[0], "alpha").await;
    let mut beta = agent(&monitor.gateways[1], "beta").await;

    // What this very host says of itself.
    let meminfo = std::fs::read_to_string("/proc/meminfo").expect("there is one");
    let total = meminfo.lines().next().and_then(|line| line.split_whitespace().nth(1));
    let total = total
        .and_then(|total| total.parse::<i64>().ok())
        .expect("MemTotal comes first")
        * 1024;
    let mut seen = Vec::new();
    for host in ["alpha", "beta"] {
        let samples = live(&mut page, host).await;
        let [at, cpu, used, all] = [0, 1, 2, 3].map(|part| samples[0][part].as_f64().expect("a number"));
        assert!((now() as f64 - at).abs() < 60_000.0, "{samples:?}");
        assert!((0.0..=100.0).contains(&cpu) && used > 0.0 && used < all, "{samples:?}");
        assert_eq!(all, total as f64);
        // It was written before it was shown.
        assert!(rows(&monitor.database(), host).contains(&(at as i64)));
        seen.push(at as i64);
    }

    // A page at the other gateway is told what was before it came.
    let mut other = monitor.page(1).await;
    // The thinning out leaves one for each second.
    let past = past(&mut other, 300).await;
    assert_eq!(
        past.iter().map(|(host, _)| host.as_str()).collect::<Vec<_>>(),
        ["alpha", "beta"]
    );
    for ((host, ats), seen) in past.iter().zip(seen) {
        assert!(ats.is_subset(&rows(&monitor.database(), host).into_iter().collect()));
        assert!(
            ats.iter().any(|at| (at - seen).abs() <= 1000),
            "{ats:?} has nothing near {seen}"
        );
    }
    live(&mut other, "alpha").await;

    // An agent that dies is shown as such, once it has gone.
    beta.kill().await.expect("it runs");
    for page in [&mut page, &mut other] {
        in_time("word of its end", async {
            while json(page).await != json!({"silent": "beta"}) {}
        })
        .await;
    }
    live(&mut page, "alpha").await;

    for (ask, error) in [
        ("nonsense", "history SECONDS"),
        ("history 0", "86400"),
        ("history 86401", "86400"),
    ] {
        page.send(ask).await;
        let refused = async {
            while !json(&mut page).await["error"]
                .as_str()
                .is_some_and(|why| why.contains(error))
            {}
        };
        in_time("a refusal", refused).await;
    }
}

#[tokio::test]
async fn what_was_acknowledged_outlives_workers() {
    let monitor = Monitor::start().await;
    let alpha = agent(&monitor.gateways[0], "alpha").await;
    let mut line = Line::connect(monitor.gateways[1].host().line()).await;
    let (acknowledged, mut heard) = tokio::sync::watch::channel(0);
    let start = now() - 60_000;
    let sender = tokio::spawn(async move {
        let mut number = 0;
        while !acknowledged.is_closed() {
            let samples = json!({"host": "numbers", "samples": [[start + number, 1.5, 1, 2]]});
            line.send(&format!("/samples {samples}")).await;
            // After a worker's death there may be two answers; each is to one that is stored.
            assert_eq!(line.text().await, "ok");
            number += 1;
            let _ = acknowledged.send(number);
        }
        (line, number)
    });
    let mut more = async |count| {
        let due = *heard.borrow() + count;
        in_time("more answers", heard.wait_for(|number| *number >= due))
            .await
            .expect("the sender lives");
    };
    more(20).await;
    let before = rows(&monitor.database(), "alpha").len();
    for kill in [true, false] {
        let old = monitor.workers.pids("worker").await;
        if kill {
            for pid in &old {
                processes::signal(*pid, Signal::SIGKILL);
            }
        } else {
            monitor.workers.command(&["reload"]).await.fine();
        }
        monitor.linked(&old).await;
        more(20).await;
    }
    drop(heard);
    let (mut line, number) = sender.await.expect("all was acknowledged");
    let expected: Vec<_> = (start..start + number).collect();
    assert_eq!(rows(&monitor.database(), "numbers"), expected);
    let more = async || (rows(&monitor.database(), "alpha").len() > before).then_some(());
    wait_for("the agent goes on", more).await;

    // An agent whose gateway dies comes back by itself.
    for pid in monitor.gateways[0].pids("gateway").await {
        processes::signal(pid, Signal::SIGKILL);
    }
    let killed = now();
    wait_for("the agent comes back", async || {
        rows(&monitor.database(), "alpha")
            .last()
            .filter(|at| **at > killed)
            .map(|_| ())
    })
    .await;
    drop(alpha);

    for (text, why) in [
        ("hello", "begins with /samples"),
        ("/samples {}", "missing field `host`"),
        (
            r#"/samples {"host":"x","samples":[[1,2,3,4]]}"#,
            "the clock of x is wrong",
        ),
    ] {
        line.send(text).await;
        let answer = line.until("refused: ").await;
        assert!(answer.contains(why), "{answer}");
    }
}

#[tokio::test]
async fn a_database_that_cannot_be_opened_is_named_by_the_start() {
    let node = Node::build("monitor")
        .env("MONITOR_DATABASE", "/proc/none/db")
        .prepare();
    let started = node.start_daemon().await;
    started.failed();
    assert!(started.stderr.contains("/proc/none/db"), "{started:?}");
    let node = Node::build("monitor").env("MONITOR_DATABASE", "db").prepare();
    let started = node.start_daemon().await;
    assert!(started.stderr.contains("has to be an absolute path"), "{started:?}");
}
