//! The order in which messages go out: while a large one is under way in parts, small ones of other clients pass it.

use std::collections::{HashMap, VecDeque};
use std::mem;

use bytes::Bytes;
use foldhash::fast::RandomState;

use super::{InParts, PART};
use meepo_proto::link::Part;

/// Capacity in messages that an empty queue keeps.
const SPARE: usize = 64;

/// Which place a message has to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Its place among the messages of this client. Messages of other clients pass it.
    Of(u64),
    /// The same; but the message changes a state that other messages may ask for, so that none passes it once it has to wait.
    Change(u64),
    /// After all messages that were queued before. Later ones pass it.
    After,
    /// After all messages that were queued before, and before all that are queued later.
    Fence,
}

/// Messages that cannot go out at once, because they are large or a large one is in front.
///
/// It works in rounds. The caller adds all messages that there are, then calls [`pop`](Self::pop) until that gives none: first
/// come the messages that pass all others, up to the size of a part, then one part. Each message keeps a value, such as the
/// charge on a budget, until its last part is out.
#[derive(Debug)]
pub struct Queue<M, K> {
    /// Messages that pass all others.
    fast: VecDeque<(M, K)>,
    /// Messages that pass none.
    waiting: VecDeque<Waiting<M, K>>,
    cut: Option<Cut<K>>,
    /// The number of messages of each client that wait or are under way in parts.
    clients: HashMap<u64, usize, RandomState>,
    /// The number of fences among `waiting`.
    fences: usize,
    /// Bytes of the messages that passed the one under way in this round.
    passed: usize,
    round_is_over: bool,
}

#[derive(Debug)]
struct Waiting<M, K> {
    message: M,
    order: Order,
    large: bool,
    kept: K,
}

/// The message that is under way in parts.
#[derive(Debug)]
struct Cut<K> {
    left: Bytes,
    /// Bytes of the whole, until the first part has told them.
    size: Option<u64>,
    order: Order,
    _kept: K,
}

impl<M, K> Default for Queue<M, K> {
    fn default() -> Self {
        Self {
            fast: VecDeque::new(),
            waiting: VecDeque::new(),
            cut: None,
            clients: HashMap::default(),
            fences: 0,
            passed: 0,
            round_is_over: false,
        }
    }
}

impl<M: InParts, K> Queue<M, K> {
    /// Whether no message waits: the next one can go out as it is, unless it is large.
    pub fn is_empty(&self) -> bool {
        self.cut.is_none() && self.waiting.is_empty() && self.fast.is_empty()
    }

    /// Adds a message, which goes out in parts if it is `large`.
    pub fn push(&mut self, message: M, order: Order, large: bool, kept: K) {
        if !large && self.passes(order) {
            self.fast.push_back((message, kept));
            return;
        }
        let order = match order {
            Order::Change(_) => Order::Fence,
            order => order,
        };
        match order {
            Order::Of(client) => *self.clients.entry(client).or_default() += 1,
            Order::Fence => self.fences += 1,
            Order::Change(_) | Order::After => {}
        }
        self.waiting.push_back(Waiting {
            message,
            order,
            large,
            kept,
        });
    }

    fn passes(&self, order: Order) -> bool {
        match order {
            Order::Of(client) | Order::Change(client) => self.fences == 0 && !self.clients.contains_key(&client),
            Order::After | Order::Fence => false,
        }
    }

    /// The next message of this round.
    pub fn pop(&mut self) -> Option<M> {
        let next = self.step();
        if self.is_empty() {
            self.round_is_over = false;
            self.fast.shrink_to(SPARE);
            self.waiting.shrink_to(SPARE);
            self.clients.shrink_to(SPARE);
        }
        next
    }

    fn step(&mut self) -> Option<M> {
        if mem::take(&mut self.round_is_over) {
            return None;
        }
        // The message in parts gets half of the stream, however many messages would pass it.
        let may_pass = self.cut.is_none() || self.passed < PART;
        if let Some((message, _)) = may_pass.then(|| self.fast.pop_front()).flatten() {
            if self.cut.is_some() {
                self.passed += message.encoded_len();
            }
            return Some(message);
        }
        let mut cut = match self.cut.take() {
            Some(cut) => cut,
            None => {
                let next = self.waiting.pop_front()?;
                if !next.large {
                    self.left(next.order);
                    return Some(next.message);
                }
                Cut::new(next)
            }
        };
        let part = cut.next_part();
        match cut.left.is_empty() {
            true => self.left(cut.order),
            false => self.cut = Some(cut),
        }
        self.passed = 0;
        self.round_is_over = true;
        Some(M::carrying(part))
    }

    /// A message that others could not pass is out.
    fn left(&mut self, order: Order) {
        match order {
            Order::Of(client) => {
                if let Some(count) = self.clients.get_mut(&client) {
                    *count -= 1;
                    if *count == 0 {
                        self.clients.remove(&client);
                    }
                }
            }
            Order::Fence => self.fences -= 1,
            Order::Change(_) | Order::After => {}
        }
    }
}

impl<K> Cut<K> {
    fn new<M: InParts>(waiting: Waiting<M, K>) -> Self {
        // `encode_to_vec` reserves exactly the size.
        let whole = Bytes::from(waiting.message.encode_to_vec());
        Self {
            size: Some(whole.len() as u64),
            left: whole,
            order: waiting.order,
            _kept: waiting.kept,
        }
    }

    fn next_part(&mut self) -> Part {
        Part {
            bytes: self.left.split_to(self.left.len().min(PART)),
            size: self.size.take(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meepo_proto::link::Event;

    #[test]
    fn a_burst_leaves_no_room_behind() {
        let mut queue = Queue::default();
        let large = Event::carrying(Part {
            bytes: vec![0; 2 * PART].into(),
            size: None,
        });
        queue.push(large, Order::Of(0), true, ());
        for client in 0..10_000 {
            queue.push(Event::default(), Order::Of(client), false, ());
            queue.push(Event::default(), Order::After, false, ());
        }
        for client in 0..10_000 {
            queue.push(Event::default(), Order::Of(0), false, ());
            queue.push(Event::default(), Order::Change(client), true, ());
        }
        while !queue.is_empty() {
            queue.pop();
        }
        assert_eq!((queue.fences, queue.clients.len()), (0, 0));
        let rooms = [
            queue.fast.capacity(),
            queue.waiting.capacity(),
            queue.clients.capacity(),
        ];
        assert!(rooms.iter().all(|&room| room < 4 * SPARE), "{rooms:?}");
    }
}
