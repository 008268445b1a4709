//! The figures of a node in the text format of Prometheus.
//!
//! Counters are of all children of a kind, those that are gone included, so that they never go back while the master
//! lives. Gauges are of one child slot; while a reload replaces the child, those of both generations are added.
//! The label is `kind`: Prometheus gives its targets a label `instance` of its own.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::Arc;

use crate::observe::stats::{
    self, COMMON, ChildState, FigureInfo, FigureKind, InstanceSnapshot, InstanceTable, NodeSnapshot, Reading,
};
use crate::observe::usage::usage;

/// Facts about a node that are not in its statistics.
#[derive(Debug, Clone)]
pub(crate) struct NodeInfo {
    pub(crate) name: String,
    pub(crate) version: String,
    /// The instances, in the order of their numbers.
    pub(crate) instances: Arc<[InstanceTable]>,
}

/// All metrics of a node.
pub(crate) fn text(seen: &NodeSnapshot, info: &NodeInfo) -> String {
    let mut text = Text(String::new());
    // Writing to a string does not fail.
    let _ = all(&mut text, seen, info);
    text.0
}

fn all(text: &mut Text, seen: &NodeSnapshot, info: &NodeInfo) -> fmt::Result {
    text.family("meepo_node_info", "gauge", "The node's name and version.")?;
    text.sample(
        "meepo_node_info",
        &[("name", &info.name), ("version", &info.version)],
        1,
    )?;
    text.family(
        "meepo_start_time_seconds",
        "gauge",
        "When the master started, in Unix time.",
    )?;
    text.sample("meepo_start_time_seconds", &[], seen.started)?;
    master(text, seen, info)?;

    let by_kind = by_kind(seen, info);
    let slots = by_slot(seen, info);
    for family in families(&info.instances, FigureKind::Counter) {
        text.family(family.metric, "counter", &family.help())?;
        for (table, figures) in &by_kind {
            if let Some(index) = family.index(table) {
                text.sample(family.metric, &[("kind", table.name)], figures.at(index))?;
            }
        }
        family.of_master(text, seen)?;
    }
    for family in families(&info.instances, FigureKind::Gauge) {
        text.family(family.metric, "gauge", &family.help())?;
        for ((instance, child), slot) in &slots {
            let table = &info.instances[*instance];
            if let Some(index) = family.index(table) {
                let labels = [("kind", table.name), ("child", &child.to_string())];
                text.sample(family.metric, &labels, slot.figures.at(index))?;
            }
        }
        family.of_master(text, seen)?;
    }
    text.family("meepo_memory_bytes", "gauge", "Memory of a child that is resident.")?;
    for ((instance, child), slot) in &slots {
        // A process that has no free descriptor cannot read it.
        if slot.memory > 0 {
            let labels = [("kind", info.instances[*instance].name), ("child", &child.to_string())];
            text.sample("meepo_memory_bytes", &labels, slot.memory)?;
        }
    }
    Ok(())
}

/// The metrics that the master publishes of its children.
fn master(text: &mut Text, seen: &NodeSnapshot, info: &NodeInfo) -> fmt::Result {
    text.family("meepo_children", "gauge", "Children in each state.")?;
    for (number, table) in info.instances.iter().enumerate() {
        let in_state = |state| {
            let children = seen.children.iter().filter(|child| child.instance == number);
            children.filter(|child| child.state == state).count() as u64
        };
        let backing_off = seen.instances.get(number).map_or(0, |of| of.backing_off);
        for (state, count) in [
            (ChildState::Starting.name(), in_state(ChildState::Starting)),
            (ChildState::Serving.name(), in_state(ChildState::Serving)),
            (ChildState::Draining.name(), in_state(ChildState::Draining)),
            ("backing_off", backing_off),
        ] {
            text.sample("meepo_children", &[("kind", table.name), ("state", state)], count)?;
        }
    }
    let help = "Children that were started in the place of one that had died.";
    text.family("meepo_restarts_total", "counter", help)?;
    for (table, of) in info.instances.iter().zip(&seen.instances) {
        text.sample("meepo_restarts_total", &[("kind", table.name)], of.restarts)?;
    }
    Ok(())
}

