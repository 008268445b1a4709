//! The master: one thread that opens listeners, forks children, waits, and starts again what dies.

mod children;
mod exec_state;
mod group;
mod listeners;
mod reload;
mod report;
mod signals;
mod stopping;
mod upgrade;

use std::os::fd::{AsFd, AsRawFd};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;

use crate::config::NodeSection;
use crate::observe::logs;
use crate::observe::stats::{INSTANCES, Stats};
use crate::process::cli;
use crate::process::control::{Answer, CallerId, Request, Server};
use crate::process::daemon::Terminal;
use crate::process::pid_file::{self, PidFile};
use crate::process::program::Master;
use crate::process::setup::{Options, Setup};
pub(crate) use exec_state::{TAKEOVER, left_behind, resume};
use group::{Group, Place};
use listeners::Listener;
use reload::Reload;
use signals::{Action, State};
use stopping::Stopping;
pub(crate) use upgrade::Binary;

/// A master that runs.
pub(crate) struct Supervisor<'a> {
    program: &'a Master,
    options: Options,
    node: Arc<NodeSection>,
    groups: Vec<Group>,
    /// Where children serve the metrics of the node.
    metrics: Option<Rc<Listener>>,
    stats: Stats,
    signals: SignalFd,
    control: Server,
    pid_file: PidFile,
    terminal: Terminal,
    phase: Phase,
    started: Instant,
    /// How the last reload ended, and when.
    last_reload: Option<(Answer, Instant)>,
    /// A reload is to follow what is under way, for these callers.
    reload_wanted: Option<Vec<CallerId>>,
    /// The reload is to replace the binary, even if it is the same.
    upgrade_wanted: bool,
    binary: Binary,
    /// What the file said when the settings in force were read.
    config_text: Option<String>,
}

/// What the master is about.
enum Phase {
    Starting,
    Serving,
    Reloading(Box<Reload>),
    Stopping(Stopping),
}

/// Runs a node until it has stopped.
pub(crate) fn run(
    program: &Master,
    options: Options,
    setup: Setup,
    mut terminal: Terminal,
    binary: Binary,
) -> ExitCode {
    let opened = open(&setup, &terminal);
    let (pid_file, signals, stats, control, listeners) = match opened {
        Ok(opened) => opened,
        Err(reason) => {
            terminal.failed(&format!("{}: cannot start: {reason}", setup.node.name));
            return ExitCode::from(cli::FAILURE);
        }
    };
    let groups = setup
        .plans
        .iter()
        .zip(listeners.instances)
        .map(|(planned, listeners)| Group {
            name: planned.name,
            stop_order: planned.stop_order,
            plan: Rc::clone(&planned.plan),
            listeners,
            places: (0..planned.plan.children).map(|_| Place::default()).collect(),
            leaving: Vec::new(),
            restarts: 0,
            last_exit: None,
        });
    let mut supervisor = Supervisor {
        program,
        options,
        node: Arc::clone(&setup.node),
        groups: groups.collect(),
        metrics: listeners.metrics,
        stats,
        signals,
        control,
        pid_file,
        terminal,
        phase: Phase::Starting,
        started: Instant::now(),
        last_reload: None,
        reload_wanted: None,
        upgrade_wanted: false,
        binary,
        config_text: setup.config.text().map(Into::into),
    };
    drop(setup);
    supervisor.publish_start();
    supervisor.start_all();
    supervisor.serve()
}

type Opened = (PidFile, SignalFd, Stats, Server, listeners::Shared);

/// Takes and opens all that the master needs before the first fork.
fn open(setup: &Setup, terminal: &Terminal) -> Result<Opened, String> {
    let node = &setup.node;
    if setup.plans.len() > INSTANCES {
        return Err(format!("more than {INSTANCES} instances"));
    }
    pid_file::make_run_dir(&node.run_dir)?;
    let pid_file = PidFile::take(&node.pid_path()).map_err(|refused| refused.to_string())?;
    let opened = (|| {
        logs::start(node, terminal.is_daemon()).map_err(|error| format!("cannot log: {error}"))?;
        raise_descriptor_limit();
        let signals = signals::listen().map_err(|error| error.to_string())?;
        let stats = Stats::new().map_err(|error| error.to_string())?;
        logs::name_process("master", stats.master());
        let listeners = open_listeners(setup, pid_file.stale)?;
        let control = Server::open(&node.socket_path()).map_err(|error| error.to_string())?;
        Ok((signals, stats, control, listeners))
    })();
    match opened {
        Ok((signals, stats, control, listeners)) => Ok((pid_file, signals, stats, control, listeners)),
        Err(reason) => {
            pid_file.remove();
            Err(reason)
        }
    }
}

