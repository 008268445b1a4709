//! The report of a run: one line of JSON. The README says what each field means.

use serde::Serialize;

use crate::args::{Common, Load};
use crate::connections::pool::Pool;
use crate::measure::meter::{Latencies, Measured, Usage};

/// Above this share of a core, the generator is what was measured.
const BUSY_CLIENT: f64 = 0.9;

/// The result of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The load.
    pub command: &'static str,
    /// The servers' URLs.
    pub urls: Vec<String>,
    /// Connections.
    pub conns: usize,
    /// The messages that were sent; `idle` has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<Offered>,
    /// The measured time, in seconds.
    pub secs: f64,
    /// Answers, deliveries, or opened connections in the measured time.
    pub messages: u64,
    /// `messages` per second.
    pub rate: f64,
    /// The median latency, in milliseconds.
    pub p50_ms: Option<f64>,
    /// The latency that 90 % of the messages did not exceed.
    pub p90_ms: Option<f64>,
    /// The latency that 99 % of the messages did not exceed.
    pub p99_ms: Option<f64>,
    /// The largest latency.
    pub max_ms: Option<f64>,
    /// The sum of all faults.
    pub errors: u64,
    /// The faults by kind.
    #[serde(flatten)]
    pub faults: Faults,
    /// Processor time of the watched processes per message, in microseconds.
    pub server_cpu_us_per_message: Option<f64>,
    /// Processor time of the watched processes per second.
    pub server_cores: Option<f64>,
    /// Processor time of this program per second.
    pub client_cores: f64,
    /// This program was busy: it was measured, not the server.
    pub client_bottleneck: bool,
    /// Publishes that all members got in the measured time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publishes: Option<u64>,
    /// Of `idle`: what connections cost while they are held.
    #[serde(flatten)]
    pub held: Option<Held>,
    /// Of `large`: the throughput of large messages, and the latency of small ones beside them.
    #[serde(flatten)]
    pub beside: Option<Beside>,
    /// With `--halfway`: latencies before and during the command.
    #[serde(flatten)]
    pub disturbed: Option<Disturbed>,
}

/// The messages that a run sent.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Offered {
    /// Payload bytes of a message.
    pub size: usize,
    /// Messages in flight, if the loop is closed.
    pub inflight: Option<usize>,
    /// Messages a second, if the loop is open.
    pub rate: Option<f64>,
}

/// The faults of a run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Faults {
    /// Messages that had not come when the drain time was over.
    pub lost: u64,
    /// Messages out of their connection's order: each gap, repetition or late message.
    pub reordered: u64,
    /// Messages that came back changed.
    pub corrupt: u64,
    /// Connections that ended during the run.
    pub ended: u64,
    /// Why the first of these connections ended.
    pub first_failure: Option<String>,
}

/// What connections that other processes hold have missed.
#[derive(Debug, Default)]
pub(crate) struct Missed {
    /// Messages that have not come.
    pub(crate) messages: u64,
    /// Connections that have ended.
    pub(crate) connections: u64,
}

/// What connections cost while they do nothing.
#[derive(Debug, Clone, Serialize)]
pub struct Held {
    /// Connections opened per second.
    pub connections_per_s: f64,
    /// Growth of the servers' memory in bytes, divided by the connections.
    pub server_bytes_per_connection: Option<f64>,
    /// The servers' memory with all connections open.
    pub server_memory_bytes: Option<u64>,
    /// Processor time of the watched processes per second, while connections are held.
    pub server_cores_idle: Option<f64>,
    /// How long connections were held, in seconds.
    pub held_secs: f64,
    /// The same after a large message on each connection and a quiet time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_bytes_per_connection_after_large: Option<f64>,
}

