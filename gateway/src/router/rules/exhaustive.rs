//! Every state that a small world can come to: two links at a time, three clients, four events, all faults in all orders.

use std::collections::{BTreeSet, HashSet, VecDeque};

use meepo_proto::link::{Closed, Message, Opened, Request, SendBuffer};

use super::client_state::Readiness;
use super::*;

/// Small enough that each bound is met: a link takes two events, a client may have two in flight.
fn bounds(max_deliveries: u32, max_returns: u32) -> Bounds {
    Bounds {
        client_in_flight: 2,
        link_in_flight_bytes: 300,
        client_waiting_bytes: 200,
        waiting_bytes: 300,
        max_deliveries,
        max_returns,
    }
}

const LINKS_AT_A_TIME: usize = 2;

/// What comes of a client, in its order: `o`pened, `m`essage, buffer `f`ull, `e`mpty, `c`losed. Or a `r`equest, or one that may
/// be handled `1` time.
type Script = [&'static str; 3];

/// An event, by its client and its place in what that sends.
type Number = (ClientNumber, usize);

#[derive(Clone)]
struct World {
    script: Script,
    router: Router,
    last_link: u64,
    pushed: [usize; 3],
    /// Events that some worker was given.
    delivered: BTreeSet<Number>,
    /// Events that are handled or given up.
    over: BTreeSet<Number>,
    held: BTreeSet<ClientNumber>,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Push(ClientNumber),
    Up,
    Drain(LinkId),
    Down(LinkId, Ending),
    Done(LinkId, Seq),
    /// Cut off, or handed back.
    Undone(LinkId, Seq, bool),
    Release(ClientNumber),
    /// Who made a request waits no more.
    Dismiss(ClientNumber),
}

impl World {
    fn new(script: Script, bounds: Bounds) -> Self {
        Self {
            script,
            router: Router::new(bounds),
            last_link: 0,
            pushed: [0; 3],
            delivered: BTreeSet::new(),
            over: BTreeSet::new(),
            held: BTreeSet::new(),
        }
    }

    fn script(&self, client: ClientNumber) -> &'static str {
        self.script[usize::try_from(client.0).unwrap() - 1]
    }

    fn number(&self, client: ClientNumber, body: &Body) -> Number {
        let place = match body {
            Body::Opened(_) | Body::Request(_) => 0,
            Body::Message(message) => message.payload[0].into(),
            Body::Closed(_) => self.script(client).len() - 1,
            Body::SendBuffer(SendBuffer { full: true }) => self.script(client).find('f').unwrap(),
            Body::SendBuffer(SendBuffer { full: false }) => self.script(client).find('e').unwrap(),
            other => panic!("not an event of a client: {other:?}"),
        };
        (client, place)
    }

    fn body(&self, (client, place): Number) -> Body {
        match self.script(client).as_bytes()[place] {
            b'o' => Body::Opened(Opened {}),
            b'm' => Body::Message(Message {
                payload: vec![u8::try_from(place).unwrap()].into(),
                binary: true,
            }),
            news @ (b'f' | b'e') => Body::SendBuffer(SendBuffer { full: news == b'f' }),
            b'c' => Body::Closed(Closed::default()),
            kind => Body::Request(Box::new(Request {
                method: if kind == b'r' { "PUT" } else { "POST" }.into(),
                ..Request::default()
            })),
        }
    }

    fn is_request(&self, client: ClientNumber) -> bool {
        matches!(self.script(client), "r" | "1")
    }

    /// The first event in flight of each client over a link: what its worker is handling.
    fn handled_now(&self, link: LinkId) -> Vec<(ClientNumber, Seq)> {
        let client_queues = self
            .router
            .client_queues
            .iter()
            .filter(|(_, queue)| queue.place.link() == Some(link));
        client_queues
            .filter_map(|(client, queue)| Some((*client, queue.in_flight.front()?.0)))
            .collect()
    }

    /// All that can happen now.
    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for client in (1..=3).map(ClientNumber) {
            let pushed = self.pushed[usize::try_from(client.0).unwrap() - 1];
            if pushed < self.script(client).len() {
                steps.push(Step::Push(client));
            }
        }
        if self.router.links.len() < LINKS_AT_A_TIME {
            steps.push(Step::Up);
        }
        for (&link, state) in &self.router.links {
            if !state.draining {
                steps.push(Step::Drain(link));
            }
            steps.push(Step::Down(link, Ending::Died));
            steps.push(Step::Down(link, Ending::Silent));
            for (_, seq) in self.handled_now(link) {
                steps.push(Step::Done(link, seq));
                steps.push(Step::Undone(link, seq, false));
                // Over a link that stays it is the same as if it was cut off.
                steps.extend(state.draining.then_some(Step::Undone(link, seq, true)));
            }
        }
        let dismissed = self
            .router
            .client_queues
            .iter()
            .filter(|(_, queue)| !queue.standing.is_dismissed());
        let requests = dismissed.filter(|(client, _)| self.is_request(**client));
        steps.extend(requests.map(|(client, _)| Step::Dismiss(*client)));
        steps.extend(self.held.iter().map(|client| Step::Release(*client)));
        steps
    }

    /// Lets something happen, and checks what comes of it.
    fn apply(&mut self, step: Step) {
        let mut out = Vec::new();
        let mut to_give_up = BTreeSet::new();
        let mut to_hold = BTreeSet::new();
        let mut lost = BTreeSet::new();
        match step {
            Step::Push(client) => {
                let pushed = &mut self.pushed[usize::try_from(client.0).unwrap() - 1];
                let number = (client, *pushed);
                *pushed += 1;
                if self.script(client).as_bytes()[number.1] == b'e' {
                    let full = (client, self.script(client).find('f').unwrap());
                    if !self.delivered.contains(&full) {
                        self.over.extend([full, number]);
                    }
                }
                self.router.push(client, self.body(number), &mut out);
            }
            Step::Up => {
                self.last_link += 1;
                self.router.link_up(LinkId(self.last_link), &mut out);
            }
            Step::Drain(link) => self.router.link_draining(link, &mut out),
            Step::Down(link, ending) => {
                for (client, _) in self.handled_now(link) {
                    self.expect_return(client, ending, &mut to_give_up, &mut to_hold, &mut lost);
                }
                self.router.link_down(link, ending, &mut out);
            }
            Step::Done(link, seq) => {
                let client = self.router.links[&link].in_flight[&seq];
                let event = &self.router.client_queues[&client].in_flight.front().unwrap().1;
                self.over.insert(self.number(client, &event.body));
                self.router.done(link, seq, &mut out);
            }
            Step::Undone(link, seq, handed_back) => {
                let client = self.router.links[&link].in_flight[&seq];
                let ending = match handed_back && self.router.links[&link].draining {
                    true => Ending::HandedBack,
                    false => Ending::Died,
                };
                self.expect_return(client, ending, &mut to_give_up, &mut to_hold, &mut lost);
                self.router.undone(link, seq, handed_back, &mut out);
            }
            Step::Release(client) => {
                self.held.remove(&client);
                self.router.release(client, &mut out);
            }
            Step::Dismiss(client) => {
                if self.router.client_queues[&client].in_flight.is_empty() {
                    lost.insert((client, 0));
                }
                self.router.dismiss(client, &mut out);
            }
        }
        let forgotten: BTreeSet<_> = lost.iter().map(|(client, _)| *client).collect();
        self.over.extend(lost);
        let mut given_up = BTreeSet::new();
        let mut finished = BTreeSet::new();
        for output in out {
            match output {
                Output::Deliver {
                    link,
                    client,
                    body,
                    number: told,
                    redelivered,
                    ..
                } => {
                    let number = self.number(client, &body);
                    assert_eq!(told.0, number.1 as u64 + 1, "it has the same number each time");
                    assert!(!self.router.links[&link].draining, "nothing new over a draining link");
                    assert!(!self.held.contains(&client), "nothing before its time");
                    assert!(!self.over.contains(&number), "nothing that is over");
                    let fresh = self.delivered.insert(number);
                    assert_eq!(redelivered, !fresh, "it is marked if a worker was given it before");
                }
                Output::Hold { client } => {
                    assert!(to_hold.remove(&client), "held without a reason");
                    self.held.insert(client);
                }
                Output::GiveUp { client } => drop(given_up.insert(client)),
                Output::Finished { link } => drop(finished.insert(link)),
                Output::Attach { link, .. } => assert!(!self.router.links[&link].draining),
                Output::Detach { link, .. } => assert!(self.router.links[&link].draining),
                Output::Forget { client } => {
                    let ended = self.script(client).ends_with('c') || self.is_request(client);
                    assert!(ended, "forgotten before the end");
                    self.held.remove(&client);
                }
                Output::Resume { .. } | Output::Settled { .. } => {}
            }
        }
        for client in forgotten {
            assert!(
                !self.router.client_queues.contains_key(&client),
                "what is lost is forgotten"
            );
        }
        assert_eq!(given_up, to_give_up.iter().map(|(client, _)| *client).collect());
        self.over.extend(to_give_up);
        assert_eq!(to_hold, BTreeSet::new(), "held when the next try may be the last");
        for (link, state) in &self.router.links {
            if state.draining && state.in_flight.is_empty() {
                let emptied = matches!(step, Step::Drain(drained) | Step::Done(drained, _) | Step::Undone(drained, ..) if drained == *link);
                assert!(!emptied || finished.contains(link), "a drained link is ended");
            }
        }
        self.check();
    }

    /// What has to become of the event that a client's worker is handling, if its link ends now.
    fn expect_return(
        &self,
        client: ClientNumber,
        ending: Ending,
        to_give_up: &mut BTreeSet<Number>,
        to_hold: &mut BTreeSet<ClientNumber>,
        lost: &mut BTreeSet<Number>,
    ) {
        if self.router.client_queues[&client].standing.is_dismissed() || self.script(client) == "1" {
            lost.insert((client, 0));
            return;
        }
        let event = &self.router.client_queues[&client].in_flight.front().unwrap().1;
        let failed = event.failed + u32::from(ending == Ending::Died);
        let returned = event.returned + u32::from(ending != Ending::HandedBack);
        if failed >= self.router.bounds.max_deliveries || returned >= self.router.bounds.max_returns {
            to_give_up.insert(self.number(client, &event.body));
        } else if ending == Ending::Died && failed + 1 == self.router.bounds.max_deliveries {
            to_hold.insert(client);
        }
    }

    /// What holds in every state.
    fn check(&self) {
        let router = &self.router;
        let stays = router.links.values().any(|state| !state.draining);
        let (mut waiting, mut waiting_bytes, mut in_flight) = (0, 0, 0);
        for (&client, queue) in &router.client_queues {
            let events = queue.in_flight.iter().map(|(_, event)| event).chain(&queue.waiting);
            let events: Vec<_> = events.map(|event| self.number(client, &event.body).1).collect();
            let pushed = self.pushed[usize::try_from(client.0).unwrap() - 1];
            let expected = (0..pushed).filter(|place| !self.over.contains(&(client, *place)));
            assert_eq!(
                events,
                expected.collect::<Vec<_>>(),
                "all that is not over, in its order"
            );
            waiting += queue.waiting.len();
            waiting_bytes += queue.waiting_bytes;
            in_flight += queue.in_flight.len();
            assert_eq!(
                queue.waiting_bytes,
                queue.waiting.iter().map(|event| event.bytes).sum::<usize>()
            );
            assert!(queue.in_flight.len() <= self.router.bounds.client_in_flight);
            assert!(
                queue.readiness != Readiness::Held || queue.in_flight.is_empty(),
                "what is held is not in flight"
            );
            assert_eq!(queue.readiness == Readiness::Held, self.held.contains(&client));
            let link = queue.place.link().and_then(|link| router.links.get(&link));
            assert_eq!(queue.place.link().is_some(), link.is_some(), "its link is up");
            let queued = link.map_or(0, |state| {
                let queues = state.blocked.iter().chain(&state.suspects);
                queues.filter(|blocked| **blocked == client).count()
            });
            assert_eq!(
                queued,
                usize::from(queue.readiness == Readiness::Blocked),
                "it is in a queue, once, or not blocked"
            );
            if queue.standing == Standing::Known && queue.is_idle() && stays {
                assert!(queue.place.attached().is_some(), "a worker knows it");
                assert!(link.is_some_and(|state| !state.draining), "one that stays");
            }
            if queue.waiting.is_empty() || queue.readiness == Readiness::Held || !stays {
                continue;
            }
            match link {
                Some(state) if queue.readiness == Readiness::Blocked => {
                    assert!(!state.in_flight.is_empty(), "it waits for something")
                }
                Some(state) if state.draining => assert!(!queue.in_flight.is_empty(), "it waits for its own events"),
                _ => assert_eq!(
                    queue.in_flight.len(),
                    self.router.bounds.client_in_flight,
                    "what can be delivered is"
                ),
            }
        }
        assert_eq!(
            (router.waiting, router.waiting_bytes, router.in_flight),
            (waiting, waiting_bytes, in_flight)
        );
        let mut over_links = 0;
        for (&link, state) in &router.links {
            over_links += state.in_flight.len();
            let mut bytes = 0;
            for (seq, client) in &state.in_flight {
                let queue = &router.client_queues[client];
                assert_eq!(
                    queue.place.link(),
                    Some(link),
                    "all events of a client are over one link"
                );
                bytes += queue.in_flight.iter().find(|(other, _)| other == seq).unwrap().1.bytes;
            }
            assert_eq!(state.in_flight_bytes, bytes);
            assert!(bytes <= self.router.bounds.link_in_flight_bytes || state.in_flight.len() == 1);
            let of_link = router
                .client_queues
                .iter()
                .filter(|(_, queue)| queue.place.link() == Some(link));
            assert_eq!(state.clients, of_link.map(|(client, _)| *client).collect());
            let requests = state.clients.iter().filter(|client| self.is_request(**client));
            assert_eq!(state.requests, requests.count());
        }
        assert_eq!(over_links, router.in_flight);
    }

    /// Without any further fault everything is handled.
    fn settle(mut self) {
        for _ in 0..64 {
            let next = self.steps().into_iter().find(|step| match step {
                Step::Up => self.router.links.values().all(|state| state.draining),
                step => matches!(step, Step::Push(_) | Step::Release(_) | Step::Done(..)),
            });
            // Where links drain, one of them has gone before a new one comes.
            let draining = self
                .router
                .links
                .iter()
                .find(|(_, state)| state.draining && state.in_flight.is_empty());
            let gone = draining.map(|(link, _)| Step::Down(*link, Ending::Silent));
            match next.or(gone) {
                Some(step) => self.apply(step),
                None => break,
            }
        }
        let all = (1..=3)
            .map(ClientNumber)
            .flat_map(|client| (0..self.script(client).len()).map(move |place| (client, place)));
        assert_eq!(self.over, all.collect(), "everything is handled or given up");
        assert!(self.router.is_idle(), "nothing is left");
        assert!(!self.router.full && self.router.paused.is_empty(), "all are read");
    }

    /// The state, with links by their rank and events by their place: what tells two worlds apart.
    fn fingerprint(&self) -> Vec<u8> {
        const END: u8 = 255;
        let small = |number: usize| u8::try_from(number).unwrap();
        let mut links: Vec<_> = self.router.links.keys().copied().collect();
        links.sort_unstable();
        let rank = |link: LinkId| links.iter().position(|other| *other == link).map_or(END, small);
        let clients = |clients: &VecDeque<ClientNumber>| {
            clients
                .iter()
                .map(|client| small(usize::try_from(client.0).unwrap()))
                .collect::<Vec<_>>()
        };
        let mut print = vec![u8::from(self.router.full)];
        print.extend(self.pushed.map(small));
        for client in (1..=3).map(ClientNumber) {
            print.push(u8::from(self.router.paused.contains(&client)));
            for place in 0..self.script(client).len() {
                print.push(u8::from(self.over.contains(&(client, place))));
            }
            let Some(queue) = self.router.client_queues.get(&client) else {
                print.push(END);
                continue;
            };
            print.push(queue.place.link().map_or(END, rank));
            print.push(u8::from(queue.place.attached().is_some()));
            print.extend([queue.standing as u8, queue.readiness as u8]);
            print.push(small(queue.in_flight.len()));
            for event in queue.in_flight.iter().map(|(_, event)| event).chain(&queue.waiting) {
                print.extend([
                    small(event.failed as usize),
                    small(event.returned as usize),
                    u8::from(event.redelivered),
                ]);
            }
        }
        for link in &links {
            let state = &self.router.links[link];
            print.push(u8::from(state.draining));
            print.push(
                state
                    .suspect
                    .map_or(END, |seq| small(usize::try_from(state.in_flight[&seq].0).unwrap())),
            );
            print.extend(clients(&state.blocked));
            print.push(END);
            print.extend(clients(&state.suspects));
            print.push(END);
        }
        print
    }
}

