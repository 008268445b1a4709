//! A new version of the program's binary is taken up by the master that runs.

mod common;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use common::{Node, alive, signal, until};
use nix::sys::signal::Signal;

/// A node whose program is a file of its own, which can be replaced.
fn node() -> Node {
    let mut node = Node::new();
    node.program = node.path("echo");
    install(&node, |path| copy(common::program(), path));
    node
}

fn install(node: &Node, make: impl FnOnce(&Path)) {
    let new = node.path("new");
    make(&new);
    std::fs::rename(new, node.path("echo")).unwrap();
}

/// By a process of its own: a file that this one had open for writing could be inherited by what another test starts, and
/// such a file cannot be run.
fn copy(from: &Path, to: &Path) {
    assert!(
        std::process::Command::new("cp")
            .args([from, to])
            .status()
            .unwrap()
            .success()
    );
}

fn inode(path: impl AsRef<Path>) -> u64 {
    std::fs::metadata(path).unwrap().ino()
}

fn runs_new_binary(node: &Node, pid: i32) -> bool {
    inode(format!("/proc/{pid}/exe")) == inode(node.path("echo"))
}

#[test]
fn a_reload_takes_up_a_new_binary() {
    let node = node();
    node.start();
    let (master, address, before) = (node.master(), node.address(), node.serving());
    drop(node.connect());
    signal(before[0], Signal::SIGKILL);
    until("it is replaced", || {
        node.status()["instances"][0]["restarts"] == 1 && node.serving().len() == 2
    });
    let before = node.serving();
    let served = node.status()["instances"][0]["totals"]["connections_total"].clone();
    install(&node, |path| copy(common::program(), path));
    assert!(!runs_new_binary(&node, master));
    node.run(&["reload"]).ok().says("echo is reloaded");
    assert_eq!((node.master(), node.address()), (master, address));
    assert!(runs_new_binary(&node, master));
    until("the old children are gone", || before.iter().all(|pid| !alive(*pid)));
    assert_eq!(node.serving().len(), 2);
    assert!(node.serving().iter().all(|pid| runs_new_binary(&node, *pid)));
    let status = node.status();
    let instance = &status["instances"][0];
    assert_eq!(
        (&instance["restarts"], &instance["totals"]["connections_total"]),
        (&1.into(), &served)
    );
    assert_eq!(node.connect().echo("x").unwrap(), "x");
    node.run(&["start", "-d"])
        .is(1)
        .says(&format!("it runs already, with pid {master}"));
    node.run(&["reload"]).ok();
    signal(node.serving()[0], Signal::SIGKILL);
    until("children are replaced as before", || node.serving().len() == 2);
    let pids = [&[master], node.serving().as_slice()].concat();
    node.run(&["stop"]).ok();
    node.assert_clean(&pids);
}

#[test]
fn relative_paths_of_the_environment_hold_after_the_start() {
    let node = node();
    std::fs::write(node.path("secret"), "hush").unwrap();
    let run = |args: &[&str]| common::finish(node.without_file(args).spawn().unwrap());
    run(&["start", "-d"]).ok();
    let master = node.master();
    run(&["reload"]).ok();
    install(&node, |path| copy(common::program(), path));
    run(&["reload"]).ok();
    assert!(node.master() == master && runs_new_binary(&node, master));
    run(&["stop"]).ok();
    node.assert_clean(&[master]);
}

#[test]
fn a_signal_replaces_the_binary_too() {
    let node = node();
    let mut foreground = node.foreground();
    let before = node.serving();
    signal(node.master(), Signal::SIGUSR2);
    until("all children are new", || {
        let now = node.serving();
        now.len() == 2 && now.iter().all(|pid| !before.contains(pid))
    });
    assert_eq!(node.master(), foreground.pid());
    let log = std::fs::read_to_string(node.path("stderr")).unwrap();
    assert!(
        log.contains("replacing the binary") && log.contains("reloaded"),
        "{log}"
    );
    node.run(&["stop"]).ok();
    assert_eq!(foreground.wait(), 0);
}

#[test]
fn a_binary_that_cannot_run_is_refused() {
    let node = node();
    node.start();
    let before = node.serving();
    let mut client = node.connect();
    let good = node.path("good");
    copy(&node.path("echo"), &good);
    let script = |text: &'static str| {
        move |path: &Path| {
            std::fs::write(path, text).unwrap();
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
    };
    for (text, expected) in [
        ("not a program", "Exec format error"),
        ("#!/bin/sh\n", "cannot take over from this version"),
        (
            "#!/bin/sh\necho meepo exec state 0\n",
            "cannot take over from this version",
        ),
        (
            "#!/bin/sh\necho no such key >&2; exit 64\n",
            "does not accept the configuration (exit status: 64): no such key",
        ),
    ] {
        install(&node, script(text));
        let mut reload = std::process::Command::new(&good);
        reload
            .args(["reload", "-c"])
            .arg(node.config())
            .stderr(std::process::Stdio::piped());
        reload.env("MEEPO_NODE__NAME", "echo");
        common::finish(reload.spawn().unwrap()).is(1).says(expected);
        assert_eq!(client.echo("still here").unwrap(), "still here");
    }
    install(&node, |path| copy(&good, path));
    assert_eq!(node.serving(), before);
    node.configure("", "childern = 1");
    node.run(&["reload"])
        .is(1)
        .says("does not accept the configuration")
        .says("meepo.toml:6: echo.childern");
    assert_eq!(node.serving(), before);
    assert_eq!(client.echo("still here").unwrap(), "still here");
}

#[test]
fn children_of_a_new_binary_that_do_not_serve_undo_the_reload() {
    let node = node();
    node.start();
    let before = node.serving();
    let mut client = node.connect();
    node.trouble("fail");
    install(&node, |path| copy(common::program(), path));
    node.run(&["reload"]).is(1).says("there is trouble");
    assert_eq!(node.serving(), before);
    assert_eq!(client.echo("still here").unwrap(), "still here");
    node.trouble("");
    node.run(&["reload"]).ok();
    assert!(node.serving().iter().all(|pid| !before.contains(pid)));
}
