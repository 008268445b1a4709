//! What a run prints: one line of JSON. The README says what each field means.

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
    /// Where the connections went.
    pub urls: Vec<String>,
    /// How many there were.
    pub conns: usize,
    /// What the messages were; `idle` has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<Offered>,
    /// How long the measured time was.
    pub secs: f64,
    /// What came back in it: answers, deliveries, or opened connections.
    pub messages: u64,
    /// The same per second.
    pub rate: f64,
    /// Half of the messages were not later than this, in milliseconds.
    pub p50_ms: Option<f64>,
    /// Nine of ten.
    pub p90_ms: Option<f64>,
    /// Ninety-nine of a hundred.
    pub p99_ms: Option<f64>,
    /// All.
    pub max_ms: Option<f64>,
    /// The sum of all faults.
    pub errors: u64,
    /// What they were.
    #[serde(flatten)]
    pub faults: Faults,
    /// Processor time of the watched processes per message, in microseconds.
    pub server_cpu_us_per_message: Option<f64>,
    /// Processor time of the watched processes per second.
    pub server_cores: Option<f64>,
    /// Processor time of this program per second.
    pub client_cores: f64,
    /// This program was busy, so that the server is not what was measured.
    pub client_bottleneck: bool,
    /// Publishes that all members got in the measured time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publishes: Option<u64>,
    /// What connections cost while they are held.
    #[serde(flatten)]
    pub held: Option<Held>,
    /// How large messages and small ones got on.
    #[serde(flatten)]
    pub beside: Option<Beside>,
    /// How late messages were while something was done to the servers.
    #[serde(flatten)]
    pub disturbed: Option<Disturbed>,
}

/// What a run asked for.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Offered {
    /// Payload bytes of a message.
    pub size: usize,
    /// Of a closed loop: messages in flight.
    pub inflight: Option<usize>,
    /// Of an open loop: messages a second.
    pub rate: Option<f64>,
}

/// What went wrong.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Faults {
    /// Messages that had not come when the drain time was over.
    pub lost: u64,
    /// Messages that were not the next one of their connection.
    pub reordered: u64,
    /// Messages that came back changed.
    pub corrupt: u64,
    /// Connections that ended during the run.
    pub ended: u64,
    /// Why the first of them did.
    pub first_failure: Option<String>,
}

/// What held connections have missed.
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
    /// How fast connections were opened.
    pub connections_per_s: f64,
    /// Growth of the servers' memory, by connection.
    pub server_bytes_per_connection: Option<f64>,
    /// The servers' memory with all connections open.
    pub server_memory_bytes: Option<u64>,
    /// Processor time of the watched processes per second, while connections are held.
    pub server_cores_idle: Option<f64>,
    /// How long connections were held.
    pub held_secs: f64,
    /// Growth of the servers' memory, by connection, after a large message on each and a quiet time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_bytes_per_connection_after_large: Option<f64>,
}

/// How large messages and small ones of other connections got on.
#[derive(Debug, Clone, Serialize)]
pub struct Beside {
    /// Large messages per second, by their size.
    pub mib_per_s: f64,
    /// Half of the small messages alone were not later than this, in milliseconds.
    pub small_quiet_p50_ms: Option<f64>,
    /// Ninety-nine of a hundred.
    pub small_quiet_p99_ms: Option<f64>,
    /// The same beside the large ones.
    pub small_p50_ms: Option<f64>,
    /// Ninety-nine of a hundred.
    pub small_p99_ms: Option<f64>,
    /// How many times the quiet one `small_p99_ms` is.
    pub small_p99_times: Option<f64>,
}

/// How late messages were before and during a disturbance.
#[derive(Debug, Clone, Serialize)]
pub struct Disturbed {
    /// How long its command took, in seconds.
    pub command_s: f64,
    /// Half of the messages that were due before it were not later than this, in milliseconds.
    pub quiet_p50_ms: Option<f64>,
    /// Ninety-nine of a hundred.
    pub quiet_p99_ms: Option<f64>,
    /// All.
    pub quiet_max_ms: Option<f64>,
    /// The same for those that were due from its start until a second after its end.
    pub disturbed_p50_ms: Option<f64>,
    /// Ninety-nine of a hundred.
    pub disturbed_p99_ms: Option<f64>,
    /// All.
    pub disturbed_max_ms: Option<f64>,
    /// How many times the quiet one `disturbed_p99_ms` is.
    pub disturbed_p99_times: Option<f64>,
}

impl Faults {
    /// What the connections have seen, beside what the messages tell.
    pub(crate) fn of(pool: &Pool, lost: u64, reordered: u64, corrupt: u64) -> Self {
        Self {
            lost,
            reordered,
            corrupt,
            ended: pool.ended,
            first_failure: pool.first_failure.as_ref().map(ToString::to_string),
        }
    }

    /// With what connections in other processes have missed.
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
    /// The report of a run that is told by its messages.
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

/// Three digits after the point: microseconds of what is told in milliseconds.
pub(crate) fn rounded(figure: f64) -> f64 {
    (figure * 1000.0).round() / 1000.0
}
