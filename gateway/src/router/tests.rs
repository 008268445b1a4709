//! The router against a model: workers that finish events in any order, drain, die and come back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use meepo_proto::link::{Buffered, Closed, Message, Opened, Request};
use proptest::prelude::*;

use super::*;

fn request(method: &str, body: usize) -> Body {
    Body::Request(Request {
        method: method.into(),
        body: vec![0; body].into(),
        ..Request::default()
    })
}

/// The links over which something is delivered.
fn delivered(out: &mut Vec<Output>) -> Vec<(ClientNumber, LinkId, u64, bool)> {
    let delivered = |output| match output {
        Output::Deliver {
            client,
            link,
            seq,
            redelivered,
            ..
        } => Some((client, link, seq, redelivered)),
        _ => None,
    };
    out.drain(..).filter_map(delivered).collect()
}

#[test]
fn a_request_goes_to_the_link_with_the_least_to_do_and_each_has_its_turn() {
    let (mut router, mut out) = (Router::new(BOUNDS), Vec::new());
    for link in 1..=3 {
        router.link_up(LinkId(link), &mut out);
    }
    let mut taken = Vec::new();
    for number in 1..=6 {
        router.push(number, request("GET", 0), &mut out);
        let (_, link, seq, _) = delivered(&mut out)[0];
        router.done(link, seq, &mut out);
        assert!(out.contains(&Output::Forget { client: number }));
        taken.push(link.0);
    }
    assert_eq!(taken, [1, 2, 3, 1, 2, 3]);
    router.push(7, request("GET", 0), &mut out);
    router.push(8, request("GET", 0), &mut out);
    router.push(9, request("GET", 0), &mut out);
    let (_, link, seq, _) = delivered(&mut out)[2];
    router.done(link, seq, &mut out);
    router.push(10, request("GET", 0), &mut out);
    assert_eq!(delivered(&mut out)[0].1, link, "the only one that has nothing to do");
    assert_eq!((router.in_flight(), router.waiting()), (3, 0));
}

#[test]
fn what_may_be_repeated_is_and_what_may_not_is_forgotten() {
    let (mut router, mut out) = (Router::new(BOUNDS), Vec::new());
    router.link_up(LinkId(1), &mut out);
    let methods = [
        "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "POST", "PATCH", "get", "LOCK",
    ];
    for (number, method) in (1..).zip(methods) {
        router.push(number, request(method, 0), &mut out);
    }
    assert_eq!(delivered(&mut out).len(), 10);
    router.link_up(LinkId(2), &mut out);
    router.link_down(LinkId(1), Ending::Silent, &mut out);
    let forgotten: Vec<_> = out
        .iter()
        .filter_map(|output| match output {
            Output::Forget { client } => Some(*client),
            _ => None,
        })
        .collect();
    assert_eq!(forgotten, [7, 8, 9, 10]);
    let again = delivered(&mut out);
    assert_eq!(
        again.iter().map(|again| again.0).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5, 6]
    );
    assert!(again.iter().all(|(.., redelivered)| *redelivered));
}

#[test]
fn one_that_no_worker_has_had_is_not_lost_whatever_its_method() {
    let (mut router, mut out) = (Router::new(BOUNDS), Vec::new());
    router.link_up(LinkId(1), &mut out);
    router.push(1, request("GET", 5_000), &mut out);
    router.push(2, request("POST", 5_000), &mut out);
    assert_eq!(delivered(&mut out).len(), 1, "there is no room for the second");
    router.link_up(LinkId(2), &mut out);
    router.link_down(LinkId(1), Ending::Died, &mut out);
    let mut now = delivered(&mut out);
    let (_, link, seq, _) = now.remove(0);
    router.done(link, seq, &mut out);
    now.extend(delivered(&mut out));
    assert_eq!(now, [(2, LinkId(2), 2, false)]);
}

