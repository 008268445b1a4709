//! The client queue: the ordered events of one client.

use std::collections::VecDeque;

use meepo_proto::id::{EventNumber, Seq};
use meepo_proto::link::event::Body;

use super::client_state::{Place, Readiness, Standing};
use super::event::Pending;

/// The events of one client that no worker has finished, and how the client stands.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct ClientQueue {
    pub(super) place: Place,
    pub(super) standing: Standing,
    pub(super) readiness: Readiness,
    /// Somebody waits until every event is done. Independent of all other states.
    pub(super) settling: bool,
    /// The number of its last event, counted from 1.
    last_number: u64,
    pub(super) waiting: VecDeque<Pending>,
    pub(super) waiting_bytes: usize,
    pub(super) in_flight: VecDeque<(Seq, Pending)>,
}

/// Memory of emptied queues, as long as they are few and short: an idle client has none, and a busy one allocates none as a
/// rule.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Spare {
    waiting: Vec<VecDeque<Pending>>,
    in_flight: Vec<VecDeque<(Seq, Pending)>>,
}

/// How many queues are spared, of each kind, and how many events they may have room for.
const SPARE: (usize, usize) = (256, 16);

impl ClientQueue {
    /// The queue of a client, or of a request, whose first event this is.
    pub(super) fn of(first: &Body) -> Self {
        Self {
            place: Place::default(),
            standing: match first {
                Body::Request(_) => Standing::Request,
                _ => Standing::New,
            },
            readiness: Readiness::default(),
            settling: false,
            last_number: 0,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            in_flight: VecDeque::new(),
        }
    }

    /// The number of the next event.
    pub(super) fn next_number(&mut self) -> EventNumber {
        self.last_number += 1;
        EventNumber(self.last_number)
    }

    /// Whether no event waits or is in flight.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty()
    }

    /// Adds an event that waits.
    pub(super) fn wait(&mut self, event: Pending, spare: &mut Spare) {
        take(&mut self.waiting, &mut spare.waiting);
        self.waiting.push_back(event);
    }

    /// Adds an event that is in flight.
    pub(super) fn fly(&mut self, seq: Seq, event: Pending, spare: &mut Spare) {
        take(&mut self.in_flight, &mut spare.in_flight);
        self.in_flight.push_back((seq, event));
    }

    /// Gives back the memory of queues that are empty.
    pub(super) fn spare(&mut self, spare: &mut Spare) {
        give(&mut self.waiting, &mut spare.waiting);
        give(&mut self.in_flight, &mut spare.in_flight);
    }
}

fn take<T>(queue: &mut VecDeque<T>, spare: &mut Vec<VecDeque<T>>) {
    if queue.capacity() == 0
        && let Some(empty) = spare.pop()
    {
        *queue = empty;
    }
}

fn give<T>(queue: &mut VecDeque<T>, spare: &mut Vec<VecDeque<T>>) {
    if queue.capacity() > 0 && queue.is_empty() {
        let empty = std::mem::take(queue);
        if spare.len() < SPARE.0 && empty.capacity() <= SPARE.1 {
            spare.push(empty);
        }
    }
}
