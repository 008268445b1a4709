//! What a master leaves to the binary that replaces it, and how that goes on.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::group::{Group, Life, Own, Place, Process};
use super::listeners::{Listener, Reserved};
use super::{Binary, Phase, Supervisor, signals};
use crate::config::Config;
use crate::observe::logs;
use crate::observe::stats::{Stats, Use};
use crate::process::cli;
use crate::process::control::{Answer, CallerId, Server};
use crate::process::daemon::Terminal;
use crate::process::instance::Listen;
use crate::process::pid_file::PidFile;
use crate::process::program::Master;
use crate::process::setup::{Options, Setup, read_config};
use crate::sys;

/// Names the descriptor that has the [`State`]. It has no double underscore: it is no setting.
pub(super) const VARIABLE: &str = "MEEPO_TAKEOVER";

/// What a binary says that can take over from this one. The number counts up when [`State`] changes, or what masters and
/// children say to each other: the children of the former binary stay for a while.
pub(crate) const TAKEOVER: &str = "meepo takeover 2\n";

/// All that a master knows. Descriptors are numbers here.
#[derive(Serialize, Deserialize)]
pub(crate) struct State {
    /// Only the process that wrote it takes it up.
    pid: u32,
    binary: PathBuf,
    options: Options,
    config_text: Option<String>,
    uptime: Duration,
    pid_file: RawFd,
    control: RawFd,
    stats: RawFd,
    stats_layout: String,
    metrics: Option<ListenerState>,
    last_reload: Option<(Answer, Duration)>,
    /// Callers that wait for the reload.
    callers: Vec<RawFd>,
    groups: Vec<GroupState>,
}

#[derive(Serialize, Deserialize)]
struct GroupState {
    name: String,
    listeners: Vec<ListenerState>,
    places: Vec<PlaceState>,
    leaving: Vec<ProcessState>,
    restarts: u64,
    last_exit: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct ListenerState {
    label: String,
    asked: SocketAddr,
    key: String,
    page: Option<(String, String)>,
    socket: RawFd,
}

#[derive(Serialize, Deserialize)]
struct PlaceState {
    process: Option<ProcessState>,
    own: Option<(ListenerState, Reserved)>,
    failures: u32,
    restarts: u64,
    last_exit: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct ProcessState {
    pid: i32,
    index: usize,
    life: Life,
    slot: usize,
    uptime: Duration,
    left: Option<Duration>,
    failure: Option<String>,
    address: Option<SocketAddr>,
    reserved: Option<Reserved>,
    socket: RawFd,
    heard: Vec<u8>,
    condemned: bool,
}

/// Collects descriptors, and gives their numbers.
struct Passing<'a>(Vec<BorrowedFd<'a>>);

impl<'a> Passing<'a> {
    fn pass(&mut self, fd: &'a impl AsFd) -> RawFd {
        self.0.push(fd.as_fd());
        fd.as_fd().as_raw_fd()
    }

    fn listener(&mut self, listener: &'a Listener) -> ListenerState {
        ListenerState {
            label: listener.asked.label.clone(),
            asked: listener.asked.address,
            key: listener.asked.key.clone(),
            page: listener.asked.page.clone().map(|(scheme, path)| (scheme.into(), path)),
            socket: self.pass(&listener.socket),
        }
    }

    fn process(&mut self, process: &'a Process) -> ProcessState {
        ProcessState {
            pid: process.pid.as_raw(),
            index: process.index,
            life: process.life,
            slot: process.slot,
            uptime: process.started.elapsed(),
            left: process.deadline.map(|at| at.saturating_duration_since(Instant::now())),
            failure: process.failure.clone(),
            address: process.address,
            reserved: process.reserved,
            socket: self.pass(&process.socket),
            heard: process.heard.clone(),
            condemned: process.condemned,
        }
    }

    fn place(&mut self, place: &'a Place) -> PlaceState {
        PlaceState {
            process: place.process.as_ref().map(|process| self.process(process)),
            own: place
                .own
                .as_ref()
                .map(|own| (self.listener(&own.listener), own.reserved)),
            failures: place.failures,
            restarts: place.restarts,
            last_exit: place.last_exit.clone(),
        }
    }

