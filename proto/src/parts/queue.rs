//! Who goes first towards a stream: while something large is on its way in parts, small ones of others pass it.

use std::collections::{HashMap, VecDeque};
use std::mem;

use bytes::Bytes;
use foldhash::fast::RandomState;

use super::{InParts, PART};
use crate::link::Part;

/// Room for so many stays in an empty queue.
const SPARE: usize = 64;

/// Which place something has to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Its place among those of this client. Those of others pass it.
    Of(u64),
    /// The same; but it changes what others may ask for, so nothing passes it where it has to wait.
    Change(u64),
    /// It comes after all that was queued before. Others pass it.
    After,
    /// It comes after all that was queued before, and before all that is queued later.
    Fence,
}

/// What cannot go on at once, because it is large or something large is in front.
///
/// It works in rounds. The caller adds all that there is, then takes [`pop`](Self::pop) until that is none: first come
/// those that pass all others, up to the size of a part, then one part. Each keeps a value, such as what it counts in, until
/// its last part is out.
#[derive(Debug)]
pub struct Queue<M, K> {
    /// Those that pass all others.
    fast: VecDeque<(M, K)>,
    /// Those that do not.
    waiting: VecDeque<Waiting<M, K>>,
    cut: Option<Cut<K>>,
    /// How much of each client waits or is cut.
    clients: HashMap<u64, usize, RandomState>,
    /// Fences among those.
    fences: usize,
    /// Bytes of those that passed what is cut in this round.
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

/// The one that is on its way in parts.
#[derive(Debug)]
struct Cut<K> {
    left: Bytes,
    /// Of the whole, until that is said.
    size: u64,
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
    /// Whether nothing is held here: what comes and is not large can go on as it is.
    pub fn is_empty(&self) -> bool {
        self.cut.is_none() && self.waiting.is_empty() && self.fast.is_empty()
    }

    /// Adds something. What is large is sent in parts.
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

    /// The next one of this round.
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
        // What is cut gets half of the stream, however much would pass it.
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

    /// One that others could not pass is out.
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
        // It has the room that it needs, and none left over.
        let whole = Bytes::from(waiting.message.encode_to_vec());
        Self {
            size: whole.len() as u64,
            left: whole,
            order: waiting.order,
            _kept: waiting.kept,
        }
    }

    fn next_part(&mut self) -> Part {
        Part {
            bytes: self.left.split_to(self.left.len().min(PART)),
            size: mem::take(&mut self.size),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Event;

    #[test]
    fn a_burst_leaves_no_room_behind() {
        let mut queue = Queue::default();
        let large = Event::carrying(Part {
            bytes: vec![0; 2 * PART].into(),
            size: 0,
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
