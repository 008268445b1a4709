//! The rows of the table: the load of each, and how its figures are printed.

use std::fmt::Write;

use super::result::Results;
use crate::connections::wire::Target;
use crate::error::Error;

/// A row: a load and its title.
#[derive(Debug)]
pub(super) struct Workload {
    /// Its name on the command line.
    pub(super) name: &'static str,
    title: &'static str,
    /// The load's command line.
    pub(super) load: &'static [&'static str],
    /// Whether it is run without being named.
    when: When,
    /// The connections of a row that has more of them than a process may have open files. Servers that hold all sockets in one
    /// process have no figures there.
    pub(super) crowd: Option<usize>,
}

#[derive(Debug, PartialEq, Eq)]
enum When {
    Always,
    /// Only when it is named: it takes long, or much of the machine.
    Named,
}

const fn row(name: &'static str, title: &'static str, load: &'static [&'static str]) -> Workload {
    Workload {
        name,
        title,
        load,
        when: When::Always,
        crowd: None,
    }
}

const fn named_row(name: &'static str, title: &'static str, load: &'static [&'static str]) -> Workload {
    Workload {
        when: When::Named,
        ..row(name, title, load)
    }
}

const fn crowd_row(name: &'static str, title: &'static str, conns: usize, load: &'static [&'static str]) -> Workload {
    Workload {
        crowd: Some(conns),
        ..named_row(name, title, load)
    }
}

const WORKLOADS: &[Workload] = &[
    row(
        "echo-1",
        "Echo, 100 clients, 1 message in flight each, 64 B",
        &["echo", "--conns", "100", "--inflight", "1"],
    ),
    row(
        "echo-16",
        "Echo, 100 clients, 16 messages in flight each, 64 B",
        &["echo", "--conns", "100", "--inflight", "16"],
    ),
    row(
        "echo-paced",
        "Echo, 5,000 messages a second over 1,000 clients, 64 B",
        &["echo", "--conns", "1000", "--rate", "5000"],
    ),
    row(
        "fanout-1",
        "Fan-out to 1,000 members, 1 publish in flight, 64 B",
        &["fanout", "--conns", "1000", "--inflight", "1"],
    ),
    row(
        "fanout-2",
        "Fan-out to 1,000 members, 2 publishes in flight, 64 B",
        &["fanout", "--conns", "1000", "--inflight", "2"],
    ),
    row(
        "fanout-16",
        "Fan-out to 1,000 members, 16 publishes in flight, 64 B",
        &["fanout", "--conns", "1000", "--inflight", "16"],
    ),
    row(
        "fanout-paced",
        "Fan-out to 5,000 members, 4 publishes a second, 64 B",
        &["fanout", "--conns", "5000", "--rate", "4"],
    ),
    row("idle", "10,000 clients that do nothing", &["idle", "--conns", "10000"]),
    row(
        "large-paced",
        "1 MiB up and down, 100 messages a second over 4 clients; beside them 1,000 messages of 64 B a second over 100 clients",
        &["large", "--conns", "4", "--size", "1048576", "--rate", "100"],
    ),
    row(
        "large",
        "1 MiB up and down, 4 clients, 1 message in flight each; beside them 1,000 messages of 64 B a second over 100 clients",
        &["large", "--conns", "4", "--size", "1048576"],
    ),
    named_row(
        "talk-16",
        "16 of 1,000 members talk to all others, 16 messages in flight, 64 B",
        &["fanout", "--conns", "1000", "--talkers", "16", "--inflight", "16"],
    ),
    named_row(
        "idle-large",
        "2,000 clients that do nothing, and again after a message of 1 MiB each and a quiet minute",
        &["idle", "--conns", "2000", "--large", "1048576", "--quiet", "60"],
    ),
    named_row(
        "echo-1-held",
        "As echo-1, while 9,900 further clients do nothing",
        &["echo", "--conns", "100", "--inflight", "1", "--held", "9900"],
    ),
    named_row(
        "echo-paced-held",
        "As echo-paced, while 9,000 further clients do nothing",
        &["echo", "--conns", "1000", "--rate", "5000", "--held", "9000"],
    ),
    named_row(
        "echo-paced-10k",
        "Echo, 5,000 messages a second over 10,000 clients, 64 B",
        &["echo", "--conns", "10000", "--rate", "5000"],
    ),
    named_row(
        "groups-1k",
        "Fan-out to 1,000 groups of 100 in turn, 1,000 clients, 200 publishes a second, 64 B",
        &[
            "fanout",
            "--conns",
            "1000",
            "--groups",
            "1000",
            "--members",
            "100",
            "--rate",
            "200",
        ],
    ),
    named_row(
        "groups-10k",
        "Fan-out to 10,000 groups of 100 in turn, 10,000 clients, 200 publishes a second, 64 B",
        &[
            "fanout",
            "--conns",
            "10000",
            "--groups",
            "10000",
            "--members",
            "100",
            "--rate",
            "200",
        ],
    ),
    crowd_row(
        "fanout-10k",
        "Fan-out to one group of 10,000, 2 publishes a second, 64 B, as many gateway children as fanout-100k",
        100_000,
        &["fanout", "--conns", "10000", "--rate", "2", "--secs", "10"],
    ),
    crowd_row(
        "fanout-100k",
        "Fan-out to one group of 100,000, a publish in 5 seconds, 64 B",
        100_000,
        &[
            "fanout", "--conns", "10000", "--held", "90000", "--rate", "0.2", "--secs", "20", "--drain", "20",
        ],
    ),
    crowd_row(
        "idle-10k",
        "10,000 clients that do nothing, as many gateway children as idle-100k",
        100_000,
        &["idle", "--conns", "10000"],
    ),
    crowd_row(
        "idle-100k",
        "100,000 clients that do nothing",
        100_000,
        &["idle", "--conns", "100000"],
    ),
];

