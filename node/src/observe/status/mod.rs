//! The status of a node: as JSON for programs, as tables for people.
//!
//! The master fills it in, `start` and `status` print it. It must not know where the master has it from.

mod tables;

pub(crate) use tables::{start_table, text};

use serde::{Deserialize, Serialize};

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
    /// The resources that are exhausted now, in words.
    #[serde(default)]
    pub problems: Vec<String>,
    /// Lines that the master itself could not log.
    #[serde(default)]
    pub lost_log_lines: u64,
    /// Where the node's metrics are, if they are served.
    pub metrics: Option<String>,
    /// The instances that the master runs.
    pub instances: Vec<InstanceStatus>,
}

/// The end of a reload.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReloadStatus {
    /// Whether the reload was done.
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
    /// The figures of all children, and the counters of children that are gone.
    pub totals: Figures,
    /// The children; children that drain come last.
    pub children: Vec<ChildStatus>,
}

/// A listener.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// Its name, such as a protocol.
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
    /// How often a child in this slot was started again.
    pub restarts: u64,
    /// Why the last child in this slot died.
    pub last_exit: Option<String>,
    /// Seconds that it has spent on a processor.
    pub cpu_s: f64,
    /// Bytes in memory.
    pub memory_bytes: u64,
    /// The child's figures.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::stats::{FigureInfo, InstanceTable, Slot};

    crate::figures! {
        /// Figures as a gateway has them.
        struct TestFigures {
            connections: FigureInfo::gauge("test_connections", "Connections.").column("conns"),
            bytes_in: FigureInfo::counter("test_bytes_total", "Bytes.").column("bytes in").bytes(),
        }
    }

    const TABLE: InstanceTable = InstanceTable {
        name: "gateway",
        own: TestFigures::TABLE,
    };

    fn example() -> NodeStatus {
        let slot = Slot::default();
        slot.view::<TestFigures>().connections.add(3);
        slot.view::<TestFigures>().bytes_in.add(2048);
        let figures = slot.read().named(&TABLE);
        let dead = ChildStatus {
            index: 1,
            state: "backing_off".into(),
            last_exit: Some("exit code 1".into()),
            ..ChildStatus::default()
        };
        let child = ChildStatus {
            pid: Some(2),
            state: "serving".into(),
            figures: figures.clone(),
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
        assert_eq!(again.instances[0].children[0].figures.get("bytes_in"), Some(2048));
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
        let text = text(&example(), &[TABLE]);
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
