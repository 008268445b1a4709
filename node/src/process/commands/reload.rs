//! `reload`.

use std::process::ExitCode;

use super::with_node::with_node;
use crate::process::control::{ControlAnswer, ControlRequest};
use crate::process::node_handle::Found;
use crate::process::program::Master;
use crate::process::setup::Options;
use crate::process::terminal::print;

/// Has the master reload, and waits for the end of it.
pub(crate) fn reload(program: &Master, options: &Options) -> ExitCode {
    with_node(program, options, |found| match found {
        Found::NotRunning(node) => Err(format!("{} is not running", node.name)),
        Found::Running(handle) => {
            let name = &handle.node.name;
            match handle.ask::<ControlAnswer>(ControlRequest::Reload, None) {
                Ok(ControlAnswer { ok: true, .. }) => {
                    print(&format!("{name} is reloaded\n"));
                    Ok(ExitCode::SUCCESS)
                }
                Ok(ControlAnswer { reason, .. }) => Err(format!(
                    "{name}: the reload had no effect: {}",
                    reason.unwrap_or_default()
                )),
                Err(error) => Err(handle.no_answer(&error)),
            }
        }
    })
}
