//! Live charts of processor and memory of several hosts: registry, gateway with the page and worker in one program, and
//! the agent that measures.

mod agent;
mod backlog;
mod board;
mod measure;
mod sample;
mod store;

use std::process::ExitCode;

use clap::Parser;
use meepo_node::Master;

const PAGE: &[(&str, &[u8])] = &[
    ("/index.html", include_bytes!("../page/index.html")),
    ("/style.css", include_bytes!("../page/style.css")),
    ("/app.js", include_bytes!("../page/app.js")),
    ("/chart.js", include_bytes!("../page/chart.js")),
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
        .about("Live charts of several hosts. The agent is `monitor agent --help`")
        .instance(meepo_registry::instance())
        .instance(meepo_gateway::instance().assets(PAGE))
        .instance(meepo_worker::instance(board::Board::default))
        .run()
}
