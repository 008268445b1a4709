//! The table: every workload on every server in turn, for several rounds, side by side.
//!
//! It starts the servers and runs the loads as commands of this program; how a load works is unknown here.

mod result;
mod server;
mod workload;

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use result::{Results, Run};
use server::Server;
use workload::Workload;

use crate::args;
use crate::connections::pool;
use crate::connections::wire::Target;
use crate::error::Error;

/// Runs the table and prints it as Markdown; progress goes to the standard error. Errors: an unknown workload, a peer that
/// cannot be started.
pub fn run(args: &args::Table) -> Result<(), Error> {
    let mut servers = server::chosen(args)?;
    let (installed, absent) = match &args.peers {
        Some(folder) => server::found(folder)?,
        None => Default::default(),
    };
    servers.extend(installed.into_iter().map(Server::Peer));
    let workloads = workload::chosen(&args.only)?;
    let mut results: BTreeMap<(usize, usize), Results> = BTreeMap::new();
    for round in 0..args.rounds {
        for (row, workload) in workloads.iter().enumerate() {
            // The server that is first in one round comes later in the next, so that other work of the machine disturbs all alike.
            for turn in 0..servers.len() {
                let column = (turn + round) % servers.len();
                let server = &servers[column];
                eprintln!(
                    "round {} of {}: {} on {}",
                    round + 1,
                    args.rounds,
                    workload.name,
                    server.name()
                );
                let results = results.entry((row, column)).or_default();
                match measure(server, workload, args) {
                    Ok(Some(run)) => results.add(run),
                    Ok(None) => results.cannot = true,
                    Err(error) => {
                        eprintln!("meepo-bench: {error}");
                        results.failed += 1;
                    }
                }
            }
        }
    }
    print!("{}", result::header(args, &servers, &absent)?);
    for (row, workload) in workloads.iter().enumerate() {
        let of_row = servers.iter().enumerate().map(|(column, server)| {
            let results = results.get(&(row, column)).expect("each was run at least once");
            (server.name(), results)
        });
        print!("{}", workload.print(&of_row.collect::<Vec<_>>()));
    }
    Ok(())
}

/// Runs one load on a server that is started for it; none if the server cannot take the load.
fn measure(server: &Server, workload: &Workload, args: &args::Table) -> Result<Option<Run>, Error> {
    if workload.crowd.is_some() && !server.takes_crowds() {
        return Ok(None);
    }
    let gateways = workload.crowd.map_or(Ok(1), gateways)?;
    let running = server.start(gateways)?;
    let target = Target::parse(running.url())?;
    if !workload.suits(&target) {
        return Ok(None);
    }
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg(workload.load[0])
        .args(["--secs", &args.secs.as_secs_f64().to_string()])
        .args(&workload.load[1..])
        .args(["--url", running.url(), "--pid", &running.pid().to_string()])
        .args(&args.rest)
        .stderr(Stdio::inherit());
    let output = command.output()?;
    Run::parse(&output.stdout).map(Some).ok_or_else(|| Error::Command {
        command: format!("{command:?}"),
        reason: format!("{} on {}: {}", workload.name, server.name(), output.status),
    })
}

/// Gateway children for this number of connections: each may have a little less than a process can, as children never share
/// evenly.
fn gateways(conns: usize) -> Result<usize, Error> {
    Ok(conns.div_ceil(pool::most()? * 7 / 8))
}