/// The rows with these names; without names, those that are always run. Error: an unknown name.
pub(super) fn chosen(names: &[String]) -> Result<Vec<&'static Workload>, Error> {
    match names.is_empty() {
        true => Ok(WORKLOADS.iter().filter(|row| row.when == When::Always).collect()),
        false => names.iter().map(|name| named(name)).collect(),
    }
}

fn named(name: &str) -> Result<&'static Workload, Error> {
    WORKLOADS.iter().find(|workload| workload.name == name).ok_or_else(|| {
        let names = WORKLOADS.iter().map(|workload| workload.name);
        Error::Unknown {
            what: "workload",
            name: name.into(),
            known: names.collect::<Vec<_>>().join(", "),
        }
    })
}

/// The text of a cell, from a server's results and the limit server's.
type Cell = fn(&Results, &Results) -> String;

impl Workload {
    fn needs_echo(&self) -> bool {
        self.load[0] != "fanout" && self.load[0] != "idle" || self.load.contains(&"--large")
    }

    /// Whether the load needs groups beside the one room, which all servers have.
    fn needs_groups(&self) -> bool {
        self.load.contains(&"--groups")
    }

    /// Whether the load needs publishes that leave out their sender.
    fn needs_to_leave_out(&self) -> bool {
        self.load.contains(&"--talkers")
    }

    /// Whether a server can take the load.
    pub(super) fn suits(&self, target: &Target) -> bool {
        (!self.needs_echo() || target.echoes())
            && (!self.needs_groups() || target.has_groups())
            && (!self.needs_to_leave_out() || target.leaves_out())
    }

