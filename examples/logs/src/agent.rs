//! The agent: follows files, and sends the lines that are appended to a gateway.

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use clap::Parser;

use crate::batch::{Batch, OK, PREFIX, REFUSED};
use crate::tail::Tail;

const PAUSE: Duration = Duration::from_millis(200);
/// A connection on which no answer came for this long is given up. The time is longer than a worker may be away in a reload.
const PATIENCE: Duration = Duration::from_secs(30);
const FIRST_DELAY: Duration = Duration::from_millis(250);
const LONGEST_DELAY: Duration = Duration::from_secs(8);

/// Follows files and sends the lines that are appended to a gateway.
#[derive(Debug, Parser)]
#[command(name = "logs agent", bin_name = "logs agent")]
pub(crate) struct Agent {
    /// The `line` listener of a gateway.
    #[arg(long, default_value = "127.0.0.1:19909")]
    to: String,
    /// What this machine is called.
    #[arg(long, default_value = "localhost")]
    machine: String,
    /// The files.
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

type Connection = BufReader<TcpStream>;

impl Agent {
    /// Runs until the process is killed, or returns at once if a file cannot be followed.
    pub(crate) fn run(self) -> ExitCode {
        let mut tails = Vec::new();
        for path in &self.files {
            match Tail::new(path) {
                Ok(tail) => tails.push((tail, false)),
                Err(error) => {
                    eprintln!("logs agent: {}: {error}", path.display());
                    return ExitCode::FAILURE;
                }
            }
        }
        // The output may be closed.
        let _ = writeln!(io::stdout(), "following {} files", tails.len());
        let mut connection = None;
        loop {
            let mut quiet = true;
            for (tail, complained) in &mut tails {
                let lines = match tail.look() {
                    Ok(lines) => {
                        *complained = false;
                        lines
                    }
                    Err(error) => {
                        if !*complained {
                            eprintln!("logs agent: {}: {error}", tail.path().display());
                        }
                        // The error is printed once, not at every look.
                        *complained = true;
                        continue;
                    }
                };
                if lines.is_empty() {
                    continue;
                }
                quiet = false;
                let batch = Batch {
                    machine: self.machine.clone(),
                    file: tail.path().display().to_string(),
                    lines,
                };
                self.deliver(&mut connection, &batch);
            }
            if quiet {
                sleep(PAUSE);
            }
        }
    }

    /// Sends a batch until it is answered. Meanwhile no file is read: the files keep the lines that are appended.
    fn deliver(&self, connection: &mut Option<Connection>, batch: &Batch) {
        let mut delay = FIRST_DELAY;
        loop {
            match self.send(connection, batch) {
                Ok(()) => return,
                Err(error) => eprintln!("logs agent: {}: {error}, trying again", self.to),
            }
            *connection = None;
            // Half of the delay is random, so that many agents do not come back in one wave.
            sleep(delay.mul_f64(0.5 + fastrand::f64() / 2.0));
            delay = LONGEST_DELAY.min(delay * 2);
        }
    }

    fn send(&self, connection: &mut Option<Connection>, batch: &Batch) -> io::Result<()> {
        let connection = match connection {
            Some(connection) => connection,
            None => connection.insert(self.connect()?),
        };
        let line = format!("{PREFIX}{}\n", batch.json());
        connection.get_mut().write_all(line.as_bytes())?;
        loop {
            let mut answer = String::new();
            if connection.read_line(&mut answer)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(why) = answer.strip_prefix(REFUSED) {
                eprintln!("logs agent: {}: lines were refused: {}", self.to, why.trim_end());
                return Ok(());
            }
            if answer.trim_end() == OK {
                return Ok(());
            }
        }
    }

    fn connect(&self) -> io::Result<Connection> {
        let stream = TcpStream::connect(&self.to)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(BufReader::new(stream))
    }
}
