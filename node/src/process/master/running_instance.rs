//! An instance that the master runs, and its children.

use std::collections::HashSet;
use std::rc::Rc;

use super::child_process::ChildProcess;
use super::child_slot::ChildSlot;
use super::listeners::{Listener, Reserved};
use crate::process::instance::Plan;

/// An instance that runs.
pub(crate) struct RunningInstance {
    pub(crate) name: &'static str,
    pub(crate) stop_order: u8,
    pub(crate) plan: Rc<Plan>,
    pub(crate) listeners: Vec<Rc<Listener>>,
    /// One for each child that there is to be, in the order of their indexes.
    pub(crate) slots: Vec<ChildSlot>,
    /// Children of former generations, which drain, or serve on for a moment.
    pub(crate) former: Vec<ChildProcess>,
    pub(crate) restarts: u64,
    pub(crate) last_exit: Option<String>,
}

impl RunningInstance {
    /// All its children.
    pub(crate) fn processes(&self) -> impl Iterator<Item = &ChildProcess> {
        self.slots
            .iter()
            .flat_map(|slot| slot.process.iter().chain(&slot.successor))
            .chain(&self.former)
    }

    /// All its children.
    pub(crate) fn processes_mut(&mut self) -> impl Iterator<Item = &mut ChildProcess> {
        let slots = self
            .slots
            .iter_mut()
            .flat_map(|slot| slot.process.iter_mut().chain(&mut slot.successor));
        slots.chain(&mut self.former)
    }

    /// The ports that children, or slots for them, have.
    pub(crate) fn reserved(&self) -> HashSet<Reserved> {
        let kept = self
            .slots
            .iter()
            .flat_map(|slot| slot.own.iter().chain(&slot.successor_own));
        kept.map(|own| own.reserved)
            .chain(self.processes().filter_map(|process| process.reserved))
            .collect()
    }
}
