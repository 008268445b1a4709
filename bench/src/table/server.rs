//! The servers that are measured: started for each run, and ended after it.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{fs, io};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio_tungstenite::tungstenite;

use crate::args;
use crate::error::Error;

/// How long a server may take to serve, or to end.
const TIMEOUT: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(20);

/// A kind of server.
#[derive(Debug)]
pub(super) enum Server {
    /// `meepo-bench limit`.
    Limit,
    /// `meepo-bench cluster` of a program, which need not be this one: to compare two builds.
    Meepo {
        name: String,
        program: PathBuf,
        /// Gateway children.
        gateways: usize,
    },
    /// A program that is given a port, prints the URL at which it is going to serve, and serves until it is ended.
    Peer(Peer),
}

/// A program that serves as a peer does.
#[derive(Debug)]
pub(super) struct Peer {
    name: String,
    program: PathBuf,
    /// Its answer to `--version`; none if what it needs is not installed.
    version: Option<String>,
}

/// A server that serves. It and all its children end when this is dropped.
#[derive(Debug)]
pub(super) struct Running {
    process: Child,
    url: String,
    _dir: TempDir,
}

/// The servers that the options name. The limit server comes first: others are compared with it.
pub(super) fn chosen(args: &args::Table) -> Result<Vec<Server>, Error> {
    let mut servers = vec![
        Server::Limit,
        Server::Meepo {
            name: "Meepo".into(),
            program: std::env::current_exe()?,
            gateways: 1,
        },
    ];
    for gateways in &args.gateways {
        servers.push(Server::Meepo {
            name: format!("Meepo, {gateways} gateway children"),
            program: std::env::current_exe()?,
            gateways: *gateways,
        });
    }
    for (number, program) in args.build.iter().enumerate() {
        servers.push(Server::Meepo {
            name: format!("build {}", number + 1),
            program: std::path::absolute(program)?,
            gateways: 1,
        });
    }
    for program in &args.peer {
        servers.push(Server::Peer(Peer::new(program)?));
    }
    Ok(servers)
}

/// All peers of a folder: those that are installed, and the others.
pub(super) fn found(folder: &Path) -> io::Result<(Vec<Peer>, Vec<Peer>)> {
    let mut programs = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.metadata()?.permissions().mode() & 0o111 != 0 && entry.metadata()?.is_file() {
            programs.push(entry.path());
        }
    }
    programs.sort();
    let peers: Vec<Peer> = programs
        .iter()
        .map(|program| Peer::new(program))
        .collect::<io::Result<_>>()?;
    Ok(peers.into_iter().partition(|peer| peer.version.is_some()))
}