    fn group(&mut self, group: &'a Group) -> GroupState {
        GroupState {
            name: group.name.into(),
            listeners: group.listeners.iter().map(|listener| self.listener(listener)).collect(),
            places: group.places.iter().map(|place| self.place(place)).collect(),
            leaving: group.leaving.iter().map(|process| self.process(process)).collect(),
            restarts: group.restarts,
            last_exit: group.last_exit.clone(),
        }
    }
}

impl Supervisor<'_> {
    /// All that this master knows, and the descriptors that must stay open.
    pub(super) fn legacy(&self, callers: &[CallerId]) -> (State, Vec<BorrowedFd<'_>>) {
        let mut passing = Passing(Vec::new());
        let names: Vec<&str> = self.groups.iter().map(|group| group.name).collect();
        let state = State {
            pid: std::process::id(),
            binary: self.binary.path().into(),
            options: self.options.clone(),
            config_text: self.config_text.clone(),
            uptime: self.started.elapsed(),
            pid_file: passing.pass(self.pid_file.file()),
            control: passing.pass(self.control.listener()),
            stats: passing.pass(&self.stats.file),
            stats_layout: Stats::layout(&names),
            metrics: self.metrics.as_ref().map(|listener| passing.listener(listener)),
            last_reload: self
                .last_reload
                .as_ref()
                .map(|(answer, at)| (answer.clone(), at.elapsed())),
            callers: self
                .control
                .waiting(callers)
                .into_iter()
                .map(|stream| passing.pass(stream))
                .collect(),
            groups: self.groups.iter().map(|group| passing.group(group)).collect(),
        };
        (state, passing.0)
    }
}

/// What a former binary of this very process has left.
pub(crate) fn left_behind() -> Option<State> {
    let number = sys::take_variable(VARIABLE)?.to_str()?.parse().ok()?;
    let mut file = File::from(sys::adopt(number).ok()?);
    let mut text = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut text)).ok()?;
    let state: State = serde_json::from_slice(&text).ok()?;
    (state.pid == std::process::id()).then_some(state)
}

/// Goes on as the master, and begins with a reload.
pub(crate) fn resume(program: &Master, state: State) -> ExitCode {
    match take_up(program, state) {
        Ok(supervisor) => supervisor.serve(),
        // The children notice that their master is gone, and drain.
        Err(reason) => {
            cli::complain(&format!("{}: cannot go on with the new binary: {reason}", program.name));
            ExitCode::from(cli::FAILURE)
        }
    }
}

fn take_up(program: &Master, state: State) -> Result<Supervisor<'_>, String> {
    let text = |error: io::Error| error.to_string();
    let options = state.options;
    // First the settings that the children have: the reload that follows may be refused. If the new binary does not accept
    // them any more, those of the file, which it has checked.
    let file = options.config.as_deref();
    let setup = Config::over(
        &program.name,
        file,
        state.config_text,
        &program.defaults,
        std::env::vars_os(),
    )
    .and_then(|config| Setup::of(config.at(&options.base), program, &options))
    .or_else(|_| read_config(program, &options).and_then(|config| Setup::of(config, program, &options)))
    .map_err(|error| error.to_string())?;
    logs::start(&setup.node, options.daemon).map_err(text)?;
    let signals = signals::listen().map_err(text)?;
    let names: Vec<&str> = setup.plans.iter().map(|planned| planned.name).collect();
    let old_stats = sys::adopt(state.stats).map_err(text)?;
    let same_stats = Stats::layout(&names) == state.stats_layout;
    let stats = if same_stats {
        Stats::map(old_stats)
    } else {
        Stats::new()
    }
    .map_err(text)?;
    logs::name_process("master", stats.master());
    let mut control = Server::over(
        &setup.node.socket_path(),
        sys::adopt(state.control).map_err(text)?.into(),
    );
    let mut callers = Vec::new();
    for caller in state.callers {
        callers.push(control.adopt(sys::adopt(caller).map_err(text)?.into()));
    }
    let metrics = state.metrics.map(ListenerState::take_up);
    let now = Instant::now();
    let mut supervisor = Supervisor {
        program,
        node: Arc::clone(&setup.node),
        groups: Vec::new(),
        metrics: metrics.transpose().map_err(text)?.map(Rc::new),
        stats,
        signals,
        control,
        pid_file: PidFile::adopt(&setup.node.pid_path(), sys::adopt(state.pid_file).map_err(text)?),
        terminal: Terminal::told(options.daemon),
        phase: Phase::Serving,
        started: before(now, state.uptime),
        last_reload: state.last_reload.map(|(answer, age)| (answer, before(now, age))),
        reload_wanted: Some(callers),
        upgrade_wanted: false,
        binary: Binary::at(state.binary, program),
        config_text: setup.config.text().map(Into::into),
        options,
    };
    let mut left = state.groups;
    for (number, planned) in setup.plans.iter().enumerate() {
        let of = left
            .iter()
            .position(|group| group.name == planned.name)
            .map(|at| left.swap_remove(at));
        let mut group = Group {
            name: planned.name,
            stop_order: planned.stop_order,
            plan: Rc::clone(&planned.plan),
            listeners: Vec::new(),
            places: Vec::new(),
            leaving: Vec::new(),
            restarts: 0,
            last_exit: None,
        };
        if let Some(of) = of {
            of.fill(&mut group).map_err(text)?;
        }
        supervisor.groups.push(group);
        supervisor.account(number, same_stats)?;
    }
    // Instances that the program does not have any more.
    for gone in left {
        let processes = gone
            .places
            .into_iter()
            .filter_map(|place| place.process)
            .chain(gone.leaving);
        for process in processes {
            let mut process = process.take_up(now).map_err(text)?;
            process.drain("stop", supervisor.node.stop_timeout);
            supervisor.groups[0].leaving.push(process);
        }
    }
    supervisor.publish_start();
    supervisor.reap();
    Ok(supervisor)
}

