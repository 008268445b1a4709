//! Who passes whom, from one end to the other.

use std::collections::VecDeque;
use std::sync::LazyLock;

use bytes::Bytes;

use super::{Assembly, InParts, Order, PART, Queue};
use meepo_proto::link::{Delivery, Event, Message, event};

const LARGE: usize = 5 * PART / 2;

/// Bytes of which each message has some that no other one has at the same place.
static PAYLOADS: LazyLock<Bytes> = LazyLock::new(|| {
    let mut random = fastrand::Rng::with_seed(1);
    (0..5 * PART).map(|_| random.u8(..)).collect::<Vec<_>>().into()
});

/// What is said, in its order, and what has come at the other end.
#[derive(Default)]
struct Line {
    said: Vec<(Event, Order)>,
    /// What the sender has not looked at yet.
    channel: VecDeque<(Event, Order)>,
    queue: Queue<Event, ()>,
    came: Vec<u64>,
    assembly: Option<Assembly<Event>>,
    /// Parts that were sent.
    parts: usize,
}

impl Line {
    fn say(&mut self, order: Order, bytes: usize) -> u64 {
        let number = self.said.len() as u64 + 1;
        let at = number as usize;
        let payload = PAYLOADS.slice(at..at + bytes);
        let event = Event {
            delivery: Some(Delivery {
                event_number: number,
                ..Delivery::default()
            }),
            body: Some(event::Body::Message(Message { payload, binary: true })),
            ..Event::default()
        };
        self.said.push((event.clone(), order));
        self.channel.push_back((event, order));
        number
    }

    fn small(&mut self, order: Order) -> u64 {
        self.say(order, 10)
    }

    fn large(&mut self, order: Order) -> u64 {
        self.say(order, LARGE)
    }

    /// Sends the next thing, as both ends of a link do. False if there is nothing.
    fn step(&mut self) -> bool {
        if self.queue.is_empty() {
            let Some((event, order)) = self.channel.pop_front() else {
                return false;
            };
            if bytes(&event) <= PART {
                self.receive(event);
                return true;
            }
            self.add(event, order);
            self.add_all();
        }
        if let Some(event) = self.queue.pop() {
            self.receive(event);
        } else {
            self.add_all();
        }
        true
    }

    fn add_all(&mut self) {
        while let Some((event, order)) = self.channel.pop_front() {
            self.add(event, order);
        }
    }

    fn add(&mut self, event: Event, order: Order) {
        let large = bytes(&event) > PART;
        self.queue.push(event, order, large, ());
    }

    fn receive(&mut self, event: Event) {
        self.parts += usize::from(matches!(event.body, Some(event::Body::Part(_))));
        let assembly = self.assembly.get_or_insert_with(|| Assembly::new(usize::MAX));
        if let Some(whole) = assembly.take(event).expect("the rules are kept") {
            let number = number(&whole);
            let (said, _) = &self.said[number as usize - 1];
            assert!(whole == *said, "{number} comes as it was said");
            self.came.push(number);
        }
    }

    /// All that comes until there is nothing left.
    fn rest(&mut self) -> &[u64] {
        while self.step() {}
        assert!(self.queue.is_empty());
        &self.came
    }

    fn is_before(&self, one: u64, other: u64) -> bool {
        let at = |number| self.came.iter().position(|came| *came == number);
        at(one).expect("it came") < at(other).expect("it came")
    }
}

fn number(event: &Event) -> u64 {
    event.delivery.as_ref().expect("it has a number").event_number
}

fn bytes(event: &Event) -> usize {
    match &event.body {
        Some(event::Body::Message(message)) => message.payload.len(),
        _ => 0,
    }
}

use Order::{After, Change, Fence, Of};

