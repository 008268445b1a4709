//! `meepo-bench`: loads, and the cluster that they are for.

use std::process::ExitCode;

use clap::Parser;
use meepo_bench::args::{Cli, Command};
use meepo_bench::error::Error;
use meepo_bench::loads::{echo, fanout, hold, idle, large};
use meepo_bench::report::Report;
use meepo_bench::{cluster, limit, table};
use meepo_node::Allocator;

/// Messages are many small allocations.
#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Echo(load) => print(echo::run(&load)),
        Command::Fanout(load) => print(fanout::run(&load)),
        Command::Large(load) => print(large::run(&load)),
        Command::Hold(hold) => done(hold::run(&hold)),
        Command::Idle(load) => print(idle::run(&load)),
        Command::Table(args) => done(table::run(&args)),
        Command::Limit(args) => done(limit::run(&args)),
        Command::Cluster(rest) => cluster::cluster(rest.args),
        Command::Worker(rest) => cluster::worker(rest.args),
    }
}

/// A run with errors is printed, and is a failure.
fn print(result: Result<Report, Error>) -> ExitCode {
    match result {
        Ok(report) => {
            println!("{}", report.json());
            if report.errors == 0 {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => fail(&error),
    }
}

fn done(result: Result<(), Error>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &Error) -> ExitCode {
    eprintln!("meepo-bench: {error}");
    ExitCode::FAILURE
}