impl Supervisor<'_> {
    /// Gives the children of a group slots in statistics that are new.
    fn account(&mut self, group: usize, same_stats: bool) -> Result<(), String> {
        if same_stats {
            return Ok(());
        }
        for process in self.groups[group].processes_mut() {
            process.slot = self.stats.claim(group, process.index).ok_or("too many children")?;
            self.stats.occupy(process.slot, process.pid.as_raw().unsigned_abs());
            let serves = process.life == Life::Serving;
            self.stats
                .mark(process.slot, if serves { Use::Serving } else { Use::Draining });
        }
        Ok(())
    }
}

impl GroupState {
    fn fill(self, group: &mut Group) -> io::Result<()> {
        let now = Instant::now();
        for listener in self.listeners {
            group.listeners.push(Rc::new(listener.take_up()?));
        }
        for place in self.places {
            let process = place.process.map(|process| process.take_up(now)).transpose()?;
            let own = match place.own {
                Some((listener, reserved)) => Some(Own {
                    listener: Rc::new(listener.take_up()?),
                    reserved,
                }),
                None => None,
            };
            group.places.push(Place {
                // What was backing off is tried again with the new binary.
                retry_at: process.is_none().then_some(now),
                process,
                own,
                failures: place.failures,
                restarts: place.restarts,
                last_exit: place.last_exit,
                ..Place::default()
            });
        }
        for process in self.leaving {
            group.leaving.push(process.take_up(now)?);
        }
        group.restarts = self.restarts;
        group.last_exit = self.last_exit;
        Ok(())
    }
}

impl ListenerState {
    fn take_up(self) -> io::Result<Listener> {
        let socket: std::net::TcpListener = sys::adopt(self.socket)?.into();
        let scheme = |scheme: String| if scheme == "https" { "https" } else { "http" };
        Ok(Listener {
            address: socket.local_addr()?,
            asked: Listen {
                label: self.label,
                address: self.asked,
                key: self.key,
                page: self.page.map(|(name, path)| (scheme(name), path)),
            },
            socket,
        })
    }
}

impl ProcessState {
    fn take_up(self, now: Instant) -> io::Result<Process> {
        Ok(Process {
            pid: Pid::from_raw(self.pid),
            index: self.index,
            life: self.life,
            slot: self.slot,
            started: before(now, self.uptime),
            deadline: self.left.map(|left| now + left),
            failure: self.failure,
            address: self.address,
            reserved: self.reserved,
            socket: sys::adopt(self.socket)?.into(),
            heard: self.heard,
            silent: false,
            condemned: self.condemned,
        })
    }
}

fn before(now: Instant, age: Duration) -> Instant {
    now.checked_sub(age).unwrap_or(now)
}
