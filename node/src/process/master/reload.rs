//! A reload: the configuration is read again, and children give way to successors.
//!
//! Successors start one by one beside the children that serve. Only when all are ready, the old ones drain: a reload that
//! fails until then has changed nothing. The first child of each instance comes first, so that a mistake shows early.
//!
//! The instance that stops last, the registry, is another matter: two generations of it know different nodes. So its
//! successors come last, and its former children serve on until the children of other instances have left them.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::child_slot::{ChildSlot, OwnListener};
use super::forking::Blueprint;
use super::listeners::{self, Listener, SharedListeners};
use super::{Phase, Supervisor};
use crate::config::NodeSection;
use crate::observe::logs;
use crate::observe::stats::ChildState;
use crate::process::control::{CallerId, ControlAnswer};
use crate::process::setup::Setup;
use crate::stop::StopReason;

/// How long the instance that stops last serves on when the others of its generation are told to drain.
const SERVE_ON: Duration = Duration::from_secs(1);

/// A reload that is under way.
pub(super) struct Reload {
    setup: Setup,
    listeners: SharedListeners,
    /// RunningInstance and index of the successors that are still to be started.
    queue: VecDeque<(usize, usize)>,
    current: Option<(usize, usize)>,
    pub(super) callers: Vec<CallerId>,
}

impl Reload {
    /// The listeners of the new generation.
    pub(super) fn listeners(&self) -> impl Iterator<Item = &Rc<Listener>> {
        self.listeners.iter()
    }
}

