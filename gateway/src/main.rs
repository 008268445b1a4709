//! The gateway on its own.

use std::process::ExitCode;

use meepo_node::{Allocator, Master};

/// Messages are many small allocations.
#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    Master::from_args()
        .version(env!("CARGO_PKG_VERSION"))
        .about("Holds client sockets and hands what they send to workers.")
        .instance(meepo_gateway::instance())
        .run()
}
