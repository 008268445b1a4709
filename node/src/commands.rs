//! The commands that speak with a node that runs.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::cli::{self, complain, print};
use crate::config::NodeSection;
use crate::control::{Answer, Request, ask};
use crate::pidfile::{self, PidFile};
use crate::program::Master;
use crate::setup::{Options, read_config, read_whereabouts};
use crate::status::{self, NodeStatus};
use crate::sys::PidFd;

/// How long a master may take to answer before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it may take until the kernel has taken away a process that was killed.
const KILL_TIME: Duration = Duration::from_secs(10);

/// A node that runs: its master cannot be mistaken for another process.
struct Running {
    node: NodeSection,
    pid: Pid,
    master: PidFd,
}

/// What the lock of the pid file says.
enum Found {
    Running(Running),
    Not(NodeSection),
}

pub(crate) fn stop(program: &Master, options: &Options) -> ExitCode {
    with_node(program, options, |found| match found {
        Found::Not(node) => {
            print(&format!("{} is not running\n", node.name));
            Ok(ExitCode::SUCCESS)
        }
        Found::Running(running) => {
            running.stop()?;
            print(&format!("{} is stopped\n", running.node.name));
            Ok(ExitCode::SUCCESS)
        }
    })
}

pub(crate) fn kill(program: &Master, options: &Options) -> ExitCode {
    with_node(program, options, |found| match found {
        Found::Not(node) => {
            print(&format!("{} is not running\n", node.name));
            Ok(ExitCode::SUCCESS)
        }
        Found::Running(running) => {
            running.kill()?;
            print(&format!("{} is killed\n", running.node.name));
            Ok(ExitCode::SUCCESS)
        }
    })
}

pub(crate) fn restart(program: &Master, given: Options) -> ExitCode {
    let mut options = given.clone();
    let code = with_node(program, &given, |found| {
        if let Found::Running(running) = found {
            if let Ok(before) = ask::<Options>(&running.node.socket_path(), Request::Options, Some(PATIENCE)) {
                options.config = given.config.clone().or(before.config);
                options.daemon |= before.daemon;
                if options.only.is_empty() {
                    options.only = before.only;
                }
            }
            // A configuration that is wrong must not cost a node that runs.
            if let Err(error) = crate::setup::Setup::read(program, &options) {
                return Ok(cli::wrong_config(program, &error));
            }
            running.stop()?;
        }
        Ok(ExitCode::SUCCESS)
    });
    if code == ExitCode::SUCCESS {
        cli::start(program, options)
    } else {
        code
    }
}

pub(crate) fn reload(program: &Master, options: &Options) -> ExitCode {
    with_node(program, options, |found| match found {
        Found::Not(node) => Err(format!("{} is not running", node.name)),
        Found::Running(running) => {
            let name = &running.node.name;
            match ask::<Answer>(&running.node.socket_path(), Request::Reload, None) {
                Ok(Answer { ok: true, .. }) => {
                    print(&format!("{name} is reloaded\n"));
                    Ok(ExitCode::SUCCESS)
                }
                Ok(Answer { reason, .. }) => Err(format!(
                    "{name}: the reload had no effect: {}",
                    reason.unwrap_or_default()
                )),
                Err(error) => Err(running.no_answer(&error)),
            }
        }
    })
}

