//! Connections beside those of a run, in processes of their own: a process has a limit of open files, and what only holds
//! connections must cost the run no time.

use std::io::{BufRead, BufReader, Write, stdin, stdout};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::args::{Common, Hold};
use crate::echo::OPENING;
use crate::error::Error;
use crate::fanout::join_room;
use crate::pool::{self, Pool};

const READY: &str = "ready";
/// How long members may take to get what was published before the end.
const LATE: Duration = Duration::from_secs(10);
/// How often to look whether the end has come.
const LOOK: Duration = Duration::from_millis(250);

/// Holds connections until the standard input says how many messages there were for each, or ends. Says on the standard
/// output when all are open, and at the end how many messages have come, and how many connections have ended.
pub fn run(hold: &Hold) -> Result<(), Error> {
    let common = &hold.common;
    let mut pool = Pool::numbered(common, hold.first)?;
    pool.open(common, OPENING)?;
    if hold.join {
        join_room(&mut pool, common.connect_timeout)?;
    }
    println!("{READY}");
    stdout().flush()?;
    let (tell, told) = channel();
    thread::spawn(move || tell.send(stdin().lines().next()));
    let mut received = 0;
    let each: u64 = loop {
        pool.turn(Instant::now() + LOOK, |_, _, _| received += 1)?;
        match told.try_recv() {
            Ok(Some(Ok(line))) => break line.trim().parse().unwrap_or_default(),
            Ok(_) | Err(TryRecvError::Disconnected) => return Ok(()),
            Err(TryRecvError::Empty) => {}
        }
    };
    let deadline = Instant::now() + LATE;
    while received < each * common.conns as u64 && Instant::now() < deadline {
        pool.turn(deadline, |_, _, _| received += 1)?;
    }
    println!("{received} {}", pool.ended);
    Ok(())
}

/// The processes that hold connections. They end when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    holders: Vec<Holder>,
    conns: u64,
}

/// What held connections have missed.
#[derive(Debug, Default)]
pub(crate) struct Missed {
    /// Messages that have not come.
    pub(crate) messages: u64,
    /// Connections that have ended.
    pub(crate) connections: u64,
}

#[derive(Debug)]
struct Holder {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Crowd {
    /// Opens so many connections beside those of the run; `join` has them be members of the room.
    pub(crate) fn open(common: &Common, conns: usize, join: bool) -> Result<Self, Error> {
        let mut crowd = Self::default();
        let most = pool::most()?;
        let mut left = conns;
        // Each process has source addresses and numbers of its own.
        let mut first = pool::whole_sources(common.conns);
        while left > 0 {
            let conns = left.min(most);
            crowd.holders.push(Holder::start(common, conns, first, join)?);
            crowd.conns += conns as u64;
            left -= conns;
            first += pool::whole_sources(conns);
        }
        Ok(crowd)
    }

    /// Ends it, and says what was missed, if so many messages were for each connection.
    pub(crate) fn close(mut self, each: u64) -> Result<Missed, Error> {
        let (mut received, mut ended) = (0, 0);
        for holder in &mut self.holders {
            if let Some(mut input) = holder.input.take() {
                writeln!(input, "{each}")?;
            }
        }
        for holder in &mut self.holders {
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
    /// Comes back when all connections are open.
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
        let output = process.stdout.take().expect("it was asked for");
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
