//! Processes: the command line, the master that forks and watches children, and a child's life from the fork to its end.
//!
//! A program's `main` calls it through [`program::Master`]. It must not know what an instance does, only its plan.

pub(crate) mod child;
pub(crate) mod cli;
pub(crate) mod commands;
pub(crate) mod control;
pub(crate) mod daemon;
pub(crate) mod dialogue;
pub mod instance;
pub(crate) mod master;
pub(crate) mod node_handle;
pub(crate) mod pid_fd;
pub(crate) mod pid_file;
pub mod program;
pub(crate) mod setup;
pub(crate) mod terminal;
pub(crate) mod to_master;
