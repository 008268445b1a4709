//! The webhook worker as a program.

use std::process::ExitCode;

use meepo_node::{Allocator, Master};

/// Messages are many small allocations.
#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    Master::from_args()
        .version(env!("CARGO_PKG_VERSION"))
        .about("A worker of a Meepo cluster whose business logic is an HTTP endpoint of yours.")
        .instance(meepo_worker::webhook::instance())
        .run()
}
