//! A reload: the configuration is read again, and children give way to successors.
//!
//! Successors start one by one beside the children that serve. Only when all are ready, the old ones drain: a reload that
//! fails until then has changed nothing. The first child of each instance comes first, so that a mistake shows early.
//!
//! What stops last, the registry, is another matter: two of them at a time know different nodes. So its successors come last,
//! and its old children stay until those of the others have left them, and all have heard so.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::children::Blueprint;
use super::group::{Life, Own, Place};
use super::listeners::{self, Listener, Shared};
use super::{Phase, Supervisor};
use crate::config::NodeSection;
use crate::observe::logs;
use crate::observe::stats::Use;
use crate::process::control::{Answer, CallerId};
use crate::process::setup::Setup;

/// How long what stops last serves on when the others of its generation are told to drain.
const FAREWELL: Duration = Duration::from_secs(1);

/// A reload that is under way.
pub(super) struct Reload {
    setup: Setup,
    listeners: Shared,
    /// Group and index of the successors that are still to be started.
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
            // If that goes well, the new binary goes on with this reload, and this one ends here.
            let reason = self.upgrade(&callers);
            tracing::error!(reason, "the reload is refused");
            return self.end_reload(callers, Err(reason));
        }
        match self.prepare_reload() {
            Ok((setup, listeners)) => {
                tracing::info!("reloading");
                let mut queue: Vec<(usize, usize)> = (0..)
                    .zip(&setup.plans)
                    .flat_map(|(group, planned)| (0..planned.plan.children).map(move |index| (group, index)))
                    .collect();
                let last = self.last_order();
                queue.sort_by_key(|(group, index)| (setup.plans[*group].stop_order == last, *index, *group));
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

    fn prepare_reload(&self) -> Result<(Setup, Shared), String> {
        let setup = Setup::read(self.program, &self.options).map_err(|error| error.to_string())?;
        self.refuse_fixed(&setup.node)
            .map_err(|(key, why)| setup.config.invalid(key, why).to_string())?;
        let open: Vec<Rc<Listener>> = self
            .groups
            .iter()
            .flat_map(|group| &group.listeners)
            .chain(&self.metrics)
            .cloned()
            .collect();
        let listeners = listeners::open_shared(&setup, &open).map_err(|error| error.to_string())?;
        Ok((setup, listeners))
    }

    /// What a master cannot change while it runs.
    fn refuse_fixed(&self, node: &NodeSection) -> Result<(), (&'static str, &'static str)> {
        if node.run_dir != self.node.run_dir {
            return Err(("node.run_dir", "cannot be changed by a reload, only by a restart"));
        }
        if node.name != self.node.name {
            return Err(("node.name", "cannot be changed by a reload, only by a restart"));
        }
        Ok(())
    }

    /// Starts the next successor when the last one is ready, and lets the old ones go after that.
    pub(super) fn go_on_reloading(&mut self) {
        loop {
            let Phase::Reloading(reload) = &mut self.phase else {
                return;
            };
            if let Some((group, index)) = reload.current {
                let successor = self.groups[group].places[index].successor.as_ref();
                if successor.is_none_or(|successor| successor.life != Life::Serving) {
                    return;
                }
                reload.current = None;
            }
            let Some((group, index)) = reload.queue.pop_front() else {
                return self.commit_reload();
            };
            reload.current = Some((group, index));
            if let Err(reason) = self.start_successor(group, index) {
                let name = self.groups[group].name;
                return self.undo_reload(format!("{name} child {index}: {reason}"));
            }
        }
    }

    fn start_successor(&mut self, group: usize, index: usize) -> Result<(), String> {
        let Phase::Reloading(reload) = &self.phase else {
            return Err("no reload is under way".into());
        };
        let plan = Rc::clone(&reload.setup.plans[group].plan);
        let listeners = reload.listeners.instances[group].clone();
        let metrics = reload.listeners.metrics.clone();
        let node = Arc::clone(&reload.setup.node);
        let own = match &plan.own {
            None => None,
            Some(asked) => {
                let (listener, reserved) = Listener::open_next(asked, &self.groups[group].reserved())
                    .map_err(|error| format!("{}: {error}", asked.key))?;
                Some(Own {
                    listener: Rc::new(listener),
                    reserved,
                })
            }
        };
        let places = &mut self.groups[group].places;
        if places.len() <= index {
            places.resize_with(index + 1, Place::default);
        }
        places[index].successor_own.clone_from(&own);
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
        self.groups[group].places[index].successor = Some(process);
        Ok(())
    }

    /// All successors are ready: they take over.
    fn commit_reload(&mut self) {
        let Phase::Reloading(reload) = std::mem::replace(&mut self.phase, Phase::Serving) else {
            return;
        };
        let limit = self.node.stop_timeout;
        let last = self.last_order();
        let alone = self.groups.iter().all(|group| group.stop_order == last);
        let Shared { instances, metrics } = reload.listeners;
        self.metrics = metrics;
        for ((group, planned), listeners) in self.groups.iter_mut().zip(&reload.setup.plans).zip(instances) {
            group.plan = Rc::clone(&planned.plan);
            group.listeners = listeners;
            for place in &mut group.places {
                if let Some(mut old) = std::mem::replace(&mut place.process, place.successor.take()) {
                    self.stats.mark(old.slot, Use::Draining);
                    if group.stop_order == last && !alone && old.life == Life::Serving {
                        old.deadline = Some(Instant::now() + FAREWELL);
                    } else {
                        old.drain("reload", limit);
                    }
                    group.leaving.push(old);
                }
                place.own = place.successor_own.take();
                place.retry_at = None;
                place.failures = 0;
            }
            group.places.truncate(group.plan.children);
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
        self.groups.iter().map(|group| group.stop_order).max().unwrap_or(0)
    }

    /// Gives up a reload whose successors do not come to serve. The old generation has never stopped to.
    pub(super) fn undo_reload(&mut self, reason: String) {
        if !matches!(self.phase, Phase::Reloading(_)) {
            return;
        }
        let Phase::Reloading(reload) = std::mem::replace(&mut self.phase, Phase::Serving) else {
            return;
        };
        for group in &mut self.groups {
            for place in &mut group.places {
                place.successor_own = None;
                if let Some(mut successor) = place.successor.take() {
                    match successor.life {
                        Life::Starting => successor.kill(),
                        Life::Serving | Life::Draining => successor.drain("reload", self.node.stop_timeout),
                    }
                    self.stats.mark(successor.slot, Use::Draining);
                    successor.life = Life::Draining;
                    group.leaving.push(successor);
                }
            }
            group.places.truncate(group.plan.children);
        }
        tracing::error!(reason, "the reload is undone");
        self.end_reload(reload.callers, Err(reason));
    }

    fn end_reload(&mut self, callers: Vec<CallerId>, result: Result<(), String>) {
        let answer = Answer::from(result);
        for caller in callers {
            self.control.answer(caller, &answer);
        }
        self.last_reload = Some((answer, Instant::now()));
    }
}