/// Goes through all states that can be reached, and gives how many there are.
fn explore(script: Script, bounds: Bounds) -> usize {
    let mut known = HashSet::new();
    let mut next = vec![World::new(script, bounds)];
    known.insert(next[0].fingerprint());
    while let Some(world) = next.pop() {
        for step in world.steps() {
            let mut after = world.clone();
            after.apply(step);
            if known.insert(after.fingerprint()) {
                after.clone().settle();
                next.push(after);
            }
        }
    }
    println!("{} states", known.len());
    known.len()
}

#[test]
fn one_client_says_more_than_the_others() {
    assert!(explore(["mm", "m", "m"], bounds(2, 2)) > 50_000);
}

#[test]
fn a_client_comes_and_goes() {
    assert!(explore(["omc", "m", ""], bounds(2, 3)) > 20_000);
}

#[test]
fn requests_come_among_what_a_client_says() {
    assert!(explore(["r", "1", "m"], bounds(2, 3)) > 10_000);
}

#[test]
fn events_in_front_of_several_deaths_are_tried_alone() {
    assert!(explore(["m", "m", "m"], bounds(3, 3)) > 20_000);
}

#[test]
fn a_send_buffer_fills_and_empties() {
    assert!(explore(["fme", "m", ""], bounds(2, 2)) > 1_000);
    assert!(explore(["mm", "mfe", ""], bounds(2, 2)) > 1_000);
}
