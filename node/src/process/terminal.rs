//! The output of a command at the terminal: lines of text, and an exit code.

use std::io::Write;

/// The exit code of a command that failed.
pub(crate) const FAILURE: u8 = 1;
/// The exit code of `status` when the node does not run.
pub(crate) const NOT_RUNNING: u8 = 3;
/// The exit code of `status` when the node runs, and an instance has no child that serves.
pub(crate) const NOT_SERVING: u8 = 4;
/// The exit code of a wrong command line or configuration.
pub(crate) const USAGE: u8 = 64;

/// Writes a text to the standard output. A reader that is gone is no failure.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

/// Writes a line to the standard error output. A reader that is gone is no failure.
pub(crate) fn complain(text: &str) {
    let _ = std::io::stderr().write_all(format!("{}\n", text.trim_end()).as_bytes());
}
