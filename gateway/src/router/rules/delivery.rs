//! Which events go out now: over the link that serves their client, in their client's order, within the bounds.

use meepo_proto::id::ClientNumber;

use super::client_queue::ClientQueue;
use super::client_state::{Readiness, Standing};
use super::link::choose_link;
use super::{LinkId, Output, Router};

impl Router {
    /// Delivers what can be delivered of a client's waiting events.
    pub(super) fn pump(&mut self, client: ClientNumber, out: &mut Vec<Output>) {
        while self.deliver_next(client, false, out) {}
    }

    /// Delivers a client's next event, if it can be. In its turn, it overtakes the clients that wait for room.
    pub(super) fn deliver_next(&mut self, client: ClientNumber, its_turn: bool, out: &mut Vec<Output>) -> bool {
        let Some(queue) = self.client_queues.get_mut(&client) else {
            return false;
        };
        let Some(next) = queue.waiting.front() else {
            return false;
        };
        let (bytes, suspect) = (
            next.bytes,
            next.failed > 0 && next.failed + 1 >= self.bounds.max_deliveries,
        );
        if queue.readiness != Readiness::Free || queue.in_flight.len() >= self.bounds.client_in_flight {
            return false;
        }
        let Some(link) = choose_link(client, queue, &mut self.links, out) else {
            return false;
        };
        let state = self.links.get_mut(&link).expect("only a link that is up is chosen");
        if suspect && state.suspect.is_some() {
            queue.readiness.block();
            state.suspects.push_back(client);
            return false;
        }
        let fits = state.in_flight_bytes + bytes <= self.bounds.link_in_flight_bytes;
        let in_turn = its_turn || state.blocked.is_empty();
        if state.in_flight_bytes > 0 && !(fits && in_turn) {
            queue.readiness.block();
            match its_turn {
                true => state.blocked.push_front(client),
                false => state.blocked.push_back(client),
            }
            return false;
        }
        let mut next = queue.waiting.pop_front().expect("there was a next event above");
        queue.waiting_bytes -= next.bytes;
        self.waiting_bytes -= next.bytes;
        self.waiting -= 1;
        self.in_flight += 1;
        let seq = state.next_seq();
        state.in_flight.insert(seq, client);
        state.in_flight_bytes += next.bytes;
        if suspect {
            state.suspect = Some(seq);
        }
        let first = queue.place.attach();
        let (body, number, redelivered) = (next.take_body(), next.number, next.redelivered);
        out.push(Output::Deliver {
            link,
            seq,
            client,
            number,
            body,
            redelivered,
            first,
        });
        queue.fly(seq, next, &mut self.spare);
        true
    }

    /// Gives a client without events to a link that stays, so that some worker always knows the client.
    pub(super) fn hand_over(&mut self, client: ClientNumber, out: &mut Vec<Output>) {
        let Some(queue) = self.client_queues.get_mut(&client) else {
            return;
        };
        if queue.standing != Standing::Known || !queue.is_idle() {
            return;
        }
        if let Some(link) = choose_link(client, queue, &mut self.links, out)
            && queue.place.attach()
        {
            out.push(Output::Attach { link, client });
        }
    }

    /// Looks at every client whose events wait, or that no link serves that stays.
    pub(super) fn pump_all(&mut self, out: &mut Vec<Output>) {
        let stays = |link: Option<LinkId>| {
            link.and_then(|link| self.links.get(&link))
                .is_some_and(|link| !link.draining)
        };
        let moves = |queue: &ClientQueue| !queue.waiting.is_empty() || !stays(queue.place.link());
        let mut clients: Vec<_> = self
            .client_queues
            .iter()
            .filter(|(_, queue)| moves(queue))
            .map(|(client, _)| *client)
            .collect();
        clients.sort_unstable();
        for client in clients {
            self.pump(client, out);
            self.hand_over(client, out);
            self.check_resume(client, out);
        }
    }

    /// Delivers events of the clients that wait for room, in their order, while there is room.
    pub(super) fn unblock(&mut self, link: LinkId, out: &mut Vec<Output>) {
        while let Some(client) = self.links.get_mut(&link).and_then(|state| state.blocked.pop_front()) {
            let Some(queue) = self.client_queues.get_mut(&client) else {
                continue;
            };
            queue.readiness.unblock();
            self.deliver_next(client, true, out);
            self.check_resume(client, out);
            // There was no room for its event. A client that waits with a suspect leaves room to others.
            if self
                .links
                .get(&link)
                .is_some_and(|state| state.blocked.front() == Some(&client))
            {
                return;
            }
            self.pump(client, out);
        }
    }

    /// Tries the next suspect, once no other is in flight.
    pub(super) fn try_next_suspect(&mut self, link: LinkId, out: &mut Vec<Output>) {
        while let Some(client) = self.links.get_mut(&link).and_then(|state| state.suspects.pop_front()) {
            let Some(queue) = self.client_queues.get_mut(&client) else {
                continue;
            };
            queue.readiness.unblock();
            return self.pump(client, out);
        }
    }
}
