//! The registry as a program.

use std::process::ExitCode;

use meepo_node::Master;

fn main() -> ExitCode {
    Master::from_args()
        .version(env!("CARGO_PKG_VERSION"))
        .about("The registry of a Meepo cluster: which nodes are alive.")
        .instance(meepo_registry::instance())
        .run()
}
