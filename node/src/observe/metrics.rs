//! The figures of a node in the text format of Prometheus.
//!
//! Counters are of all children of a kind, those that are gone included, so that they never go back while the master
//! lives. Gauges are of one child slot; while a reload replaces the child, those of both generations are added.
//! The label is `kind`: Prometheus gives its targets a label `instance` of its own.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::Arc;

use crate::observe::stats::{ChildState, Figures, InstanceSnapshot, NodeSnapshot};
use crate::observe::usage::usage;

/// Facts about a node that are not in its statistics.
#[derive(Debug, Clone)]
pub(crate) struct NodeInfo {
    pub(crate) name: String,
    pub(crate) version: String,
    /// The names of the instances, in their order.
    pub(crate) instances: Arc<[&'static str]>,
}

/// A figure as a metric: its name, its help text, and where it comes from.
struct Metric(&'static str, &'static str, fn(&Figures) -> u64);

const COUNTERS: &[Metric] = &[
    Metric(
        "meepo_connections_opened_total",
        "Clients that came (gateway), clients attached (worker), nodes registered (registry).",
        |of| of.connections_total,
    ),
    Metric(
        "meepo_received_messages_total",
        "Messages received from clients.",
        |of| of.messages_in,
    ),
    Metric("meepo_sent_messages_total", "Messages sent to clients.", |of| {
        of.messages_out
    }),
    Metric("meepo_received_bytes_total", "Payload received from clients.", |of| {
        of.bytes_in
    }),
    Metric("meepo_sent_bytes_total", "Payload sent to clients.", |of| of.bytes_out),
    Metric(
        "meepo_failed_sends_total",
        "Sends that did not reach their client, and commands that were refused.",
        |of| of.failed_sends,
    ),
    Metric(
        "meepo_dropped_sends_total",
        "Sends of those that failed since the client's send buffer was full.",
        |of| of.dropped_sends,
    ),
    Metric(
        "meepo_slow_clients_total",
        "Clients that were closed because they did not read.",
        |of| of.slow_clients,
    ),
    Metric(
        "meepo_handler_errors_total",
        "Handlers and jobs that returned an error or panicked.",
        |of| of.handler_errors,
    ),
    Metric(
        "meepo_given_up_events_total",
        "Events that were given up because several workers ended with them.",
        |of| of.given_up_events,
    ),
    Metric(
        "meepo_requests_total",
        "HTTP requests that workers were to answer (gateway) or were given (worker).",
        |of| of.requests,
    ),
    Metric(
        "meepo_failed_requests_total",
        "HTTP requests that the gateway answered itself with a 5xx.",
        |of| of.failed_requests,
    ),
    Metric(
        "meepo_failed_accepts_total",
        "Attempts to accept a connection that failed for want of descriptors or memory.",
        |of| of.failed_accepts,
    ),
];

const GAUGES: &[Metric] = &[
    Metric(
        "meepo_connections",
        "Clients (gateway), clients served (worker), nodes (registry) that are there.",
        |of| of.connections,
    ),
    Metric("meepo_links", "Links between gateways and workers that are up.", |of| {
        of.links
    }),
    Metric(
        "meepo_jobs",
        "Jobs that run here, each nowhere else in the cluster.",
        |of| of.jobs,
    ),
    Metric("meepo_waiting_events", "Events that wait for a worker.", |of| {
        of.events_waiting
    }),
    Metric(
        "meepo_in_flight_events",
        "Events that a worker has and has not finished.",
        |of| of.events_in_flight,
    ),
    Metric(
        "meepo_held_back_clients",
        "Clients that are not read since too much waits for workers (gateway), or whose events wait since too much is to be \
         sent, or an endpoint is away (worker).",
        |of| of.held_back,
    ),
    Metric(
        "meepo_full_queues",
        "1 while `waiting` is full and nobody is read (gateway); outgoing queues that are full (worker).",
        |of| of.full_queues,
    ),
    Metric(
        "meepo_blocked_listeners",
        "Listeners that accept nobody for want of descriptors or memory.",
        |of| of.blocked_listeners,
    ),
];

const LOST_LINES: (&str, &str) = ("meepo_lost_log_lines_total", "Log lines that could not be written.");
const LOG_FAILS: (&str, &str) = ("meepo_log_failing", "1 while log lines cannot be written.");

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
    for Metric(name, help, of) in COUNTERS {
        text.family(name, "counter", help)?;
        for (kind, figures) in &by_kind {
            text.sample(name, &[("kind", kind)], of(figures))?;
        }
    }
    let slots = by_slot(seen, info);
    for Metric(name, help, of) in GAUGES {
        text.family(name, "gauge", help)?;
        for ((kind, child), slot) in &slots {
            text.sample(
                name,
                &[("kind", kind), ("child", &child.to_string())],
                of(&slot.figures),
            )?;
        }
    }
    text.family("meepo_memory_bytes", "gauge", "Memory of a child that is resident.")?;
    for ((kind, child), slot) in &slots {
        // A process that has no free descriptor cannot read it.
        if slot.memory > 0 {
            let labels = [("kind", *kind), ("child", &child.to_string())];
            text.sample("meepo_memory_bytes", &labels, slot.memory)?;
        }
    }
    let (name, help) = LOST_LINES;
    text.family(name, "counter", help)?;
    for (kind, figures) in by_kind.iter().chain([&("master", seen.master)]) {
        text.sample(name, &[("kind", kind)], figures.lost_log_lines)?;
    }
    let (name, help) = LOG_FAILS;
    text.family(name, "gauge", help)?;
    for ((kind, child), slot) in &slots {
        text.sample(
            name,
            &[("kind", kind), ("child", &child.to_string())],
            slot.figures.log_fails,
        )?;
    }
    text.sample(name, &[("kind", "master")], seen.master.log_fails)
}