    fn columns(&self) -> Vec<(String, Cell)> {
        let (what, each) = match self.load[0] {
            "fanout" => ("deliveries", "delivery"),
            "idle" => ("connects", "connect"),
            _ => ("messages", "message"),
        };
        let large = self.load[0] == "large";
        let mut columns: Vec<(String, Cell)> = vec![
            (format!("{what}/s"), |ours, _| ours.shown(|run| Some(run.rate))),
            ("p50 ms".into(), |ours, _| ours.shown(|run| run.p50_ms)),
            ("p99 ms".into(), |ours, _| ours.shown(|run| run.p99_ms)),
            (format!("CPU µs a {each}"), |ours, _| {
                ours.shown(|run| run.server_cpu_us_per_message)
            }),
            ("CPU to limit".into(), |ours, limit| {
                ours.ratio(limit, |run| run.server_cpu_us_per_message)
            }),
        ];
        match large {
            false => columns.push(("p99 to limit".into(), |ours, limit| ours.ratio(limit, |run| run.p99_ms))),
            true => columns.extend::<[(String, Cell); 6]>([
                ("MiB/s".into(), |ours, _| ours.shown(|run| run.mib_per_s)),
                ("limit's MiB/s to it".into(), |ours, limit| {
                    limit.ratio(ours, |run| run.mib_per_s)
                }),
                ("small: quiet p99 ms".into(), |ours, _| {
                    ours.shown(|run| run.small_quiet_p99_ms)
                }),
                ("small: p99 ms".into(), |ours, _| ours.shown(|run| run.small_p99_ms)),
                ("small: p99 to limit".into(), |ours, limit| {
                    ours.ratio(limit, |run| run.small_p99_ms)
                }),
                ("small: p99 to quiet".into(), |ours, _| {
                    ours.shown(|run| run.small_p99_times)
                }),
            ]),
        }
        if self.load[0] == "idle" {
            columns.push(("bytes a connection".into(), |ours, _| {
                ours.shown(|run| run.server_bytes_per_connection)
            }));
        }
        if self.load.contains(&"--large") {
            columns.push(("bytes after it".into(), |ours, _| {
                ours.shown(|run| run.server_bytes_per_connection_after_large)
            }));
        }
        columns
    }

    /// The row's part of the table: a line for each server, with ratios to the first server.
    pub(super) fn print(&self, servers: &[(&str, &Results)]) -> String {
        let columns = self.columns();
        let limit = servers[0].1;
        let headings: Vec<&str> = columns.iter().map(|(heading, _)| heading.as_str()).collect();
        let mut text = format!("\n## {}: {}\n\n`{}`\n\n", self.name, self.title, self.load.join(" "));
        let _ = writeln!(text, "| server | {} | notes |", headings.join(" | "));
        let _ = writeln!(text, "| --- |{} --- |", " ---: |".repeat(columns.len()));
        for (name, results) in servers {
            let cells: Vec<String> = columns.iter().map(|(_, cell)| cell(results, limit)).collect();
            let _ = writeln!(text, "| {name} | {} | {} |", cells.join(" | "), results.notes());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::Cli;

    #[test]
    fn all_rows_can_be_run() {
        for workload in WORKLOADS {
            let (command, options) = workload.load.split_first().unwrap();
            let line = ["meepo-bench", command, "--secs", "3"].into_iter();
            let line = line
                .chain(options.iter().copied())
                .chain(["--url", "ws://a/", "--conns", "7"]);
            Cli::try_parse_from(line).unwrap_or_else(|error| panic!("{}: {error}", workload.name));
            assert_eq!(named(workload.name).unwrap().title, workload.title, "names are unique");
        }
    }

    #[test]
    fn what_a_row_needs_of_a_server() {
        let needs = |name: &str| {
            let row = named(name).unwrap();
            (row.needs_echo(), row.needs_groups(), row.crowd.is_some())
        };
        assert_eq!(needs("echo-1"), (true, false, false));
        assert_eq!(needs("large"), (true, false, false));
        assert_eq!(needs("fanout-1"), (false, false, false));
        assert_eq!(needs("groups-10k"), (false, true, false));
        assert_eq!(needs("talk-16"), (false, false, false));
        let nats = Target::parse("nats+ws://127.0.0.1:1/").unwrap();
        let suits = |name: &str| named(name).unwrap().suits(&nats);
        assert_eq!(["echo-1", "groups-1k", "talk-16"].map(suits), [true, true, false]);
        assert_eq!(needs("idle"), (false, false, false));
        assert_eq!(needs("idle-large"), (true, false, false));
        assert_eq!(needs("idle-100k"), (false, false, true));
    }
}
