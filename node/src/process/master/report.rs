//! What the master says of itself and of its children.

use std::net::{IpAddr, SocketAddr};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::Supervisor;
use super::group::{Group, Life, Place, Process};
use super::listeners::Listener;
use super::signals::State;
use crate::observe::problems;
use crate::observe::status::{ChildStatus, InstanceStatus, ListenerStatus, NodeStatus, ReloadStatus};
use crate::observe::usage::usage;

impl Supervisor<'_> {
    /// How things are.
    pub(super) fn status(&self) -> NodeStatus {
        let instances: Vec<_> = (0..)
            .zip(&self.groups)
            .map(|(number, group)| self.instance(number, group))
            .collect();
        let master = self.stats.master().read();
        let children = instances.iter().flat_map(|instance| {
            let name = |child: &ChildStatus| format!("{} {}", instance.name, child.index);
            instance.children.iter().map(move |child| (name(child), child.figures))
        });
        let processes = [("master".to_owned(), master)].into_iter().chain(children);
        let problems = processes.flat_map(|(process, figures)| problems::present(&process, &figures));
        NodeStatus {
            problems: problems.collect(),
            lost_log_lines: master.lost_log_lines,
            name: self.node.name.clone(),
            pid: std::process::id(),
            version: self.program.version.clone(),
            uptime_s: self.started.elapsed().as_secs_f64(),
            state: match self.state() {
                State::Starting => "starting",
                State::Serving => "serving",
                State::Reloading => "reloading",
                State::Stopping => "stopping",
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

    /// Tells children, for metrics, when this master started.
    pub(super) fn publish_start(&self) {
        let started = SystemTime::now().checked_sub(self.started.elapsed());
        let since_1970 = started.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        self.stats.started(since_1970.unwrap_or_default().as_secs());
    }

    /// Tells children, for metrics, what only the master knows.
    pub(super) fn publish(&self) {
        for (number, group) in self.groups.iter().enumerate() {
            let backing_off = group.places.iter().filter(|place| place.backs_off()).count();
            self.stats.tell(number, group.restarts, backing_off as u64);
        }
    }

    fn instance(&self, number: usize, group: &Group) -> InstanceStatus {
        let placed = (0..)
            .zip(&group.places)
            .flat_map(|(index, place)| self.place(index, place));
        let leaving = group.leaving.iter().map(|process| ChildStatus {
            state: "draining".into(),
            ..self.child(process, 0, None)
        });
        let children: Vec<ChildStatus> = placed.chain(leaving).collect();
        let mut totals = self.stats.totals(number);
        children.iter().for_each(|child| totals.add(&child.figures));
        InstanceStatus {
            name: group.name.into(),
            listeners: group
                .listeners
                .iter()
                .map(|listener| listener_status(listener))
                .collect(),
            restarts: group.restarts,
            last_exit: group.last_exit.clone(),
            totals,
            children,
        }
    }

    fn place(&self, index: usize, place: &Place) -> Vec<ChildStatus> {
        let last_exit = place.last_exit.clone();
        let processes = place.process.iter().chain(&place.successor);
        let mut children: Vec<_> = processes
            .map(|process| self.child(process, place.restarts, last_exit.clone()))
            .collect();
        if place.backs_off() {
            children.push(ChildStatus {
                index,
                state: "backing_off".into(),
                address: place.own.as_ref().map(|own| own.listener.address.to_string()),
                restarts: place.restarts,
                last_exit,
                ..ChildStatus::default()
            });
        }
        children
    }

    fn child(&self, process: &Process, restarts: u64, last_exit: Option<String>) -> ChildStatus {
        let (cpu_s, memory_bytes) = usage(process.pid.as_raw().unsigned_abs());
        ChildStatus {
            pid: Some(process.pid.as_raw().unsigned_abs()),
            index: process.index,
            state: match process.life {
                Life::Starting => "starting",
                Life::Serving => "serving",
                Life::Draining => "draining",
            }
            .into(),
            address: process.address.map(|address| address.to_string()),
            uptime_s: (Instant::now() - process.started).as_secs_f64(),
            restarts,
            last_exit,
            cpu_s,
            memory_bytes,
            figures: self.stats.slot(process.slot).read(),
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