impl Supervisor<'_> {
    /// Begins a reload if one is wanted.
    pub(super) fn begin_wanted_reload(&mut self) {
        let Some(callers) = self.reload_wanted.take() else {
            return;
        };
        let upgrade = std::mem::take(&mut self.upgrade_wanted) || self.binary.is_replaced();
        if upgrade {
            // After a success the new binary goes on with this reload, and this binary ends here.
            let reason = self.upgrade(&callers);
            tracing::error!(reason, "the reload is refused");
            return self.end_reload(callers, Err(reason));
        }
        match self.prepare_reload() {
            Ok((setup, listeners)) => {
                tracing::info!("reloading");
                let mut queue: Vec<(usize, usize)> = (0..)
                    .zip(&setup.plans)
                    .flat_map(|(instance, planned)| (0..planned.plan.children).map(move |index| (instance, index)))
                    .collect();
                let last = self.last_order();
                queue.sort_by_key(|(instance, index)| (setup.plans[*instance].stop_order == last, *index, *instance));
                let queue = queue.into();
                self.phase = Phase::Reloading(Box::new(Reload {
                    setup,
                    listeners,
                    queue,
                    current: None,
                    callers,
                }));
                self.go_on_reloading();
            }
            Err(reason) => {
                tracing::error!(reason, "the reload is refused");
                self.end_reload(callers, Err(reason));
            }
        }
    }

    fn prepare_reload(&self) -> Result<(Setup, SharedListeners), String> {
        let setup = Setup::read(self.program, &self.options).map_err(|error| error.to_string())?;
        self.refuse_fixed(&setup.node)
            .map_err(|(key, why)| setup.config.invalid(key, why).to_string())?;
        let open: Vec<Rc<Listener>> = self
            .instances
            .iter()
            .flat_map(|instance| &instance.listeners)
            .chain(&self.metrics)
            .cloned()
            .collect();
        let listeners = listeners::open_shared(&setup, &open).map_err(|error| error.to_string())?;
        Ok((setup, listeners))
    }

    /// Refuses changes that a master cannot make while it runs.
    fn refuse_fixed(&self, node: &NodeSection) -> Result<(), (&'static str, &'static str)> {
        if node.run_dir != self.node.run_dir {
            return Err(("node.run_dir", "cannot be changed by a reload, only by a restart"));
        }
        if node.name != self.node.name {
            return Err(("node.name", "cannot be changed by a reload, only by a restart"));
        }
        Ok(())
    }

    /// Starts the next successor when the last one is ready, and has the former children drain after that.
    pub(super) fn go_on_reloading(&mut self) {
        loop {
            let Phase::Reloading(reload) = &mut self.phase else {
                return;
            };
            if let Some((instance, index)) = reload.current {
                let successor = self.instances[instance].slots[index].successor.as_ref();
                if successor.is_none_or(|successor| successor.state != ChildState::Serving) {
                    return;
                }
                reload.current = None;
            }
            let Some((instance, index)) = reload.queue.pop_front() else {
                return self.commit_reload();
            };
            reload.current = Some((instance, index));
            if let Err(reason) = self.start_successor(instance, index) {
                let name = self.instances[instance].name;
                return self.undo_reload(format!("{name} child {index}: {reason}"));
            }
        }
    }

    fn start_successor(&mut self, instance: usize, index: usize) -> Result<(), String> {
        let Phase::Reloading(reload) = &self.phase else {
            return Err("no reload is under way".into());
        };
        let plan = Rc::clone(&reload.setup.plans[instance].plan);
        let listeners = reload.listeners.instances[instance].clone();
        let metrics = reload.listeners.metrics.clone();
        let node = Arc::clone(&reload.setup.node);
        let own = match &plan.own {
            None => None,
            Some(asked) => {
                let (listener, reserved) = Listener::open_next(asked, &self.instances[instance].reserved())
                    .map_err(|error| format!("{}: {error}", asked.key))?;
                Some(OwnListener {
                    listener: Rc::new(listener),
                    reserved,
                })
            }
        };
        let slots = &mut self.instances[instance].slots;
        if slots.len() <= index {
            slots.resize_with(index + 1, || ChildSlot::new(0));
        }
        slots[index].successor_own.clone_from(&own);
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
        self.instances[instance].slots[index].successor = Some(process);
        Ok(())
    }

    /// All successors are ready: they take over.
    fn commit_reload(&mut self) {
        let Phase::Reloading(reload) = std::mem::replace(&mut self.phase, Phase::Serving) else {
            return;
        };
        let limit = self.node.stop_timeout;
        let last = self.last_order();
        let alone = self.instances.iter().all(|instance| instance.stop_order == last);
        let SharedListeners { instances, metrics } = reload.listeners;
        self.metrics = metrics;
        for ((instance, planned), listeners) in self.instances.iter_mut().zip(&reload.setup.plans).zip(instances) {
            instance.plan = Rc::clone(&planned.plan);
            instance.listeners = listeners;
            for slot in &mut instance.slots {
                if let Some(mut old) = std::mem::replace(&mut slot.process, slot.successor.take()) {
                    self.stats.mark(old.entry, ChildState::Draining);
                    if instance.stop_order == last && !alone && old.state == ChildState::Serving {
                        old.deadline = Some(Instant::now() + SERVE_ON);
                    } else {
                        old.drain(StopReason::Reload, limit);
                    }
                    instance.former.push(old);
                }
                slot.own = slot.successor_own.take();
                slot.retry_at = None;
                slot.forget_failures();
            }
            instance.slots.truncate(instance.plan.children);
        }
        self.config_text = reload.setup.config.text().map(Into::into);
        let old = std::mem::replace(&mut self.node, Arc::clone(&reload.setup.node));
        if !old.logs_as(&self.node)
            && let Err(error) = logs::change(&self.node)
        {
            tracing::error!(%error, "cannot change the logs");
        }
        tracing::info!("reloaded");
        self.end_reload(reload.callers, Ok(()));
    }

    /// The order of the instances that stop last.
    fn last_order(&self) -> u8 {
        self.instances
            .iter()
            .map(|instance| instance.stop_order)
            .max()
            .unwrap_or(0)
    }

    /// Gives up a reload whose successors do not come to serve. The former generation still serves.
    pub(super) fn undo_reload(&mut self, reason: String) {
        if !matches!(self.phase, Phase::Reloading(_)) {
            return;
        }
        let Phase::Reloading(reload) = std::mem::replace(&mut self.phase, Phase::Serving) else {
            return;
        };
        for instance in &mut self.instances {
            for slot in &mut instance.slots {
                slot.successor_own = None;
                if let Some(mut successor) = slot.successor.take() {
                    match successor.state {
                        ChildState::Starting => successor.kill(),
                        ChildState::Serving | ChildState::Draining => {
                            successor.drain(StopReason::Reload, self.node.stop_timeout)
                        }
                    }
                    self.stats.mark(successor.entry, ChildState::Draining);
                    successor.state = ChildState::Draining;
                    instance.former.push(successor);
                }
            }
            instance.slots.truncate(instance.plan.children);
        }
        tracing::error!(reason, "the reload is undone");
        self.end_reload(reload.callers, Err(reason));
    }

    fn end_reload(&mut self, callers: Vec<CallerId>, result: Result<(), String>) {
        let answer = ControlAnswer::from(result);
        for caller in callers {
            self.control.answer(caller, &answer);
        }
        self.last_reload = Some((answer, Instant::now()));
    }
}