/// The instances that have no child that serves.
pub(crate) fn not_serving(seen: &NodeSnapshot, info: &NodeInfo) -> Vec<&'static str> {
    let serves = |number| {
        let mut children = seen.children.iter();
        children.any(|child| child.instance == number && child.state == ChildState::Serving)
    };
    let instances = info.instances.iter().enumerate();
    instances
        .filter(|(number, _)| !serves(*number))
        .map(|(_, table)| table.name)
        .collect()
}

/// A metric, with the figures of all instances that have it.
struct Family {
    metric: &'static str,
    figures: Vec<(&'static str, &'static FigureInfo)>,
}

/// The metrics of one kind that the instances have.
fn families(instances: &[InstanceTable], kind: FigureKind) -> Vec<Family> {
    let metrics = stats::keys(instances.iter().copied(), |info| {
        (info.kind == kind).then_some(info.metric)
    });
    let family = |metric| {
        let figures = instances.iter().flat_map(|table| {
            let figures = table.figures().filter(move |(_, info)| info.metric == metric);
            figures.map(|(_, info)| (table.name, info))
        });
        Family {
            metric,
            figures: figures.collect(),
        }
    };
    metrics.into_iter().map(family).collect()
}

impl Family {
    /// The help text: of each instance, if they differ.
    fn help(&self) -> String {
        let (_, first) = self.figures[0];
        if self.figures.iter().all(|(_, info)| info.help == first.help) {
            return first.help.into();
        }
        let of_each = self.figures.iter().map(|(name, info)| format!("{name}: {}", info.help));
        of_each.collect::<Vec<_>>().join(" ")
    }

    /// The place of the figure in the memory of an instance's children, if the instance has it.
    fn index(&self, table: &InstanceTable) -> Option<usize> {
        let figure = table.figures().find(|(_, info)| info.metric == self.metric);
        figure.map(|(index, _)| index)
    }

    /// The figure of the master, if it has one.
    fn of_master(&self, text: &mut Text, seen: &NodeSnapshot) -> fmt::Result {
        let mut figures = COMMON.figures();
        match figures.find(|(_, info)| info.of_master && info.metric == self.metric) {
            Some((index, _)) => text.sample(self.metric, &[("kind", COMMON.name)], seen.master.at(index)),
            None => Ok(()),
        }
    }
}

/// The figures of each instance: of all its children, and the counters of those that are gone.
fn by_kind<'i>(seen: &NodeSnapshot, info: &'i NodeInfo) -> Vec<(&'i InstanceTable, Reading)> {
    let of = |(number, (table, of)): (usize, (&'i InstanceTable, &InstanceSnapshot))| {
        let mut figures = of.totals;
        let children = seen.children.iter().filter(|child| child.instance == number);
        children.for_each(|child| figures.add(&child.figures));
        (table, figures)
    };
    info.instances.iter().zip(&seen.instances).enumerate().map(of).collect()
}

/// The child slot of an instance: all generations of the child together.
#[derive(Default)]
struct SlotFigures {
    figures: Reading,
    memory: u64,
}

/// The figures of every child slot that has a child, by the numbers of its instance and of the child.
fn by_slot(seen: &NodeSnapshot, info: &NodeInfo) -> BTreeMap<(usize, usize), SlotFigures> {
    let mut slots = BTreeMap::<_, SlotFigures>::new();
    for child in seen
        .children
        .iter()
        .filter(|child| child.instance < info.instances.len())
    {
        let slot = slots.entry((child.instance, child.index)).or_default();
        slot.figures.add(&child.figures);
        if child.pid > 0 {
            let (_, memory) = usage(child.pid);
            slot.memory += memory;
        }
    }
    slots
}

/// Text in the format of Prometheus, version 0.0.4.
struct Text(String);

impl Text {
    /// Begins a metric. The help text is one line without a backslash.
    fn family(&mut self, name: &str, kind: &str, help: &str) -> fmt::Result {
        writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}")
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: u64) -> fmt::Result {
        self.0.write_str(name)?;
        for (index, (label, text)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            write!(self.0, "{before}{label}=\"{}\"", escaped(text))?;
        }
        let end = if labels.is_empty() { "" } else { "}" };
        writeln!(self.0, "{end} {value}")
    }
}

