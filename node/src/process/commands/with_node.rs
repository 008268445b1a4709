//! How a command finds the node that it is about.

use std::process::ExitCode;

use crate::process::node_handle::{Found, find};
use crate::process::program::Master;
use crate::process::setup::{Options, read_config, read_whereabouts};
use crate::process::terminal::{FAILURE, USAGE, complain};

/// Finds the node that the options mean, and does something with it. The text of an error goes to the standard error output.
pub(super) fn with_node(
    program: &Master,
    options: &Options,
    act: impl FnOnce(Found) -> Result<ExitCode, String>,
) -> ExitCode {
    let node = match read_config(program, options).and_then(|config| config.node()) {
        Ok(node) => node,
        // A mistake that was just written into the file must not hide the node that runs with its former text.
        Err(error) => {
            complain(&format!("{}: {error}", program.name));
            match read_whereabouts(program, options).and_then(|config| config.node()) {
                Ok(node) => node,
                Err(_) => return ExitCode::from(USAGE),
            }
        }
    };
    find(node).and_then(act).unwrap_or_else(|reason| {
        complain(&reason);
        ExitCode::from(FAILURE)
    })
}
