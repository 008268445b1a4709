//! Live log lines of several machines: registry, gateway with the page and worker in one program, and the agent that
//! follows files.

mod agent;
mod batch;
mod tail;
mod viewers;

use std::process::ExitCode;

use clap::Parser;
use meepo_node::Master;

const PAGE: &[(&str, &[u8])] = &[
    ("/index.html", include_bytes!("../page/index.html")),
    ("/style.css", include_bytes!("../page/style.css")),
    ("/app.js", include_bytes!("../page/app.js")),
];

/// The exit code of all commands whose arguments are wrong.
const WRONG_USAGE: u8 = 64;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|first| first == "agent") {
        return match agent::Agent::try_parse_from(std::env::args_os().skip(1)) {
            Ok(agent) => agent.run(),
            Err(error) => {
                // If the output is closed, there is no other way to tell the user.
                let _ = error.print();
                if error.use_stderr() {
                    ExitCode::from(WRONG_USAGE)
                } else {
                    ExitCode::SUCCESS
                }
            }
        };
    }
    Master::from_args()
        .version(env!("CARGO_PKG_VERSION"))
        .about("Live log lines of several machines. The agent is `logs agent --help`")
        .instance(meepo_registry::instance())
        .instance(meepo_gateway::instance().assets(PAGE))
        .instance(meepo_worker::instance(|| viewers::Viewers))
        .run()
}
