//! A network of a test's own, whose packets can be dropped and slowed down.

use std::io::Write;
use std::net::Ipv4Addr;
use std::process::Command;

use nix::sched::{CloneFlags, unshare};

/// The network of this thread, and of the processes that it starts: a loopback that nobody else is on.
#[derive(Debug)]
pub struct Network(());

/// The ports at which workers reach the children of a gateway.
pub const INNER: &str = "19912:19919";
/// The port at which nodes reach a registry.
pub const REGISTRY: &str = "19911";

/// Which packets are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Those to the server.
    To,
    /// Those from it.
    From,
    /// All.
    Both,
}

impl Network {
    /// Puts this thread into a network of its own. To be called before any socket is opened.
    ///
    /// None, with a line that says so, when this user may not; unless `MEEPO_TEST_NAMESPACES` asks for it.
    ///
    /// # Panics
    ///
    /// When it has to be possible and is not.
    pub fn own() -> Option<Self> {
        enter(CloneFlags::CLONE_NEWNET)?;
        // As on a wire: packets of the usual size.
        run("ip", "link set lo mtu 1500 up");
        Some(Self(()))
    }

    /// Drops packets to and from a server.
    pub fn cut(&self, server: Ipv4Addr, ports: &str, way: Way) {
        if way != Way::From {
            run(
                "iptables",
                &format!("-A INPUT -d {server} -p tcp --dport {ports} -j DROP"),
            );
        }
        if way != Way::To {
            run(
                "iptables",
                &format!("-A INPUT -s {server} -p tcp --sport {ports} -j DROP"),
            );
        }
    }

    /// Loses this part of the packets to and from a port, and lets only so much through in all.
    pub fn worsen(&self, ports: &str, loss: f64, rate: &str) {
        for end in ["--dport", "--sport"] {
            let lossy = format!("-m statistic --mode random --probability {loss}");
            run("iptables", &format!("-A INPUT -p tcp {end} {ports} {lossy} -j DROP"));
        }
        run(
            "tc",
            &format!("qdisc replace dev lo root tbf rate {rate} burst 32kb latency 300ms"),
        );
    }

    /// All is well again.
    pub fn heal(&self) {
        run("iptables", "-F INPUT");
        // There may be none.
        let _ = command("tc", "qdisc del dev lo root").output();
    }
}

/// Puts this thread into a namespace of its own.
///
/// None, with a line that says so, when this user may not; unless `MEEPO_TEST_NAMESPACES` asks for it.
pub(crate) fn enter(namespace: CloneFlags) -> Option<()> {
    if let Err(error) = unshare(namespace) {
        let asked = std::env::var("MEEPO_TEST_NAMESPACES").is_ok_and(|value| value == "1");
        assert!(!asked, "this user may not make namespaces: {error}");
        let thread = std::thread::current();
        let name = thread.name().unwrap_or_default();
        // Past the harness, which shows nothing of a test that passes.
        let _ = writeln!(std::io::stderr(), "SKIPPED {name}: no namespaces for this user");
        return None;
    }
    Some(())
}

fn command(program: &str, arguments: &str) -> Command {
    let mut command = Command::new(program);
    command.args(arguments.split_whitespace());
    command
}

fn run(program: &str, arguments: &str) {
    let output = command(program, arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program} cannot be run: {error}"));
    assert!(output.status.success(), "{program} {arguments}: {output:?}");
}
