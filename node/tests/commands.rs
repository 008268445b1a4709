//! Every command with its exit code.

mod common;

use std::io::Read;
use std::process::Stdio;

use common::{Foreground, Node, alive, connect, finish, until};

#[test]
fn help_version_and_wrong_arguments() {
    let node = Node::new();
    node.run(&["--help"])
        .ok()
        .says("Sends back what it receives")
        .says("restart")
        .says("Exit codes");
    assert_eq!(node.run(&["--version"]).ok().out, "echo 1.2.3\n");
    node.run(&["start", "--help"]).ok().says("--daemon");
    node.run(&["begin"]).is(64).says("unrecognized subcommand");
    node.run(&["start", "--loud"]).is(64);
    node.run(&["start", "--only", "gateway"])
        .is(64)
        .says("this program has echo, clock");
}

#[test]
fn check_prints_the_settings_in_force() {
    let node = Node::new();
    node.configure("secret = \"hush\"", "children = 3");
    let done = node
        .run(&["check"])
        .ok()
        .says("children = 3")
        .says("stop_timeout = \"30s\"")
        .says("secret = \"***\"");
    assert!(!done.out.contains("hush"));
    toml::from_str::<toml::Table>(&done.out).unwrap();
    let mut with_environment = node.command(&["check"]);
    with_environment.env("MEEPO_ECHO__CHILDREN", "5").stdout(Stdio::piped());
    finish(with_environment.spawn().unwrap()).ok().says("children = 5");
}

#[test]
fn a_wrong_configuration_is_refused_before_anything_happens() {
    let node = Node::new();
    for (node_lines, echo, expected) in [
        (
            "",
            "childern = 3",
            "meepo.toml:6: echo.childern: unknown key, did you mean \"children\"?",
        ),
        ("", "children = 0", "meepo.toml:6: echo.children: must be from 1 to"),
        ("", "greeting = \"\"", "meepo.toml:6: echo.greeting: must say something"),
        (
            "regisrty = []",
            "",
            "meepo.toml:3: node.regisrty: unknown key, did you mean \"registry\"?",
        ),
        ("", "= 1", "meepo.toml:6: "),
        (
            "",
            "[ecco]",
            "meepo.toml:6: ecco: unknown section, did you mean \"echo\"?",
        ),
    ] {
        node.configure(node_lines, echo);
        for command in ["check", "start"] {
            node.run(&[command]).is(64).says(expected);
        }
        node.run(&["start", "-d"]).is(64).says(expected);
    }
    assert!(!node.run_dir().exists());
    std::fs::remove_file(node.config()).unwrap();
    node.run(&["start"]).is(64).says("meepo.toml: cannot be read");
}

#[test]
fn start_serve_stop_in_the_background() {
    let node = Node::new();
    let started = node
        .run(&["start", "-d"])
        .ok()
        .says("echo 1.2.3 serves, pid")
        .says("open http://127.0.0.1:");
    assert_eq!(started.err, "");
    let (master, children) = (node.master(), node.serving());
    assert_eq!(children.len(), 2);
    assert!(started.out.contains(&master.to_string()));
    let mut client = node.connect();
    assert_eq!(client.greeting, "hello");
    assert!(children.contains(&client.pid));
    assert_eq!(client.echo("one").unwrap(), "one");
    until("the figures are seen", || {
        let status = node.status();
        let totals = &status["instances"][0]["totals"];
        totals["connections"] == 1 && totals["messages_in"] == 1 && totals["bytes_in"] == 4
    });
    node.run(&["status"])
        .ok()
        .says("echo 1.2.3: serving")
        .says("msgs in  bytes in  ticks");
    node.run(&["start", "-d"])
        .is(1)
        .says(&format!("it runs already, with pid {master}"));
    node.run(&["start"])
        .is(1)
        .says(&format!("it runs already, with pid {master}"));
    node.run(&["stop"]).ok().says("echo is stopped");
    node.assert_clean(&[&[master], children.as_slice()].concat());
    node.run(&["stop"]).ok().says("echo is not running");
    node.run(&["kill"]).ok().says("echo is not running");
    node.run(&["reload"]).is(1).says("echo is not running");
    node.run(&["status"]).is(3).says("echo is not running");
    node.run(&["status", "--json"]).is(3);
}

