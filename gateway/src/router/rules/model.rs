//! The router against a model: workers that finish events in any order, drain, die and come back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use meepo_proto::link::{Closed, Message, Opened, SendBuffer};
use proptest::prelude::*;

use super::*;

pub(super) const BOUNDS: Bounds = Bounds {
    client_in_flight: 4,
    link_in_flight_bytes: 2_000,
    client_waiting_bytes: 1_500,
    waiting_bytes: 6_000,
    max_deliveries: 3,
    max_returns: 16,
};

pub(super) fn message(number: u32) -> Body {
    Body::Message(Message {
        payload: number.to_be_bytes().to_vec().into(),
        binary: true,
    })
}

pub(super) fn number(body: &Body) -> u32 {
    match body {
        Body::Message(message) => u32::from_be_bytes(message.payload[..].try_into().unwrap()),
        Body::Opened(_) => 0,
        Body::Closed(_) => u32::MAX,
        other => panic!("not an event of a client: {other:?}"),
    }
}

/// What a worker has of a client, in the order of arrival.
type Inbox = BTreeMap<ClientNumber, VecDeque<(Seq, Body, bool)>>;

/// Workers that handle each client's events one after the other, as real ones do.
#[derive(Default)]
struct Workers {
    links: BTreeMap<LinkId, Inbox>,
    draining: BTreeSet<LinkId>,
    /// Per client: the numbers that handlers finished, with the mark.
    handled: BTreeMap<ClientNumber, Vec<(u32, bool)>>,
    /// Per client: the numbers that a handler of an earlier event took as the reply to a question.
    replies: BTreeMap<ClientNumber, BTreeSet<u32>>,
    /// Per client: what handlers were told of its send buffer, with the mark.
    news: BTreeMap<ClientNumber, Vec<(bool, bool)>>,
    paused: BTreeSet<ClientNumber>,
    forgotten: BTreeSet<ClientNumber>,
    given_up: BTreeSet<ClientNumber>,
    held: BTreeSet<ClientNumber>,
}

impl Workers {
    fn take(&mut self, out: &mut Vec<Output>) {
        for output in out.drain(..) {
            match output {
                Output::Deliver {
                    link,
                    seq,
                    client,
                    body,
                    redelivered,
                    first,
                    ..
                } => {
                    assert!(!self.draining.contains(&link), "a draining link gets nothing new");
                    assert!(!self.held.contains(&client), "nothing is tried before its time");
                    let replied = self.replies.get(&client);
                    let is_reply =
                        |replies: &BTreeSet<u32>| matches!(body, Body::Message(_)) && replies.contains(&number(&body));
                    assert!(!replied.is_some_and(is_reply), "a reply is done");
                    for (other, inbox) in &self.links {
                        let busy = inbox.get(&client).is_some_and(|events| !events.is_empty());
                        assert!(*other == link || !busy, "a client moved while events were in flight");
                    }
                    let inbox = self.links.get_mut(&link).expect("delivered over a link that is up");
                    assert_eq!(
                        first,
                        !inbox.contains_key(&client),
                        "`first` is the first event that the link sees"
                    );
                    let events = inbox.entry(client).or_default();
                    assert!(events.len() < BOUNDS.client_in_flight);
                    events.push_back((seq, body, redelivered));
                }
                Output::Attach { link, client } => {
                    assert!(!self.draining.contains(&link), "handed over to a link that stays");
                    let inbox = self.links.get_mut(&link).expect("handed over to a link that is up");
                    assert_eq!(inbox.insert(client, VecDeque::new()), None, "attached once");
                }
                Output::Detach { link, client } => {
                    let events = self.links.get_mut(&link).and_then(|inbox| inbox.remove(&client));
                    assert_eq!(events, Some(VecDeque::new()), "detached from a link that served it");
                }
                Output::Finished { link } => {
                    assert!(self.draining.contains(&link));
                    assert!(self.links[&link].values().all(VecDeque::is_empty));
                }
                Output::Hold { client } => assert!(self.held.insert(client), "held once"),
                Output::GiveUp { client } => drop(self.given_up.insert(client)),
                Output::Settled { client } => panic!("nobody waits for client {client}"),
                Output::Resume { client } => assert!(self.paused.remove(&client), "resumed without a pause"),
                Output::Forget { client } => {
                    self.paused.remove(&client);
                    assert!(self.forgotten.insert(client), "forgotten once");
                }
            }
        }
    }

