//! Programs that are no workers: they push, close and ask, in Rust or from a shell.

use std::process::Stdio;

use meepo_tests::{Cluster, Host, Node, Ws, binaries, in_time};
use meepo_worker::{Outside, OutsideError};
use tokio::process::Command;

/// Runs `meepo`, with the registry of a cluster, and gives what it prints.
async fn meepo(cluster: &Cluster, arguments: &[&str]) -> Result<String, String> {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let config = folder.path().join("meepo.toml");
    let registry = cluster.registries[0].host().registry();
    std::fs::write(&config, format!("[node]\nregistry = [\"{registry}\"]\n")).expect("it can be written");
    let mut command = Command::new(binaries::binary("meepo"));
    command.arg("--config").arg(config).args(arguments);
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = in_time("meepo ends", output).await.expect("it can be run");
    let text = |bytes| String::from_utf8(bytes).expect("it prints text");
    match output.status.success() {
        true => Ok(text(output.stdout)),
        false => Err(text(output.stderr)),
    }
}

async fn guest(cluster: &Cluster, gateway: usize, command: &str) -> Ws {
    let mut guest = Ws::connect(cluster.clients()[gateway]).await;
    guest.send(command).await;
    assert_eq!(guest.ask("done").await, "done");
    guest
}

#[tokio::test]
async fn a_program_pushes_and_asks_without_being_given_clients() {
    let cluster = Cluster::start().await;
    let mut ann = guest(&cluster, 0, "bind ann").await;
    let mut red = guest(&cluster, 1, "join red").await;
    let registry = cluster.registries[0].host().registry().to_string();
    let outside = Outside::connect([registry.clone()], "")
        .await
        .expect("the cluster is there");
    // Gateways have their workers' links, and no others to give clients to.
    cluster.linked().await;
    assert_eq!(outside.cluster().count().await.value, 2);
    outside.cluster().uid("ann").send("hello ann");
    outside.cluster().group("red").send("hello red");
    outside.flush().await.expect("all gateways answer");
    assert_eq!(ann.text().await, "hello ann");
    assert_eq!(red.text().await, "hello red");
    outside.cluster().all().close(4005, "closing time");
    assert_eq!(ann.closed().await, (4005, "closing time".to_owned()));
    assert_eq!(red.closed().await, (4005, "closing time".to_owned()));
}

#[tokio::test]
async fn a_shell_pushes_and_asks() {
    let cluster = Cluster::start().await;
    let mut ann = guest(&cluster, 0, "bind ann").await;
    let mut red = guest(&cluster, 1, "join red").await;
    let gone = ann.ask("id").await;
    for (arguments, printed) in [
        (&["push", "--uid", "ann", "tea is ready"][..], ""),
        (&["push", "--group", "red", "--group", "blue", "tea for you"], ""),
        (&["count"], "2\n"),
        (&["count", "--group", "red"], "1\n"),
        (&["groups"], "1\tred\n"),
        (&["uids"], "ann\n"),
        (&["join", "--client", &gone, "blue"], ""),
        (&["bind", "--client", &gone, "anna"], ""),
        (&["session", &gone], ""),
        (&["groups"], "1\tblue\n1\tred\n"),
        (&["leave", "--client", &gone, "blue"], ""),
        (&["count", "--uid", "anna", "--group", "blue"], "0\n"),
        (&["count", "--uid", "anna"], "1\n"),
        (&["bind", "--client", &gone], ""),
        (&["uids"], ""),
    ] {
        assert_eq!(
            meepo(&cluster, arguments).await.as_deref(),
            Ok(printed),
            "{arguments:?}"
        );
    }
    assert_eq!(ann.text().await, "tea is ready");
    assert_eq!(red.text().await, "tea for you");
    meepo(&cluster, &["close", "--all", "--code", "4005", "closing time"])
        .await
        .expect("it works");
    assert_eq!(ann.closed().await, (4005, "closing time".to_owned()));

    for (arguments, says) in [
        (&["push", "to nobody"][..], "--group"),
        (&["push", "--client", "nonsense", "x"], "nonsense"),
        (&["push", "--client", &gone, "x"], "1 sends failed"),
        (&["close", "--all", "--uid", "ann"], "--uid"),
    ] {
        let error = meepo(&cluster, arguments).await.expect_err("it is refused");
        assert!(error.contains(says), "{error}");
    }
}

#[tokio::test]
async fn the_secret_has_to_be_known() {
    let node = Node::test().set("node", "secret = \"the secret\"").start().await;
    let registry = node.host().registry().to_string();
    let outside = Outside::connect([registry.clone()], "the secret")
        .await
        .expect("it is known");
    assert!(outside.cluster().count().await.is_complete());
    let error = Outside::connect([registry.clone()], "wrong")
        .await
        .expect_err("the secret is wrong");
    assert_eq!(error, OutsideError::NoGateway(vec![registry]));
}

#[tokio::test]
async fn where_no_registry_is_it_says_so() {
    let nowhere = Host::new().registry().to_string();
    let error = Outside::connect([nowhere.clone()], "")
        .await
        .expect_err("nobody is there");
    assert_eq!(
        error.to_string(),
        format!("no gateway is known at the registries {nowhere}")
    );
}
