//! The master: one thread that opens listeners, forks children, waits, and starts again what dies.
//!
//! The command line runs it. Each file holds one of its jobs, as methods of [`Supervisor`]. It must not know what an instance
//! does, and it has no runtime.

mod child_process;
mod child_slot;
mod children;
pub(crate) mod exec;
mod forking;
mod listeners;
mod reload;
mod report;
mod running_instance;
mod signals;
mod stopping;

use std::os::fd::AsFd;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;

use crate::config::NodeSection;
use crate::observe::stats::{ChildState, INSTANCES, Stats};
use crate::observe::{logs, status};
use crate::process::control::{CallerId, ControlAnswer, ControlRequest, ControlServer};
use crate::process::daemon::StartOutcome;
use crate::process::dialogue::Order;
use crate::process::pid_file::{self, PidFile};
use crate::process::program::Master;
use crate::process::setup::{Options, Setup};
use crate::process::terminal::FAILURE;
use child_slot::ChildSlot;
use exec::binary::Binary;
use listeners::{Listener, SharedListeners};
use reload::Reload;
use running_instance::RunningInstance;
use signals::{Action, MasterState};
use stopping::Stopping;

/// A master that runs.
pub(crate) struct Supervisor<'a> {
    program: &'a Master,
    options: Options,
    node: Arc<NodeSection>,
    instances: Vec<RunningInstance>,
    /// The listener on which children serve the metrics of the node.
    metrics: Option<Rc<Listener>>,
    stats: Stats,
    signals: SignalFd,
    control: ControlServer,
    pid_file: PidFile,
    outcome: StartOutcome,
    phase: Phase,
    started: Instant,
    /// How the last reload ended, and when.
    last_reload: Option<(ControlAnswer, Instant)>,
    /// A reload is to follow the one that is under way, for these callers.
    reload_wanted: Option<Vec<CallerId>>,
    /// The reload is to replace the binary, even if it is the same.
    upgrade_wanted: bool,
    binary: Binary,
    /// The text of the configuration file when the settings in force were read.
    config_text: Option<String>,
}