#[test]
fn nothing_passes_while_nothing_is_large() {
    let mut line = Line::default();
    for order in [Of(1), Fence, Of(2), After, Change(1), Of(1), Fence] {
        line.small(order);
    }
    line.say(Of(3), PART);
    line.small(Of(4));
    assert_eq!(line.rest(), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(line.parts, 0);
}

#[test]
fn small_ones_of_others_pass_a_large_one() {
    let mut line = Line::default();
    let large = line.large(Of(1));
    let same = line.small(Of(1));
    let other = line.small(Of(2));
    let change = line.small(Change(3));
    assert_eq!(line.rest(), [other, change, large, same]);
    assert_eq!(line.parts, 3);
}

#[test]
fn what_comes_while_a_large_one_is_under_way_passes_it_too() {
    let mut line = Line::default();
    let large = line.large(Of(1));
    assert!(line.step());
    assert_eq!(line.parts, 1);
    let same = line.small(Of(1));
    let other = line.small(Of(2));
    while line.parts < 2 {
        assert!(line.step());
    }
    assert_eq!(line.came, [other]);
    assert_eq!(line.rest(), [other, large, same]);
}

#[test]
fn what_is_to_come_after_all_comes_after_the_large_one_and_after_those_that_passed_it() {
    let mut line = Line::default();
    let large = line.large(Of(1));
    let before = line.small(Of(2));
    let after = line.small(After);
    let later = line.small(Of(2));
    assert!(line.step());
    let last = line.small(Of(3));
    assert_eq!(line.rest(), [before, later, last, large, after]);
}

#[test]
fn nothing_passes_a_fence() {
    let mut line = Line::default();
    line.large(Of(1));
    let before = line.small(Of(2));
    line.small(Fence);
    line.small(Of(3));
    line.small(Change(4));
    line.small(After);
    assert_eq!(line.rest(), [before, 1, 3, 4, 5, 6]);

    // Nor one that is large itself.
    let mut line = Line::default();
    line.large(Fence);
    line.small(Of(2));
    assert_eq!(line.rest(), [1, 2]);
    assert!(line.parts > 1);
}

#[test]
fn a_change_that_has_to_wait_is_passed_by_nothing() {
    let mut line = Line::default();
    line.large(Of(1));
    let passes = line.small(Change(2));
    line.small(Change(1));
    line.small(Of(3));
    assert_eq!(line.rest(), [passes, 1, 3, 4]);
    let mut line = Line::default();
    line.large(Change(1));
    line.small(Of(2));
    assert_eq!(line.rest(), [1, 2]);
}

#[test]
fn large_ones_come_one_after_the_other() {
    let mut line = Line::default();
    let large = [line.large(Of(1)), line.large(Of(2)), line.large(Of(1))];
    // Of the second one's client, which waits.
    let same = line.small(Of(2));
    let other = line.small(Of(3));
    let [first, second, third] = large;
    assert_eq!(line.rest(), [other, first, second, third, same]);
    assert_eq!(line.parts, 9);
}

#[test]
fn a_flood_of_small_ones_does_not_hold_a_large_one_up() {
    let mut line = Line::default();
    line.large(Of(1));
    let mut small = 0;
    while !line.came.contains(&1) {
        line.small(Of(2));
        small += 1;
        assert!(line.step());
    }
    assert!(small < 20, "{small} small ones were sent meanwhile");
}

#[test]
fn what_is_cut_gets_its_half_however_much_would_pass_it() {
    let event = |bytes: usize| {
        Event::carrying(meepo_proto::link::Part {
            bytes: vec![0; bytes].into(),
            size: None,
        })
    };
    let mut queue = Queue::default();
    queue.push(event(LARGE), Of(1), true, ());
    assert!(queue.pop().is_some(), "the first part is out");
    const SMALL: usize = PART / 4;
    for _ in 0..100 {
        queue.push(event(SMALL), Of(2), false, ());
    }
    let (mut small, mut parts) = (0, 0);
    while parts < 2 {
        match queue.pop().and_then(|mut event| event.take_part()) {
            Some(part) if part.bytes.len() == SMALL => small += 1,
            Some(_) => parts += 1,
            None => {}
        }
    }
    assert!(
        (2..=8).contains(&small),
        "{small} small ones were sent before the last part"
    );
}

#[test]
fn what_an_item_keeps_is_let_go_with_its_last_part() {
    let mut queue = Queue::default();
    let kept = std::rc::Rc::new(());
    let large = Event::carrying(meepo_proto::link::Part {
        bytes: vec![0; LARGE].into(),
        size: None,
    });
    queue.push(large, Of(1), true, kept.clone());
    queue.push(Event::default(), Of(2), false, kept.clone());
    let held = |queue: &mut Queue<Event, _>| {
        queue.pop();
        std::rc::Rc::strong_count(&kept) - 1
    };
    assert_eq!(held(&mut queue), 1, "the small one is out");
    // Three parts, and the ends of two rounds between them.
    let all: Vec<_> = (0..5).map(|_| held(&mut queue)).collect();
    assert_eq!(all, [1, 1, 1, 1, 0]);
    assert!(queue.is_empty());
}

/// Says things at random while others are sent.
fn at_random(seed: u64) -> Line {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut line = Line::default();
    let (clients, large) = (random.u64(1..5), random.u32(1..8));
    while line.said.len() < 60 {
        let client = random.u64(1..=clients);
        let order = match random.u32(0..12) {
            0 => Fence,
            1 => After,
            2 => Change(client),
            _ => Of(client),
        };
        let size = match random.u32(0..large) {
            0 => random.usize(PART + 1..4 * PART),
            _ => random.usize(0..100),
        };
        line.say(order, size);
        for _ in 0..random.u32(0..4) {
            line.step();
        }
    }
    line.rest();
    line
}

#[test]
fn places_are_kept_whatever_comes() {
    let mut passed = 0;
    for seed in 0..300 {
        let line = at_random(seed);
        assert_eq!(line.came.len(), line.said.len(), "seed {seed}: all come");
        for (at, (later, its)) in line.said.iter().enumerate() {
            for (earlier, order) in &line.said[..at] {
                let keeps = match (*order, *its) {
                    (_, After | Fence) | (Fence | Change(_), _) => true,
                    (Of(one), Of(other) | Change(other)) => one == other,
                    (After, Of(_) | Change(_)) => false,
                };
                let (one, other) = (number(earlier), number(later));
                let is_before = line.is_before(one, other);
                assert!(
                    is_before || !keeps,
                    "seed {seed}: {other} {its:?} passes {one} {order:?}"
                );
                passed += usize::from(!is_before);
            }
        }
    }
    assert!(passed > 1000, "only {passed} times was one passed");
}
