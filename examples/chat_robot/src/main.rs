//! A page that talks to a robot: registry, gateway and worker in one program.

mod robot;
mod rules;

use std::process::ExitCode;

use meepo_node::Master;

const PAGE: &[(&str, &[u8])] = &[
    ("/index.html", include_bytes!("../page/index.html")),
    ("/style.css", include_bytes!("../page/style.css")),
    ("/app.js", include_bytes!("../page/app.js")),
];

fn main() -> ExitCode {
    Master::from_args()
        .version(env!("CARGO_PKG_VERSION"))
        .about("A page that talks to a robot")
        .instance(meepo_registry::instance())
        .instance(meepo_gateway::instance().assets(PAGE))
        .instance(meepo_worker::instance(|| robot::Robot))
        .run()
}
