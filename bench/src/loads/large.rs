//! Large messages up and down, and the latency of small ones of other connections beside them.

use std::process::{Child, Command, Stdio};

use serde::Deserialize;

use super::echo;
use crate::args::{Common, Echo, Large};
use crate::error::Error;
use crate::report::{Beside, Report, rounded};

/// The figures of the run of small messages.
#[derive(Debug, Deserialize)]
struct Small {
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    errors: u64,
}

/// Runs the load: the small messages alone, then the large ones with the small ones beside them. Another process sends the
/// small ones, so that they do not wait while this one copies large ones. Errors: those of `echo`, in either process.
pub fn run(large: &Large) -> Result<Report, Error> {
    let quiet = small(large)?.wait_with_output()?;
    let quiet = Small::parse(&quiet.stdout)?;
    let small = small(large)?;
    let echo = Echo {
        load: large.load.clone(),
        held: 0,
        halfway: None,
    };
    let result = echo::run(&echo);
    let beside = Small::parse(&small.wait_with_output()?.stdout)?;
    let mut report = result?;
    report.command = "large";
    report.errors += quiet.errors + beside.errors;
    report.beside = Some(Beside {
        mib_per_s: rounded(report.rate * large.load.size as f64 / f64::from(1 << 20)),
        small_quiet_p50_ms: quiet.p50_ms,
        small_quiet_p99_ms: quiet.p99_ms,
        small_p50_ms: beside.p50_ms,
        small_p99_ms: beside.p99_ms,
        small_p99_times: match (beside.p99_ms, quiet.p99_ms) {
            (Some(beside), Some(quiet)) if quiet > 0.0 => Some(rounded(beside / quiet)),
            _ => None,
        },
    });
    Ok(report)
}

/// Starts the run of small messages.
fn small(large: &Large) -> Result<Child, Error> {
    let load = &large.load;
    let Common {
        urls,
        secs,
        connect_timeout,
        ..
    } = &load.common;
    let seconds = |time: &std::time::Duration| time.as_secs_f64().to_string();
    Ok(Command::new(std::env::current_exe()?)
        .args(["echo", "--conns", &large.small.to_string()])
        .args([
            "--rate",
            &large.small_rate.to_string(),
            "--drain",
            &seconds(&load.drain),
        ])
        .args(["--secs", &seconds(secs), "--warmup", &seconds(&load.warmup)])
        .args(["--connect-timeout", &seconds(connect_timeout)])
        .arg("--url")
        .args(urls)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?)
}

impl Small {
    fn parse(line: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(line).map_err(|error| Error::Command {
            command: "echo of small messages".into(),
            reason: error.to_string(),
        })
    }
}