#[test]
fn nobody_who_waits_means_no_second_worker() {
    let (mut router, mut out) = (Router::new(BOUNDS), Vec::new());
    router.push(1, request("GET", 0), &mut out);
    router.dismiss(1, &mut out);
    assert!(router.is_idle());
    router.link_up(LinkId(1), &mut out);
    router.push(2, request("GET", 0), &mut out);
    assert_eq!(delivered(&mut out).len(), 1);
    router.dismiss(2, &mut out);
    assert!(!router.is_idle(), "its handler goes on");
    router.link_up(LinkId(2), &mut out);
    router.link_down(LinkId(1), Ending::Died, &mut out);
    assert_eq!((delivered(&mut out), router.is_idle()), (vec![], true));
}

const BOUNDS: Bounds = Bounds {
    client_in_flight: 4,
    link_in_flight_bytes: 2_000,
    client_waiting_bytes: 1_500,
    waiting_bytes: 6_000,
    max_deliveries: 3,
    max_returns: 16,
};

fn message(number: u32) -> Body {
    Body::Message(Message {
        payload: number.to_be_bytes().to_vec().into(),
        binary: true,
    })
}

fn number(body: &Body) -> u32 {
    match body {
        Body::Message(message) => u32::from_be_bytes(message.payload[..].try_into().unwrap()),
        Body::Opened(_) => 0,
        Body::Closed(_) => u32::MAX,
        other => panic!("not an event of a client: {other:?}"),
    }
}

/// What a worker has of a client, in the order of arrival.
type Inbox = BTreeMap<ClientNumber, VecDeque<(u64, Body, bool)>>;

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
                    assert!(
                        !replied.is_some_and(|replies| replies.contains(&number(&body))),
                        "a reply is done"
                    );
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
            Body::Buffered(Buffered { full }) => self.news.entry(client).or_default().push((full, redelivered)),
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
        let is_reply = |(_, body, redelivered): &(u64, Body, bool)| matches!(body, Body::Message(_)) && !redelivered;
        let Some(at) = (1..events.len()).find(|at| is_reply(&events[*at])) else {
            return;
        };
        let (seq, body, _) = events.remove(at).expect("it was found");
        self.replies.entry(client).or_default().insert(number(&body));
        router.done(link, seq, out);
        self.take(out);
    }

    /// The handler of a client's first event is cut off, and the client forgotten.
    fn cut_off(&mut self, router: &mut Router, link: LinkId, client: ClientNumber, out: &mut Vec<Output>) {
        let Some(inbox) = self.links.get_mut(&link) else { return };
        let Some((seq, ..)) = inbox.get(&client).and_then(VecDeque::front) else {
            return;
        };
        let seq = *seq;
        inbox.remove(&client);
        router.undone(link, seq, false, out);
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
    let client = 1..6u64;
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
                    if router.push(client, Body::Buffered(Buffered { full: *full }), &mut out) == Flow::Pause {
                        workers.paused.insert(client);
                    }
                    if let Some(lane) = router.lanes.get(&client) {
                        let unsent = lane.waiting.iter().filter(|event| event.is_new_buffered());
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
        for client in router.lanes.keys().filter(|client| !workers.given_up.contains(client)) {
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
            prop_assert_eq!(router.lanes.len(), open);
        }
    }
}

fn up(router: &mut Router, link: u64) -> Vec<Output> {
    let mut out = Vec::new();
    router.link_up(LinkId(link), &mut out);
    out
}

fn deliveries(out: &[Output]) -> Vec<(u64, u64, bool)> {
    out.iter()
        .filter_map(|output| match output {
            Output::Deliver {
                link,
                client,
                redelivered,
                ..
            } => Some((link.0, *client, *redelivered)),
            _ => None,
        })
        .collect()
}

#[test]
fn clients_go_to_the_link_with_the_fewest() {
    let mut router = Router::new(BOUNDS);
    up(&mut router, 1);
    up(&mut router, 2);
    let mut out = Vec::new();
    for client in 1..=4 {
        router.push(client, Body::Opened(Opened {}), &mut out);
    }
    assert_eq!(
        deliveries(&out),
        [(1, 1, false), (2, 2, false), (1, 3, false), (2, 4, false)]
    );
}

