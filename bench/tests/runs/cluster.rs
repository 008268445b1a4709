//! The loads against the bench's own cluster.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Output};

use meepo_tests::Host;
use serde_json::Value;
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::{self, Message};

/// A running cluster, which ends with its test.
struct Cluster {
    dir: TempDir,
    host: Host,
}

impl Cluster {
    /// A cluster that is not started.
    fn new() -> Self {
        let host = Host::new();
        let dir = tempfile::tempdir().unwrap();
        let settings = format!(
            r#"
            [node]
            run_dir = "{}"
            registry = ["{registry}"]
            [registry]
            address = "{registry}"
            [gateway]
            inner = "{inner}"
            listen = [
                {{ protocol = "ws", address = "{ws}" }},
                {{ protocol = "line", address = "{line}" }},
            ]
            "#,
            dir.path().display(),
            registry = host.registry(),
            inner = host.port(19912),
            ws = host.ws(),
            line = host.line(),
        );
        std::fs::write(dir.path().join("meepo.toml"), settings).unwrap();
        Self { dir, host }
    }

    fn start() -> Self {
        let cluster = Self::new();
        cluster.succeeds("cluster start -d");
        cluster
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("meepo.toml")
    }

    fn run(&self, command: &str) -> Output {
        let file = self.file();
        bench().args(command.split(' ')).arg("-c").arg(file).output().unwrap()
    }

    #[track_caller]
    fn succeeds(&self, command: &str) -> Vec<u8> {
        let output = self.run(command);
        assert!(output.status.success(), "{output:?}");
        output.stdout
    }

    #[track_caller]
    fn load(&self, arguments: &str) -> Value {
        let output = bench().args(arguments.split(' ')).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["errors"], 0, "{report}");
        assert!(report["messages"].as_u64() > Some(0), "{report}");
        assert!(report["server_cpu_us_per_message"].as_f64() > Some(0.0), "{report}");
        report
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.run("worker kill");
        self.run("cluster kill");
    }
}

fn bench() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meepo-bench"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MEEPO_")) {
        command.env_remove(name);
    }
    command
}

#[test]
fn loads_run_against_the_cluster() {
    let cluster = Cluster::start();
    let status: Value = serde_json::from_slice(&cluster.succeeds("cluster status --json")).unwrap();
    let names: Vec<_> = status["instances"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["name"])
        .collect();
    assert_eq!(names, ["registry", "gateway", "worker"]);
    let pid = &status["pid"];
    let (ws, line) = (
        format!("ws://{}/", cluster.host.ws()),
        format!("line://{}", cluster.host.line()),
    );

    for url in [&ws, &line] {
        cluster.load(&format!(
            "echo --url {url} --conns 10 --inflight 4 --secs 0.3 --warmup 0.1 --pid {pid}"
        ));
        let report = cluster.load(&format!(
            "fanout --url {url} --conns 20 --secs 0.3 --warmup 0.1 --pid {pid}"
        ));
        assert!(report["publishes"].as_u64() > Some(0), "{report}");
    }
    cluster.load(&format!(
        "fanout --url {ws} {line} --conns 20 --rate 50 --secs 0.5 --warmup 0 --pid {pid}"
    ));
    let report = cluster.load(&format!("idle --url {ws} --conns 200 --secs 0.2 --pid {pid}"));
    assert!(report["server_bytes_per_connection"].as_f64() > Some(0.0), "{report}");
    let report = cluster.load(&format!(
        "idle --url {ws} --conns 10 --secs 0.1 --large 100000 --quiet 0.1 --pid {pid}"
    ));
    assert!(report["server_bytes_per_connection_after_large"].is_f64(), "{report}");
    let report = cluster.load(&format!(
        "large --url {ws} --conns 2 --size 100000 --small 5 --small-rate 200 --secs 0.3 --warmup 0 --pid {pid}"
    ));
    for field in ["mib_per_s", "small_quiet_p99_ms", "small_p99_ms", "small_p99_times"] {
        assert!(report[field].as_f64() > Some(0.0), "{field} in {report}");
    }
    cluster.load(&format!(
        "fanout --url {ws} --conns 10 --groups 20 --members 3 --rate 200 --secs 0.3 --warmup 0 --pid {pid}"
    ));
    cluster.load(&format!(
        "fanout --url {ws} --conns 10 --talkers 4 --inflight 4 --secs 0.3 --warmup 0 --pid {pid}"
    ));
    let report = cluster.load(&format!(
        "fanout --url {ws} --conns 10 --held 20 --rate 20 --secs 1 --warmup 0 --pid {pid}"
    ));
    let members = report["messages"].as_f64().unwrap() / report["publishes"].as_f64().unwrap();
    assert!((members - 30.0).abs() < 5.0, "{report}");
    cluster.load(&format!(
        "echo --url {ws} --conns 5 --held 20 --secs 0.3 --warmup 0 --pid {pid}"
    ));
    cluster.succeeds("cluster stop");
}

