//! Children: started, heard, reaped, started again.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};

use super::group::{Group, Life, Own, Process};
use super::listeners::Listener;
use super::{Phase, Supervisor, copy};
use crate::config::NodeSection;
use crate::observe::exporter::{Exporter, Source};
use crate::observe::logs;
use crate::observe::metrics::About;
use crate::observe::stats::Use;
use crate::process::child;
use crate::process::instance::Plan;
use crate::sys;

/// How often a log that fails is tried again.
const MEND_LOGS: Duration = Duration::from_secs(1);

/// What a child is made of.
pub(super) struct Blueprint<'p> {
    pub(super) group: usize,
    pub(super) index: usize,
    pub(super) plan: &'p Rc<Plan>,
    pub(super) listeners: &'p [Rc<Listener>],
    pub(super) metrics: Option<&'p Rc<Listener>>,
    pub(super) own: Option<&'p Own>,
    pub(super) node: &'p Arc<NodeSection>,
}

impl Supervisor<'_> {
    /// Starts the first generation. What fails is told by `phase`, which is a stop then.
    pub(super) fn start_all(&mut self) {
        for group in 0..self.groups.len() {
            for index in 0..self.groups[group].places.len() {
                if let Err(reason) = self.start_child(group, index) {
                    let name = self.groups[group].name;
                    return self.fail_start(format!("{name} child {index}: {reason}"));
                }
            }
        }
    }

    /// Starts the child of a place.
    fn start_child(&mut self, group: usize, index: usize) -> Result<(), String> {
        let of = &mut self.groups[group];
        if of.places[index].own.is_none()
            && let Some(asked) = &of.plan.own
        {
            let offset = u16::try_from(index).map_err(|_| "too many children")?;
            let listener = Listener::open_own(asked, offset).map_err(|error| format!("{}: {error}", asked.key))?;
            of.places[index].own = Some(Own {
                listener: Rc::new(listener),
                reserved: (asked.address, offset),
            });
        }
        let of = &self.groups[group];
        let (plan, listeners, own) = (Rc::clone(&of.plan), of.listeners.clone(), of.places[index].own.clone());
        let (node, metrics) = (Arc::clone(&self.node), self.metrics.clone());
        let blueprint = Blueprint {
            group,
            index,
            plan: &plan,
            listeners: &listeners,
            metrics: metrics.as_ref(),
            own: own.as_ref(),
            node: &node,
        };
        let process = self.fork_child(&blueprint)?;
        self.groups[group].places[index].process = Some(process);
        Ok(())
    }

    /// Forks a child. In the child this does not return.
    pub(super) fn fork_child(&self, blueprint: &Blueprint<'_>) -> Result<Process, String> {
        let Blueprint {
            group,
            index,
            own,
            node,
            ..
        } = blueprint;
        let slot = self
            .stats
            .claim(*group, *index)
            .ok_or("too many children still drain")?;
        let forked = self
            .prepare(*group, slot, blueprint)
            .and_then(|(start, ours)| match sys::fork() {
                Ok(ForkResult::Child) => child::run(start),
                Ok(ForkResult::Parent { child }) => Ok((child, ours)),
                Err(error) => Err(format!("cannot fork: {error}")),
            });
        let (pid, socket) = match forked {
            Ok(forked) => forked,
            Err(reason) => {
                self.stats.mark(slot, Use::Free);
                return Err(reason);
            }
        };
        let started = Instant::now();
        self.stats.occupy(slot, pid.as_raw().unsigned_abs());
        tracing::debug!(
            instance = self.groups[*group].name,
            index,
            pid = pid.as_raw(),
            "started a child"
        );
        Ok(Process {
            pid,
            index: *index,
            life: Life::Starting,
            slot,
            started,
            deadline: Some(started + node.start_timeout),
            failure: None,
            address: own.map(|own| own.listener.address),
            reserved: own.map(|own| own.reserved),
            socket,
            heard: Vec::new(),
            silent: false,
            condemned: false,
        })
    }

    fn prepare(
        &self,
        group: usize,
        slot: usize,
        blueprint: &Blueprint<'_>,
    ) -> Result<(child::Start, UnixStream), String> {
        let build = || -> std::io::Result<_> {
            let (ours, theirs) = UnixStream::pair()?;
            ours.set_nonblocking(true)?;
            let shared = blueprint
                .listeners
                .iter()
                .map(|listener| copy(&listener.socket))
                .collect::<Result<_, _>>()?;
            let own = blueprint.own.map(|own| copy(&own.listener.socket)).transpose()?;
            let exporter = match blueprint.metrics {
                Some(listener) => Some(Exporter {
                    listener: copy(&listener.socket)?,
                    source: self.source(blueprint.node),
                }),
                None => None,
            };
            let start = child::Start {
                instance: self.groups[group].name,
                index: blueprint.index,
                plan: Rc::clone(blueprint.plan),
                shared,
                own,
                stats: self.stats.slot(slot),
                siblings: self.stats.siblings(group),
                exporter,
                node: Arc::clone(blueprint.node),
                new_logs: !blueprint.node.logs_as(&self.node),
                close: self.descriptors().into_iter().chain([ours.as_raw_fd()]).collect(),
                master: theirs,
            };
            Ok((start, ours))
        };
        build().map_err(|error| error.to_string())
    }

    /// Where a child has the metrics of the node from.
    fn source(&self, node: &NodeSection) -> Source {
        let about = About {
            name: node.name.clone(),
            version: self.program.version.clone(),
            instances: self.groups.iter().map(|group| group.name).collect(),
        };
        Source {
            board: self.stats.board(),
            about,
        }
    }

    /// What the master has open: nothing for its children.
    fn descriptors(&self) -> Vec<RawFd> {
        let mut open = vec![
            self.signals.as_fd().as_raw_fd(),
            self.pid_file.file().as_raw_fd(),
            self.stats.file.as_raw_fd(),
        ];
        open.extend(self.control.descriptors());
        open.extend(self.terminal.descriptor());
        for group in &self.groups {
            open.extend(group.processes().map(|process| process.socket.as_raw_fd()));
            open.extend(group.listeners.iter().map(|listener| listener.socket.as_raw_fd()));
            let own = group
                .places
                .iter()
                .flat_map(|place| place.own.iter().chain(&place.successor_own));
            open.extend(own.map(|own| own.listener.socket.as_raw_fd()));
        }
        open.extend(self.metrics.iter().map(|listener| listener.socket.as_raw_fd()));
        if let Phase::Reloading(reload) = &self.phase {
            open.extend(reload.listeners().map(|listener| listener.socket.as_raw_fd()));
        }
        open
    }

    /// Reads what children say; `told` is in the order of all that can still say something.
    pub(super) fn hear_children(&mut self, told: &[bool]) {
        let stats = &self.stats;
        let all = self
            .groups
            .iter_mut()
            .flat_map(Group::processes_mut)
            .filter(|process| !process.silent);
        for (process, _) in all.zip(told).filter(|(_, told)| **told) {
            if process.hear() && process.life == Life::Starting {
                process.life = Life::Serving;
                process.deadline = None;
                stats.mark(process.slot, Use::Serving);
            }
        }
    }

    /// Collects all that have ended; the first process of a container inherits some that it has never started.
    pub(super) fn reap(&mut self) {
        loop {
            match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(status) => {
                    if let Some(pid) = status.pid() {
                        self.ended(pid, status);
                    }
                }
            }
        }
    }

    fn ended(&mut self, pid: Pid, status: WaitStatus) {
        let is_it = |process: &Process| process.pid == pid;
        let Some(group) = self.groups.iter().position(|group| group.processes().any(is_it)) else {
            return;
        };
        let of = &mut self.groups[group];
        if let Some(at) = of.leaving.iter().position(is_it) {
            let process = of.leaving.swap_remove(at);
            self.bury(group, process, status);
        } else if let Some(index) = of
            .places
            .iter()
            .position(|place| place.process.as_ref().is_some_and(is_it))
        {
            let process = of.places[index].process.take().expect("it was just found");
            let (process, reason) = self.bury(group, process, status);
            self.replace(group, index, &process, reason.unwrap_or_else(|| "exit code 0".into()));
        } else if let Some(index) = of
            .places
            .iter()
            .position(|place| place.successor.as_ref().is_some_and(is_it))
        {
            let process = of.places[index].successor.take().expect("it was just found");
            let (_, reason) = self.bury(group, process, status);
            let name = self.groups[group].name;
            self.undo_reload(format!(
                "{name} child {index}: {}",
                reason.unwrap_or_else(|| "exit code 0".into())
            ));
        }
    }

    /// Takes leave of a child: its last words, its figures, the reason of its end.
    fn bury(&mut self, group: usize, mut process: Process, status: WaitStatus) -> (Process, Option<String>) {
        process.hear();
        self.stats.retire(process.slot);
        let reason = process.exit_reason(status);
        if let Some(reason) = &reason {
            let of = &mut self.groups[group];
            of.last_exit = Some(reason.clone());
            tracing::warn!(
                instance = of.name,
                index = process.index,
                pid = process.pid.as_raw(),
                reason,
                "a child died"
            );
        }
        (process, reason)
    }

    /// Sees to a place whose child has died.
    fn replace(&mut self, group: usize, index: usize, process: &Process, reason: String) {
        match self.phase {
            Phase::Stopping(_) => {}
            Phase::Starting => {
                let name = self.groups[group].name;
                self.fail_start(format!("{name} child {index}: {reason}"));
            }
            Phase::Serving | Phase::Reloading(_) => {
                let pause = self.groups[group].places[index].died(process, &reason, Instant::now());
                // Said once: that it goes on is in the line of each death, and in `status`.
                if pause > Duration::ZERO && self.groups[group].places[index].failures == 2 {
                    let name = self.groups[group].name;
                    tracing::warn!(
                        instance = name,
                        index,
                        "the child keeps dying soon after its start, pausing between attempts"
                    );
                }
            }
        }
    }

    /// Does what is due: starts children again, and ends those that take too long.
    pub(super) fn keep_deadlines(&mut self) {
        if logs::fails() {
            logs::mend();
        }
        let now = Instant::now();
        let past = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        for process in self
            .groups
            .iter_mut()
            .flat_map(Group::processes_mut)
            .filter(|process| past(process.deadline))
        {
            process.deadline = None;
            match process.life {
                // A reload has kept it for a while.
                Life::Serving => {
                    process.drain("reload", self.node.stop_timeout);
                    continue;
                }
                Life::Starting => {
                    let limit = humantime::format_duration(self.node.start_timeout);
                    process.failure = Some(format!("was not ready within {limit}"));
                }
                Life::Draining => tracing::warn!(
                    pid = process.pid.as_raw(),
                    "a child did not drain in time and is ended by force"
                ),
            }
            process.kill();
        }
        if matches!(self.phase, Phase::Stopping(_)) {
            return;
        }
        for group in 0..self.groups.len() {
            for index in 0..self.groups[group].places.len() {
                if past(self.groups[group].places[index].retry_at) {
                    self.start_again(group, index);
                }
            }
        }
    }

    fn start_again(&mut self, group: usize, index: usize) {
        self.groups[group].places[index].retry_at = None;
        match self.start_child(group, index) {
            Ok(()) => {
                let of = &mut self.groups[group];
                of.restarts += 1;
                of.places[index].restarts += 1;
            }
            Err(reason) => {
                let of = &mut self.groups[group];
                let place = &mut of.places[index];
                let pause = place.failed(&reason, Instant::now());
                tracing::warn!(instance = of.name, index, reason, ?pause, "cannot start a child");
            }
        }
    }

    /// When something is due next.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let of_children = self
            .groups
            .iter()
            .flat_map(Group::processes)
            .filter_map(|process| process.deadline);
        let of_places = self
            .groups
            .iter()
            .flat_map(|group| &group.places)
            .filter_map(|place| place.retry_at);
        let of_stop = match &self.phase {
            Phase::Stopping(stopping) => stopping.next_deadline(),
            _ => None,
        };
        of_children
            .chain(of_places)
            .chain(self.control.deadline())
            .chain(of_stop)
            .chain(logs::fails().then(|| Instant::now() + MEND_LOGS))
            .min()
    }
}