/// Opens the listeners. After a master that was ended by force its children may need a moment to let go of them.
fn open_listeners(setup: &Setup, after_crash: bool) -> Result<listeners::Shared, String> {
    let give_up = Instant::now() + std::time::Duration::from_secs(3);
    loop {
        match listeners::open_shared(setup, &[]) {
            Ok(listeners) => return Ok(listeners),
            Err(_) if after_crash && Instant::now() < give_up => {
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Each client is a descriptor: takes as many as the system lets this user have.
fn raise_descriptor_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::debug!(%error, "cannot raise the limit of descriptors");
    }
}

impl Supervisor<'_> {
    /// Waits and acts until nothing is left to do.
    fn serve(mut self) -> ExitCode {
        loop {
            self.keep_deadlines();
            match self.phase {
                Phase::Starting => self.finish_start(),
                Phase::Serving => self.begin_wanted_reload(),
                Phase::Reloading(_) => self.go_on_reloading(),
                Phase::Stopping(_) => {
                    if self.go_on_stopping() {
                        return self.end();
                    }
                }
            }
            self.publish();
            // A reload may have ended just now, and another one been wanted meanwhile.
            if self.state() != State::Serving || self.reload_wanted.is_none() {
                self.wait();
            }
        }
    }

    fn state(&self) -> State {
        match self.phase {
            Phase::Starting => State::Starting,
            Phase::Serving => State::Serving,
            Phase::Reloading(_) => State::Reloading,
            Phase::Stopping(_) => State::Stopping,
        }
    }

    /// The start is done when all children serve.
    fn finish_start(&mut self) {
        let serving = |place: &Place| {
            place
                .process
                .as_ref()
                .is_some_and(|child| child.life == group::Life::Serving)
        };
        if self.groups.iter().all(|group| group.places.iter().all(serving)) {
            self.phase = Phase::Serving;
            tracing::info!(node = self.node.name, "serving");
            let table = crate::observe::status::start_table(&self.status());
            self.terminal.up(&table);
            self.begin_wanted_reload();
        }
    }

    /// Waits for a signal, a child, a caller or the next deadline.
    fn wait(&mut self) {
        let timeout = match self.next_deadline() {
            None => PollTimeout::NONE,
            Some(at) => {
                // Rounded up: a wait that ends just before the deadline would turn in circles.
                let left = at.saturating_duration_since(Instant::now()) + std::time::Duration::from_millis(1);
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            }
        };
        let mut ready = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        ready.extend(self.control.poll_fds());
        let children = ready.len();
        for process in self
            .groups
            .iter()
            .flat_map(Group::processes)
            .filter(|process| !process.silent)
        {
            ready.push(PollFd::new(process.socket.as_fd(), PollFlags::POLLIN));
        }
        if poll(&mut ready, timeout).is_err() {
            return;
        }
        let woken: Vec<bool> = ready.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        drop(ready);
        self.hear_children(&woken[children..]);
        if woken[0] {
            self.answer_signals();
        }
        if woken[1..children].contains(&true) || self.control.deadline().is_some() {
            for (caller, request) in self.control.turn() {
                self.obey(caller, request);
            }
        }
    }

    fn answer_signals(&mut self) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            let Ok(signal) = Signal::try_from(signal.ssi_signo.cast_signed()) else {
                continue;
            };
            match signals::action(signal, self.state()) {
                Action::Reap => self.reap(),
                Action::Stop => self.stop(&format!("signal {signal}")),
                Action::HurryStop => self.hurry_stop(),
                Action::Reload | Action::ReloadLater => drop(self.reload_wanted.get_or_insert_default()),
                Action::Upgrade => {
                    self.upgrade_wanted = true;
                    self.reload_wanted.get_or_insert_default();
                }
                Action::ReopenLogs => self.reopen_logs(),
                Action::Nothing => {}
            }
        }
    }

    fn obey(&mut self, caller: CallerId, request: Request) {
        match request {
            Request::Status => {
                let status = self.status();
                self.control.answer(caller, &status);
            }
            Request::Options => self.control.answer(caller, &self.options),
            Request::Reload => match self.phase {
                Phase::Stopping(_) => self.control.answer(caller, &Answer::from(Err("the node stops".into()))),
                _ => self.reload_wanted.get_or_insert_default().push(caller),
            },
            Request::Stop => {
                self.stop("a command");
                let limit = match &self.phase {
                    Phase::Stopping(stopping) => Some(stopping.left()),
                    _ => None,
                };
                let answer = Answer {
                    limit,
                    ..Answer::from(Ok(()))
                };
                self.control.answer(caller, &answer);
            }
            Request::Kill => {
                self.control.answer(caller, &Answer::from(Ok(())));
                self.stop_at_once("a command");
            }
        }
    }

    fn reopen_logs(&mut self) {
        logs::reopen();
        for process in self.groups.iter_mut().flat_map(Group::processes_mut) {
            process.tell("reopen");
        }
    }

    /// Leaves nothing behind.
    fn end(mut self) -> ExitCode {
        let failure = match self.phase {
            Phase::Stopping(stopping) => stopping.failure,
            _ => None,
        };
        // All is closed before the lock is given up: whoever takes it can bind at once.
        self.groups.clear();
        self.metrics = None;
        self.control.remove();
        match &failure {
            None => tracing::info!(node = self.node.name, "stopped"),
            Some(reason) => tracing::error!(node = self.node.name, reason, "cannot start"),
        }
        self.pid_file.remove();
        match failure {
            None => {
                self.terminal
                    .failed(&format!("{}: stopped before all children served", self.node.name));
                ExitCode::SUCCESS
            }
            Some(reason) => {
                self.terminal
                    .failed(&format!("{}: cannot start: {reason}", self.node.name));
                ExitCode::from(cli::FAILURE)
            }
        }
    }
}

/// Descriptors that a child is given are copies: it closes all others.
fn copy(socket: &std::net::TcpListener) -> std::io::Result<std::net::TcpListener> {
    debug_assert!(socket.as_raw_fd() > 2, "not a standard descriptor");
    socket.try_clone()
}
