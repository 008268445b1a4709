//! The agent: measures this host, and sends the samples to a gateway.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use clap::Parser;

use crate::backlog::Backlog;
use crate::measure::Measure;
use crate::sample::{LATER, OK, PREFIX, REFUSED, Samples};

/// A connection on which no answer came for this long is given up. The time is longer than a worker may be away in a reload.
const PATIENCE: Duration = Duration::from_secs(30);
const FIRST_DELAY: Duration = Duration::from_millis(250);
const LONGEST_DELAY: Duration = Duration::from_secs(8);
/// The shortest time between two samples: the kernel counts processor time in steps of a hundredth of a second.
const SHORTEST: Duration = Duration::from_millis(100);

/// Measures processor and memory of this host and sends them to a gateway.
#[derive(Debug, Parser)]
#[command(name = "monitor agent", bin_name = "monitor agent")]
pub(crate) struct Agent {
    /// The `line` listener of a gateway.
    #[arg(long, default_value = "127.0.0.1:19909")]
    to: String,
    /// What this host is called. Default: its host name.
    #[arg(long)]
    host: Option<String>,
    /// How often it is measured, 100ms at least.
    #[arg(long, default_value = "1s")]
    every: humantime::Duration,
}

type Connection = BufReader<TcpStream>;

impl Agent {
    /// Runs until the process is killed, or returns at once if this host cannot be measured.
    pub(crate) fn run(mut self) -> ExitCode {
        match self.begin() {
            Ok((host, backlog)) => loop {
                self.deliver(&host, &backlog);
            },
            Err(error) => {
                eprintln!("monitor agent: {error}");
                ExitCode::FAILURE
            }
        }
    }

    fn begin(&mut self) -> io::Result<(String, Arc<Backlog>)> {
        let host = match self.host.take() {
            Some(host) => host,
            None => fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_owned(),
        };
        let mut measure = Measure::new()?;
        let backlog = Arc::new(Backlog::default());
        let (filled, every) = (Arc::clone(&backlog), SHORTEST.max(*self.every));
        thread::Builder::new().name("measure".into()).spawn(move || {
            let mut next = Instant::now();
            loop {
                // Samples that a frozen host has missed are not made up for.
                next = (next + every).max(Instant::now());
                sleep(next - Instant::now());
                match measure.look() {
                    Ok(sample) => filled.push(sample),
                    Err(error) => eprintln!("monitor agent: {error}"),
                }
            }
        })?;
        // The output may be closed.
        let _ = writeln!(
            io::stdout(),
            "measuring {host} every {}",
            humantime::Duration::from(every)
        );
        Ok((host, backlog))
    }

    /// Sends the samples of the backlog for ever, over a new connection whenever one has failed.
    fn deliver(&self, host: &str, backlog: &Backlog) {
        let mut delay = FIRST_DELAY;
        let mut connection = None;
        loop {
            let samples = Samples {
                host: host.to_owned(),
                samples: backlog.oldest(),
            };
            match self.send(&mut connection, &samples) {
                Ok(()) => {
                    backlog.acknowledge(&samples.samples);
                    delay = FIRST_DELAY;
                    continue;
                }
                Err(error) => eprintln!("monitor agent: {}: {error}, trying again", self.to),
            }
            connection = None;
            // Half of the delay is random, so that many agents do not come back in one wave.
            sleep(delay.mul_f64(0.5 + fastrand::f64() / 2.0));
            delay = LONGEST_DELAY.min(delay * 2);
        }
    }

    /// Sends samples and waits for the answer. Samples that are refused count as sent.
    fn send(&self, connection: &mut Option<Connection>, samples: &Samples) -> io::Result<()> {
        let connection = match connection {
            Some(connection) => connection,
            None => connection.insert(self.connect()?),
        };
        let line = format!("{PREFIX}{}\n", serde_json::to_string(samples)?);
        connection.get_mut().write_all(line.as_bytes())?;
        loop {
            let mut answer = String::new();
            if connection.read_line(&mut answer)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let answer = answer.trim_end();
            if let Some(why) = answer.strip_prefix(REFUSED) {
                eprintln!("monitor agent: {}: samples were refused: {why}", self.to);
                return Ok(());
            }
            if let Some(why) = answer.strip_prefix(LATER) {
                return Err(io::Error::other(why.to_owned()));
            }
            if answer == OK {
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
