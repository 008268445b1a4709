//! What `status` shows: as JSON for programs, as tables for people.

use std::time::Duration;

use bytesize::ByteSize;
use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

use crate::observe::problems;
use crate::observe::stats::Figures;

/// A node, as `status --json` prints it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The node's name.
    pub name: String,
    /// The master's pid.
    pub pid: u32,
    /// The program's version.
    pub version: String,
    /// Seconds since the master started.
    pub uptime_s: f64,
    /// `starting`, `serving`, `reloading` or `stopping`.
    pub state: String,
    /// How the last reload ended, if there was one.
    pub last_reload: Option<ReloadStatus>,
    /// What is exhausted now, in words.
    #[serde(default)]
    pub problems: Vec<String>,
    /// Lines that the master itself could not log.
    #[serde(default)]
    pub lost_log_lines: u64,
    /// Where the node's metrics are, if they are served.
    pub metrics: Option<String>,
    /// What the master runs.
    pub instances: Vec<InstanceStatus>,
}

/// The end of a reload.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReloadStatus {
    /// It was done.
    pub ok: bool,
    /// Why it was refused or undone.
    pub reason: Option<String>,
    /// Seconds since then.
    pub age_s: f64,
}

/// An instance.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// Its name.
    pub name: String,
    /// The listeners that its children share.
    pub listeners: Vec<ListenerStatus>,
    /// How many children were started in the place of one that had died.
    pub restarts: u64,
    /// Why the last of them died.
    pub last_exit: Option<String>,
    /// The figures of all children, and what children that are gone counted.
    pub totals: Figures,
    /// The children, those that drain at the end.
    pub children: Vec<ChildStatus>,
}

/// A listener.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// What it is for.
    pub label: String,
    /// Where it is bound.
    pub address: String,
    /// The page that a browser finds here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page: Option<String>,
}

/// A child.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ChildStatus {
    /// Its pid; none while it waits to be started again.
    pub pid: Option<u32>,
    /// Counted from 0.
    pub index: usize,
    /// `starting`, `serving`, `draining` or `backing_off`.
    pub state: String,
    /// Its own listener.
    pub address: Option<String>,
    /// Seconds since it started.
    pub uptime_s: f64,
    /// How often a child in this place was started again.
    pub restarts: u64,
    /// Why the last one in this place died.
    pub last_exit: Option<String>,
    /// Seconds that it has spent on a processor.
    pub cpu_s: f64,
    /// Bytes in memory.
    pub memory_bytes: u64,
    /// What it counts.
    #[serde(flatten)]
    pub figures: Figures,
}

impl NodeStatus {
    /// Whether each instance has a child that serves.
    pub(crate) fn all_serve(&self) -> bool {
        let serves = |instance: &InstanceStatus| instance.children.iter().any(|child| child.state == "serving");
        self.instances.iter().all(serves)
    }
}

/// The short table that a start prints.
pub(crate) fn start_table(status: &NodeStatus) -> String {
    let mut table = table(&["instance", "children", "addresses", "pids"]);
    for instance in &status.instances {
        let shared = instance
            .listeners
            .iter()
            .map(|listener| format!("{} {}", listener.label, listener.address));
        let own = instance
            .children
            .iter()
            .filter_map(|child| Some(format!("child {} {}", child.index, child.address.as_ref()?)));
        let pids: Vec<String> = instance
            .children
            .iter()
            .filter_map(|child| child.pid)
            .map(|pid| pid.to_string())
            .collect();
        table.add_row([
            instance.name.clone(),
            instance.children.len().to_string(),
            shared.chain(own).collect::<Vec<_>>().join("\n"),
            pids.join(" "),
        ]);
    }
    let mut text = format!(
        "{} {} serves, pid {}\n{}\n",
        status.name,
        status.version,
        status.pid,
        table.trim_fmt()
    );
    let listeners = status.instances.iter().flat_map(|instance| &instance.listeners);
    for page in listeners.filter_map(|listener| listener.page.as_ref()) {
        text += &format!("open {page}\n");
    }
    text
}

/// The whole status for people.
pub(crate) fn text(status: &NodeStatus) -> String {
    let uptime = duration(status.uptime_s);
    let mut text = format!(
        "{} {}: {}, pid {}, up {uptime}\n",
        status.name, status.version, status.state, status.pid
    );
    if let Some(reload) = &status.last_reload {
        let age = duration(reload.age_s);
        text += &match &reload.reason {
            None => format!("reloaded {age} ago\n"),
            Some(reason) => format!("the last reload, {age} ago, had no effect: {reason}\n"),
        };
    }
    let mut listeners = table(&["instance", "listener", "address", "page"]);
    for instance in &status.instances {
        for listener in &instance.listeners {
            let page = listener.page.as_deref().unwrap_or_default();
            listeners.add_row([&instance.name, &listener.label, &listener.address, page]);
        }
        for child in &instance.children {
            if let Some(address) = &child.address {
                listeners.add_row([&instance.name, &format!("child {}", child.index), address, ""]);
            }
        }
    }
    if let Some(address) = &status.metrics {
        listeners.add_row(["node", "metrics", address, &format!("http://{address}/metrics")]);
    }
    if listeners.row_count() > 0 {
        text += &format!("{}\n", listeners.trim_fmt());
    }
    text += &format!("{}\n", children(status).trim_fmt());
    for child in status
        .instances
        .iter()
        .flat_map(|instance| instance.children.iter().map(move |child| (instance, child)))
    {
        if let (
            instance,
            ChildStatus {
                last_exit: Some(reason),
                index,
                ..
            },
        ) = child
        {
            text += &format!("{} {index}, last exit: {reason}\n", instance.name);
        }
    }
    for problem in &status.problems {
        text += &format!("now: {problem}\n");
    }
    for past in problems::past(status) {
        text += &format!("since the start: {past}\n");
    }
    text
}