/// The value of a label.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::stats::{ChildSnapshot, Slot};

    crate::figures! {
        /// Figures as a gateway has them.
        struct TestFigures {
            messages_in: FigureInfo::counter("meepo_received_messages_total", "Messages received from clients."),
            connections: FigureInfo::gauge("meepo_connections", "Clients."),
        }
    }

    crate::figures! {
        /// Figures as a worker has them.
        struct OtherFigures {
            connections: FigureInfo::gauge("meepo_connections", "Clients served."),
            links: FigureInfo::gauge("meepo_links", "Links that are up."),
        }
    }

    fn figures(messages_in: u64, connections: u64) -> Reading {
        let slot = Slot::default();
        slot.view::<TestFigures>().messages_in.add(messages_in);
        slot.view::<TestFigures>().connections.add(connections);
        slot.read()
    }

    fn info() -> NodeInfo {
        NodeInfo {
            name: "chat".into(),
            version: "a\\b\"c\nd".into(),
            instances: [("gateway", TestFigures::TABLE), ("worker", OtherFigures::TABLE)]
                .map(|(name, own)| InstanceTable { name, own })
                .into(),
        }
    }

    fn child(instance: usize, state: ChildState, messages_in: u64, connections: u64) -> ChildSnapshot {
        ChildSnapshot {
            instance,
            index: 0,
            pid: std::process::id(),
            state,
            figures: figures(messages_in, connections),
        }
    }

    fn seen() -> NodeSnapshot {
        let mut instances = vec![InstanceSnapshot::default(); 16];
        instances[0].totals = figures(100, 0);
        instances[0].restarts = 2;
        instances[1].backing_off = 1;
        NodeSnapshot {
            started: 1_700_000_000,
            master: Reading::default(),
            instances,
            children: vec![
                child(0, ChildState::Draining, 10, 3),
                child(0, ChildState::Serving, 1, 4),
            ],
        }
    }

    #[test]
    fn counters_add_up_and_generations_share_a_place() {
        let text = text(&seen(), &info());
        for line in [
            "meepo_node_info{name=\"chat\",version=\"a\\\\b\\\"c\\nd\"} 1",
            "meepo_start_time_seconds 1700000000",
            "meepo_children{kind=\"gateway\",state=\"draining\"} 1",
            "meepo_children{kind=\"worker\",state=\"backing_off\"} 1",
            "meepo_restarts_total{kind=\"gateway\"} 2",
            "meepo_received_messages_total{kind=\"gateway\"} 111",
            "meepo_connections{kind=\"gateway\",child=\"0\"} 7",
            "# HELP meepo_connections gateway: Clients. worker: Clients served.",
            "# HELP meepo_received_messages_total Messages received from clients.",
            "meepo_lost_log_lines_total{kind=\"master\"} 0",
            "meepo_log_failing{kind=\"master\"} 0",
        ] {
            assert_eq!(
                text.lines().filter(|other| *other == line).count(),
                1,
                "{line} in\n{text}"
            );
        }
        assert!(!text.contains("meepo_connections{kind=\"worker\""), "{text}");
        assert!(
            !text.contains("meepo_received_messages_total{kind=\"worker\""),
            "{text}"
        );
        assert!(!text.contains("meepo_failed_accepts_total{kind=\"master\""), "{text}");
    }

    #[test]
    fn an_instance_without_a_child_that_serves_is_named() {
        let mut seen = seen();
        assert_eq!(not_serving(&seen, &info()), ["worker"]);
        seen.children.push(child(1, ChildState::Serving, 0, 0));
        assert_eq!(not_serving(&seen, &info()), [""; 0]);
    }
}
