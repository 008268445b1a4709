//! The command line.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::measure::stamp;

/// Puts load on a realtime gateway, and says what it cost.
#[derive(Debug, Parser)]
#[command(name = "meepo-bench", version, args_override_self = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Every connection sends messages and gets each back
    Echo(Echo),
    /// Every connection joins one room, and one of them publishes; or many groups do so in turn
    Fanout(Fanout),
    /// Large messages, and small ones of other connections beside them
    Large(Large),
    /// Opens connections and holds them
    Idle(Idle),
    /// Connections for another run of this program
    #[command(hide = true)]
    Hold(Hold),
    /// All loads on several servers side by side, as a table
    Table(Table),
    /// A server that does as little as can be done, to compare others with
    Limit(Limit),
    /// Registry, gateway and worker under one master: start, stop, status, …
    #[command(disable_help_flag = true)]
    Cluster(Rest),
    /// The worker alone: start, stop, status, …
    #[command(disable_help_flag = true)]
    Worker(Rest),
}

/// The command line that a master gets.
#[derive(Debug, Args)]
pub struct Rest {
    /// A command of the master and its options
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<OsString>,
}

/// Options of all runs.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// Where to connect: ws://HOST:PORT/PATH or line://HOST:PORT, or a peer's nats+ws: or nchan+ws:; with several, connections take turns
    #[arg(long = "url", value_name = "URL", required = true, num_args = 1..)]
    pub urls: Vec<String>,
    /// Connections
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = at_least_one)]
    pub conns: usize,
    /// Measured time in seconds
    #[arg(long, value_name = "S", default_value = "5", value_parser = seconds)]
    pub secs: Duration,
    /// Server processes to watch; all their descendants count too
    #[arg(long = "pid", value_name = "PID", num_args = 1..)]
    pub pids: Vec<u32>,
    /// How long the server may take to answer while connections are opened, in seconds
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds)]
    pub connect_timeout: Duration,
}

/// Options of all loads with messages.
#[derive(Debug, Clone, Args)]
pub struct Load {
    /// Options of all runs.
    #[command(flatten)]
    pub common: Common,
    /// Payload bytes of a message
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = payload_size)]
    pub size: usize,
    /// Closed loop: messages in flight (echo: per connection; fanout: publishes in all)
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = at_least_one, conflicts_with = "rate")]
    pub inflight: usize,
    /// Open loop: messages (fanout: publishes) a second in all
    #[arg(long, value_name = "R", value_parser = positive)]
    pub rate: Option<f64>,
    /// Seconds of load before the measured time
    #[arg(long, value_name = "S", default_value = "1", value_parser = seconds)]
    pub warmup: Duration,
    /// How long to wait for late messages after the measured time, in seconds
    #[arg(long, value_name = "S", default_value = "5", value_parser = seconds)]
    pub drain: Duration,
}

/// Options of `echo`.
#[derive(Debug, Clone, Args)]
pub struct Echo {
    /// Options of all loads with messages.
    #[command(flatten)]
    pub load: Load,
    /// Further connections that are held meanwhile and do nothing
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub held: usize,
    /// A shell command that is run in the middle of the measured time; latencies from its start until a second after
    /// its end are also reported apart, beside those from before it
    #[arg(long, value_name = "COMMAND")]
    pub halfway: Option<String>,
}

/// Options of `fanout`.
#[derive(Debug, Clone, Args)]
pub struct Fanout {
    /// Options of all loads with messages.
    #[command(flatten)]
    pub load: Load,
    /// Further members of the one room, held by other processes
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "groups")]
    pub held: usize,
    /// Number of groups in place of the one room; publishes go to them in turn
    #[arg(long, value_name = "N", value_parser = at_least_one, requires = "members")]
    pub groups: Option<usize>,
    /// Members of each group
    #[arg(long, value_name = "N", value_parser = at_least_one, requires = "groups")]
    pub members: Option<usize>,
    /// Number of members of the one room that publish in turn, each to all but itself
    #[arg(long, value_name = "N", value_parser = at_least_one, conflicts_with_all = ["groups", "held"])]
    pub talkers: Option<usize>,
}

