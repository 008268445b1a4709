//! `start`, and its checks before anything is bound or forked.

use std::process::ExitCode;

use crate::process::daemon::{self, Side, StartOutcome};
use crate::process::master::{self, exec::binary::Binary};
use crate::process::program::Master;
use crate::process::setup::{Options, Setup};
use crate::process::terminal::{FAILURE, USAGE, complain};
use crate::sys;

/// Starts the node. In the foreground this returns when the node has stopped.
pub(crate) fn start(program: &Master, options: Options) -> ExitCode {
    let setup = match Setup::read(program, &options) {
        Ok(setup) => setup,
        Err(error) => {
            complain(&format!("{}: {error}", program.name));
            return ExitCode::from(USAGE);
        }
    };
    if setup.plans.is_empty() {
        complain(&format!("{}: there is nothing to run", program.name));
        return ExitCode::from(USAGE);
    }
    if sys::threads() > 1 {
        complain(&format!(
            "{}: cannot fork: the program has started threads before its master",
            program.name
        ));
        return ExitCode::from(FAILURE);
    }
    let binary = Binary::running(program);
    let outcome = if options.daemon {
        match daemon::split(&setup.node.name) {
            Ok(Side::Shell(code)) => return code,
            Ok(Side::Daemon(outcome)) => outcome,
            Err(error) => {
                complain(&format!("{}: cannot go to the background: {error}", program.name));
                return ExitCode::from(FAILURE);
            }
        }
    } else {
        StartOutcome::ForTerminal
    };
    master::run(program, options, setup, outcome, binary)
}