pub(crate) fn status(program: &Master, options: &Options, json: bool, watch: bool) -> ExitCode {
    loop {
        let mut closed = false;
        let code = with_node(program, options, |found| match found {
            Found::Not(node) => {
                closed = show(&format!("{} is not running\n", node.name), watch).is_err();
                Ok(ExitCode::from(cli::NOT_RUNNING))
            }
            Found::Running(running) => {
                let status: NodeStatus = ask(&running.node.socket_path(), Request::Status, Some(PATIENCE))
                    .map_err(|error| running.no_answer(&error))?;
                let text = match json {
                    true => serde_json::to_string(&status).map_err(|error| error.to_string())? + "\n",
                    false => status::text(&status),
                };
                closed = show(&text, watch && !json).is_err();
                Ok(ExitCode::SUCCESS)
            }
        });
        if !watch || closed {
            return code;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Prints, over what was printed before if that is wanted and possible.
fn show(text: &str, redraw: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if redraw && out.is_terminal() {
        out.write_all(b"\x1b[H\x1b[J")?;
    }
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Finds the node that the options mean, and tells of what fails.
fn with_node(program: &Master, options: &Options, act: impl FnOnce(Found) -> Result<ExitCode, String>) -> ExitCode {
    let node = match read_config(program, options).and_then(|config| config.node()) {
        Ok(node) => node,
        // A file that has just been spoilt must not hide the node that runs with what it said before.
        Err(error) => {
            complain(&format!("{}: {error}", program.name));
            match read_whereabouts(program, options).and_then(|config| config.node()) {
                Ok(node) => node,
                Err(_) => return ExitCode::from(cli::USAGE),
            }
        }
    };
    find(node).and_then(act).unwrap_or_else(|reason| {
        complain(&reason);
        ExitCode::from(cli::FAILURE)
    })
}

fn find(node: NodeSection) -> Result<Found, String> {
    let path = node.pid_path();
    loop {
        let Some(pid) = holder(&path)? else {
            return Ok(Found::Not(node));
        };
        // The number could have gone to another process before the descriptor was opened: the lock decides again.
        match PidFd::open(pid) {
            Ok(master) if holder(&path)? == Some(pid) => {
                return Ok(Found::Running(Running { node, pid, master }));
            }
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
                return Err(format!("{}, pid {pid}, cannot be reached: {error}", node.name));
            }
            _ => {}
        }
    }
}

fn holder(path: &Path) -> Result<Option<Pid>, String> {
    pidfile::holder(path).map_err(|error| error.to_string())
}

impl Running {
    /// Stops gracefully; by force when the master does not keep its time.
    fn stop(&self) -> Result<(), String> {
        // A question and not a signal, as a second signal means haste.
        let asked: Result<Answer, _> = ask(&self.node.socket_path(), Request::Stop, Some(PATIENCE));
        if asked.is_err() && !self.master.wait(Duration::ZERO) {
            self.signal(Signal::SIGTERM)?;
        }
        if self.master.wait(self.node.stop_timeout + PATIENCE) {
            return Ok(());
        }
        complain(&format!(
            "{} does not stop in time and is ended by force",
            self.node.name
        ));
        self.kill()
    }

    /// Ends master and children.
    fn kill(&self) -> Result<(), String> {
        let asked: Result<Answer, _> = ask(&self.node.socket_path(), Request::Kill, Some(PATIENCE / 2));
        if asked.is_ok() && self.master.wait(KILL_TIME) {
            return Ok(());
        }
        // It hangs. Once it is stopped, it starts no more children, and its list of them holds still.
        if self.master.wait(Duration::ZERO) {
            return Ok(());
        }
        self.signal(Signal::SIGSTOP)?;
        let children = children_of(self.pid);
        self.signal(Signal::SIGKILL)?;
        for child in &children {
            // One that has ended in the meantime is no failure.
            let _ = child.signal(Signal::SIGKILL);
        }
        let deadline = Instant::now() + KILL_TIME;
        let gone = std::iter::once(&self.master)
            .chain(&children)
            .all(|process| process.wait(deadline.saturating_duration_since(Instant::now())));
        if !gone {
            return Err(format!("{}: some processes cannot be ended", self.node.name));
        }
        // What the master would have removed. A new one may have come already: then all is its own.
        if let Ok(pid_file) = PidFile::take(&self.node.pid_path()) {
            let _ = std::fs::remove_file(self.node.socket_path());
            pid_file.remove();
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<(), String> {
        if holder(&self.node.pid_path())? != Some(self.pid) {
            return Ok(());
        }
        self.master
            .signal(signal)
            .map_err(|error| format!("{}, pid {}: {error}", self.node.name, self.pid))
    }

    fn no_answer(&self, error: &std::io::Error) -> String {
        format!("{}, pid {}, does not answer: {error}", self.node.name, self.pid)
    }
}

/// The children of a process that has been stopped.
fn children_of(parent: Pid) -> Vec<PidFd> {
    let list = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    let pids = list
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .map(Pid::from_raw);
    pids.filter_map(|pid| PidFd::open(pid).ok()).collect()
}