/// Options of `large`.
#[derive(Debug, Clone, Args)]
pub struct Large {
    /// Options of all loads with messages; here they are for the large ones.
    #[command(flatten)]
    pub load: Load,
    /// Connections with small messages
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = at_least_one)]
    pub small: usize,
    /// Small messages a second in all
    #[arg(long, value_name = "R", default_value = "1000", value_parser = positive)]
    pub small_rate: f64,
}

/// Options of `hold`.
#[derive(Debug, Clone, Args)]
pub struct Hold {
    /// Options of all runs.
    #[command(flatten)]
    pub common: Common,
    /// The number of the first connection
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub first: usize,
    /// Join the room
    #[arg(long)]
    pub join: bool,
}

/// Options of `idle`.
#[derive(Debug, Clone, Args)]
pub struct Idle {
    /// Options of all runs.
    #[command(flatten)]
    pub common: Common,
    /// Connections that are being opened at the same time
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = at_least_one)]
    pub opening: usize,
    /// After the held time, every connection sends one message of this size and gets it back, a few at a time
    #[arg(long, value_name = "BYTES", value_parser = payload_size)]
    pub large: Option<usize>,
    /// Seconds without a message after that, before memory is measured again
    #[arg(long, value_name = "S", default_value = "60", value_parser = seconds)]
    pub quiet: Duration,
    /// Unused: all loads can be started with the same options
    #[arg(long, value_name = "BYTES")]
    pub size: Option<usize>,
}

/// Options of `limit`.
#[derive(Debug, Clone, Args)]
pub struct Limit {
    /// Where to listen; port 0 is any free one
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:0")]
    pub address: SocketAddr,
    /// Processes that a message passes: 1, or 2 with a Unix socket between them
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=2))]
    pub hops: u8,
    /// Be the second process; the standard input is the link
    #[arg(long, hide = true)]
    pub back: bool,
}

/// Options of `table`.
#[derive(Debug, Clone, Args)]
pub struct Table {
    /// How often each load is put on each server
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = at_least_one)]
    pub rounds: usize,
    /// Measured time of a run in seconds
    #[arg(long, value_name = "S", default_value = "3", value_parser = seconds)]
    pub secs: Duration,
    /// Only these loads; some are run only if they are named
    #[arg(long, value_name = "LOAD", num_args = 1..)]
    pub only: Vec<String>,
    /// Measure Meepo with this number of gateway children as well
    #[arg(long, value_name = "N", num_args = 1..)]
    pub gateways: Vec<usize>,
    /// Another build of this program, whose cluster is measured as well
    #[arg(long, value_name = "PROGRAM")]
    pub build: Vec<PathBuf>,
    /// A program that serves as a peer does; see `bench/peers`
    #[arg(long, value_name = "PROGRAM")]
    pub peer: Vec<PathBuf>,
    /// A folder of such programs; those whose servers are installed are measured
    #[arg(long, value_name = "FOLDER")]
    pub peers: Option<PathBuf>,
    /// Options for all loads, after `--`: they stand behind those of the table
    #[arg(last = true, value_name = "OPTION")]
    pub rest: Vec<String>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds")?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate.is_finite() => Ok(rate),
        _ => Err("not a number above 0".into()),
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("not a whole number above 0".into()),
        Ok(number) => Ok(number),
    }
}

fn payload_size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(size) if (stamp::SIZE..=stamp::MAX_PAYLOAD).contains(&size) => Ok(size),
        _ => Err(format!(
            "a payload has {} to {} bytes: it carries a number and a time",
            stamp::SIZE,
            stamp::MAX_PAYLOAD
        )),
    }
}