/// The throughput of large messages, and the latency of small ones of other connections beside them.
#[derive(Debug, Clone, Serialize)]
pub struct Beside {
    /// Throughput of the large messages one way, in MiB per second.
    pub mib_per_s: f64,
    /// The small messages' median latency without large ones, in milliseconds.
    pub small_quiet_p50_ms: Option<f64>,
    /// Their 99th percentile.
    pub small_quiet_p99_ms: Option<f64>,
    /// Their median latency beside large ones.
    pub small_p50_ms: Option<f64>,
    /// Their 99th percentile beside large ones.
    pub small_p99_ms: Option<f64>,
    /// `small_p99_ms` divided by `small_quiet_p99_ms`.
    pub small_p99_times: Option<f64>,
}

/// Latencies before and during a disturbance.
#[derive(Debug, Clone, Serialize)]
pub struct Disturbed {
    /// How long the command took, in seconds.
    pub command_s: f64,
    /// The median latency of messages that were due before the command, in milliseconds.
    pub quiet_p50_ms: Option<f64>,
    /// Their 99th percentile.
    pub quiet_p99_ms: Option<f64>,
    /// Their largest latency.
    pub quiet_max_ms: Option<f64>,
    /// The median latency of messages that were due from its start until a second after its end.
    pub disturbed_p50_ms: Option<f64>,
    /// Their 99th percentile.
    pub disturbed_p99_ms: Option<f64>,
    /// Their largest latency.
    pub disturbed_max_ms: Option<f64>,
    /// `disturbed_p99_ms` divided by `quiet_p99_ms`.
    pub disturbed_p99_times: Option<f64>,
}

impl Faults {
    /// The faults that the messages show, and the connections that have ended.
    pub(crate) fn of(pool: &Pool, lost: u64, reordered: u64, corrupt: u64) -> Self {
        Self {
            lost,
            reordered,
            corrupt,
            ended: pool.ended,
            first_failure: pool.first_failure.as_ref().map(ToString::to_string),
        }
    }

    /// Adds what connections in other processes have missed.
    pub(crate) fn and(mut self, missed: &Missed) -> Self {
        self.lost += missed.messages;
        self.ended += missed.connections;
        self
    }

    fn sum(&self) -> u64 {
        self.lost + self.reordered + self.corrupt + self.ended
    }
}

impl Report {
    /// The report of a run with messages.
    pub(crate) fn new(command: &'static str, common: &Common, measured: &Measured, faults: Faults) -> Self {
        Self::of(
            command,
            common,
            measured.usage,
            measured.messages,
            &measured.latencies,
            faults,
        )
    }

    /// One line, fields in the order in which the README explains them.
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("its keys are strings and its figures have a JSON form")
    }

    pub(crate) fn of(
        command: &'static str,
        common: &Common,
        usage: Usage,
        messages: u64,
        latencies: &Latencies,
        faults: Faults,
    ) -> Self {
        let secs = usage.wall.as_secs_f64();
        let server = (!common.pids.is_empty()).then_some(usage.server.as_secs_f64());
        let client_cores = usage.client.as_secs_f64() / secs;
        Self {
            command,
            urls: common.urls.clone(),
            conns: common.conns,
            load: None,
            secs,
            messages,
            rate: rounded(messages as f64 / secs),
            p50_ms: latencies.percentile(50.0).map(rounded),
            p90_ms: latencies.percentile(90.0).map(rounded),
            p99_ms: latencies.percentile(99.0).map(rounded),
            max_ms: latencies.max().map(rounded),
            errors: faults.sum(),
            faults,
            server_cpu_us_per_message: server
                .filter(|_| messages > 0)
                .map(|server| rounded(server * 1e6 / messages as f64)),
            server_cores: server.map(|server| rounded(server / secs)),
            client_cores: rounded(client_cores),
            client_bottleneck: client_cores > BUSY_CLIENT,
            publishes: None,
            held: None,
            beside: None,
            disturbed: None,
        }
    }
}

impl From<&Load> for Offered {
    fn from(load: &Load) -> Self {
        Self {
            size: load.size,
            inflight: load.rate.is_none().then_some(load.inflight),
            rate: load.rate,
        }
    }
}

/// Three digits after the point: microseconds of a figure in milliseconds.
pub(crate) fn rounded(figure: f64) -> f64 {
    (figure * 1000.0).round() / 1000.0
}