#[test]
fn an_event_that_ends_link_after_link_is_given_up() {
    let mut router = Router::new(BOUNDS);
    let mut out = Vec::new();
    router.push(1, Body::Opened(Opened {}), &mut out);
    for link in 1..=2 {
        assert_eq!(deliveries(&up(&mut router, link)), [(link, 1, link > 1)]);
        out.clear();
        router.link_down(LinkId(link), Ending::Died, &mut out);
    }
    assert_eq!(out, [Output::Hold { client: 1 }]);
    out.clear();
    assert_eq!(up(&mut router, 3), [], "it has to wait");
    router.release(1, &mut out);
    assert_eq!(deliveries(&out), [(3, 1, true)]);
    out.clear();
    router.link_down(LinkId(3), Ending::Died, &mut out);
    assert_eq!(out, [Output::GiveUp { client: 1 }]);
    assert!(router.is_idle());
}

#[test]
fn workers_that_die_together_are_not_the_doing_of_an_event() {
    let mut router = Router::new(BOUNDS);
    let mut out = Vec::new();
    for link in 1..=8 {
        up(&mut router, link);
    }
    router.push(1, Body::Opened(Opened {}), &mut out);
    for link in 1..=8 {
        router.link_down(LinkId(link), Ending::Died, &mut out);
    }
    assert!(!out.contains(&Output::GiveUp { client: 1 }));
    up(&mut router, 9);
    out.clear();
    router.release(1, &mut out);
    assert_eq!(deliveries(&out), [(9, 1, true)]);
}

#[test]
fn a_handler_that_was_cut_off_takes_back_what_is_behind_its_event() {
    let mut router = Router::new(BOUNDS);
    up(&mut router, 1);
    let mut out = Vec::new();
    for number in 1..=3 {
        router.push(1, message(number), &mut out);
    }
    router.done(LinkId(1), 1, &mut out);
    up(&mut router, 2);
    out.clear();
    router.undone(LinkId(1), 2, false, &mut out);
    assert_eq!(
        deliveries(&out),
        [(1, 1, true), (1, 1, true)],
        "it is the emptier one, or as empty"
    );
    out.clear();
    // What it says of events that were taken back counts no more.
    router.done(LinkId(1), 3, &mut out);
    router.undone(LinkId(1), 2, false, &mut out);
    assert_eq!((out.as_slice(), router.in_flight()), ([].as_slice(), 2));
    router.undone(LinkId(1), 4, false, &mut out);
    assert_eq!(out, [Output::Hold { client: 1 }]);
    out.clear();
    router.release(1, &mut out);
    router.undone(LinkId(1), 6, false, &mut out);
    assert!(out.contains(&Output::GiveUp { client: 1 }));
}

#[test]
fn what_draining_workers_hand_back_is_never_given_up() {
    let mut router = Router::new(BOUNDS);
    let mut out = up(&mut router, 1);
    router.push(1, message(1), &mut out);
    router.push(1, message(2), &mut out);
    for link in 1..=40 {
        up(&mut router, link + 1);
        router.link_draining(LinkId(link), &mut out);
        out.clear();
        router.undone(LinkId(link), 1, true, &mut out);
        assert_eq!(deliveries(&out), [(link + 1, 1, true), (link + 1, 1, true)]);
        assert!(
            out.contains(&Output::Finished { link: LinkId(link) }),
            "nothing holds up its end"
        );
        router.link_down(LinkId(link), Ending::Silent, &mut out);
    }
    // One that does not drain is as to blame as for a handler that was cut off.
    for _ in 0..3 {
        let seq = router.links[&LinkId(41)].last_seq - 1;
        out.clear();
        router.undone(LinkId(41), seq, true, &mut out);
        router.release(1, &mut out);
    }
    assert!(out.contains(&Output::GiveUp { client: 1 }), "{out:?}");
}

#[test]
fn a_client_that_no_worker_knows_can_be_dropped() {
    let mut router = Router::new(BOUNDS);
    let mut out = Vec::new();
    router.push(1, Body::Opened(Opened {}), &mut out);
    assert!(router.abandon(1, &mut out));
    assert_eq!(out, [Output::Forget { client: 1 }]);
    router.push(2, Body::Opened(Opened {}), &mut out);
    up(&mut router, 1);
    assert!(!router.abandon(2, &mut out), "the worker has been asked");
}

