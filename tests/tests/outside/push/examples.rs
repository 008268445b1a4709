//! The examples in Python and PHP, against a cluster.

use std::env;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::Stdio;

use meepo_tests::{Cluster, Ws, binaries, in_time};
use serde_json::json;
use tempfile::TempDir;
use tokio::process::Command;

use super::{SETTINGS, clean, guest};

/// The Python of the system, for which Debian has packages.
const PYTHON: &str = "/usr/bin/python3";

/// Whether a command works, which may be demanded.
async fn works(command: &[&str], demand: &str) -> bool {
    let mut run = Command::new(command[0]);
    run.args(&command[1..]).stdout(Stdio::null()).stderr(Stdio::null());
    let works = run.status().await.is_ok_and(|status| status.success());
    if !works {
        assert!(env::var(demand).is_err(), "the test needs {command:?}");
        // Not with `eprintln`, whose words nobody sees when a test passes.
        let _ = writeln!(io::stderr(), "SKIPPED: the test needs {command:?}");
    }
    works
}

/// A cluster with a client in the lobby.
async fn lobby() -> (Cluster, Ws, String) {
    let cluster = Cluster::with_workers(SETTINGS).await;
    let (client, id) = guest(cluster.clients()[0]).await;
    let push = cluster.workers[0].host().push();
    clean(push, "/api/join", json!({"clients": [id], "group": "lobby"})).await;
    clean(push, "/api/bind", json!({"clients": [id], "uid": "ann"})).await;
    (cluster, client, id)
}

/// Runs an example with a token, and gives what it prints, or why it failed.
async fn run(
    program: &str,
    file: &str,
    push: SocketAddr,
    token: &str,
    modules: Option<&TempDir>,
) -> Result<String, String> {
    let mut command = Command::new(program);
    command
        .arg(binaries::workspace().join("examples/push").join(file))
        .env("PUSH_API", format!("http://{push}/api/"))
        .env("PUSH_GRPC", push.to_string())
        .env("PUSH_TOKEN", token)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    if let Some(modules) = modules {
        command.env("PYTHONPATH", modules.path());
    }
    let output = in_time("the end of an example", command.output()).await;
    let output = output.expect("it starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stdout) + &text(&output.stderr)),
    }
}

#[tokio::test]
async fn the_example_in_python() {
    if !works(&[PYTHON, "--version"], "MEEPO_TEST_PYTHON").await {
        return;
    }
    let (cluster, mut client, id) = lobby().await;
    let push = cluster.workers[1].host().push();
    assert_eq!(
        run(PYTHON, "push.py", push, "first", None).await,
        Ok(format!("{id} ann\n"))
    );
    assert_eq!(client.text().await, "tea is ready");
    let refused = run(PYTHON, "push.py", push, "third", None)
        .await
        .expect_err("the token is wrong");
    assert!(refused.contains("authorization"), "{refused}");
}

#[tokio::test]
async fn the_example_in_php() {
    if !works(&["php", "--version"], "MEEPO_TEST_PHP").await {
        return;
    }
    let (cluster, mut client, _) = lobby().await;
    let push = cluster.workers[1].host().push();
    assert_eq!(
        run("php", "push.php", push, "second", None).await,
        Ok("1 are there\n".into())
    );
    assert_eq!(client.text().await, "tea is ready");
    let refused = run("php", "push.php", push, "third", None)
        .await
        .expect_err("the token is wrong");
    assert!(refused.contains("authorization"), "{refused}");
}

#[tokio::test]
async fn the_example_over_grpc() {
    let imports = [PYTHON, "-c", "import grpc, google.protobuf"];
    if !works(&imports, "MEEPO_TEST_PYTHON").await || !works(&["protoc", "--version"], "MEEPO_TEST_PYTHON").await {
        return;
    }
    let modules = tempfile::tempdir().expect("a folder for temporary files");
    let made = Command::new("protoc")
        .arg("-I")
        .arg(binaries::workspace().join("proto/meepo"))
        .arg(format!("--python_out={}", modules.path().display()))
        .arg("push.proto")
        .status()
        .await;
    assert!(made.is_ok_and(|status| status.success()), "protoc knows push.proto");
    let (cluster, mut client, _) = lobby().await;
    let push = cluster.workers[1].host().push();
    let printed = run(PYTHON, "push_grpc.py", push, "first", Some(&modules)).await;
    assert_eq!(printed, Ok("1 are there\n".into()));
    assert_eq!(client.text().await, "tea is ready");
    let refused = run(PYTHON, "push_grpc.py", push, "third", Some(&modules)).await;
    let refused = refused.expect_err("the token is wrong");
    assert!(refused.contains("UNAUTHENTICATED"), "{refused}");
}