impl Peer {
    fn new(program: &Path) -> io::Result<Self> {
        let name = program.file_name().unwrap_or(program.as_os_str());
        let said = Command::new(program)
            .arg("--version")
            .stderr(Stdio::null())
            .output()
            .ok();
        let version = said
            .filter(|said| said.status.success())
            .map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned())
            .filter(|version| !version.is_empty());
        Ok(Self {
            name: name.to_string_lossy().into_owned(),
            program: std::path::absolute(program)?,
            version,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Server {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Limit => "limit",
            Self::Meepo { name, .. } | Self::Peer(Peer { name, .. }) => name,
        }
    }

    pub(super) fn about(&self) -> String {
        match self {
            Self::Limit => "two processes that do as little as can be done".into(),
            Self::Meepo { program, gateways, .. } => {
                let version = env!("CARGO_PKG_VERSION");
                let file = program.file_name().unwrap_or_default().display();
                format!("{version} (`{file} cluster`), a registry, {gateways} gateway and 1 worker child")
            }
            Self::Peer(peer) => peer.version.clone().unwrap_or_else(|| "no version told".into()),
        }
    }

    /// Whether the server can have more connections than a process may have open files.
    pub(super) fn takes_crowds(&self) -> bool {
        matches!(self, Self::Meepo { .. })
    }

    /// Starts the server with at least this number of gateway children, and waits until it serves.
    pub(super) fn start(&self, least: usize) -> Result<Running, Error> {
        let dir = tempfile::tempdir()?;
        let port = free_port()?;
        let own = format!("ws://127.0.0.1:{port}/");
        let (mut command, told) = match self {
            Self::Limit => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["limit", "--address", &format!("127.0.0.1:{port}")]);
                (command, Some(own))
            }
            Self::Meepo { program, gateways, .. } => {
                let file = dir.path().join("meepo.toml");
                fs::write(&file, settings(&dir, port, least.max(*gateways))?)?;
                let mut command = Command::new(program);
                command.args(["cluster", "start", "-c"]).arg(&file);
                (command, Some(own))
            }
            Self::Peer(peer) => {
                let mut command = Command::new(&peer.program);
                command.arg(port.to_string());
                (command, None)
            }
        };
        command.current_dir(dir.path()).stdin(Stdio::null()).process_group(0);
        let log = fs::File::create(dir.path().join("log"))?;
        command.stderr(log.try_clone()?);
        match told {
            Some(_) => command.stdout(log),
            None => command.stdout(Stdio::piped()),
        };
        let process = command
            .spawn()
            .map_err(|error| self.failed(&command, &error.to_string()))?;
        let mut running = Running {
            process,
            url: told.unwrap_or_default(),
            _dir: dir,
        };
        if let Some(stdout) = running.process.stdout.take() {
            BufReader::new(stdout).read_line(&mut running.url)?;
            running.url.truncate(running.url.trim_end().len());
        }
        running.wait_until_it_serves().map_err(|reason| {
            let log = fs::read_to_string(running._dir.path().join("log")).unwrap_or_default();
            self.failed(&command, &format!("{reason}\n{log}"))
        })?;
        Ok(running)
    }

    fn failed(&self, command: &Command, reason: &str) -> Error {
        Error::Command {
            command: format!("{command:?}"),
            reason: format!("{}: {reason}", self.name()),
        }
    }
}

impl Running {
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    fn wait_until_it_serves(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + TIMEOUT;
        let authority = self.url.split('/').nth(2).unwrap_or_default().to_owned();
        loop {
            let tried = match self.url.starts_with("ws:") {
                // A handshake goes all the way to the worker.
                true => tungstenite::connect(&self.url)
                    .map(drop)
                    .map_err(|error| error.to_string()),
                false => TcpStream::connect(&authority)
                    .map(drop)
                    .map_err(|error| error.to_string()),
            };
            let Err(error) = tried else { return Ok(()) };
            if let Ok(Some(status)) = self.process.try_wait() {
                return Err(format!("it has ended ({status})"));
            }
            if Instant::now() > deadline {
                return Err(format!("it does not serve at {}: {error}", self.url));
            }
            sleep(PAUSE);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let group = Pid::from_raw(self.process.id().cast_signed());
        let _ = killpg(group, Signal::SIGTERM);
        let deadline = Instant::now() + TIMEOUT;
        while matches!(self.process.try_wait(), Ok(None)) && Instant::now() < deadline {
            sleep(PAUSE);
        }
        // Processes that have not ended, also those whose parent has.
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.process.wait();
    }
}

fn settings(dir: &TempDir, port: u16, gateways: usize) -> io::Result<String> {
    Ok(format!(
        r#"
        [node]
        run_dir = "{}"
        registry = ["127.0.0.1:{registry}"]
        [registry]
        address = "127.0.0.1:{registry}"
        [gateway]
        children = {gateways}
        inner = "127.0.0.1:0"
        stop_spread = "0s"
        listen = [{{ protocol = "ws", address = "127.0.0.1:{port}" }}]
        [worker]
        children = 1
        "#,
        dir.path().display(),
        registry = free_port()?,
    ))
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