fn children(status: &NodeStatus) -> Table {
    const HEADS: [&str; 17] = [
        "child",
        "pid",
        "state",
        "uptime",
        "restarts",
        "cpu",
        "memory",
        "conns",
        "in all",
        "msgs in",
        "msgs out",
        "bytes in",
        "bytes out",
        "failed",
        "errors",
        "links",
        "waiting",
    ];
    let mut heads = HEADS.to_vec();
    heads.extend(["in flight", "held back"]);
    let mut table = table(&heads);
    for instance in &status.instances {
        for child in &instance.children {
            let mut row = vec![
                format!("{} {}", instance.name, child.index),
                child.pid.map_or_else(|| "-".into(), |pid| pid.to_string()),
                child.state.replace('_', " "),
                duration(child.uptime_s),
                child.restarts.to_string(),
                format!("{:.1}s", child.cpu_s),
                bytes(child.memory_bytes),
            ];
            row.extend(figures(&child.figures));
            add_row(&mut table, row);
        }
        let mut row: Vec<String> = ["", "", "", "", "", ""].map(Into::into).into();
        row.insert(0, format!("{} total", instance.name));
        row[4] = instance.restarts.to_string();
        row.extend(figures(&instance.totals));
        add_row(&mut table, row);
    }
    table
}

fn figures(figures: &Figures) -> [String; 12] {
    [
        figures.connections.to_string(),
        figures.connections_total.to_string(),
        figures.messages_in.to_string(),
        figures.messages_out.to_string(),
        bytes(figures.bytes_in),
        bytes(figures.bytes_out),
        figures.failed_sends.to_string(),
        figures.handler_errors.to_string(),
        figures.links.to_string(),
        figures.events_waiting.to_string(),
        figures.events_in_flight.to_string(),
        figures.held_back.to_string(),
    ]
}

fn table(heads: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(heads.iter().copied());
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

fn add_row(table: &mut Table, row: Vec<String>) {
    let cells = row.into_iter().enumerate().map(|(column, text)| {
        let side = if matches!(column, 0 | 2) {
            CellAlignment::Left
        } else {
            CellAlignment::Right
        };
        Cell::new(text).set_alignment(side)
    });
    table.add_row(cells);
}

fn bytes(count: u64) -> String {
    ByteSize::b(count).display().iec_short().to_string()
}

fn duration(seconds: f64) -> String {
    let whole = Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs();
    humantime::format_duration(Duration::from_secs(whole))
        .to_string()
        .replace(' ', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> NodeStatus {
        let figures = Figures {
            connections: 3,
            bytes_in: 2048,
            ..Figures::default()
        };
        let dead = ChildStatus {
            index: 1,
            state: "backing_off".into(),
            last_exit: Some("exit code 1".into()),
            ..ChildStatus::default()
        };
        let child = ChildStatus {
            pid: Some(2),
            state: "serving".into(),
            figures,
            ..ChildStatus::default()
        };
        let ws = ListenerStatus {
            label: "ws".into(),
            address: "127.0.0.1:19910".into(),
            page: Some("http://127.0.0.1:19910/".into()),
        };
        NodeStatus {
            name: "chat".into(),
            pid: 1,
            version: "0.1.0".into(),
            uptime_s: 3661.2,
            state: "serving".into(),
            last_reload: Some(ReloadStatus {
                ok: false,
                reason: Some("meepo.toml:3: no".into()),
                age_s: 1.0,
            }),
            problems: vec!["gateway 0: no free file descriptors".into()],
            lost_log_lines: 2,
            metrics: Some("127.0.0.1:19920".into()),
            instances: vec![InstanceStatus {
                name: "gateway".into(),
                listeners: vec![ws],
                restarts: 1,
                last_exit: None,
                totals: figures,
                children: vec![child, dead],
            }],
        }
    }

    #[test]
    fn json_has_the_shape_that_scripts_rely_on() {
        let json = serde_json::to_value(example()).unwrap();
        assert_eq!(json["pid"], 1);
        assert_eq!(json["instances"][0]["name"], "gateway");
        let child = &json["instances"][0]["children"][0];
        assert_eq!(
            (&child["pid"], &child["state"], &child["connections"]),
            (&2.into(), &"serving".into(), &3.into())
        );
        assert_eq!(json["instances"][0]["children"][1]["pid"], serde_json::Value::Null);
        let again: NodeStatus = serde_json::from_value(json).unwrap();
        assert_eq!(again.instances[0].children[0].figures.bytes_in, 2048);
    }

    #[test]
    fn an_instance_serves_with_one_child() {
        let mut status = example();
        assert!(status.all_serve());
        status.instances[0].children.remove(0);
        assert!(!status.all_serve());
    }

    #[test]
    fn text_tells_all() {
        let text = text(&example());
        for part in [
            "chat 0.1.0: serving, pid 1, up 1h1m1s",
            "meepo.toml:3: no",
            "backing off",
            "exit code 1",
            "2.0K",
            "http://127.0.0.1:19920/metrics",
            "\nnow: gateway 0: no free file descriptors\n",
            "\nsince the start: master: 2 log lines lost\n",
        ] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
        let start = start_table(&example());
        assert!(start.contains("open http://127.0.0.1:19910/"), "{start}");
    }
}
