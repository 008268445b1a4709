//! A link in the router: which clients it serves, and what is in flight over it.

use std::collections::VecDeque;

use foldhash::{HashMap, HashSet};
use meepo_proto::id::{ClientNumber, Seq};

use super::client_queue::ClientQueue;
use super::client_state::{Place, Readiness};
use super::{LinkId, Output};

/// A link that is up.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Link {
    pub(super) draining: bool,
    last_seq: u64,
    pub(super) clients: HashSet<ClientNumber>,
    /// How many of these are requests.
    pub(super) requests: usize,
    pub(super) in_flight: HashMap<Seq, ClientNumber>,
    pub(super) in_flight_bytes: usize,
    /// Clients that wait for room on this link; no other client overtakes them.
    pub(super) blocked: VecDeque<ClientNumber>,
    /// The only suspect that is in flight: an event that is given up if this link ends as well.
    pub(super) suspect: Option<Seq>,
    /// Clients with a suspect in front. Suspects are tried one at a time.
    pub(super) suspects: VecDeque<ClientNumber>,
    /// Larger for links that were given a request later: each has its turn.
    pub(super) turn: u64,
}

impl Link {
    /// The number of the last event over this link.
    #[cfg(test)]
    pub(super) fn last_seq(&self) -> Seq {
        Seq(self.last_seq)
    }

    /// The number of the next event over this link.
    pub(super) fn next_seq(&mut self) -> Seq {
        self.last_seq += 1;
        Seq(self.last_seq)
    }

    fn join(&mut self, client: ClientNumber, is_request: bool) {
        if self.clients.insert(client) {
            self.requests += usize::from(is_request);
        }
    }

    fn leave(&mut self, client: ClientNumber, is_request: bool) {
        if self.clients.remove(&client) {
            self.requests -= usize::from(is_request);
        }
    }

    /// Takes a client out, with its events in flight. True if one of them was the suspect.
    pub(super) fn remove(&mut self, client: ClientNumber, queue: &ClientQueue) -> bool {
        self.leave(client, queue.standing.is_request());
        if queue.readiness == Readiness::Blocked {
            self.blocked.retain(|blocked| *blocked != client);
            self.suspects.retain(|suspect| *suspect != client);
        }
        let mut suspect = false;
        for (seq, event) in &queue.in_flight {
            self.in_flight.remove(seq);
            self.in_flight_bytes -= event.bytes;
            suspect |= self.suspect.take_if(|suspect| suspect == seq).is_some();
        }
        suspect
    }
}

/// The link for a client's next event: the one that serves it, or, when that one drains and nothing of the client is in
/// flight, the one with the fewest clients. For a request it is the link with the fewest events in flight, each in turn.
pub(super) fn choose_link(
    client: ClientNumber,
    queue: &mut ClientQueue,
    links: &mut HashMap<LinkId, Link>,
    out: &mut Vec<Output>,
) -> Option<LinkId> {
    if let Some(link) = queue.place.link()
        && links.get(&link).is_some_and(|state| !state.draining)
    {
        return Some(link);
    }
    if !queue.in_flight.is_empty() {
        return None;
    }
    let is_request = queue.standing.is_request();
    let (&link, _) =
        links
            .iter()
            .filter(|(_, state)| !state.draining)
            .min_by_key(|(link, state)| match is_request {
                true => (state.in_flight.len(), state.turn, **link),
                false => (state.clients.len() - state.requests, 0, **link),
            })?;
    if let Some(old) = queue.place.link()
        && let Some(state) = links.get_mut(&old)
    {
        state.leave(client, is_request);
        if queue.place.attached().is_some() {
            out.push(Output::Detach { link: old, client });
        }
    }
    let last_turn = links.values().map(|state| state.turn).max().unwrap_or(0);
    let state = links.get_mut(&link)?;
    state.join(client, is_request);
    if is_request {
        state.turn = last_turn + 1;
    }
    queue.place = Place::Chosen(link);
    Some(link)
}
