//! A child's end of the socket to its master.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;

use crate::process::dialogue::Report;

/// The socket to the master. There is none in a process that is no child.
static SOCKET: OnceLock<UnixStream> = OnceLock::new();

/// Notes the socket of this child. An error if this process is a child already.
pub(crate) fn connect(socket: UnixStream) -> Result<(), String> {
    SOCKET.set(socket).map_err(|_| "a child has no children".into())
}

/// Reports to the master. In a process that is no child this does nothing.
pub(crate) fn report(report: &Report) {
    if let Some(mut socket) = SOCKET.get() {
        // If the master is gone, the thread that listens to it learns so.
        let _ = socket.write_all(format!("{report}\n").as_bytes());
    }
}
