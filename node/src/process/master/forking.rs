//! How a child is forked, and what it takes over from its master.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use nix::unistd::ForkResult;

use super::child_process::ChildProcess;
use super::child_slot::OwnListener;
use super::listeners::Listener;
use super::{Phase, Supervisor};
use crate::config::NodeSection;
use crate::observe::exporter::{Exporter, MetricsSource};
use crate::observe::metrics::NodeInfo;
use crate::observe::stats::ChildState;
use crate::process::child;
use crate::process::instance::Plan;
use crate::sys;

/// All that a child is made of.
pub(super) struct Blueprint<'p> {
    pub(super) instance: usize,
    pub(super) index: usize,
    pub(super) plan: &'p Rc<Plan>,
    pub(super) listeners: &'p [Rc<Listener>],
    pub(super) metrics: Option<&'p Rc<Listener>>,
    pub(super) own: Option<&'p OwnListener>,
    pub(super) node: &'p Arc<NodeSection>,
}

impl Supervisor<'_> {
    /// Starts the first generation. After a failure the phase is a stop.
    pub(super) fn start_all(&mut self) {
        for instance in 0..self.instances.len() {
            for index in 0..self.instances[instance].slots.len() {
                if let Err(reason) = self.start_child(instance, index) {
                    let name = self.instances[instance].name;
                    return self.fail_start(format!("{name} child {index}: {reason}"));
                }
            }
        }
    }

    /// Starts the child of a slot.
    pub(super) fn start_child(&mut self, instance: usize, index: usize) -> Result<(), String> {
        let of = &mut self.instances[instance];
        if of.slots[index].own.is_none()
            && let Some(asked) = &of.plan.own
        {
            let offset = u16::try_from(index).map_err(|_| "too many children")?;
            let listener = Listener::open_own(asked, offset).map_err(|error| format!("{}: {error}", asked.key))?;
            of.slots[index].own = Some(OwnListener {
                listener: Rc::new(listener),
                reserved: (asked.address, offset),
            });
        }
        let of = &self.instances[instance];
        let (plan, listeners, own) = (Rc::clone(&of.plan), of.listeners.clone(), of.slots[index].own.clone());
        let (node, metrics) = (Arc::clone(&self.node), self.metrics.clone());
        let blueprint = Blueprint {
            instance,
            index,
            plan: &plan,
            listeners: &listeners,
            metrics: metrics.as_ref(),
            own: own.as_ref(),
            node: &node,
        };
        let process = self.fork_child(&blueprint)?;
        self.instances[instance].slots[index].process = Some(process);
        Ok(())
    }

    /// Forks a child. In the child this does not return.
    pub(super) fn fork_child(&self, blueprint: &Blueprint<'_>) -> Result<ChildProcess, String> {
        let Blueprint {
            instance,
            index,
            own,
            node,
            ..
        } = blueprint;
        let entry = self
            .stats
            .claim(*instance, *index)
            .ok_or("too many children still drain")?;
        let forked = self
            .prepare(*instance, entry, blueprint)
            .and_then(|(start, ours)| match sys::fork() {
                Ok(ForkResult::Child) => child::run(start),
                Ok(ForkResult::Parent { child }) => Ok((child, ours)),
                Err(error) => Err(format!("cannot fork: {error}")),
            });
        let (pid, socket) = match forked {
            Ok(forked) => forked,
            Err(reason) => {
                self.stats.free(entry);
                return Err(reason);
            }
        };
        let started = Instant::now();
        self.stats.set_pid(entry, pid.as_raw().unsigned_abs());
        tracing::debug!(
            instance = self.instances[*instance].name,
            index,
            pid = pid.as_raw(),
            "started a child"
        );
        Ok(ChildProcess {
            pid,
            index: *index,
            state: ChildState::Starting,
            entry,
            started,
            deadline: Some(started + node.start_timeout),
            failure: None,
            address: own.map(|own| own.listener.address),
            reserved: own.map(|own| own.reserved),
            socket,
            unread: Vec::new(),
            closed: false,
            killed_by_master: false,
        })
    }

    fn prepare(
        &self,
        instance: usize,
        entry: usize,
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
                instance: self.instances[instance].name,
                index: blueprint.index,
                plan: Rc::clone(blueprint.plan),
                shared,
                own,
                stats: self.stats.slot(entry),
                siblings: self.stats.siblings(instance),
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

    /// The source of the node's metrics, for a child that serves them.
    fn source(&self, node: &NodeSection) -> MetricsSource {
        let info = NodeInfo {
            name: node.name.clone(),
            version: self.program.version.clone(),
            instances: self.stats.tables().into(),
        };
        MetricsSource {
            board: self.stats.board(),
            info,
        }
    }

    /// The descriptors that the master has open, which its children close.
    fn descriptors(&self) -> Vec<RawFd> {
        let mut open = vec![
            self.signals.as_fd().as_raw_fd(),
            self.pid_file.file().as_raw_fd(),
            self.stats.file.as_raw_fd(),
        ];
        open.extend(self.control.descriptors());
        open.extend(self.outcome.descriptor());
        for instance in &self.instances {
            open.extend(instance.processes().map(|process| process.socket.as_raw_fd()));
            open.extend(instance.listeners.iter().map(|listener| listener.socket.as_raw_fd()));
            let own = instance
                .slots
                .iter()
                .flat_map(|slot| slot.own.iter().chain(&slot.successor_own));
            open.extend(own.map(|own| own.listener.socket.as_raw_fd()));
        }
        open.extend(self.metrics.iter().map(|listener| listener.socket.as_raw_fd()));
        if let Phase::Reloading(reload) = &self.phase {
            open.extend(reload.listeners().map(|listener| listener.socket.as_raw_fd()));
        }
        open
    }
}

/// A copy of a listener for a child, which closes all descriptors but its copies.
fn copy(socket: &std::net::TcpListener) -> std::io::Result<std::net::TcpListener> {
    debug_assert!(socket.as_raw_fd() > 2, "not a standard descriptor");
    socket.try_clone()
}