#[test]
fn a_daemon_is_one() {
    let node = Node::new();
    node.start();
    let master = node.master();
    let proc = |name: &str| format!("/proc/{master}/{name}");
    assert_eq!(std::fs::read_link(proc("cwd")).unwrap().to_str(), Some("/"));
    assert_eq!(std::fs::read_link(proc("fd/0")).unwrap().to_str(), Some("/dev/null"));
    let log = node.run_dir().join("echo.log");
    assert_eq!(std::fs::read_link(proc("fd/1")).unwrap(), log);
    assert_eq!(std::fs::read_link(proc("fd/2")).unwrap(), log);
    assert!(
        std::fs::read_to_string(proc("status"))
            .unwrap()
            .contains("Umask:\t0027")
    );
    let stat = std::fs::read_to_string(proc("stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let own_session = std::fs::read_to_string("/proc/self/stat").unwrap();
    let own_session = own_session
        .rsplit_once(") ")
        .unwrap()
        .1
        .split(' ')
        .nth(3)
        .unwrap()
        .to_owned();
    assert_ne!(fields[3], own_session, "a session of its own");
    assert_ne!(
        fields[3],
        master.to_string(),
        "and not its leader, so that it never gets a terminal"
    );
    assert_eq!(fields[4], "0", "no terminal");
}

#[test]
fn a_relative_configuration_file_works_in_the_background() {
    let node = Node::new();
    let mut command = node.command(&[]);
    command = {
        let mut fresh = std::process::Command::new(command.get_program());
        fresh
            .current_dir(node.dir.path())
            .args(["start", "-d", "-c", "meepo.toml"]);
        fresh.stdout(Stdio::piped()).stderr(Stdio::piped());
        fresh
    };
    finish(command.spawn().unwrap()).ok();
    node.run(&["reload"]).ok();
}

#[test]
fn the_foreground_stops_cleanly() {
    let node = Node::new();
    let mut master = node.foreground();
    let pids = [&[master.pid()], node.serving().as_slice()].concat();
    node.run(&["stop"]).ok();
    assert_eq!(master.wait(), 0);
    node.assert_clean(&pids);
}

#[test]
fn restart_keeps_the_options() {
    let node = Node::new();
    node.start();
    let (before, children) = (node.master(), node.serving());
    node.run(&["restart"]).ok().says("serves, pid");
    assert_ne!(node.master(), before);
    assert!(!alive(before));
    assert!(children.iter().all(|pid| !alive(*pid)));
    let before = node.master();
    node.configure("", "children = 0");
    node.run(&["restart"]).is(64).says("echo.children");
    node.configure("", "");
    assert_eq!(
        node.master(),
        before,
        "a wrong configuration does not cost the node that runs"
    );
    node.run(&["stop"]).ok();
    node.run(&["restart", "-d"]).ok();
    node.run(&["status"]).ok();
}

#[test]
fn what_the_pid_file_says_is_never_believed() {
    let node = Node::new();
    let sleeper = Foreground(std::process::Command::new("sleep").arg("1000").spawn().unwrap());
    let sleeping = sleeper.pid().to_string();
    std::fs::create_dir(node.run_dir()).unwrap();
    std::fs::set_permissions(node.run_dir(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    for text in ["1", sleeping.as_str(), "", "text", "99999999999999999999999"] {
        let spoil = || std::fs::write(node.run_dir().join("echo.pid"), text).unwrap();
        spoil();
        node.run(&["status"]).is(3);
        node.run(&["stop"]).ok().says("not running");
        node.run(&["kill"]).ok().says("not running");
        node.run(&["reload"]).is(1).says("not running");
        node.start();
        spoil();
        assert_eq!(node.run(&["status"]).code, 0);
        node.run(&["reload"]).ok();
        let pids = [&[node.master()], node.serving().as_slice()].concat();
        node.run(&[if text.is_empty() { "kill" } else { "stop" }]).ok();
        node.assert_clean(&pids);
    }
    assert!(alive(sleeper.pid()));
}

#[test]
fn two_starts_at_the_same_instant_leave_one_master() {
    let node = Node::new();
    for _ in 0..5 {
        let starts: Vec<_> = (0..4)
            .map(|_| {
                let mut command = node.command(&["start", "-d"]);
                command
                    .stdin(Stdio::null())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .spawn()
                    .unwrap()
            })
            .collect();
        let ended: Vec<_> = starts.into_iter().map(finish).collect();
        assert_eq!(ended.iter().filter(|done| done.code == 0).count(), 1, "{ended:?}");
        assert_eq!(node.serving().len(), 2);
        let pids = [&[node.master()], node.serving().as_slice()].concat();
        node.run(&["stop"]).ok();
        node.assert_clean(&pids);
    }
}

#[test]
fn kill_takes_everything_at_once() {
    let node = Node::new();
    node.trouble("linger");
    node.start();
    let pids = [&[node.master()], node.serving().as_slice()].concat();
    node.run(&["kill"]).ok().says("echo is killed");
    assert!(pids.iter().all(|pid| !alive(*pid)));
    node.assert_clean(&pids);
}

#[test]
fn a_master_that_hangs_can_be_killed() {
    let node = Node::new();
    node.start();
    let pids = [&[node.master()], node.serving().as_slice()].concat();
    common::signal(pids[0], nix::sys::signal::Signal::SIGSTOP);
    node.run(&["kill"]).ok();
    assert!(pids.iter().all(|pid| !alive(*pid)));
    node.assert_clean(&pids);
}

#[test]
fn some_instances_only() {
    let node = Node::new();
    let names = |node: &Node| -> Vec<String> {
        let status = node.status();
        let instances = status["instances"].as_array().unwrap().iter();
        instances
            .map(|instance| instance["name"].as_str().unwrap().to_owned())
            .collect()
    };
    node.run(&["start", "-d", "--only", "clock"]).ok();
    assert_eq!(names(&node), ["clock"]);
    node.run(&["reload"]).ok();
    node.run(&["restart"]).ok();
    assert_eq!(names(&node), ["clock"]);
    node.run(&["restart", "--only", "echo,clock"]).ok();
    assert_eq!(names(&node), ["echo", "clock"]);
}

#[test]
fn the_shell_of_a_daemon_is_let_go() {
    let node = Node::new();
    // A descriptor that the daemon inherits would keep `cat` waiting.
    let script = "exec 9> >(cat > \"$2\"; echo end >> \"$2\"); \"$0\" start -d -c \"$1\"";
    let mut shell = std::process::Command::new("bash");
    shell
        .args(["-c", script])
        .arg(&node.program)
        .arg(node.config())
        .arg(node.path("cat"));
    assert!(shell.stdout(Stdio::null()).status().unwrap().success());
    until("cat has ended", || {
        std::fs::read_to_string(node.path("cat")).is_ok_and(|text| text == "end\n")
    });
    assert_eq!(node.serving().len(), 2);
}

#[test]
fn closed_pipes_are_no_matter() {
    let node = Node::new();
    node.start();
    for args in [
        ["status"].as_slice(),
        &["status", "--json"],
        &["status", "--watch"],
        &["check"],
        &["--help"],
    ] {
        let mut child = node
            .command(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let done = finish(child);
        assert_eq!((done.code, done.err.as_str()), (0, ""), "{args:?}");
    }
    node.run(&["stop"]).ok();
    let mut master = node
        .command(&["start"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop((master.stdout.take(), master.stderr.take()));
    let mut master = Foreground(master);
    until("it serves all the same", || {
        node.run(&["status"]).code == 0 && node.serving().len() == 2
    });
    common::signal(node.serving()[0], nix::sys::signal::Signal::SIGKILL);
    until("it goes on", || {
        node.serving().len() == 2 && node.status()["instances"][0]["restarts"] == 1
    });
    node.run(&["stop"]).ok();
    assert_eq!(master.wait(), 0);
}

#[test]
fn watch_draws_again() {
    let node = Node::new();
    node.start();
    let mut watch = node
        .command(&["status", "--json", "--watch"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = watch.stdout.take().unwrap();
    let mut seen: Vec<u8> = Vec::new();
    while seen.iter().filter(|byte| **byte == b'\n').count() < 2 {
        let mut buffer = [0; 4096];
        let n = out.read(&mut buffer).unwrap();
        assert!(n > 0);
        seen.extend(&buffer[..n]);
    }
    watch.kill().unwrap();
    watch.wait().unwrap();
}

#[test]
fn a_port_that_is_taken_is_named_and_nothing_stays() {
    let node = Node::new();
    let taken = std::net::TcpListener::bind(common::free_address()).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    node.configure("", &format!("address = \"{address}\""));
    for args in [["start"].as_slice(), &["start", "-d"]] {
        let expected = format!("meepo.toml:6: echo.address: cannot listen at {address}: Address already in use");
        node.run(args).is(1).says(&expected);
        node.assert_clean(&[]);
    }
    drop(taken);
    node.start();
    let held = connect(&address).unwrap();
    node.run(&["stop"]).ok();
    node.start();
    drop(held);
}

#[test]
fn a_start_can_follow_as_soon_as_the_lock_is_free() {
    let node = Node::new();
    let free = common::free_address();
    node.configure("", &format!("address = \"{free}\""));
    node.start();
    for _ in 0..10 {
        let held = node.connect();
        common::signal(node.master(), nix::sys::signal::Signal::SIGTERM);
        let mut started = node.run(&["start", "-d"]);
        while started.err.contains("it runs already") {
            started = node.run(&["start", "-d"]);
        }
        started.ok();
        drop(held);
    }
}

#[test]
fn a_run_directory_of_others_is_refused() {
    let node = Node::new();
    std::fs::create_dir(node.run_dir()).unwrap();
    std::fs::set_permissions(node.run_dir(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    node.run(&["start", "-d"]).is(1).says("can be written by others");
}
