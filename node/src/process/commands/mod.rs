//! The commands that speak with a node that runs.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use crate::observe::status::{self, NodeStatus};
use crate::process::cli::{self, complain, print};
use crate::process::control::{Answer, Request};
use crate::process::node_handle::{Found, PATIENCE, find};
use crate::process::program::Master;
use crate::process::setup::{Options, Setup, read_config, read_whereabouts};

pub(crate) fn stop(program: &Master, options: &Options) -> ExitCode {
    with_node(program, options, |found| match found {
        Found::Not(node) => {
            print(&format!("{} is not running\n", node.name));
            Ok(ExitCode::SUCCESS)
        }
        Found::Running(running) => {
            running.stop()?;
            print(&format!("{} is stopped\n", running.node.name));
            Ok(ExitCode::SUCCESS)
        }
    })
}

pub(crate) fn kill(program: &Master, options: &Options) -> ExitCode {
    with_node(program, options, |found| match found {
        Found::Not(node) => {
            print(&format!("{} is not running\n", node.name));
            Ok(ExitCode::SUCCESS)
        }
        Found::Running(running) => {
            running.kill()?;
            print(&format!("{} is killed\n", running.node.name));
            Ok(ExitCode::SUCCESS)
        }
    })
}

pub(crate) fn restart(program: &Master, given: Options) -> ExitCode {
    let mut options = given.clone();
    let code = with_node(program, &given, |found| {
        if let Found::Running(running) = found {
            if let Ok(before) = running.ask::<Options>(Request::Options, Some(PATIENCE)) {
                options.config = given.config.clone().or(before.config);
                options.daemon |= before.daemon;
                if options.only.is_empty() {
                    options.only = before.only;
                }
            }
            // A configuration that is wrong must not cost a node that runs.
            if let Err(error) = Setup::read(program, &options) {
                return Ok(cli::wrong_config(program, &error));
            }
            running.stop()?;
        }
        Ok(ExitCode::SUCCESS)
    });
    if code == ExitCode::SUCCESS {
        cli::start(program, options)
    } else {
        code
    }
}

pub(crate) fn reload(program: &Master, options: &Options) -> ExitCode {
    with_node(program, options, |found| match found {
        Found::Not(node) => Err(format!("{} is not running", node.name)),
        Found::Running(running) => {
            let name = &running.node.name;
            match running.ask::<Answer>(Request::Reload, None) {
                Ok(Answer { ok: true, .. }) => {
                    print(&format!("{name} is reloaded\n"));
                    Ok(ExitCode::SUCCESS)
                }
                Ok(Answer { reason, .. }) => Err(format!(
                    "{name}: the reload had no effect: {}",
                    reason.unwrap_or_default()
                )),
                Err(error) => Err(running.no_answer(&error)),
            }
        }
    })
}

pub(crate) fn status(program: &Master, options: &Options, json: bool, watch: bool) -> ExitCode {
    loop {
        let mut closed = false;
        let code = with_node(program, options, |found| match found {
            Found::Not(node) => {
                closed = show(&format!("{} is not running\n", node.name), watch).is_err();
                Ok(ExitCode::from(cli::NOT_RUNNING))
            }
            Found::Running(running) => {
                let status: NodeStatus = match running.ask(Request::Status, Some(PATIENCE)) {
                    Ok(status) => status,
                    // It ended just as it was asked.
                    Err(_) if running.has_ended() => {
                        closed = show(&format!("{} is not running\n", running.node.name), watch).is_err();
                        return Ok(ExitCode::from(cli::NOT_RUNNING));
                    }
                    Err(error) => return Err(running.no_answer(&error)),
                };
                let text = match json {
                    true => serde_json::to_string(&status).map_err(|error| error.to_string())? + "\n",
                    false => status::text(&status),
                };
                closed = show(&text, watch && !json).is_err();
                Ok(match status.all_serve() {
                    true => ExitCode::SUCCESS,
                    false => ExitCode::from(cli::NOT_SERVING),
                })
            }
        });
        if !watch || closed {
            return code;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Prints, over what was printed before if that is wanted and possible.
fn show(text: &str, redraw: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if redraw && out.is_terminal() {
        out.write_all(b"\x1b[H\x1b[J")?;
    }
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Finds the node that the options mean, and tells of what fails.
fn with_node(program: &Master, options: &Options, act: impl FnOnce(Found) -> Result<ExitCode, String>) -> ExitCode {
    let node = match read_config(program, options).and_then(|config| config.node()) {
        Ok(node) => node,
        // A file that has just been spoilt must not hide the node that runs with what it said before.
        Err(error) => {
            complain(&format!("{}: {error}", program.name));
            match read_whereabouts(program, options).and_then(|config| config.node()) {
                Ok(node) => node,
                Err(_) => return ExitCode::from(cli::USAGE),
            }
        }
    };
    find(node).and_then(act).unwrap_or_else(|reason| {
        complain(&reason);
        ExitCode::from(cli::FAILURE)
    })
}
