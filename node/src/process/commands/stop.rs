//! `stop`, `kill` and `restart`.

use std::process::ExitCode;

use super::start::start;
use super::with_node::with_node;
use crate::process::control::ControlRequest;
use crate::process::node_handle::{ANSWER_TIME, Found};
use crate::process::program::Master;
use crate::process::setup::{Options, Setup};
use crate::process::terminal::{USAGE, complain, print};

/// Stops the node gracefully, and by force when that takes too long.
pub(crate) fn stop(program: &Master, options: &Options) -> ExitCode {
    with_node(program, options, |found| match found {
        Found::NotRunning(node) => {
            print(&format!("{} is not running\n", node.name));
            Ok(ExitCode::SUCCESS)
        }
        Found::Running(handle) => {
            handle.stop()?;
            print(&format!("{} is stopped\n", handle.node.name));
            Ok(ExitCode::SUCCESS)
        }
    })
}

/// Ends master and children at once.
pub(crate) fn kill(program: &Master, options: &Options) -> ExitCode {
    with_node(program, options, |found| match found {
        Found::NotRunning(node) => {
            print(&format!("{} is not running\n", node.name));
            Ok(ExitCode::SUCCESS)
        }
        Found::Running(handle) => {
            handle.kill()?;
            print(&format!("{} is killed\n", handle.node.name));
            Ok(ExitCode::SUCCESS)
        }
    })
}

/// Stops the node, and starts it with the options of its former start where none are given.
pub(crate) fn restart(program: &Master, given: Options) -> ExitCode {
    let mut options = given.clone();
    let code = with_node(program, &given, |found| {
        if let Found::Running(handle) = found {
            if let Ok(before) = handle.ask::<Options>(ControlRequest::Options, Some(ANSWER_TIME)) {
                options.config = given.config.clone().or(before.config);
                options.daemon |= before.daemon;
                if options.only.is_empty() {
                    options.only = before.only;
                }
            }
            // A wrong configuration must not stop a node that runs.
            if let Err(error) = Setup::read(program, &options) {
                complain(&format!("{}: {error}", program.name));
                return Ok(ExitCode::from(USAGE));
            }
            handle.stop()?;
        }
        Ok(ExitCode::SUCCESS)
    });
    if code == ExitCode::SUCCESS {
        start(program, options)
    } else {
        code
    }
}
