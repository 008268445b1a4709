//! The state that a master leaves to the binary that replaces it.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::observe::stats::{ChildState, Stats};
use crate::process::control::{CallerId, ControlAnswer};
use crate::process::instance::Listen;
use crate::process::master::Supervisor;
use crate::process::master::child_process::ChildProcess;
use crate::process::master::child_slot::{ChildSlot, OwnListener};
use crate::process::master::listeners::{Listener, Reserved};
use crate::process::master::running_instance::RunningInstance;
use crate::process::setup::Options;
use crate::sys;

/// Names the descriptor that has the [`ExecState`]. It has no double underscore: it is no setting.
pub(super) const VARIABLE: &str = "MEEPO_EXEC_STATE";

/// The answer of a binary that can take over from this one. The number counts up when [`ExecState`] changes, or the dialogue
/// between masters and children: the children of the former binary stay for a while.
pub(crate) const VERSION: &str = "meepo exec state 3\n";

/// All that a master knows. Descriptors are numbers here.
#[derive(Serialize, Deserialize)]
pub(crate) struct ExecState {
    /// Only the process that wrote it takes it up.
    pub(super) pid: u32,
    pub(super) binary: PathBuf,
    pub(super) options: Options,
    pub(super) config_text: Option<String>,
    pub(super) uptime: Duration,
    pub(super) pid_file: RawFd,
    pub(super) control: RawFd,
    pub(super) stats: RawFd,
    pub(super) stats_layout: String,
    pub(super) metrics: Option<ListenerState>,
    pub(super) last_reload: Option<(ControlAnswer, Duration)>,
    /// Callers that wait for the reload.
    pub(super) callers: Vec<RawFd>,
    pub(super) instances: Vec<InstanceState>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct InstanceState {
    pub(super) name: String,
    pub(super) listeners: Vec<ListenerState>,
    pub(super) slots: Vec<SlotState>,
    pub(super) former: Vec<ProcessState>,
    pub(super) restarts: u64,
    pub(super) last_exit: Option<String>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct ListenerState {
    pub(super) label: String,
    pub(super) asked: SocketAddr,
    pub(super) key: String,
    pub(super) page: Option<(String, String)>,
    pub(super) socket: RawFd,
}

#[derive(Serialize, Deserialize)]
pub(super) struct SlotState {
    pub(super) process: Option<ProcessState>,
    pub(super) own: Option<(ListenerState, Reserved)>,
    pub(super) failures: u32,
    pub(super) restarts: u64,
    pub(super) last_exit: Option<String>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct ProcessState {
    pub(super) pid: i32,
    pub(super) index: usize,
    pub(super) state: ChildState,
    pub(super) entry: usize,
    pub(super) uptime: Duration,
    pub(super) left: Option<Duration>,
    pub(super) failure: Option<String>,
    pub(super) address: Option<SocketAddr>,
    pub(super) reserved: Option<Reserved>,
    pub(super) socket: RawFd,
    pub(super) unread: Vec<u8>,
    pub(super) killed_by_master: bool,
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

    fn process(&mut self, process: &'a ChildProcess) -> ProcessState {
        ProcessState {
            pid: process.pid.as_raw(),
            index: process.index,
            state: process.state,
            entry: process.entry,
            uptime: process.started.elapsed(),
            left: process.deadline.map(|at| at.saturating_duration_since(Instant::now())),
            failure: process.failure.clone(),
            address: process.address,
            reserved: process.reserved,
            socket: self.pass(&process.socket),
            unread: process.unread.clone(),
            killed_by_master: process.killed_by_master,
        }
    }

    fn slot(&mut self, slot: &'a ChildSlot) -> SlotState {
        SlotState {
            process: slot.process.as_ref().map(|process| self.process(process)),
            own: slot
                .own
                .as_ref()
                .map(|own| (self.listener(&own.listener), own.reserved)),
            failures: slot.failures(),
            restarts: slot.restarts,
            last_exit: slot.last_exit.clone(),
        }
    }

    fn instance(&mut self, instance: &'a RunningInstance) -> InstanceState {
        InstanceState {
            name: instance.name.into(),
            listeners: instance
                .listeners
                .iter()
                .map(|listener| self.listener(listener))
                .collect(),
            slots: instance.slots.iter().map(|slot| self.slot(slot)).collect(),
            former: instance.former.iter().map(|process| self.process(process)).collect(),
            restarts: instance.restarts,
            last_exit: instance.last_exit.clone(),
        }
    }
}

impl Supervisor<'_> {
    /// All that this master knows, and the descriptors that must stay open.
    pub(super) fn exec_state(&self, callers: &[CallerId]) -> (ExecState, Vec<BorrowedFd<'_>>) {
        let mut passing = Passing(Vec::new());
        let state = ExecState {
            pid: std::process::id(),
            binary: self.binary.path().into(),
            options: self.options.clone(),
            config_text: self.config_text.clone(),
            uptime: self.started.elapsed(),
            pid_file: passing.pass(self.pid_file.file()),
            control: passing.pass(self.control.listener()),
            stats: passing.pass(&self.stats.file),
            stats_layout: Stats::layout(self.stats.tables()),
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
            instances: self
                .instances
                .iter()
                .map(|instance| passing.instance(instance))
                .collect(),
        };
        (state, passing.0)
    }
}

/// The state that a former binary of this very process has left.
pub(crate) fn left_behind() -> Option<ExecState> {
    let number = sys::take_variable(VARIABLE)?.to_str()?.parse().ok()?;
    let mut file = File::from(sys::adopt(number).ok()?);
    let mut text = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut text)).ok()?;
    let state: ExecState = serde_json::from_slice(&text).ok()?;
    (state.pid == std::process::id()).then_some(state)
}

impl InstanceState {
    /// Gives an instance its listeners, its children, and the history of both.
    pub(super) fn fill(self, instance: &mut RunningInstance) -> io::Result<()> {
        let now = Instant::now();
        for listener in self.listeners {
            instance.listeners.push(Rc::new(listener.restore()?));
        }
        for slot in self.slots {
            let process = slot.process.map(|process| process.restore(now)).transpose()?;
            let own = match slot.own {
                Some((listener, reserved)) => Some(OwnListener {
                    listener: Rc::new(listener.restore()?),
                    reserved,
                }),
                None => None,
            };
            let mut restored = ChildSlot::new(slot.failures);
            // A child that was backing off is tried again with the new binary.
            restored.retry_at = process.is_none().then_some(now);
            restored.process = process;
            restored.own = own;
            restored.restarts = slot.restarts;
            restored.last_exit = slot.last_exit;
            instance.slots.push(restored);
        }
        for process in self.former {
            instance.former.push(process.restore(now)?);
        }
        instance.restarts = self.restarts;
        instance.last_exit = self.last_exit;
        Ok(())
    }
}

impl ListenerState {
    pub(super) fn restore(self) -> io::Result<Listener> {
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
    pub(super) fn restore(self, now: Instant) -> io::Result<ChildProcess> {
        Ok(ChildProcess {
            pid: Pid::from_raw(self.pid),
            index: self.index,
            state: self.state,
            entry: self.entry,
            started: before(now, self.uptime),
            deadline: self.left.map(|left| now + left),
            failure: self.failure,
            address: self.address,
            reserved: self.reserved,
            socket: sys::adopt(self.socket)?.into(),
            unread: self.unread,
            closed: false,
            killed_by_master: self.killed_by_master,
        })
    }
}

/// The moment that was so long ago.
pub(super) fn before(now: Instant, age: Duration) -> Instant {
    now.checked_sub(age).unwrap_or(now)
}
