//! Processes that hold connections beside those of a run: one process may have too few open files, and connections that are
//! only held must cost the run no time.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::hold::READY;
use crate::args::Common;
use crate::connections::pool;
use crate::error::Error;
use crate::report::Missed;

/// The processes that hold connections. They end when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Holders {
    processes: Vec<Holder>,
    conns: u64,
}

#[derive(Debug)]
struct Holder {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Holders {
    /// Opens this number of connections beside those of the run, with `join` as members of the room.
    pub(crate) fn open(common: &Common, conns: usize, join: bool) -> Result<Self, Error> {
        let mut holders = Self::default();
        let most = pool::most()?;
        let mut left = conns;
        // Each process has source addresses and numbers of its own.
        let mut first = pool::whole_sources(common.conns);
        while left > 0 {
            let conns = left.min(most);
            holders.processes.push(Holder::start(common, conns, first, join)?);
            holders.conns += conns as u64;
            left -= conns;
            first += pool::whole_sources(conns);
        }
        Ok(holders)
    }

    /// Ends the processes, and says what their connections have missed if each was sent this number of messages.
    pub(crate) fn close(mut self, each: u64) -> Result<Missed, Error> {
        let (mut received, mut ended) = (0, 0);
        for holder in &mut self.processes {
            if let Some(mut input) = holder.input.take() {
                writeln!(input, "{each}")?;
            }
        }
        for holder in &mut self.processes {
            let line = holder.line()?;
            let told = line.split_once(' ');
            let (messages, connections): (u64, u64) = told
                .and_then(|(messages, connections)| Some((messages.parse().ok()?, connections.parse().ok()?)))
                .ok_or_else(|| Error::Command {
                    command: "meepo-bench hold".into(),
                    reason: "it has ended before its connections".into(),
                })?;
            received += messages;
            ended += connections;
        }
        Ok(Missed {
            messages: (each * self.conns).saturating_sub(received),
            connections: ended,
        })
    }
}

impl Holder {
    /// Returns once all its connections are open.
    fn start(common: &Common, conns: usize, first: usize, join: bool) -> Result<Self, Error> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["hold", "--conns", &conns.to_string(), "--first", &first.to_string()])
            .args(["--connect-timeout", &common.connect_timeout.as_secs_f64().to_string()])
            .args(join.then_some("--join"))
            .arg("--url")
            .args(&common.urls);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = process.stdin.take();
        let output = process.stdout.take().expect("the output is piped");
        let mut holder = Self {
            process,
            input,
            output: BufReader::new(output),
        };
        if holder.line()? != READY {
            return Err(Error::Command {
                command: format!("{command:?}"),
                reason: "its connections are not open".into(),
            });
        }
        Ok(holder)
    }

    fn line(&mut self) -> Result<String, Error> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim_end().into())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
