//! The smallest node type: it greets each client and sends back what it receives. A clock runs beside it. The tests drive
//! them through every command.

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use meepo_node::stats::FigureInfo;
use meepo_node::{BoxError, Child, Config, ConfigError, Instance, Listen, Master, Plan};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

/// The section `[echo]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    children: usize,
    threads: usize,
    address: SocketAddr,
    /// A listener of each child's own.
    own: Option<SocketAddr>,
    /// What a client is told first, before the child's pid.
    greeting: String,
    /// While this file is there, children misbehave: its text says how.
    trouble: PathBuf,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            children: 2,
            threads: 1,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            own: None,
            greeting: "hello".into(),
            trouble: PathBuf::new(),
        }
    }
}

meepo_node::figures! {
    /// The figures of an echo child.
    struct EchoFigures {
        /// Clients that are connected.
        connections: FigureInfo::gauge("echo_connections", "Clients that are connected.").column("conns"),
        /// Clients that came.
        connections_total: FigureInfo::counter("echo_connections_total", "Clients that came.").column("in all"),
        /// Messages received.
        messages_in: FigureInfo::counter("echo_messages_total", "Messages received.").column("msgs in"),
        /// Bytes received.
        bytes_in: FigureInfo::counter("echo_bytes_total", "Bytes received.").column("bytes in").bytes(),
    }
}

meepo_node::figures! {
    /// The figures of the clock's child.
    struct ClockFigures {
        /// Seconds counted.
        ticks: FigureInfo::counter("clock_ticks_total", "Seconds counted.").column("ticks"),
    }
}

struct Echo;

impl Instance for Echo {
    fn name(&self) -> &'static str {
        "echo"
    }

    fn figures(&self) -> &'static [FigureInfo] {
        EchoFigures::TABLE
    }

    fn plan(&self, config: &Config) -> Result<Plan, ConfigError> {
        let settings: Settings = config.section("echo")?;
        if settings.greeting.is_empty() {
            return Err(config.invalid("echo.greeting", "must say something"));
        }
        let listen = |label: &str, address, page| Listen {
            label: label.into(),
            address,
            key: format!("echo.{label}"),
            page,
        };
        Ok(Plan {
            children: settings.children,
            threads: settings.threads,
            shared: vec![listen("address", settings.address, Some(("http", "/".into())))],
            own: settings.own.map(|address| listen("own", address, None)),
            effective: toml::Table::try_from(&settings).map_err(|error| config.invalid("echo", error))?,
            further: toml::Table::new(),
            serve: Rc::new(move |child| Box::pin(serve(child, settings.clone()))),
        })
    }
}

async fn serve(mut child: Child, settings: Settings) -> Result<(), BoxError> {
    let trouble = std::fs::read_to_string(&settings.trouble).unwrap_or_default();
    match trouble.trim() {
        "fail" => return Err("there is trouble".into()),
        "panic" => panic!("there is trouble"),
        "hang" => std::future::pending::<()>().await,
        "block" => std::thread::sleep(Duration::from_secs(3600)),
        "crash" => std::process::abort(),
        _ => {}
    }
    let listener = TcpListener::from_std(child.shared.remove(0))?;
    let clients = TaskTracker::new();
    child.ready();
    tracing::debug!(index = child.index, "echo serves");
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((mut stream, _)) = accepted else { continue };
                let (greeting, stop, stats) = (settings.greeting.clone(), child.stop.clone(), child.stats.view::<EchoFigures>());
                clients.spawn(async move {
                    stats.connections.add(1);
                    stats.connections_total.add(1);
                    tokio::select! {
                        _ = echo(&mut stream, &greeting, stats) => {}
                        // Whom this does not reach is gone already.
                        () = stop.requested() => drop(stream.write_all(b"bye\n").await),
                    }
                    stats.connections.sub(1);
                });
            }
            () = child.stop.requested() => break,
        }
    }
    drop(listener);
    if trouble.trim() == "linger" {
        std::future::pending::<()>().await;
    }
    if trouble.trim() == "stuck" {
        std::thread::sleep(Duration::from_secs(3600));
    }
    clients.close();
    clients.wait().await;
    Ok(())
}

async fn echo(stream: &mut TcpStream, greeting: &str, stats: &EchoFigures) -> Result<(), Box<dyn Error + Send + Sync>> {
    stream
        .write_all(format!("{greeting} {}\n", std::process::id()).as_bytes())
        .await?;
    let mut buffer = [0; 4096];
    loop {
        let n = stream.read(&mut buffer).await?;
        if n == 0 {
            return Ok(());
        }
        stats.messages_in.add(1);
        stats.bytes_in.add(n as u64);
        stream.write_all(&buffer[..n]).await?;
    }
}

/// Counts seconds, as long as there are other instances: it is the last one to stop.
struct Clock;

impl Instance for Clock {
    fn name(&self) -> &'static str {
        "clock"
    }

    fn figures(&self) -> &'static [FigureInfo] {
        ClockFigures::TABLE
    }

    fn stop_order(&self) -> u8 {
        9
    }

    fn plan(&self, _config: &Config) -> Result<Plan, ConfigError> {
        Ok(Plan {
            children: 1,
            threads: 1,
            shared: Vec::new(),
            own: None,
            effective: toml::Table::new(),
            further: toml::Table::new(),
            serve: Rc::new(|child| Box::pin(tick(child))),
        })
    }
}

async fn tick(child: Child) -> Result<(), BoxError> {
    child.ready();
    while tokio::time::timeout(Duration::from_secs(1), child.stop.requested())
        .await
        .is_err()
    {
        child.stats.view::<ClockFigures>().ticks.add(1);
    }
    tracing::debug!(left_ms = child.stop.timeout().as_millis(), "the clock stops");
    Ok(())
}

fn main() -> ExitCode {
    let echo = Master::from_args()
        .version("1.2.3")
        .about("Sends back what it receives");
    echo.instance(Echo).instance(Clock).run()
}
