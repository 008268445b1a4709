//! The delivery core: which worker link gets which event, what is in flight, and what happens to it when a link ends.
//!
//! Pure state without sockets or clocks. The caller tells what happened and carries out what comes back as [`Output`].
//!
//! Rules:
//! - A client's events are delivered in their order, all over one link; the client moves to another link only while
//!   nothing of it is in flight.
//! - An event stays here until the worker says `done`. When a link ends, what was in flight over it goes back to the
//!   front of its client's queue and is delivered again, marked.
//! - An event in front when workers died may be the cause: it is tried with a pause, then alone, then given up.
//! - News of a send buffer that no worker was sent yet vanishes with its opposite.
//! - A draining link gets nothing new and is finished once nothing is in flight over it.
//! - A request is a client of its own, with this one event: it goes to the link that has the least to do, and is forgotten
//!   when it is done. One that must not be handled twice is forgotten when its link ends.

use std::collections::VecDeque;

use foldhash::{HashMap, HashSet};
use meepo_proto::id::{ClientNumber, Seq};
use meepo_proto::link::event::Body;

mod client_queue;
mod client_state;
mod delivery;
mod event;
mod link;
mod output;
mod send_buffer;

use client_queue::{ClientQueue, Spare};
use client_state::{Place, Standing};
use event::Pending;
pub(crate) use event::{head_bytes, header_bytes, only_once};
use link::Link;
pub use output::{Flow, Output};

/// A link to a worker child, numbered by the caller and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u64);

/// What the router holds back, and from when on.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Events of one client that a worker may have at a time.
    pub client_in_flight: usize,
    /// Bytes that one link may have in flight; one event may exceed it alone.
    pub link_in_flight_bytes: usize,
    /// Bytes of one client that may wait before its reading is paused.
    pub client_waiting_bytes: usize,
    /// Bytes of all clients that may wait before those who add to it are paused.
    pub waiting_bytes: usize,
    /// After how many workers that died with it in front an event is given up.
    pub max_deliveries: u32,
    /// The same, for links that ended in whatever way.
    pub max_returns: u32,
}

/// How a link has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The connection broke: the worker has died, and an event may be the cause.
    Died,
    /// Only for one client: the worker drains, and leaves its events to others.
    HandedBack,
    /// It was not heard any more, or it went by itself: a network that is cut ends all links in turn.
    Silent,
}

/// See the module's head.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub struct Router {
    bounds: Bounds,
    client_queues: HashMap<ClientNumber, ClientQueue>,
    links: HashMap<LinkId, Link>,
    /// Clients that are not read.
    paused: HashSet<ClientNumber>,
    /// All waiting together is too much: nobody is read until half of it has gone.
    full: bool,
    waiting_bytes: usize,
    waiting: usize,
    in_flight: usize,
    spare: Spare,
}

