//! Opens connections and holds them: how fast they open, and what they cost while they do nothing.

use std::time::{Duration, Instant};

use super::holders::Holders;
use crate::args::{Common, Idle};
use crate::connections::pool::{self, Pool};
use crate::error::Error;
use crate::measure::meter::{Latencies, Reading};
use crate::measure::processes::Processes;
use crate::measure::stamp::{Kind, Payload, Stamp};
use crate::report::{Faults, Held, Report, rounded};

/// Connections that have a large message under way at the same time.
const LARGE_AT_A_TIME: usize = 8;

/// Runs the load. Errors: connections that cannot be opened, processes that cannot be watched.
pub fn run(idle: &Idle) -> Result<Report, Error> {
    let common = &idle.common;
    let processes = Processes::watch(&common.pids)?;
    // Connections above this process's limit are held by others.
    let own = Common {
        conns: common.conns.min(pool::most()?),
        ..common.clone()
    };
    let mut pool = Pool::new(&own)?;
    let memory = processes.memory()?;
    let began = Reading::take(&processes)?;
    // The others come first: this process answers no ping while they are opened.
    let others = Holders::open(&own, common.conns - own.conns, false)?;
    pool.open(&own, idle.opening)?;
    let opened = Reading::take(&processes)?;
    rest(&mut pool, common.secs)?;
    let ended = Reading::take(&processes)?;
    let grown = processes.memory()?.saturating_sub(memory);
    let (mut lost, mut corrupt, mut after) = (0, 0, None);
    if let Some(size) = idle.large {
        (lost, corrupt) = send_large(&mut pool, size, common.connect_timeout)?;
        rest(&mut pool, idle.quiet)?;
        after = Some(processes.memory()?.saturating_sub(memory));
    }

    let mut latencies = Latencies::new();
    for took in &pool.opened {
        latencies.record(*took);
    }
    let (opening, holding) = (began.until(&opened), opened.until(&ended));
    let watched = !processes.is_empty();
    let each = |bytes: u64| rounded(bytes as f64 / common.conns as f64);
    let mut report = Report::of(
        "idle",
        common,
        opening,
        common.conns as u64,
        &latencies,
        Faults::of(&pool, lost, 0, corrupt).and(&others.close(0)?),
    );
    report.held = Some(Held {
        connections_per_s: report.rate,
        server_bytes_per_connection: watched.then(|| each(grown)),
        server_memory_bytes: watched.then_some(memory + grown),
        server_cores_idle: watched.then(|| rounded(holding.server.as_secs_f64() / holding.wall.as_secs_f64())),
        held_secs: rounded(holding.wall.as_secs_f64()),
        server_bytes_per_connection_after_large: after.filter(|_| watched).map(each),
    });
    Ok(report)
}

/// Holds the connections for this time, and sends nothing.
fn rest(pool: &mut Pool, time: Duration) -> Result<(), Error> {
    let until = Instant::now() + time;
    while Instant::now() < until {
        pool.turn(until, |_, _, _| {})?;
    }
    Ok(())
}

/// Sends one message on each connection and waits for its echo. Returns how many echoes are missing, and how many differ.
fn send_large(pool: &mut Pool, size: usize, timeout: Duration) -> Result<(u64, u64), Error> {
    if !pool.echoes() {
        return Err(Error::NoEcho);
    }
    let stamp = Stamp {
        kind: Kind::Echo,
        group: 0,
        number: 0,
        at: Duration::ZERO,
    };
    let mut payload = Payload::new(size);
    let (mut sent, mut received, mut corrupt) = (0, 0, 0);
    let mut deadline = Instant::now() + timeout;
    while received < pool.len() && Instant::now() < deadline {
        while sent < pool.len() && sent - received < LARGE_AT_A_TIME {
            pool.send(sent, payload.stamped(stamp));
            sent += 1;
        }
        let mut done = Vec::new();
        pool.turn(deadline, |number, answer, _| {
            done.push(number);
            corrupt += u64::from(payload.read(Kind::Echo, answer) != Some(stamp));
        })?;
        received += done.len();
        for number in &done {
            pool.shrink(*number);
        }
        if !done.is_empty() {
            deadline = Instant::now() + timeout;
        }
    }
    Ok(((pool.len() - received) as u64, corrupt))
}