#[test]
fn a_rejected_client_is_not_asked_about_again() {
    let mut router = Router::new(BOUNDS);
    up(&mut router, 1);
    let mut out = Vec::new();
    router.push(1, Body::Opened(Opened {}), &mut out);
    router.dismiss(1, &mut out);
    router.link_down(LinkId(1), Ending::Died, &mut out);
    assert_eq!(out.last(), Some(&Output::Forget { client: 1 }));
    assert!(deliveries(&up(&mut router, 2)).is_empty());
}

#[test]
fn a_full_link_holds_back_until_there_is_room() {
    let mut router = Router::new(Bounds {
        link_in_flight_bytes: 300,
        ..BOUNDS
    });
    up(&mut router, 1);
    let mut out = Vec::new();
    for client in 1..=3 {
        router.push(client, message(1), &mut out);
    }
    assert_eq!(deliveries(&out), [(1, 1, false), (1, 2, false)]);
    out.clear();
    router.done(LinkId(1), 1, &mut out);
    assert_eq!(deliveries(&out), [(1, 3, false)]);
}

#[test]
fn a_client_settles_when_the_last_event_is_done() {
    let mut router = Router::new(BOUNDS);
    up(&mut router, 1);
    let mut out = Vec::new();
    assert!(router.settle(1), "nothing is known of it");
    router.push(1, message(1), &mut out);
    router.push(1, message(2), &mut out);
    assert!(!router.settle(1));
    router.done(LinkId(1), 1, &mut out);
    assert!(!out.contains(&Output::Settled { client: 1 }));
    router.done(LinkId(1), 2, &mut out);
    assert!(out.contains(&Output::Settled { client: 1 }));
}

#[test]
fn idle_clients_are_handed_over() {
    let mut router = Router::new(BOUNDS);
    up(&mut router, 1);
    let mut out = Vec::new();
    router.push(1, Body::Opened(Opened {}), &mut out);
    router.done(LinkId(1), 1, &mut out);
    out.clear();
    router.link_down(LinkId(1), Ending::Died, &mut out);
    assert_eq!(out, [], "nobody is there");
    assert_eq!(
        up(&mut router, 2),
        [Output::Attach {
            link: LinkId(2),
            client: 1
        }]
    );
    up(&mut router, 3);
    router.link_draining(LinkId(2), &mut out);
    let moved = [
        Output::Detach {
            link: LinkId(2),
            client: 1,
        },
        Output::Attach {
            link: LinkId(3),
            client: 1,
        },
        Output::Finished { link: LinkId(2) },
    ];
    assert_eq!(out, moved);
}

#[test]
fn a_suspect_is_tried_alone() {
    let mut router = Router::new(BOUNDS);
    let mut out = Vec::new();
    for client in 1..=3 {
        router.push(client, Body::Opened(Opened {}), &mut out);
    }
    for link in 1..=2 {
        assert_eq!(
            deliveries(&up(&mut router, link)).len(),
            3,
            "all of them go to the link"
        );
        router.link_down(LinkId(link), Ending::Died, &mut out);
    }
    out.clear();
    // The next end of a link would be the last for an event: of the three only one is risked at a time.
    up(&mut router, 3);
    for client in 1..=3 {
        router.release(client, &mut out);
    }
    assert_eq!(deliveries(&out), [(3, 1, true)]);
    out.clear();
    router.link_down(LinkId(3), Ending::Died, &mut out);
    assert_eq!(out, [Output::GiveUp { client: 1 }]);
    assert_eq!(deliveries(&up(&mut router, 4)), [(4, 2, true)]);
    out.clear();
    router.done(LinkId(4), 1, &mut out);
    assert_eq!(deliveries(&out), [(4, 3, true)]);
}

#[test]
fn a_suspect_that_has_to_wait_leaves_room_to_others() {
    let mut router = Router::new(Bounds {
        link_in_flight_bytes: 300,
        max_deliveries: 2,
        ..BOUNDS
    });
    let mut out = Vec::new();
    up(&mut router, 1);
    for client in [1, 2] {
        router.push(client, message(1), &mut out);
    }
    router.link_down(LinkId(1), Ending::Died, &mut out);
    up(&mut router, 2);
    let large = Body::Message(Message {
        payload: vec![0; 250].into(),
        binary: true,
    });
    router.push(3, large, &mut out);
    for client in [1, 2] {
        router.release(client, &mut out);
    }
    router.push(4, message(1), &mut out);
    out.clear();
    router.done(LinkId(2), 1, &mut out);
    assert_eq!(deliveries(&out), [(2, 1, true), (2, 4, false)]);
}

