//! `status`.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use super::with_node::with_node;
use crate::observe::status::{self, NodeStatus};
use crate::process::control::ControlRequest;
use crate::process::node_handle::{ANSWER_TIME, Found};
use crate::process::program::Master;
use crate::process::setup::Options;
use crate::process::terminal::{NOT_RUNNING, NOT_SERVING};

/// Prints how the node does: once, or each second until the reader is gone.
pub(crate) fn status(program: &Master, options: &Options, json: bool, watch: bool) -> ExitCode {
    loop {
        let mut closed = false;
        let code = with_node(program, options, |found| match found {
            Found::NotRunning(node) => {
                closed = show(&format!("{} is not running\n", node.name), watch).is_err();
                Ok(ExitCode::from(NOT_RUNNING))
            }
            Found::Running(handle) => {
                let status: NodeStatus = match handle.ask(ControlRequest::Status, Some(ANSWER_TIME)) {
                    Ok(status) => status,
                    // It ended just as it was asked.
                    Err(_) if handle.has_ended() => {
                        closed = show(&format!("{} is not running\n", handle.node.name), watch).is_err();
                        return Ok(ExitCode::from(NOT_RUNNING));
                    }
                    Err(error) => return Err(handle.no_answer(&error)),
                };
                let text = match json {
                    true => serde_json::to_string(&status).map_err(|error| error.to_string())? + "\n",
                    false => status::text(&status, &program.tables()),
                };
                closed = show(&text, watch && !json).is_err();
                Ok(match status.all_serve() {
                    true => ExitCode::SUCCESS,
                    false => ExitCode::from(NOT_SERVING),
                })
            }
        });
        if !watch || closed {
            return code;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Prints, over the text that was printed before if that is wanted and possible.
fn show(text: &str, redraw: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if redraw && out.is_terminal() {
        out.write_all(b"\x1b[H\x1b[J")?;
    }
    out.write_all(text.as_bytes())?;
    out.flush()
}
