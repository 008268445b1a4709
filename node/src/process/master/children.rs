//! The life of the children that run: reports, deaths, new starts, deadlines.

use std::time::{Duration, Instant};

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::child_process::ChildProcess;
use super::running_instance::RunningInstance;
use super::{Phase, Supervisor};
use crate::observe::logs;
use crate::observe::stats::ChildState;
use crate::stop::StopReason;

impl Supervisor<'_> {
    /// Reads the reports of children. `told`, whether one has come, is in the order of all children whose socket is open.
    pub(super) fn hear_children(&mut self, told: &[bool]) {
        let stats = &self.stats;
        let all = self
            .instances
            .iter_mut()
            .flat_map(RunningInstance::processes_mut)
            .filter(|process| !process.closed);
        for (process, _) in all.zip(told).filter(|(_, told)| **told) {
            if process.read_reports() && process.state == ChildState::Starting {
                process.state = ChildState::Serving;
                process.deadline = None;
                stats.mark(process.entry, ChildState::Serving);
            }
        }
    }

    /// Collects all children that have ended. The first process of a container inherits some that it has never started.
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
        let is_this = |process: &ChildProcess| process.pid == pid;
        let Some(instance) = self
            .instances
            .iter()
            .position(|instance| instance.processes().any(is_this))
        else {
            return;
        };
        let of = &mut self.instances[instance];
        if let Some(at) = of.former.iter().position(is_this) {
            let process = of.former.swap_remove(at);
            self.retire(instance, process, status);
        } else if let Some(index) = of
            .slots
            .iter()
            .position(|slot| slot.process.as_ref().is_some_and(is_this))
        {
            let process = of.slots[index].process.take().expect("its position was just found");
            let (process, reason) = self.retire(instance, process, status);
            self.replace(
                instance,
                index,
                &process,
                reason.unwrap_or_else(|| "exit code 0".into()),
            );
        } else if let Some(index) = of
            .slots
            .iter()
            .position(|slot| slot.successor.as_ref().is_some_and(is_this))
        {
            let process = of.slots[index].successor.take().expect("its position was just found");
            let (_, reason) = self.retire(instance, process, status);
            let name = self.instances[instance].name;
            self.undo_reload(format!(
                "{name} child {index}: {}",
                reason.unwrap_or_else(|| "exit code 0".into())
            ));
        }
    }

    /// Reads the last reports of a child that has ended, moves its figures to the totals, and logs why it died.
    fn retire(
        &mut self,
        instance: usize,
        mut process: ChildProcess,
        status: WaitStatus,
    ) -> (ChildProcess, Option<String>) {
        process.read_reports();
        self.stats.retire(process.entry);
        let reason = process.exit_reason(status);
        if let Some(reason) = &reason {
            let of = &mut self.instances[instance];
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

    /// Plans a new child for a slot whose child has died.
    fn replace(&mut self, instance: usize, index: usize, process: &ChildProcess, reason: String) {
        match self.phase {
            Phase::Stopping(_) => {}
            Phase::Starting => {
                let name = self.instances[instance].name;
                self.fail_start(format!("{name} child {index}: {reason}"));
            }
            Phase::Serving | Phase::Reloading(_) => {
                let pause = self.instances[instance].slots[index].died(process, &reason, Instant::now());
                // Logged once: each further death has a line of its own, and `status` shows the pause.
                if pause > Duration::ZERO && self.instances[instance].slots[index].failures() == 2 {
                    let name = self.instances[instance].name;
                    tracing::warn!(
                        instance = name,
                        index,
                        "the child keeps dying soon after its start, pausing between attempts"
                    );
                }
            }
        }
    }

    /// Acts on deadlines that are over: starts children again, and ends children that take too long.
    pub(super) fn keep_deadlines(&mut self) {
        if logs::fails() {
            logs::mend();
        }
        let now = Instant::now();
        let past = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        for process in self
            .instances
            .iter_mut()
            .flat_map(RunningInstance::processes_mut)
            .filter(|process| past(process.deadline))
        {
            process.deadline = None;
            match process.state {
                // A reload has let it serve on for a moment.
                ChildState::Serving => {
                    process.drain(StopReason::Reload, self.node.stop_timeout);
                    continue;
                }
                ChildState::Starting => {
                    let limit = humantime::format_duration(self.node.start_timeout);
                    process.failure = Some(format!("was not ready within {limit}"));
                }
                ChildState::Draining => tracing::warn!(
                    pid = process.pid.as_raw(),
                    "a child did not drain in time and is ended by force"
                ),
            }
            process.kill();
        }
        if matches!(self.phase, Phase::Stopping(_)) {
            return;
        }
        for instance in 0..self.instances.len() {
            for index in 0..self.instances[instance].slots.len() {
                if past(self.instances[instance].slots[index].retry_at) {
                    self.start_again(instance, index);
                }
            }
        }
    }

    fn start_again(&mut self, instance: usize, index: usize) {
        self.instances[instance].slots[index].retry_at = None;
        match self.start_child(instance, index) {
            Ok(()) => {
                let of = &mut self.instances[instance];
                of.restarts += 1;
                of.slots[index].restarts += 1;
            }
            Err(reason) => {
                let of = &mut self.instances[instance];
                let slot = &mut of.slots[index];
                let pause = slot.failed(&reason, Instant::now());
                tracing::warn!(instance = of.name, index, reason, ?pause, "cannot start a child");
            }
        }
    }

    /// When the next deadline is.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let of_children = self
            .instances
            .iter()
            .flat_map(RunningInstance::processes)
            .filter_map(|process| process.deadline);
        let of_places = self
            .instances
            .iter()
            .flat_map(|instance| &instance.slots)
            .filter_map(|slot| slot.retry_at);
        let of_stop = match &self.phase {
            Phase::Stopping(stopping) => stopping.next_deadline(),
            _ => None,
        };
        of_children
            .chain(of_places)
            .chain(self.control.deadline())
            .chain(of_stop)
            .chain(logs::fails().then(|| Instant::now() + logs::MEND_EVERY))
            .min()
    }
}
