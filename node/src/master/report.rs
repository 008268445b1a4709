//! What the master says of itself and of its children.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::Supervisor;
use super::group::{Group, Life, Place, Process};
use super::listeners::Listener;
use super::signals::State;
use crate::status::{ChildStatus, InstanceStatus, ListenerStatus, NodeStatus, ReloadStatus};
use crate::sys;

impl Supervisor<'_> {
    /// How things are.
    pub(super) fn status(&self) -> NodeStatus {
        NodeStatus {
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
            instances: self
                .groups
                .iter()
                .enumerate()
                .map(|(number, group)| self.instance(number, group))
                .collect(),
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
        if place.process.is_none() && place.retry_at.is_some() {
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
        let (cpu_s, memory_bytes) = usage(process.pid.as_raw());
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

/// Seconds on a processor and bytes in memory; zeroes if the system does not say.
fn usage(pid: i32) -> (f64, u64) {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let stat = read("stat");
    // The name, in parentheses, may hold anything: what counts begins after the last one.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
        .collect();
    let ticks = |at: usize| {
        fields
            .get(at)
            .and_then(|field| field.parse::<f64>().ok())
            .unwrap_or_default()
    };
    let pages: u64 = read("statm")
        .split_whitespace()
        .nth(1)
        .and_then(|field| field.parse().ok())
        .unwrap_or_default();
    (
        (ticks(11) + ticks(12)) / sys::ticks_per_second(),
        pages * sys::page_size(),
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_process_uses_memory() {
        let (cpu, memory) = super::usage(std::process::id().cast_signed());
        assert!(cpu >= 0.0);
        assert!(memory > 100_000);
        assert_eq!(super::usage(i32::MAX), (0.0, 0));
    }
}