    /// The handler of a client's first event finishes.
    fn finish(&mut self, router: &mut Router, link: LinkId, client: ClientNumber, out: &mut Vec<Output>) {
        let Some(inbox) = self.links.get_mut(&link) else { return };
        let Some((seq, body, redelivered)) = inbox.get_mut(&client).and_then(VecDeque::pop_front) else {
            return;
        };
        if matches!(body, Body::Closed(_)) {
            inbox.remove(&client);
        }
        match body {
            Body::SendBuffer(SendBuffer { full }) => self.news.entry(client).or_default().push((full, redelivered)),
            body => self
                .handled
                .entry(client)
                .or_default()
                .push((number(&body), redelivered)),
        }
        router.done(link, seq, out);
        self.take(out);
    }

    /// The handler of a client's first event waits for a reply, and takes a later event as that.
    fn reply(&mut self, router: &mut Router, link: LinkId, client: ClientNumber, out: &mut Vec<Output>) {
        let Some(inbox) = self.links.get_mut(&link) else { return };
        let Some(events) = inbox.get_mut(&client) else { return };
        let is_reply = |(_, body, redelivered): &(Seq, Body, bool)| matches!(body, Body::Message(_)) && !redelivered;
        let Some(at) = (1..events.len()).find(|at| is_reply(&events[*at])) else {
            return;
        };
        let (seq, body, _) = events.remove(at).expect("it was found");
        self.replies.entry(client).or_default().insert(number(&body));
        router.done(link, seq, out);
        self.take(out);
    }

    /// The handler of a client's first event is cut off, or a draining worker hands it back, and the client is forgotten.
    fn cut_off(&mut self, router: &mut Router, link: LinkId, client: ClientNumber, out: &mut Vec<Output>) {
        let Some(inbox) = self.links.get_mut(&link) else { return };
        let Some((seq, ..)) = inbox.get(&client).and_then(VecDeque::front) else {
            return;
        };
        let seq = *seq;
        inbox.remove(&client);
        let handed_back = self.draining.contains(&link) && seq.0 % 2 == 0;
        router.undone(link, seq, handed_back, out);
        self.take(out);
    }

