//! The limit server, and the table that compares with it.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// A limit server, which ends with its test.
struct Limit {
    process: Child,
    url: String,
}

impl Limit {
    fn start(hops: u8) -> Self {
        let mut process = bench(&format!("limit --hops {hops}"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut url = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut url)
            .unwrap();
        Self {
            process,
            url: url.trim().into(),
        }
    }

    #[track_caller]
    fn load(&self, arguments: &str) -> Value {
        let output = bench(&format!("{arguments} --url {}", self.url)).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn bench(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meepo-bench"));
    command.args(arguments.split(' '));
    command
}

#[track_caller]
fn table(arguments: &str) -> Output {
    bench(&format!("table {arguments}")).output().unwrap()
}

#[test]
fn the_limit_does_all_loads() {
    for hops in [1, 2] {
        let limit = Limit::start(hops);
        for load in [
            "echo --conns 5 --inflight 3 --secs 0.2 --warmup 0",
            "echo --conns 2 --inflight 2 --size 200000 --secs 1 --warmup 0",
            "echo --conns 20 --rate 500 --secs 0.2 --size 1000 --warmup 0",
            "fanout --conns 20 --inflight 2 --secs 0.2 --warmup 0",
            "fanout --conns 20 --held 30 --rate 20 --secs 0.5 --warmup 0",
            "fanout --conns 10 --groups 20 --members 3 --rate 500 --secs 0.2 --warmup 0",
            "fanout --conns 20 --talkers 4 --inflight 4 --secs 0.2 --warmup 0",
            "large --conns 2 --size 100000 --small 5 --small-rate 200 --secs 1 --warmup 0",
            "idle --conns 50 --secs 0",
            "idle --conns 50 --secs 0 --large 100000 --quiet 0.1",
        ] {
            let report = limit.load(load);
            assert!(
                report["messages"].as_u64().unwrap() > 10,
                "{hops} hops, {load}: {report}"
            );
        }
    }
}

#[test]
fn the_table_compares_with_the_limit() {
    let output = table("--rounds 2 --secs 0.2 --only echo-1 fanout-2");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let rows = |name: &str| -> Vec<Vec<String>> {
        let lines = text.lines().filter(|line| line.starts_with(&format!("| {name} |")));
        lines
            .map(|line| line.split('|').map(|cell| cell.trim().to_owned()).collect())
            .collect()
    };
    let (limit, meepo) = (rows("limit"), rows("Meepo"));
    assert_eq!((limit.len(), meepo.len()), (2, 2), "{text}");
    for row in &limit {
        assert_eq!((&*row[6], &*row[7]), ("1.00", "1.00"), "{text}");
    }
    for row in &meepo {
        for ratio in [&row[6], &row[7]] {
            assert!(ratio.parse::<f64>().is_ok_and(|ratio| ratio > 0.0), "{text}");
        }
        assert!(!row[8].contains("errors"), "{text}");
    }
}

#[test]
fn what_cannot_be_measured_is_named() {
    let output = table("--only echo-1 nonsense");
    assert!(!output.status.success());
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("no workload nonsense: there are echo-1, "), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("absent");
    std::fs::write(&program, "#!/bin/sh\nexit 1\n").unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let folder = folder.path().display();
    let output = table(&format!(
        "--rounds 1 --secs 0.1 --only echo-1 --peer /nowhere/peer --peers {folder}"
    ));
    assert!(output.status.success(), "the others are measured: {output:?}");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("/nowhere/peer"), "{error}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("- absent: not installed\n"), "{text}");
    assert!(
        text.contains("| peer | – | – | – | – | – | – | 1 runs failed |"),
        "{text}"
    );
}
