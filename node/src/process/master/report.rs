//! The status that the master gives of itself and of its children.

use std::net::{IpAddr, SocketAddr};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::Supervisor;
use super::child_process::ChildProcess;
use super::child_slot::ChildSlot;
use super::listeners::Listener;
use super::running_instance::RunningInstance;
use super::signals::MasterState;
use crate::observe::problems;
use crate::observe::stats::COMMON;
use crate::observe::status::{ChildStatus, InstanceStatus, ListenerStatus, NodeStatus, ReloadStatus};
use crate::observe::usage::usage;

impl Supervisor<'_> {
    /// The status of the whole node.
    pub(super) fn status(&self) -> NodeStatus {
        let instances: Vec<_> = (0..)
            .zip(&self.instances)
            .map(|(number, instance)| self.instance(number, instance))
            .collect();
        let master = self.stats.master();
        let mut problems = problems::present(COMMON.name, &master.read(), &COMMON);
        for (number, instance) in self.instances.iter().enumerate() {
            let table = self.stats.table(number);
            for process in instance.processes() {
                let name = format!("{} {}", table.name, process.index);
                problems.extend(problems::present(&name, &self.stats.slot(process.entry).read(), table));
            }
        }
        NodeStatus {
            problems,
            lost_log_lines: master.common().lost_log_lines.get(),
            name: self.node.name.clone(),
            pid: std::process::id(),
            version: self.program.version.clone(),
            uptime_s: self.started.elapsed().as_secs_f64(),
            state: match self.state() {
                MasterState::Starting => "starting",
                MasterState::Serving => "serving",
                MasterState::Reloading => "reloading",
                MasterState::Stopping => "stopping",
            }
            .into(),
            last_reload: self.last_reload.as_ref().map(|(answer, at)| ReloadStatus {
                ok: answer.ok,
                reason: answer.reason.clone(),
                age_s: at.elapsed().as_secs_f64(),
            }),
            metrics: self.metrics.as_ref().map(|listener| listener.address.to_string()),
            instances,
        }
    }

    /// Publishes, for metrics, when this master started.
    pub(super) fn publish_start(&self) {
        let started = SystemTime::now().checked_sub(self.started.elapsed());
        let since_1970 = started.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        self.stats.started(since_1970.unwrap_or_default().as_secs());
    }

    /// Publishes, for metrics, the figures that only the master knows.
    pub(super) fn publish(&self) {
        for (number, instance) in self.instances.iter().enumerate() {
            let backing_off = instance.slots.iter().filter(|slot| slot.backs_off()).count();
            self.stats
                .publish_instance(number, instance.restarts, backing_off as u64);
        }
    }

    fn instance(&self, number: usize, instance: &RunningInstance) -> InstanceStatus {
        let placed = (0..)
            .zip(&instance.slots)
            .flat_map(|(index, slot)| self.slot(number, index, slot));
        let former = instance.former.iter().map(|process| ChildStatus {
            state: "draining".into(),
            ..self.child(number, process, 0, None)
        });
        let children: Vec<ChildStatus> = placed.chain(former).collect();
        let mut totals = self.stats.totals(number);
        for process in instance.processes() {
            totals.add(&self.stats.slot(process.entry).read());
        }
        InstanceStatus {
            name: instance.name.into(),
            listeners: instance
                .listeners
                .iter()
                .map(|listener| listener_status(listener))
                .collect(),
            restarts: instance.restarts,
            last_exit: instance.last_exit.clone(),
            totals: totals.named(self.stats.table(number)),
            children,
        }
    }

    fn slot(&self, number: usize, index: usize, slot: &ChildSlot) -> Vec<ChildStatus> {
        let last_exit = slot.last_exit.clone();
        let processes = slot.process.iter().chain(&slot.successor);
        let mut children: Vec<_> = processes
            .map(|process| self.child(number, process, slot.restarts, last_exit.clone()))
            .collect();
        if slot.backs_off() {
            children.push(ChildStatus {
                index,
                state: "backing_off".into(),
                address: slot.own.as_ref().map(|own| own.listener.address.to_string()),
                restarts: slot.restarts,
                last_exit,
                ..ChildStatus::default()
            });
        }
        children
    }

    fn child(&self, number: usize, process: &ChildProcess, restarts: u64, last_exit: Option<String>) -> ChildStatus {
        let (cpu_s, memory_bytes) = usage(process.pid.as_raw().unsigned_abs());
        ChildStatus {
            pid: Some(process.pid.as_raw().unsigned_abs()),
            index: process.index,
            state: process.state.name().into(),
            address: process.address.map(|address| address.to_string()),
            uptime_s: (Instant::now() - process.started).as_secs_f64(),
            restarts,
            last_exit,
            cpu_s,
            memory_bytes,
            figures: self.stats.slot(process.entry).read().named(self.stats.table(number)),
        }
    }
}

fn listener_status(listener: &Listener) -> ListenerStatus {
    let page = listener.asked.page.as_ref();
    ListenerStatus {
        label: listener.asked.label.clone(),
        address: listener.address.to_string(),
        page: page.map(|(scheme, path)| format!("{scheme}://{}{path}", reachable(listener.address))),
    }
}

/// An address that a browser on this machine can open.
fn reachable(address: SocketAddr) -> SocketAddr {
    let mut address = address;
    if address.ip().is_unspecified() {
        address.set_ip(IpAddr::from([127, 0, 0, 1]));
    }
    address
}
