//! Reloads: taken up, refused, undone; children and listeners that change.

mod common;

use common::{Node, alive, connect, signal, until};
use nix::sys::signal::Signal;

#[test]
fn a_reload_replaces_all_children_and_takes_up_the_settings() {
    let node = Node::new();
    node.start();
    let (master, address, before) = (node.master(), node.address(), node.serving());
    let mut client = node.connect();
    node.configure("", "greeting = \"good day\"");
    node.run(&["reload"]).ok().says("echo is reloaded");
    assert_eq!((node.master(), node.address()), (master, address));
    until("the old children are gone", || before.iter().all(|pid| !alive(*pid)));
    let now = node.serving();
    assert!(now.len() == 2 && now.iter().all(|pid| !before.contains(pid)));
    assert_eq!(node.connect().greeting, "good day");
    assert!(
        client.rest().unwrap() == "bye\n",
        "the client of an old child was closed"
    );
    assert_eq!(node.status()["last_reload"]["ok"], true);
    assert_eq!(node.status()["instances"][0]["restarts"], 0);
}

#[test]
fn a_wrong_configuration_changes_nothing_and_status_says_so() {
    let node = Node::new();
    node.start();
    let before = node.serving();
    let mut client = node.connect();
    let taken = std::net::TcpListener::bind(common::free_address()).unwrap();
    let busy = format!("address = \"{}\"", taken.local_addr().unwrap());
    for (node_lines, echo, expected) in [
        ("", "= 1", "meepo.toml:6: "),
        (
            "",
            "childern = 1",
            "meepo.toml:6: echo.childern: unknown key, did you mean \"children\"?",
        ),
        ("", busy.as_str(), "meepo.toml:6: echo.address: cannot listen at"),
        ("name = \"other\"", "", "node.name: cannot be changed by a reload"),
    ] {
        node.configure(node_lines, echo);
        if node_lines.is_empty() {
            node.run(&["reload"]).is(1).says(expected);
            node.run(&["status"]).ok().says("had no effect").says(expected);
        } else {
            // The file says another name: this one is found by the environment.
            let mut reload = node.command(&["reload"]);
            reload
                .env("MEEPO_NODE__NAME", "echo")
                .stderr(std::process::Stdio::piped());
            common::finish(reload.spawn().unwrap()).is(1).says(expected);
        }
        node.configure("", "");
        assert_eq!(node.serving(), before);
        assert_eq!(client.echo("still here").unwrap(), "still here");
    }
    node.configure("", "children = 1");
    node.run(&["reload"]).ok();
    assert_eq!(node.serving().len(), 1);
    let fine = node.run(&["status"]).ok();
    assert!(!fine.out.contains("no effect"), "{fine:?}");
}

#[test]
fn successors_that_never_serve_undo_the_reload() {
    for (trouble, reason) in [("fail", "there is trouble"), ("hang", "was not ready within 300ms")] {
        let node = Node::new();
        node.configure("start_timeout = \"300ms\"", "");
        node.start();
        let before = node.serving();
        let mut client = node.connect();
        node.configure("start_timeout = \"300ms\"", "children = 4\ngreeting = \"new\"");
        node.trouble(trouble);
        node.run(&["reload"]).is(1).says(reason);
        until("only the old children are there", || {
            node.serving() == before && node.status()["instances"][0]["children"].as_array().unwrap().len() == 2
        });
        assert_eq!(client.echo("still here").unwrap(), "still here");
        assert_eq!(node.connect().greeting, "hello");
        node.trouble("");
        node.run(&["reload"]).ok();
        assert_eq!((node.serving().len(), node.connect().greeting.as_str()), (4, "new"));
    }
}

