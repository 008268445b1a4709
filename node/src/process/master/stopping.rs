//! The stop: instances drain in stages, in their stop order.

use std::time::{Duration, Instant};

use super::child_process::ChildProcess;
use super::running_instance::RunningInstance;
use super::{Phase, Supervisor};
use crate::observe::stats::ChildState;
use crate::process::control::ControlAnswer;
use crate::stop::StopReason;

/// How long children may take in a hurried stop.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// A stop that is under way.
pub(super) struct Stopping {
    began: Instant,
    /// How long it may take before all children are ended by force.
    limit: Duration,
    /// Everything that was due up to then is done.
    done: Instant,
    /// How many stages there are.
    stages: u32,
    /// All children drain now, for a last moment.
    hurried: bool,
    /// All children were ended by force.
    forced: bool,
    /// Why the start has failed, if that is why the node stops.
    pub(super) failure: Option<String>,
}

impl Stopping {
    /// The time until all ends by force.
    pub(super) fn left(&self) -> Duration {
        self.limit.saturating_sub(self.began.elapsed())
    }

    /// When the next stage begins at the latest, or all ends by force.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let stage = |number: u32| self.began + self.limit * number / self.stages.max(1);
        (1..=self.stages.max(1)).map(stage).find(|at| *at > self.done)
    }
}

impl Supervisor<'_> {
    /// Begins a graceful stop, unless one is under way.
    pub(super) fn stop(&mut self, why: &str) {
        if !matches!(self.phase, Phase::Stopping(_)) {
            tracing::info!(node = self.node.name, why, "stopping");
            self.begin_stop(None);
        }
    }

    /// Ends all children now.
    pub(super) fn stop_at_once(&mut self, why: &str) {
        self.stop(why);
        if let Phase::Stopping(stopping) = &mut self.phase {
            stopping.forced = true;
        }
        self.instances
            .iter_mut()
            .flat_map(RunningInstance::processes_mut)
            .for_each(ChildProcess::kill);
    }

    /// Gives the children that are left a last moment, so that clients are at least told. The second time, not even that.
    pub(super) fn hurry_stop(&mut self) {
        match &mut self.phase {
            Phase::Stopping(stopping) if !stopping.hurried => {
                stopping.hurried = true;
                stopping.limit = stopping.limit.min(stopping.began.elapsed() + LAST_MOMENT);
            }
            _ => self.stop_at_once("a signal"),
        }
    }

    /// Ends all children, since the start has failed.
    pub(super) fn fail_start(&mut self, reason: String) {
        if !matches!(self.phase, Phase::Stopping(_)) {
            self.begin_stop(Some(reason));
            self.stop_at_once("the start has failed");
        }
    }

    fn begin_stop(&mut self, failure: Option<String>) {
        let refused = ControlAnswer::from(Err("the node stops".into()));
        let mut callers = self.reload_wanted.take().unwrap_or_default();
        let mut orders: Vec<u8> = self.instances.iter().map(|instance| instance.stop_order).collect();
        orders.sort_unstable();
        orders.dedup();
        // No child is started any more.
        for slot in self.instances.iter_mut().flat_map(|instance| &mut instance.slots) {
            slot.retry_at = None;
        }
        let now = Instant::now();
        let stopping = Stopping {
            began: now,
            done: now,
            limit: self.node.stop_timeout,
            stages: orders.len().try_into().unwrap_or(1),
            hurried: false,
            forced: false,
            failure,
        };
        if let Phase::Reloading(reload) = std::mem::replace(&mut self.phase, Phase::Stopping(stopping)) {
            callers.extend(reload.callers);
        }
        for caller in callers {
            self.control.answer(caller, &refused);
        }
    }

    /// Has the instances drain whose stage has come. Returns whether no child is left.
    pub(super) fn go_on_stopping(&mut self) -> bool {
        let Phase::Stopping(stopping) = &mut self.phase else {
            return false;
        };
        if self
            .instances
            .iter()
            .all(|instance| instance.processes().next().is_none())
        {
            return true;
        }
        stopping.done = Instant::now();
        let spent = stopping.done - stopping.began;
        if spent >= stopping.limit && !stopping.forced {
            stopping.forced = true;
            let left = self.instances.iter().flat_map(RunningInstance::processes).count();
            tracing::warn!(left, "children did not drain in time and are ended by force");
            self.instances
                .iter_mut()
                .flat_map(RunningInstance::processes_mut)
                .for_each(ChildProcess::kill);
        }
        let mut orders: Vec<u8> = self.instances.iter().map(|instance| instance.stop_order).collect();
        orders.sort_unstable();
        orders.dedup();
        for (number, order) in (0..).zip(orders) {
            let due = stopping.hurried || spent >= stopping.limit * number / stopping.stages.max(1);
            let earlier_gone = self
                .instances
                .iter()
                .filter(|instance| instance.stop_order < order)
                .all(|instance| instance.processes().next().is_none());
            if !(due || earlier_gone) {
                break;
            }
            for process in self
                .instances
                .iter_mut()
                .filter(|instance| instance.stop_order == order)
                .flat_map(RunningInstance::processes_mut)
            {
                match process.state {
                    // It holds no client yet, and may never read the order.
                    ChildState::Starting => {
                        process.state = ChildState::Draining;
                        process.kill();
                    }
                    ChildState::Serving => {
                        self.stats.mark(process.entry, ChildState::Draining);
                        process.drain(StopReason::Stop, stopping.limit.saturating_sub(spent));
                    }
                    ChildState::Draining => {}
                }
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_deadline_is_missed_between_two_looks() {
        let began = Instant::now().checked_sub(Duration::from_secs(60)).unwrap();
        let mut stopping = Stopping {
            began,
            limit: Duration::from_secs(30),
            done: began + Duration::from_secs(9),
            stages: 3,
            hurried: false,
            forced: false,
            failure: None,
        };
        assert_eq!(stopping.next_deadline(), Some(began + Duration::from_secs(10)));
        stopping.done = began + Duration::from_secs(29);
        assert_eq!(stopping.next_deadline(), Some(began + Duration::from_secs(30)));
        stopping.done = began + Duration::from_secs(30);
        assert_eq!(stopping.next_deadline(), None);
    }
}