/// The metrics that the master publishes of its children.
fn master(text: &mut Text, seen: &NodeSnapshot, info: &NodeInfo) -> fmt::Result {
    text.family("meepo_children", "gauge", "Children in each state.")?;
    for (number, kind) in info.instances.iter().enumerate() {
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
            text.sample("meepo_children", &[("kind", kind), ("state", state)], count)?;
        }
    }
    let help = "Children that were started in the place of one that had died.";
    text.family("meepo_restarts_total", "counter", help)?;
    for (kind, of) in info.instances.iter().zip(&seen.instances) {
        text.sample("meepo_restarts_total", &[("kind", kind)], of.restarts)?;
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
        .map(|(_, name)| *name)
        .collect()
}

/// The figures of each instance: of all its children, and the counters of those that are gone.
fn by_kind(seen: &NodeSnapshot, info: &NodeInfo) -> Vec<(&'static str, Figures)> {
    let of = |(number, (kind, of)): (usize, (&&'static str, &InstanceSnapshot))| {
        let mut figures = of.totals;
        let children = seen.children.iter().filter(|child| child.instance == number);
        children.for_each(|child| figures.add(&child.figures));
        (*kind, figures)
    };
    info.instances.iter().zip(&seen.instances).enumerate().map(of).collect()
}

/// The child slot of an instance: all generations of the child together.
#[derive(Default)]
struct SlotFigures {
    figures: Figures,
    memory: u64,
}

/// The figures of every child slot that has a child, by its instance and index.
fn by_slot(seen: &NodeSnapshot, info: &NodeInfo) -> BTreeMap<(&'static str, usize), SlotFigures> {
    let mut slots = BTreeMap::<_, SlotFigures>::new();
    for child in &seen.children {
        let Some(kind) = info.instances.get(child.instance) else {
            continue;
        };
        let slot = slots.entry((*kind, child.index)).or_default();
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
    use crate::observe::stats::ChildSnapshot;

    fn info() -> NodeInfo {
        NodeInfo {
            name: "chat".into(),
            version: "a\\b\"c\nd".into(),
            instances: Arc::new(["gateway", "worker"]),
        }
    }

    fn child(instance: usize, state: ChildState, messages_in: u64, connections: u64) -> ChildSnapshot {
        let figures = Figures {
            messages_in,
            connections,
            ..Figures::default()
        };
        ChildSnapshot {
            instance,
            index: 0,
            pid: std::process::id(),
            state,
            figures,
        }
    }

    fn seen() -> NodeSnapshot {
        let mut instances = vec![InstanceSnapshot::default(); 16];
        instances[0].totals.messages_in = 100;
        instances[0].restarts = 2;
        instances[1].backing_off = 1;
        NodeSnapshot {
            started: 1_700_000_000,
            master: Figures::default(),
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
        ] {
            assert_eq!(
                text.lines().filter(|other| *other == line).count(),
                1,
                "{line} in\n{text}"
            );
        }
        assert!(!text.contains("meepo_connections{kind=\"worker\""), "{text}");
    }

    #[test]
    fn an_instance_without_a_child_that_serves_is_named() {
        let mut seen = seen();
        assert_eq!(not_serving(&seen, &info()), ["worker"]);
        seen.children.push(child(1, ChildState::Serving, 0, 0));
        assert_eq!(not_serving(&seen, &info()), [""; 0]);
    }
}
