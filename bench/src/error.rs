//! What can go wrong before, during and after a run.

use std::io;

use tokio_tungstenite::tungstenite;

/// Why a run could not be made. A run that was made tells its errors in its report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address that is none.
    #[error("{url}: {reason}")]
    Url {
        /// As it was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A connection could not be opened.
    #[error("connection {number} to {url}: {failure}")]
    Open {
        /// Counted from 1.
        number: usize,
        /// Where it was to go.
        url: String,
        /// What happened.
        failure: Failure,
    },
    /// The system's limit does not allow so many connections.
    #[error("{wanted} open files are needed, and the limit is {limit} (see `ulimit -Hn`)")]
    TooManyFiles {
        /// What the run needs.
        wanted: u64,
        /// The hard limit.
        limit: u64,
    },
    /// Members of the room that did not confirm that they have joined.
    #[error("{missing} of {members} connections got no answer after they had joined the room")]
    Join {
        /// How many did not answer.
        missing: usize,
        /// How many there are.
        members: usize,
    },
    /// A load that a server cannot take.
    #[error("a channel of nchan has no echo to the sender alone")]
    NoEcho,
    /// Groups that are larger than all connections.
    #[error("a group cannot have {0} members: there are not so many connections")]
    TooManyMembers(usize),
    /// Who talks to all others needs others.
    #[error("there is nobody to talk to: it takes 2 connections at least")]
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
        /// Why.
        source: io::Error,
    },
    /// The command that was to run meanwhile.
    #[error("`{command}`: {reason}")]
    Command {
        /// As it was given.
        command: String,
        /// What happened.
        reason: String,
    },
    /// Something was asked for by a name that nothing has.
    #[error("there is no {what} {name}: there are {known}")]
    Unknown {
        /// What was asked for.
        what: &'static str,
        /// The name.
        name: String,
        /// The names that there are.
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
    /// The server answered something else than an upgrade to WebSocket.
    #[error("the WebSocket handshake was answered with: {0}")]
    Refused(String),
    /// The server closed the WebSocket.
    #[error("closed by the server: {0}")]
    Closed(String),
    /// The server ended the stream.
    #[error("the server ended the connection")]
    Eof,
    /// Bytes that are no frames.
    #[error(transparent)]
    Frame(#[from] tungstenite::Error),
    /// Frames that this generator does not take.
    #[error("{0}")]
    Unsupported(&'static str),
}
