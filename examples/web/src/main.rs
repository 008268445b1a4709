//! Sites, an API and a WebSocket on one port: registry, gateway and worker in one program.

mod talk;

use std::process::ExitCode;

use meepo_node::Master;

/// The settings of `meepo.toml`, with absolute paths to the folders of this example, so that it can be started from anywhere.
fn defaults() -> String {
    include_str!("../meepo.toml").replace("\"sites/", concat!("\"", env!("CARGO_MANIFEST_DIR"), "/sites/"))
}

fn main() -> ExitCode {
    Master::from_args()
        .version(env!("CARGO_PKG_VERSION"))
        .about("Sites, an API and a WebSocket on one port")
        .defaults(defaults())
        .instance(meepo_registry::instance())
        .instance(meepo_gateway::instance())
        .instance(meepo_worker::instance(|| talk::Talk))
        .run()
}
