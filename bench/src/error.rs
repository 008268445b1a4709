//! What can go wrong before, during and after a run.

use std::io;

use tokio_tungstenite::tungstenite;

/// Why a run could not be made. The report of a run that was made counts its errors.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A text that is not a URL of a server.
    #[error("{url}: {reason}")]
    Url {
        /// The text.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A connection could not be opened.
    #[error("connection {number} to {url}: {failure}")]
    Open {
        /// Counted from 1.
        number: usize,
        /// The server's URL.
        url: String,
        /// Why it is not open.
        failure: Failure,
    },
    /// The system's limit does not allow so many connections.
    #[error("{wanted} open files are needed, and the limit is {limit} (see `ulimit -Hn`)")]
    TooManyFiles {
        /// Open files that the run needs.
        wanted: u64,
        /// The hard limit.
        limit: u64,
    },
    /// Members of the room that did not confirm that they have joined.
    #[error("{missing} of {members} connections got no answer after they had joined the room")]
    Join {
        /// Members without an answer.
        missing: usize,
        /// All members.
        members: usize,
    },
    /// A load that a server cannot take.
    #[error("a channel of nchan has no echo to the sender alone")]
    NoEcho,
    /// Groups that would have more members than there are connections.
    #[error("a group cannot have {0} members: there are not so many connections")]
    TooManyMembers(usize),
    /// A talker needs another member to talk to.
    #[error("a talker needs another member: at least 2 connections")]
    NobodyElse,
    /// A process that was to be watched is not there.
    #[error("process {0} is not running")]
    NoProcess(u32),
    /// A process that was to be watched cannot be read.
    #[error("process {pid}: {file}: {source}")]
    Process {
        /// The process.
        pid: u32,
        /// The file below `/proc/PID`.
        file: &'static str,
        /// Why the file cannot be read.
        source: io::Error,
    },
    /// A command that a run starts has failed.
    #[error("`{command}`: {reason}")]
    Command {
        /// The command line.
        command: String,
        /// How it failed.
        reason: String,
    },
    /// A name on the command line that nothing has.
    #[error("there is no {what} {name}: there are {known}")]
    Unknown {
        /// The kind of thing that was named.
        what: &'static str,
        /// The name.
        name: String,
        /// All names of that kind.
        known: String,
    },
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Why a connection ended, or never came to be.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The socket's error, such as a refused connection.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The server did not answer in time.
    #[error("not open in time")]
    Timeout,
    /// The server's answer is not an upgrade to WebSocket.
    #[error("the WebSocket handshake was answered with: {0}")]
    Refused(String),
    /// The server closed the WebSocket.
    #[error("closed by the server: {0}")]
    Closed(String),
    /// The server ended the stream.
    #[error("the server ended the connection")]
    Eof,
    /// The server sent bytes that are not a frame.
    #[error(transparent)]
    Frame(#[from] tungstenite::Error),
    /// The server sent something that this generator does not read.
    #[error("{0}")]
    Unsupported(&'static str),
}
