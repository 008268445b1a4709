//! The rows: what is measured, and how it is printed.

use std::fmt::Write;

use super::result::Results;
use crate::error::Error;

/// A load, and what it is to show.
#[derive(Debug)]
pub(super) struct Workload {
    /// What it is called on the command line.
    pub(super) name: &'static str,
    title: &'static str,
    /// The load's command line.
    pub(super) load: &'static [&'static str],
}

pub(super) const WORKLOADS: &[Workload] = &[
    Workload {
        name: "echo-1",
        title: "Echo, 100 clients, 1 message in flight each, 64 B",
        load: &["echo", "--conns", "100", "--inflight", "1"],
    },
    Workload {
        name: "echo-16",
        title: "Echo, 100 clients, 16 messages in flight each, 64 B",
        load: &["echo", "--conns", "100", "--inflight", "16"],
    },
    Workload {
        name: "echo-paced",
        title: "Echo, 5,000 messages a second over 1,000 clients, 64 B",
        load: &["echo", "--conns", "1000", "--rate", "5000"],
    },
    Workload {
        name: "fanout-1",
        title: "Fan-out to 1,000 members, 1 publish in flight, 64 B",
        load: &["fanout", "--conns", "1000", "--inflight", "1"],
    },
    Workload {
        name: "fanout-2",
        title: "Fan-out to 1,000 members, 2 publishes in flight, 64 B",
        load: &["fanout", "--conns", "1000", "--inflight", "2"],
    },
    Workload {
        name: "fanout-16",
        title: "Fan-out to 1,000 members, 16 publishes in flight, 64 B",
        load: &["fanout", "--conns", "1000", "--inflight", "16"],
    },
    Workload {
        name: "fanout-paced",
        title: "Fan-out to 5,000 members, 4 publishes a second, 64 B",
        load: &["fanout", "--conns", "5000", "--rate", "4"],
    },
    Workload {
        name: "idle",
        title: "10,000 clients that do nothing",
        load: &["idle", "--conns", "10000"],
    },
];

pub(super) fn named(name: &str) -> Result<&'static Workload, Error> {
    WORKLOADS.iter().find(|workload| workload.name == name).ok_or_else(|| {
        let names = WORKLOADS.iter().map(|workload| workload.name);
        Error::Unknown {
            what: "workload",
            name: name.into(),
            known: names.collect::<Vec<_>>().join(", "),
        }
    })
}

impl Workload {
    pub(super) fn needs_echo(&self) -> bool {
        self.load[0] == "echo"
    }

    /// Its part of the table: a line for each server, ratios to the first of them.
    pub(super) fn print(&self, servers: &[(&str, &Results)]) -> String {
        let mut text = format!("\n## {}\n\n", self.title);
        let limit = servers[0].1;
        let idle = self.load[0] == "idle";
        let (what, each) = match self.load[0] {
            "fanout" => ("deliveries", "delivery"),
            "idle" => ("connects", "connect"),
            _ => ("messages", "message"),
        };
        let memory = if idle { " bytes a connection |" } else { "" };
        let rule = if idle { " ---: |" } else { "" };
        let _ = writeln!(
            text,
            "| server | {what}/s | p50 ms | p99 ms | CPU µs a {each} | CPU to {limit} | p99 to {limit} |{memory} notes |",
            limit = servers[0].0,
        );
        let _ = writeln!(text, "| --- | ---: | ---: | ---: | ---: | ---: | ---: |{rule} --- |");
        for (name, results) in servers {
            let memory = match idle {
                true => format!(" {} |", results.bytes()),
                false => String::new(),
            };
            let _ = writeln!(
                text,
                "| {name} | {} | {} | {} | {} | {} | {} |{memory} {} |",
                results.rate(),
                results.p50(),
                results.p99(),
                results.cpu(),
                results.cpu_to(limit),
                results.p99_to(limit),
                results.notes(),
            );
        }
        text
    }
}