#[test]
fn what_stops_last_is_replaced_last_and_outlives_the_others() {
    let node = Node::new();
    node.configure("log_level = \"info,echo=debug,meepo_node=debug\"", "");
    node.start();
    let clock = pid_of_clock(&node);
    node.trouble("fail");
    node.run(&["reload"]).is(1);
    assert_eq!(pid_of_clock(&node), clock);
    assert!(
        !node.log().contains("the clock stops"),
        "its successor was not even started"
    );
    node.trouble("linger");
    node.run(&["reload"]).ok();
    let _client = node.connect();
    until("the old one goes after a while though others linger", || {
        node.log().contains("the clock stops")
    });
    node.trouble("");
    // The children that linger are of the reload before the last one.
    let before = node.log().matches("the clock stops").count();
    node.run(&["reload"]).ok();
    assert_ne!(pid_of_clock(&node), clock);
    until("each clock stops", || {
        node.log().matches("the clock stops").count() == before + 1
    });
}

fn pid_of_clock(node: &Node) -> i64 {
    let children = node.status()["instances"][1]["children"].clone();
    let children = children.as_array().unwrap();
    let serving = children.iter().find(|child| child["state"] == "serving").unwrap();
    serving["pid"].as_i64().unwrap()
}

#[test]
fn listeners_are_kept_opened_and_closed() {
    let node = Node::new();
    node.start();
    let first = node.address();
    let second = common::free_address().to_string();
    node.configure("", &format!("address = \"{second}\""));
    node.run(&["reload"]).ok();
    assert_eq!(node.address(), second);
    assert_eq!(connect(&second).unwrap().greeting, "hello");
    until("the old listener is closed", || connect(&first).is_err());
}

#[test]
fn no_connection_is_lost_while_reloads_go_on() {
    let node = Node::new();
    node.start();
    let address = node.address();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let clients = {
        let stop = stop.clone();
        std::thread::spawn(move || {
            let mut served = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                // One that is accepted by a child that drains is closed, but none is refused.
                drop(std::net::TcpStream::connect(&address).unwrap());
                served += 1;
            }
            served
        })
    };
    for _ in 0..10 {
        node.run(&["reload"]).ok();
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(clients.join().unwrap() > 0);
}

#[test]
fn many_reloads_at_once_end_well() {
    let node = Node::new();
    node.start();
    let reloads: Vec<_> = (0..20)
        .map(|_| {
            node.command(&["reload"])
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    signal(node.master(), Signal::SIGHUP);
    for reload in reloads {
        common::finish(reload).ok();
    }
    until("all is as it was", || {
        node.serving().len() == 2 && node.status()["instances"][0]["children"].as_array().unwrap().len() == 2
    });
}

#[test]
fn a_signal_reloads() {
    let node = Node::new();
    let _master = node.foreground();
    node.configure("", "children = 3");
    signal(node.master(), Signal::SIGHUP);
    until("three children serve", || node.serving().len() == 3);
}

#[test]
fn a_stop_ends_a_reload() {
    let node = Node::new();
    node.start();
    node.trouble("hang");
    let reload = node
        .command(&["reload"])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    until("it reloads", || {
        node.status()["state"] == "reloading" && node.children("starting").len() == 1
    });
    let pids = [&[node.master()], node.serving().as_slice()].concat();
    node.run(&["stop"]).ok();
    common::finish(reload).is(1).says("the node stops");
    node.assert_clean(&pids);
}

#[test]
fn each_child_has_a_port_of_its_own_and_so_has_its_successor() {
    let node = Node::new();
    let base = common::free_address();
    node.configure("", &format!("own = \"{base}\""));
    node.start();
    let ports = || -> Vec<u16> {
        let children = node.children("serving");
        let port = |child: &serde_json::Value| child["address"].as_str().unwrap().rsplit_once(':').unwrap().1.parse();
        children.iter().map(|child| port(child).unwrap()).collect()
    };
    assert_eq!(ports(), [base.port(), base.port() + 1]);
    node.run(&["status"]).ok().says(&base.to_string());
    let child = node.serving()[1];
    signal(child, Signal::SIGKILL);
    until("it is replaced", || {
        node.serving().len() == 2 && !node.serving().contains(&child)
    });
    assert_eq!(ports(), [base.port(), base.port() + 1]);
    node.run(&["reload"]).ok();
    let successors = ports();
    assert!(successors.iter().all(|port| *port > base.port() + 1), "{successors:?}");
    until("the old children are gone", || node.children("draining").is_empty());
    node.run(&["reload"]).ok();
    assert_eq!(ports(), [base.port(), base.port() + 1]);
}
