//! A chat room for browsers and telnet: registry, gateway and worker in one program.

mod chat;
mod protocol;

use std::process::ExitCode;

use meepo_node::{Allocator, Master};

/// Messages make many small allocations, which this allocator serves fast.
#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

const PAGE: &[(&str, &[u8])] = &[
    ("/index.html", include_bytes!("../page/index.html")),
    ("/style.css", include_bytes!("../page/style.css")),
    ("/app.js", include_bytes!("../page/app.js")),
    ("/parts.js", include_bytes!("../page/parts.js")),
    ("/connection.js", include_bytes!("../page/connection.js")),
];

fn main() -> ExitCode {
    Master::from_args()
        .version(env!("CARGO_PKG_VERSION"))
        .about("A chat room for browsers and telnet")
        .instance(meepo_registry::instance())
        .instance(meepo_gateway::instance().assets(PAGE))
        .instance(meepo_worker::instance(|| chat::Chat))
        .run()
}
