//! Opens connections and holds them: how fast they open, and what they cost while they do nothing.

use std::time::Instant;

use crate::args::Idle;
use crate::error::Error;
use crate::pool::Pool;
use crate::procs::Procs;
use crate::report::{Faults, Held, Report, rounded};
use crate::stats::{Latencies, Reading};

/// Runs the load.
pub fn run(idle: &Idle) -> Result<Report, Error> {
    let common = &idle.common;
    let procs = Procs::watch(&common.pids)?;
    let mut pool = Pool::new(common)?;
    let memory = procs.memory()?;
    let began = Reading::take(&procs)?;
    pool.open(common, idle.opening)?;
    let opened = Reading::take(&procs)?;
    let until = Instant::now() + common.secs;
    while Instant::now() < until {
        pool.turn(until, |_, _, _| {})?;
    }
    let ended = Reading::take(&procs)?;
    let grown = procs.memory()?.saturating_sub(memory);

    let mut latencies = Latencies::new();
    for took in &pool.opened {
        latencies.record(*took);
    }
    let (opening, holding) = (began.until(&opened), opened.until(&ended));
    let watched = !procs.is_empty();
    let mut report = Report::of(
        "idle",
        common,
        opening,
        common.conns as u64,
        &latencies,
        Faults::of(&pool, 0, 0, 0),
    );
    report.held = Some(Held {
        connections_per_s: report.rate,
        server_bytes_per_connection: watched.then(|| rounded(grown as f64 / common.conns as f64)),
        server_memory_bytes: watched.then_some(memory + grown),
        server_cores_idle: watched.then(|| rounded(holding.server.as_secs_f64() / holding.wall.as_secs_f64())),
        held_secs: rounded(holding.wall.as_secs_f64()),
    });
    Ok(report)
}
