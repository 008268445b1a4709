//! Meepo as the server to put load on: `meepo-bench cluster` and `meepo-bench worker` are masters like any other.
//!
//! `main` hands the command line over. Nothing here knows the loads.

use std::ffi::OsString;
use std::process::ExitCode;

use meepo_node::Master;

mod handler;

use handler::Room;

/// Registry, gateway and worker under one master.
pub fn cluster(args: Vec<OsString>) -> ExitCode {
    master("meepo-bench", "A cluster to put load on.", args)
        .instance(meepo_registry::instance())
        .instance(meepo_gateway::instance())
        .instance(meepo_worker::instance(|| Room))
        .run()
}

/// The worker alone.
pub fn worker(args: Vec<OsString>) -> ExitCode {
    master("meepo-bench-worker", "The worker of a cluster to put load on.", args)
        .instance(meepo_worker::instance(|| Room))
        .run()
}

fn master(name: &str, about: &'static str, args: Vec<OsString>) -> Master {
    Master::with_args(name, args)
        .version(env!("CARGO_PKG_VERSION"))
        .about(about)
}
