//! `check`: whether a configuration is right.

use std::process::ExitCode;

use crate::process::master::exec::exec_state;
use crate::process::program::Master;
use crate::process::setup::{Options, Setup};
use crate::process::terminal::{USAGE, complain, print};

/// Checks the configuration. Prints the settings in force; for a master that is about to become this binary, the version of
/// the state that this binary can take over.
pub(crate) fn check(program: &Master, options: &Options, for_exec: bool) -> ExitCode {
    match Setup::read(program, options) {
        Ok(_) if for_exec => {
            print(exec_state::VERSION);
            ExitCode::SUCCESS
        }
        Ok(setup) => {
            print(&setup.effective());
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&format!("{}: {error}", program.name));
            ExitCode::from(USAGE)
        }
    }
}