impl Router {
    /// A router without links and clients.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            client_queues: HashMap::default(),
            links: HashMap::default(),
            paused: HashSet::default(),
            full: false,
            waiting_bytes: 0,
            waiting: 0,
            in_flight: 0,
            spare: Spare::default(),
        }
    }

    /// Events that wait for a worker.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Events that workers have.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Clients that are not read.
    pub fn held_back(&self) -> usize {
        self.paused.len()
    }

    /// Links that are up.
    pub fn links(&self) -> usize {
        self.links.len()
    }

    /// The links that serve clients.
    pub fn link_ids(&self) -> impl Iterator<Item = LinkId> {
        self.links.keys().copied()
    }

    /// Whether any client has events here.
    pub fn is_idle(&self) -> bool {
        self.waiting == 0 && self.in_flight == 0
    }

    /// Whether nothing is left to do for anybody: nobody waits for what was dismissed.
    pub fn is_settled(&self) -> bool {
        !self
            .client_queues
            .values()
            .any(|queue| !queue.standing.is_dismissed() && !queue.is_idle())
    }

    /// Events that nobody has finished and somebody waits for.
    pub fn unfinished(&self) -> usize {
        let client_queues = self
            .client_queues
            .values()
            .filter(|queue| !queue.standing.is_dismissed());
        client_queues
            .map(|queue| queue.waiting.len() + queue.in_flight.len())
            .sum()
    }

    /// The link that serves a client and has seen it.
    pub fn link_of(&self, client: ClientNumber) -> Option<LinkId> {
        self.client_queues.get(&client).and_then(|queue| queue.place.attached())
    }

    /// The worker of a client has forgotten it: it is to be told again what has to be known, with the next event.
    pub fn forgotten(&mut self, client: ClientNumber) {
        if let Some(queue) = self.client_queues.get_mut(&client) {
            queue.place.detach();
        }
    }

    /// Takes an event from a client. A client's first event is `opened`, its last is `closed`.
    pub fn push(&mut self, client: ClientNumber, body: Body, out: &mut Vec<Output>) -> Flow {
        if matches!(body, Body::SendBuffer(_)) && self.take_out_news(client, out) {
            return self.flow(client);
        }
        let queue = self
            .client_queues
            .entry(client)
            .or_insert_with(|| ClientQueue::of(&body));
        let event = Pending::new(queue.next_number(), body);
        let bytes = event.bytes;
        queue.wait(event, &mut self.spare);
        queue.waiting_bytes += bytes;
        self.waiting_bytes += bytes;
        self.waiting += 1;
        self.pump(client, out);
        self.full |= self.waiting_bytes > self.bounds.waiting_bytes;
        match self.client_queues.get(&client) {
            Some(queue) if queue.waiting_bytes > self.bounds.client_waiting_bytes => {
                self.paused.insert(client);
                Flow::Pause
            }
            _ => self.flow(client),
        }
    }

    /// Whether a client may be read, before it is.
    pub fn flow(&mut self, client: ClientNumber) -> Flow {
        if !self.full {
            return Flow::Go;
        }
        self.paused.insert(client);
        Flow::Pause
    }

    /// Whether all waiting together is too much.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Drops a client that no worker has let in and of which none knows. False if one may: then `closed` has to follow.
    pub fn abandon(&mut self, client: ClientNumber, out: &mut Vec<Output>) -> bool {
        let Some(queue) = self.client_queues.get(&client) else {
            return true;
        };
        let unseen = queue.standing != Standing::Known
            && queue.in_flight.is_empty()
            && queue.waiting.front().is_none_or(Pending::is_new_opened);
        if unseen {
            self.forget(client, out);
            self.check_resume(client, out);
        }
        unseen
    }

    /// A worker has rejected the client, or nobody waits for the answer to a request any more: there will be no `closed`,
    /// and nothing is delivered again.
    pub fn dismiss(&mut self, client: ClientNumber, out: &mut Vec<Output>) {
        let Some(queue) = self.client_queues.get_mut(&client) else {
            return;
        };
        queue.standing.dismiss();
        if queue.in_flight.is_empty() {
            self.forget(client, out);
            self.check_resume(client, out);
        }
    }

    /// Whether all that the client has sent is done. If not, [`Output::Settled`] follows.
    pub fn settle(&mut self, client: ClientNumber) -> bool {
        let Some(queue) = self.client_queues.get_mut(&client) else {
            return true;
        };
        queue.settling = true;
        queue.is_idle()
    }

    /// A worker's link is up.
    pub fn link_up(&mut self, link: LinkId, out: &mut Vec<Output>) {
        self.links.insert(link, Link::default());
        self.pump_all(out);
    }

    /// The worker behind a link takes nothing new.
    pub fn link_draining(&mut self, link: LinkId, out: &mut Vec<Output>) {
        let Some(state) = self.links.get_mut(&link) else { return };
        state.draining = true;
        let blocked = std::mem::take(&mut state.blocked);
        for client in blocked.into_iter().chain(std::mem::take(&mut state.suspects)) {
            if let Some(queue) = self.client_queues.get_mut(&client) {
                queue.readiness.unblock();
            }
        }
        self.pump_all(out);
        self.check_finished(link, out);
    }

    /// A link has ended: what was in flight over it is delivered again.
    pub fn link_down(&mut self, link: LinkId, ending: Ending, out: &mut Vec<Output>) {
        let Some(state) = self.links.remove(&link) else { return };
        // Clients that have waited longest (the lowest numbers) are served first.
        let mut clients: Vec<_> = state.clients.into_iter().collect();
        clients.sort_unstable();
        for &client in &clients {
            self.take_back(client, ending, out);
        }
        for client in clients {
            self.pump(client, out);
            self.hand_over(client, out);
            self.check_resume(client, out);
        }
    }

    /// The worker has finished with an event.
    pub fn done(&mut self, link: LinkId, seq: Seq, out: &mut Vec<Output>) {
        let Some(state) = self.links.get_mut(&link) else { return };
        let Some(client) = state.in_flight.remove(&seq) else {
            return;
        };
        let queue = self
            .client_queues
            .get_mut(&client)
            .expect("a client with an event in flight has a queue");
        let at = queue.in_flight.iter().position(|(other, _)| *other == seq);
        let (_, done) = at
            .and_then(|at| queue.in_flight.remove(at))
            .expect("the queue has what the link has in flight");
        state.in_flight_bytes -= done.bytes;
        let suspect = state.suspect.take_if(|suspect| *suspect == seq).is_some();
        self.in_flight -= 1;
        queue.standing.done();
        queue.spare(&mut self.spare);
        if done.is_last() || (queue.standing.is_dismissed() && queue.in_flight.is_empty()) {
            self.forget(client, out);
        } else {
            if queue.settling && queue.is_idle() {
                out.push(Output::Settled { client });
            }
            self.pump(client, out);
            self.hand_over(client, out);
        }
        if suspect {
            self.try_next_suspect(link, out);
        }
        self.unblock(link, out);
        self.check_finished(link, out);
        self.check_resume(client, out);
    }

    /// The worker has cut the handler of an event off, or hands it back: what it has of the client is delivered again.
    pub fn undone(&mut self, link: LinkId, seq: Seq, handed_back: bool, out: &mut Vec<Output>) {
        let Some(state) = self.links.get_mut(&link) else { return };
        // A link that stays would get the event again at once, for ever.
        let ending = match handed_back && state.draining {
            true => Ending::HandedBack,
            false => Ending::Died,
        };
        let Some(&client) = state.in_flight.get(&seq) else {
            return;
        };
        let queue = self
            .client_queues
            .get(&client)
            .expect("a client with an event in flight has a queue");
        let suspect = state.remove(client, queue);
        self.take_back(client, ending, out);
        self.pump(client, out);
        self.hand_over(client, out);
        if suspect {
            self.try_next_suspect(link, out);
        }
        self.unblock(link, out);
        self.check_finished(link, out);
        self.check_resume(client, out);
    }

    /// Tries a client's next event again, a while after [`Output::Hold`].
    pub fn release(&mut self, client: ClientNumber, out: &mut Vec<Output>) {
        if let Some(queue) = self.client_queues.get_mut(&client) {
            queue.readiness.release();
        }
        self.pump(client, out);
        self.check_resume(client, out);
    }

    // === how events move ===

    /// Puts a client's events in flight back to the front of its queue, after their link has ended.
    fn take_back(&mut self, client: ClientNumber, ending: Ending, out: &mut Vec<Output>) {
        let Some(queue) = self.client_queues.get_mut(&client) else {
            return;
        };
        queue.place = Place::Nowhere;
        queue.readiness.unblock();
        self.in_flight -= queue.in_flight.len();
        if queue.standing.is_dismissed() || queue.in_flight.front().is_some_and(|(_, event)| event.only_once()) {
            queue.in_flight.clear();
            self.forget(client, out);
            return;
        }
        let mut events: VecDeque<_> = std::mem::take(&mut queue.in_flight)
            .into_iter()
            .map(|(_, event)| event)
            .collect();
        // A worker handles a client's events one after the other: only the first can have ended it.
        let mut lost = None;
        if let Some(first) = events.front_mut() {
            first.failed += u32::from(ending == Ending::Died);
            first.returned += u32::from(ending != Ending::HandedBack);
            if first.failed >= self.bounds.max_deliveries || first.returned >= self.bounds.max_returns {
                lost = events.pop_front();
            } else if ending == Ending::Died && first.failed + 1 == self.bounds.max_deliveries {
                // Workers that are killed together would each be the next one for it.
                queue.readiness.hold();
                out.push(Output::Hold { client });
            }
        }
        for mut event in events.into_iter().rev() {
            event.redelivered = true;
            queue.waiting_bytes += event.bytes;
            self.waiting_bytes += event.bytes;
            self.waiting += 1;
            queue.waiting.push_front(event);
        }
        if let Some(lost) = lost {
            out.push(Output::GiveUp { client });
            if lost.is_last() {
                self.forget(client, out);
            }
        }
    }

    fn check_finished(&self, link: LinkId, out: &mut Vec<Output>) {
        if self
            .links
            .get(&link)
            .is_some_and(|state| state.draining && state.in_flight.is_empty())
        {
            out.push(Output::Finished { link });
        }
    }

    /// Lets paused clients go on once half of what stopped them has gone.
    fn check_resume(&mut self, client: ClientNumber, out: &mut Vec<Output>) {
        let emptied = self.full && self.waiting_bytes <= self.bounds.waiting_bytes / 2;
        if emptied {
            self.full = false;
        }
        if self.paused.is_empty() || self.full {
            return;
        }
        let (client_queues, few) = (&self.client_queues, self.bounds.client_waiting_bytes / 2);
        let may_go_on =
            |client: &ClientNumber| client_queues.get(client).is_none_or(|queue| queue.waiting_bytes <= few);
        if emptied {
            out.extend(
                self.paused
                    .extract_if(may_go_on)
                    .map(|client| Output::Resume { client }),
            );
        } else if may_go_on(&client) && self.paused.remove(&client) {
            out.push(Output::Resume { client });
        }
    }

    fn forget(&mut self, client: ClientNumber, out: &mut Vec<Output>) {
        let Some(queue) = self.client_queues.remove(&client) else {
            return;
        };
        self.waiting_bytes -= queue.waiting_bytes;
        self.waiting -= queue.waiting.len();
        self.in_flight -= queue.in_flight.len();
        self.paused.remove(&client);
        if let Some(state) = queue.place.link().and_then(|link| self.links.get_mut(&link)) {
            // A worker that is out of order may say `closed` is done before what came earlier.
            state.remove(client, &queue);
        }
        out.push(Output::Forget { client });
    }
}

#[cfg(test)]
mod exhaustive;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