    fn release(&mut self, router: &mut Router, client: ClientNumber, out: &mut Vec<Output>) {
        if self.held.remove(&client) {
            router.release(client, out);
            self.take(out);
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Open(ClientNumber),
    Send(ClientNumber),
    Close(ClientNumber),
    /// Its send buffer fills, or empties.
    Buffer(ClientNumber),
    Up,
    Drain(usize),
    Down(usize),
    Finish(usize, ClientNumber),
    Reply(usize, ClientNumber),
    CutOff(usize, ClientNumber),
    Release(ClientNumber),
}

fn step() -> impl Strategy<Value = Step> {
    let client = (1..6u64).prop_map(ClientNumber);
    prop_oneof![
        2 => client.clone().prop_map(Step::Open),
        8 => client.clone().prop_map(Step::Send),
        1 => client.clone().prop_map(Step::Close),
        3 => client.clone().prop_map(Step::Buffer),
        2 => Just(Step::Up),
        1 => (0..3usize).prop_map(Step::Drain),
        1 => (0..3usize).prop_map(Step::Down),
        10 => ((0..3usize), client.clone()).prop_map(|(link, client)| Step::Finish(link, client)),
        2 => ((0..3usize), client.clone()).prop_map(|(link, client)| Step::Reply(link, client)),
        1 => ((0..3usize), client.clone()).prop_map(|(link, client)| Step::CutOff(link, client)),
        1 => client.prop_map(Step::Release),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_or_reordered(steps in prop::collection::vec(step(), 1..120)) {
        let mut router = Router::new(BOUNDS);
        let mut workers = Workers::default();
        let mut out = Vec::new();
        let mut sent: BTreeMap<ClientNumber, Vec<u32>> = BTreeMap::new();
        let mut closed = BTreeSet::new();
        let mut full = BTreeMap::new();
        let mut last_link = 0;
        let nth = |workers: &Workers, n: usize| workers.links.keys().nth(n).copied();

        for step in steps {
            match step {
                Step::Open(client) if !sent.contains_key(&client) => {
                    sent.insert(client, vec![0]);
                    router.push(client, Body::Opened(Opened {}), &mut out);
                }
                Step::Send(client)
                    if sent.contains_key(&client) && !closed.contains(&client) && !workers.paused.contains(&client) =>
                {
                    let numbers = sent.get_mut(&client).unwrap();
                    let next = u32::try_from(numbers.len()).unwrap();
                    numbers.push(next);
                    if router.push(client, message(next), &mut out) == Flow::Pause {
                        workers.paused.insert(client);
                    }
                }
                Step::Close(client) if sent.contains_key(&client) && closed.insert(client) => {
                    sent.get_mut(&client).unwrap().push(u32::MAX);
                    if router.push(client, Body::Closed(Closed::default()), &mut out) == Flow::Pause {
                        workers.paused.insert(client);
                    }
                }
                Step::Buffer(client) if sent.contains_key(&client) && !closed.contains(&client) => {
                    let full = full.entry(client).or_insert(false);
                    *full = !*full;
                    if router.push(client, Body::SendBuffer(SendBuffer { full: *full }), &mut out) == Flow::Pause {
                        workers.paused.insert(client);
                    }
                    if let Some(queue) = router.client_queues.get(&client) {
                        let unsent = queue.waiting.iter().filter(|event| event.is_new_send_buffer());
                        prop_assert!(unsent.count() <= 1, "no more than one waits");
                    }
                }
                Step::Up => {
                    last_link += 1;
                    workers.links.insert(LinkId(last_link), Inbox::new());
                    router.link_up(LinkId(last_link), &mut out);
                }
                Step::Drain(n) => if let Some(link) = nth(&workers, n) && workers.draining.insert(link) {
                    router.link_draining(link, &mut out);
                },
                Step::Down(n) => if let Some(link) = nth(&workers, n) {
                    workers.links.remove(&link);
                    router.link_down(link, Ending::Died, &mut out);
                },
                Step::Finish(n, client) => if let Some(link) = nth(&workers, n) {
                    workers.finish(&mut router, link, client, &mut out);
                },
                Step::Reply(n, client) => if let Some(link) = nth(&workers, n) {
                    workers.reply(&mut router, link, client, &mut out);
                },
                Step::CutOff(n, client) => if let Some(link) = nth(&workers, n) {
                    workers.cut_off(&mut router, link, client, &mut out);
                },
                Step::Release(client) => workers.release(&mut router, client, &mut out),
                _ => {}
            }
            workers.take(&mut out);
        }

        // Let it settle: a worker that stays, and handlers that all finish.
        last_link += 1;
        workers.links.insert(LinkId(last_link), Inbox::new());
        router.link_up(LinkId(last_link), &mut out);
        workers.take(&mut out);
        for client in workers.held.clone() {
            workers.release(&mut router, client, &mut out);
        }
        for _ in 0..2_000 {
            let next = workers.links.iter().find_map(|(link, inbox)| {
                inbox.iter().find(|(_, events)| !events.is_empty()).map(|(client, _)| (*link, *client))
            });
            let Some((link, client)) = next else { break };
            workers.finish(&mut router, link, client, &mut out);
        }

        prop_assert!(router.is_idle());
        prop_assert_eq!(router.waiting_bytes, 0);
        prop_assert!(router.links.values().all(|link| link.in_flight_bytes == 0 && link.suspect.is_none()));
        for client in router.client_queues.keys().filter(|client| !workers.given_up.contains(client)) {
            let holders = workers.links.iter().filter(|(link, inbox)| {
                inbox.contains_key(client) && !workers.draining.contains(link)
            });
            prop_assert_eq!(holders.count(), 1, "exactly one worker that stays knows client {}", client);
        }
        prop_assert!(workers.paused.is_empty(), "all may be read again: {:?}", workers.paused);
        for (client, numbers) in &sent {
            let handled = workers.handled.get(client).map(Vec::as_slice).unwrap_or_default();
            // Every repetition carries the mark, and without repetitions it is what was sent, in its order.
            let mut fresh = Vec::new();
            for (number, redelivered) in handled {
                if fresh.last().is_none_or(|last| last < number) {
                    fresh.push(*number);
                } else {
                    prop_assert!(redelivered, "{number} was repeated without the mark");
                }
            }
            if workers.given_up.contains(client) {
                continue;
            }
            let replies = workers.replies.entry(*client).or_default();
            let numbers: Vec<_> = numbers.iter().filter(|number| !replies.contains(number)).copied().collect();
            prop_assert_eq!(fresh, numbers, "client {}", client);
            let mut known = false;
            for (full, redelivered) in workers.news.get(client).into_iter().flatten() {
                prop_assert!(*full != known || *redelivered, "a change, or marked");
                known = *full;
            }
            prop_assert_eq!(known, full.get(client).copied().unwrap_or(false), "client {}'s buffer", client);
            prop_assert_eq!(workers.forgotten.contains(client), closed.contains(client));
        }
        let open = sent.len() - closed.len();
        if workers.given_up.is_empty() {
            prop_assert_eq!(router.client_queues.len(), open);
        }
    }
}