#[test]
fn text_stays_text_and_binary_stays_binary() {
    let cluster = Cluster::start();
    let open = || {
        let stream = TcpStream::connect(cluster.host.ws()).unwrap();
        tungstenite::client(format!("ws://{}/", cluster.host.ws()), stream)
            .unwrap()
            .0
    };
    let (mut member, mut publisher) = (open(), open());
    for message in [
        Message::text("a"),
        Message::binary(vec![0xff]),
        Message::text(""),
        Message::binary(vec![]),
    ] {
        publisher.send(message.clone()).unwrap();
        assert_eq!(publisher.read().unwrap(), message);
    }
    for socket in [&mut member, &mut publisher] {
        socket.send(Message::text("J")).unwrap();
        socket.send(Message::text("echo")).unwrap();
        assert_eq!(socket.read().unwrap(), Message::text("echo"));
    }
    for message in [Message::text("Publish"), Message::binary(vec![b'P', 0xff])] {
        publisher.send(message.clone()).unwrap();
        assert_eq!(publisher.read().unwrap(), message);
        assert_eq!(member.read().unwrap(), message);
    }
}

#[test]
fn the_worker_runs_alone() {
    let cluster = Cluster::new();
    cluster.succeeds("cluster start -d --only registry --only gateway");
    cluster.succeeds("worker start -d");
    let status: Value = serde_json::from_slice(&cluster.succeeds("worker status --json")).unwrap();
    let pid = &status["pid"];
    let url = format!("ws://{}/", cluster.host.ws());
    cluster.load(&format!(
        "echo --url {url} --conns 4 --secs 0.3 --warmup 0.1 --pid {pid}"
    ));
    cluster.succeeds("worker stop");
    cluster.succeeds("cluster stop");
}

#[test]
fn workers_are_reloaded_under_load() {
    let cluster = Cluster::new();
    cluster.succeeds("cluster start -d --only registry --only gateway");
    cluster.succeeds("worker start -d");
    let children = || -> Value {
        let status: Value = serde_json::from_slice(&cluster.succeeds("worker status --json")).unwrap();
        status["instances"][0]["children"]
            .as_array()
            .unwrap()
            .iter()
            .map(|child| child["pid"].clone())
            .collect()
    };
    let before = children();
    let url = format!("ws://{}/", cluster.host.ws());
    let reload = format!(
        "{} worker reload -c {}",
        env!("CARGO_BIN_EXE_meepo-bench"),
        cluster.file().display()
    );
    let load = format!("echo --url {url} --conns 10 --rate 200 --secs 10 --warmup 0.1 --halfway");
    let output = bench().args(load.split(' ')).arg(reload).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["errors"], 0, "{report}");
    for field in ["command_s", "quiet_p99_ms", "disturbed_p99_ms", "disturbed_p99_times"] {
        assert!(report[field].as_f64() > Some(0.0), "{field} in {report}");
    }
    assert_ne!(children(), before, "they were reloaded");
}
