//! What the router knows of a client, of a link and of an event.

use std::collections::VecDeque;

use foldhash::{HashMap, HashSet};
use meepo_proto::link::event::Body;
use meepo_proto::link::{Handshake, Header, Request};

use super::{ClientNumber, LinkId, Output};

#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct ClientQueue {
    pub(super) link: Option<LinkId>,
    /// The number of its last event, counted from 1.
    pub(super) last_number: u64,
    /// The link has seen an event of this client.
    pub(super) attached: bool,
    /// Some worker has let it in, or rejected it.
    pub(super) known: bool,
    /// The link is full and has this client in its `blocked`.
    pub(super) blocked: bool,
    /// Its next event is not to be tried now.
    pub(super) held: bool,
    /// It was rejected: it is forgotten with the end of what is in flight.
    pub(super) dismissed: bool,
    /// It is a request, not a client that stays.
    pub(super) is_request: bool,
    /// Somebody waits for the end of its events.
    pub(super) settling: bool,
    pub(super) waiting: VecDeque<Pending>,
    pub(super) waiting_bytes: usize,
    pub(super) in_flight: VecDeque<(u64, Pending)>,
}

/// Emptied queues of client_queues, as long as they are few and short: an idle queue has none, and a busy one allocates none as a rule.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Spare {
    waiting: Vec<VecDeque<Pending>>,
    in_flight: Vec<VecDeque<(u64, Pending)>>,
}

/// How many queues are spared, of each kind, and how long they may be.
const SPARE: (usize, usize) = (256, 16);

#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Link {
    pub(super) draining: bool,
    pub(super) last_seq: u64,
    pub(super) clients: HashSet<ClientNumber>,
    /// How many of these are requests.
    pub(super) requests: usize,
    pub(super) in_flight: HashMap<u64, ClientNumber>,
    pub(super) in_flight_bytes: usize,
    /// Clients that wait for room on this link; nobody overtakes them.
    pub(super) blocked: VecDeque<ClientNumber>,
    /// The one suspect that is in flight: an event that is given up if this link ends as well.
    pub(super) suspect: Option<u64>,
    /// Clients with a suspect in front, which is tried alone.
    pub(super) suspects: VecDeque<ClientNumber>,
    /// When it was given a request last: each in its turn.
    pub(super) turn: u64,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Pending {
    pub(super) body: Body,
    /// Its number among its client's events.
    pub(super) number: u64,
    pub(super) bytes: usize,
    /// Workers that died while it was in front of its client's events.
    pub(super) failed: u32,
    /// Links that ended, in whatever way, while it was.
    pub(super) returned: u32,
    pub(super) redelivered: bool,
}

/// What an event costs beside its payload, roughly.
const EVENT_OVERHEAD: usize = 128;
/// What a header costs beside its name and value, roughly.
const HEADER_OVERHEAD: usize = 64;

impl Link {
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

    /// Takes a client out, with what is in flight of it. True if that was the suspect.
    pub(super) fn remove(&mut self, client: ClientNumber, queue: &ClientQueue) -> bool {
        self.leave(client, queue.is_request);
        if queue.blocked {
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

impl ClientQueue {
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty()
    }

    pub(super) fn wait(&mut self, event: Pending, spare: &mut Spare) {
        take(&mut self.waiting, &mut spare.waiting);
        self.waiting.push_back(event);
    }

    pub(super) fn fly(&mut self, seq: u64, event: Pending, spare: &mut Spare) {
        take(&mut self.in_flight, &mut spare.in_flight);
        self.in_flight.push_back((seq, event));
    }

    /// Lets go of what it does not need now.
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

impl Pending {
    pub(super) fn new(number: u64, body: Body) -> Self {
        let payload = match &body {
            Body::Message(message) => message.payload.len(),
            // Its body is bounded elsewhere. Here it would keep clients waiting for who uploads.
            Body::Request(request) => request.handshake.as_ref().map_or(0, head_bytes),
            _ => 0,
        };
        Self {
            body,
            number,
            bytes: EVENT_OVERHEAD + payload,
            failed: 0,
            returned: 0,
            redelivered: false,
        }
    }

    /// The body to deliver. Of what is never delivered again, only what tells that is kept.
    pub(super) fn take_body(&mut self) -> Body {
        match &mut self.body {
            Body::Request(request) if only_once(&request.method) => {
                let method = request.method.clone();
                Body::Request(std::mem::replace(
                    request,
                    Box::new(Request {
                        method,
                        ..Request::default()
                    }),
                ))
            }
            body => body.clone(),
        }
    }

    /// Whether nothing of its client can follow.
    pub(super) fn is_last(&self) -> bool {
        matches!(self.body, Body::Closed(_) | Body::Request(_))
    }

    /// Whether a worker that may have handled it must stay the only one.
    pub(super) fn only_once(&self) -> bool {
        matches!(&self.body, Body::Request(request) if only_once(&request.method))
    }

    pub(super) fn is_new_opened(&self) -> bool {
        matches!(self.body, Body::Opened(_)) && !self.redelivered
    }

    pub(super) fn is_new_buffered(&self) -> bool {
        matches!(self.body, Body::Buffered(_)) && !self.redelivered
    }
}

/// Whether a request must not be handled twice: by RFC 9110 it is neither safe nor idempotent.
pub(crate) fn only_once(method: &str) -> bool {
    !matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
}

/// What the head of a request costs, roughly.
pub(crate) fn head_bytes(head: &Handshake) -> usize {
    head.path.len() + head.query.len() + header_bytes(&head.headers)
}

/// What headers cost, roughly.
pub(crate) fn header_bytes(headers: &[Header]) -> usize {
    let headers = headers.iter();
    let each = headers.map(|header| header.name.len() + header.value.len() + HEADER_OVERHEAD);
    each.sum()
}

/// The link for a client's next event: the one it has, or, when that one drains and nothing is in flight over it, the
/// one with the fewest clients; for a request the one with the fewest events in flight, each in turn.
pub(super) fn choose_link(
    client: ClientNumber,
    queue: &mut ClientQueue,
    links: &mut HashMap<LinkId, Link>,
    out: &mut Vec<Output>,
) -> Option<LinkId> {
    if let Some(link) = queue.link
        && links.get(&link).is_some_and(|state| !state.draining)
    {
        return Some(link);
    }
    if !queue.in_flight.is_empty() {
        return None;
    }
    let is_request = queue.is_request;
    let (&link, _) =
        links
            .iter()
            .filter(|(_, state)| !state.draining)
            .min_by_key(|(link, state)| match is_request {
                true => (state.in_flight.len(), state.turn, **link),
                false => (state.clients.len() - state.requests, 0, **link),
            })?;
    if let Some(old) = queue.link.take()
        && let Some(state) = links.get_mut(&old)
    {
        state.leave(client, is_request);
        if queue.attached {
            out.push(Output::Detach { link: old, client });
        }
    }
    let last_turn = links.values().map(|state| state.turn).max().unwrap_or(0);
    let state = links.get_mut(&link)?;
    state.join(client, is_request);
    if is_request {
        state.turn = last_turn + 1;
    }
    queue.link = Some(link);
    queue.attached = false;
    Some(link)
}
