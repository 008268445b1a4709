//! Group talk for telnet: registry, gateway and worker in one program.

mod ask;
mod talk;

use std::process::ExitCode;

use meepo_node::Master;

fn main() -> ExitCode {
    Master::from_args()
        .version(env!("CARGO_PKG_VERSION"))
        .about("Group talk for telnet")
        .instance(meepo_registry::instance())
        .instance(meepo_gateway::instance())
        .instance(meepo_worker::instance(|| talk::Talk))
        .run()
}