/// What the master does now, and the state of that.
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
    mut outcome: StartOutcome,
    binary: Binary,
) -> ExitCode {
    let opened = open(&setup, options.daemon);
    let (pid_file, signals, stats, control, listeners) = match opened {
        Ok(opened) => opened,
        Err(reason) => {
            outcome.failed(&format!("{}: cannot start: {reason}", setup.node.name));
            return ExitCode::from(FAILURE);
        }
    };
    let instances = setup
        .plans
        .iter()
        .zip(listeners.instances)
        .map(|(planned, listeners)| RunningInstance {
            name: planned.name,
            stop_order: planned.stop_order,
            plan: Rc::clone(&planned.plan),
            listeners,
            slots: (0..planned.plan.children).map(|_| ChildSlot::new(0)).collect(),
            former: Vec::new(),
            restarts: 0,
            last_exit: None,
        });
    let mut supervisor = Supervisor {
        program,
        options,
        node: Arc::clone(&setup.node),
        instances: instances.collect(),
        metrics: listeners.metrics,
        stats,
        signals,
        control,
        pid_file,
        outcome,
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

type Opened = (PidFile, SignalFd, Stats, ControlServer, SharedListeners);

/// Takes the lock, and opens all that the master needs before the first fork.
fn open(setup: &Setup, daemon: bool) -> Result<Opened, String> {
    let node = &setup.node;
    if setup.plans.len() > INSTANCES {
        return Err(format!("more than {INSTANCES} instances"));
    }
    pid_file::make_run_dir(&node.run_dir)?;
    let pid_file = PidFile::take(&node.pid_path()).map_err(|refused| refused.to_string())?;
    let opened = (|| {
        logs::start(node, daemon).map_err(|error| format!("cannot log: {error}"))?;
        raise_descriptor_limit();
        let signals = signals::listen().map_err(|error| error.to_string())?;
        let stats = Stats::new(&setup.tables()).map_err(|error| error.to_string())?;
        logs::name_process("master", stats.master().common());
        let listeners = open_listeners(setup, pid_file.stale)?;
        let control = ControlServer::open(&node.socket_path()).map_err(|error| error.to_string())?;
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

/// Opens the listeners. The children of a master that was ended by force may need a moment to let go of them.
fn open_listeners(setup: &Setup, after_crash: bool) -> Result<SharedListeners, String> {
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
    /// Waits and acts until the node has stopped.
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
            // A reload may have ended just now, and another one may have been asked for meanwhile.
            if self.state() != MasterState::Serving || self.reload_wanted.is_none() {
                self.wait();
            }
        }
    }

    fn state(&self) -> MasterState {
        match self.phase {
            Phase::Starting => MasterState::Starting,
            Phase::Serving => MasterState::Serving,
            Phase::Reloading(_) => MasterState::Reloading,
            Phase::Stopping(_) => MasterState::Stopping,
        }
    }

    /// The start is done when all children serve.
    fn finish_start(&mut self) {
        let serving = |slot: &ChildSlot| {
            slot.process
                .as_ref()
                .is_some_and(|child| child.state == ChildState::Serving)
        };
        if self.instances.iter().all(|instance| instance.slots.iter().all(serving)) {
            self.phase = Phase::Serving;
            tracing::info!(node = self.node.name, "serving");
            let table = status::start_table(&self.status());
            self.outcome.succeeded(&table);
            self.begin_wanted_reload();
        }
    }

    /// Waits for a signal, a child, a caller or the next deadline.
    fn wait(&mut self) {
        let timeout = match self.next_deadline() {
            None => PollTimeout::NONE,
            Some(at) => {
                // Rounded up: after a wait that ends just before the deadline nothing is due.
                let left = at.saturating_duration_since(Instant::now()) + std::time::Duration::from_millis(1);
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            }
        };
        let mut ready = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        ready.extend(self.control.poll_fds());
        let children = ready.len();
        for process in self
            .instances
            .iter()
            .flat_map(RunningInstance::processes)
            .filter(|process| !process.closed)
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
            for (caller, request) in self.control.serve() {
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

    fn obey(&mut self, caller: CallerId, request: ControlRequest) {
        match request {
            ControlRequest::Status => {
                let status = self.status();
                self.control.answer(caller, &status);
            }
            ControlRequest::Options => self.control.answer(caller, &self.options),
            ControlRequest::Reload => match self.phase {
                Phase::Stopping(_) => self
                    .control
                    .answer(caller, &ControlAnswer::from(Err("the node stops".into()))),
                _ => self.reload_wanted.get_or_insert_default().push(caller),
            },
            ControlRequest::Stop => {
                self.stop("a command");
                let limit = match &self.phase {
                    Phase::Stopping(stopping) => Some(stopping.left()),
                    _ => None,
                };
                let answer = ControlAnswer {
                    limit,
                    ..ControlAnswer::from(Ok(()))
                };
                self.control.answer(caller, &answer);
            }
            ControlRequest::Kill => {
                self.control.answer(caller, &ControlAnswer::from(Ok(())));
                self.stop_at_once("a command");
            }
        }
    }

    fn reopen_logs(&mut self) {
        logs::reopen();
        for process in self.instances.iter_mut().flat_map(RunningInstance::processes_mut) {
            process.order(Order::ReopenLogs);
        }
    }

    /// Closes and removes everything, and returns the exit code.
    fn end(mut self) -> ExitCode {
        let failure = match self.phase {
            Phase::Stopping(stopping) => stopping.failure,
            _ => None,
        };
        // All listeners are closed before the lock is given up: the next master can bind at once.
        self.instances.clear();
        self.metrics = None;
        self.control.remove();
        match &failure {
            None => tracing::info!(node = self.node.name, "stopped"),
            Some(reason) => tracing::error!(node = self.node.name, reason, "cannot start"),
        }
        self.pid_file.remove();
        match failure {
            None => {
                self.outcome
                    .failed(&format!("{}: stopped before all children served", self.node.name));
                ExitCode::SUCCESS
            }
            Some(reason) => {
                self.outcome
                    .failed(&format!("{}: cannot start: {reason}", self.node.name));
                ExitCode::from(FAILURE)
            }
        }
    }
}
