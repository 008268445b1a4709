//! The commands of the command line, each a function that returns the exit code.
//!
//! The command line calls them. `start` becomes the master; all but `check` and `start` speak with a node that runs. They must
//! not know how arguments are written.

mod check;
mod reload;
mod start;
mod status;
mod stop;
mod with_node;

pub(crate) use check::check;
pub(crate) use reload::reload;
pub(crate) use start::start;
pub(crate) use status::status;
pub(crate) use stop::{kill, restart, stop};