#[test]
fn a_large_event_is_not_overtaken_for_ever() {
    let mut router = Router::new(BOUNDS);
    up(&mut router, 1);
    let large = Body::Message(Message {
        payload: vec![0; 1_800].into(),
        binary: true,
    });
    let mut out = Vec::new();
    router.push(1, message(1), &mut out);
    router.push(2, large, &mut out);
    router.push(3, message(1), &mut out);
    assert_eq!(
        deliveries(&out),
        [(1, 1, false)],
        "the small one waits behind the large one"
    );
    out.clear();
    router.done(LinkId(1), 1, &mut out);
    assert_eq!(deliveries(&out), [(1, 2, false)]);
}

#[test]
fn nobody_is_read_while_too_much_waits() {
    let mut router = Router::new(Bounds {
        waiting_bytes: 300,
        ..BOUNDS
    });
    let mut out = Vec::new();
    assert_eq!(router.push(1, message(1), &mut out), Flow::Go);
    assert_eq!(router.push(1, message(2), &mut out), Flow::Go);
    assert_eq!(router.push(1, message(3), &mut out), Flow::Pause);
    assert_eq!(router.flow(2), Flow::Pause);
    let out = up(&mut router, 1);
    for client in [1, 2] {
        assert!(out.contains(&Output::Resume { client }), "{out:?}");
    }
}

#[test]
fn a_worker_out_of_order_harms_nothing() {
    let mut router = Router::new(BOUNDS);
    up(&mut router, 1);
    let mut out = Vec::new();
    router.push(1, message(1), &mut out);
    router.push(1, Body::Closed(Closed::default()), &mut out);
    router.done(LinkId(1), 2, &mut out);
    router.done(LinkId(1), 1, &mut out);
    router.done(LinkId(1), 99, &mut out);
    assert!(router.is_idle() && router.lanes.is_empty());
}

#[test]
fn a_reply_is_done_before_the_event_whose_handler_asked() {
    let mut router = Router::new(BOUNDS);
    up(&mut router, 1);
    let mut out = Vec::new();
    for number in 1..=6 {
        router.push(1, message(number), &mut out);
    }
    assert_eq!(deliveries(&out).len(), BOUNDS.client_in_flight);
    out.clear();
    // It makes room for the next one.
    router.done(LinkId(1), 3, &mut out);
    assert_eq!(deliveries(&out), [(1, 1, false)]);
    // A client does not move before the handler that asks has finished.
    up(&mut router, 2);
    out.clear();
    router.link_draining(LinkId(1), &mut out);
    router.done(LinkId(1), 4, &mut out);
    assert_eq!(out, []);
    // If its worker dies, the event comes again, and not the replies.
    router.link_down(LinkId(1), Ending::Died, &mut out);
    let again: Vec<_> = out
        .iter()
        .filter_map(|output| match output {
            Output::Deliver { body, redelivered, .. } => Some((number(body), *redelivered)),
            _ => None,
        })
        .collect();
    assert_eq!(again, [(1, true), (2, true), (5, true), (6, false)]);
}

#[test]
fn a_network_that_is_cut_is_no_death() {
    let mut router = Router::new(BOUNDS);
    let mut out = Vec::new();
    router.push(1, Body::Opened(Opened {}), &mut out);
    for link in 1..BOUNDS.max_returns.into() {
        assert_eq!(deliveries(&up(&mut router, link)), [(link, 1, link > 1)]);
        out.clear();
        router.link_down(LinkId(link), Ending::Silent, &mut out);
        assert_eq!(out, []);
    }
    up(&mut router, 16);
    router.link_down(LinkId(16), Ending::Silent, &mut out);
    assert_eq!(out, [Output::GiveUp { client: 1 }], "but not for ever");
}
