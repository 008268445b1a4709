//! `status --json` as types.

use serde::Deserialize;

/// What a master says of itself.
#[derive(Debug, Clone, Deserialize)]
pub struct Status {
    /// The program's name.
    pub name: String,
    /// The master.
    pub pid: u32,
    /// The program's version.
    pub version: String,
    /// `serving` once all children are.
    pub state: String,
    /// What is exhausted now.
    pub problems: Vec<String>,
    /// What the master runs.
    pub instances: Vec<Instance>,
}

/// Registry, gateway or worker.
#[derive(Debug, Clone, Deserialize)]
pub struct Instance {
    /// Which.
    pub name: String,
    /// What the children share.
    #[serde(default)]
    pub listeners: Vec<Listener>,
    /// Children that were replaced because they died.
    pub restarts: u64,
    /// Why the last of them died.
    pub last_exit: Option<String>,
    /// Those of now.
    pub children: Vec<Child>,
}

/// A listener that the children share.
#[derive(Debug, Clone, Deserialize)]
pub struct Listener {
    /// `ws`, `line`, …
    pub label: String,
    /// Address and port.
    pub address: String,
}

/// A child and its figures. A figure that its instance does not count is 0.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Child {
    /// The process; none while it backs off.
    pub pid: Option<u32>,
    /// Counted from 0.
    pub index: usize,
    /// `starting`, `serving`, `draining` or `backing_off`.
    pub state: String,
    /// Deaths.
    pub restarts: u64,
    /// Why it died last.
    pub last_exit: Option<String>,
    /// Seconds of processor time.
    pub cpu_s: f64,
    /// Memory in use.
    pub memory_bytes: u64,
    /// Connections now.
    pub connections: u64,
    /// Connections in all.
    pub connections_total: u64,
    /// Messages from clients.
    pub messages_in: u64,
    /// Messages to clients.
    pub messages_out: u64,
    /// Payload from clients.
    pub bytes_in: u64,
    /// Payload to clients.
    pub bytes_out: u64,
    /// Sends that did not arrive.
    pub failed_sends: u64,
    /// Errors and panics of handlers.
    pub handler_errors: u64,
    /// HTTP requests for workers.
    pub requests: u64,
    /// HTTP requests that the gateway answered with a 5xx.
    pub failed_requests: u64,
    /// Links that are up.
    pub links: u64,
    /// Events that wait.
    pub events_waiting: u64,
    /// Events at work.
    pub events_in_flight: u64,
    /// Listeners that accept nobody.
    pub blocked_listeners: u64,
    /// Clients that were closed because they did not read.
    pub slow_clients: u64,
    /// Sends that a full send buffer did not take.
    pub dropped_sends: u64,
    /// Clients that wait because a queue is full.
    pub held_back: u64,
    /// Queues that are full.
    pub full_queues: u64,
    /// Log lines that could not be written.
    pub lost_log_lines: u64,
}

impl Status {
    /// An instance by its name.
    ///
    /// # Panics
    ///
    /// When the master does not run it.
    pub fn instance(&self, name: &str) -> &Instance {
        self.instances
            .iter()
            .find(|instance| instance.name == name)
            .unwrap_or_else(|| panic!("no instance {name} in {self:?}"))
    }

    /// All children of all instances.
    pub fn children(&self) -> impl Iterator<Item = &Child> {
        self.instances.iter().flat_map(|instance| &instance.children)
    }

    /// Whether every child serves.
    pub fn all_serve(&self) -> bool {
        self.state == "serving" && self.children().all(|child| child.state == "serving")
    }
}

impl Instance {
    /// The processes of those children that have one.
    pub fn pids(&self) -> Vec<u32> {
        self.children.iter().filter_map(|child| child.pid).collect()
    }

    /// A figure, summed over the children.
    pub fn sum(&self, figure: impl Fn(&Child) -> u64) -> u64 {
        self.children.iter().map(figure).sum()
    }
}
