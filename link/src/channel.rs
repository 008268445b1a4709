//! An unbounded channel with one receiver, which takes all queued messages at once.
//!
//! A message costs one lock on its way in, and little else. A link carries hundreds of thousands of messages a second, and
//! instructions that other cores have to agree to are a good part of the cost of each.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// Capacity in messages that an empty channel keeps.
const SPARE: usize = 512;

/// The end for sending, from any task.
#[derive(Debug)]
pub struct Sender<T>(Arc<Mutex<Shared<T>>>);

/// The end for receiving.
#[derive(Debug)]
pub struct Receiver<T> {
    shared: Arc<Mutex<Shared<T>>>,
    taken: VecDeque<T>,
}

#[derive(Debug)]
struct Shared<T> {
    queued: VecDeque<T>,
    /// The waker of the receiver, once it has found no message.
    waker: Option<Waker>,
    /// One of the ends was dropped.
    closed: bool,
}

/// Makes a channel.
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Mutex::new(Shared {
        queued: VecDeque::new(),
        waker: None,
        closed: false,
    }));
    let receiver = Receiver {
        shared: shared.clone(),
        taken: VecDeque::new(),
    };
    (Sender(shared), receiver)
}

impl<T> Sender<T> {
    /// Queues a message. It comes back as the error if the receiver was dropped.
    pub fn send(&self, message: T) -> Result<(), T> {
        let mut shared = self.0.lock();
        if shared.closed {
            return Err(message);
        }
        shared.queued.push_back(message);
        let waker = shared.waker.take();
        drop(shared);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut shared = self.0.lock();
        shared.closed = true;
        let waker = shared.waker.take();
        drop(shared);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Receiver<T> {
    /// The next message; none once the sender was dropped and every message is taken.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        if let Some(message) = self.taken.pop_front() {
            return Poll::Ready(Some(message));
        }
        let mut shared = self.shared.lock();
        if !shared.queued.is_empty() {
            mem::swap(&mut shared.queued, &mut self.taken);
            return Poll::Ready(self.taken.pop_front());
        }
        // A burst leaves no memory behind.
        shared.queued.shrink_to(SPARE);
        self.taken.shrink_to(SPARE);
        if shared.closed {
            return Poll::Ready(None);
        }
        if !shared.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            let earlier = shared.waker.replace(cx.waker().clone());
            // A waker may run code when it is dropped: not under the lock.
            drop(shared);
            drop(earlier);
        }
        Poll::Pending
    }

    /// Closes the channel, and takes the messages that are left.
    pub fn close(&mut self) -> impl Iterator<Item = T> + use<T> {
        let mut shared = self.shared.lock();
        shared.closed = true;
        let queued = mem::take(&mut shared.queued);
        mem::take(&mut self.taken).into_iter().chain(queued)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        // The messages that are left are dropped without the lock, too.
        drop(self.close());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;
    use std::thread;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_waiting_receiver_is_woken_once() {
        let (sender, mut receiver) = channel();
        let woken = Arc::<Woken>::default();
        let waker = woken.clone().into();
        let mut cx = Context::from_waker(&waker);
        let woken = || woken.0.swap(0, Ordering::Relaxed);
        sender.send(1).unwrap();
        assert_eq!(receiver.poll_recv(&mut cx), Poll::Ready(Some(1)));
        assert_eq!((receiver.poll_recv(&mut cx), woken()), (Poll::Pending, 0));
        assert_eq!(receiver.poll_recv(&mut cx), Poll::Pending);
        sender.send(2).unwrap();
        sender.send(3).unwrap();
        assert_eq!(woken(), 1);
        assert_eq!(receiver.poll_recv(&mut cx), Poll::Ready(Some(2)));
        sender.send(4).unwrap();
        for message in [3, 4] {
            assert_eq!(receiver.poll_recv(&mut cx), Poll::Ready(Some(message)));
        }
        assert_eq!((receiver.poll_recv(&mut cx), woken()), (Poll::Pending, 0));
        sender.send(5).unwrap();
        drop(sender);
        assert_eq!(woken(), 1);
        assert_eq!(receiver.poll_recv(&mut cx), Poll::Ready(Some(5)));
        assert_eq!(receiver.poll_recv(&mut cx), Poll::Ready(None));
    }

    #[test]
    fn a_dropped_sender_wakes_the_receiver() {
        let (sender, mut receiver) = channel::<()>();
        let woken = Arc::<Woken>::default();
        let waker = woken.clone().into();
        assert_eq!(receiver.poll_recv(&mut Context::from_waker(&waker)), Poll::Pending);
        drop(sender);
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn messages_that_are_never_received_come_back_or_are_dropped() {
        let (sender, receiver) = channel();
        let message = Arc::new(());
        sender.send(message.clone()).unwrap();
        drop(receiver);
        assert_eq!(Arc::strong_count(&message), 1);
        assert_eq!(sender.send(message.clone()), Err(message));
    }

    #[test]
    fn a_burst_leaves_no_room_behind() {
        let (sender, mut receiver) = channel();
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..2 {
            for number in 0..10_000 {
                sender.send(number).unwrap();
            }
            while receiver.poll_recv(&mut cx).is_ready() {}
            let rooms = [receiver.taken.capacity(), sender.0.lock().queued.capacity()];
            assert!(rooms.iter().all(|&room| room < 4 * SPARE), "{rooms:?}");
        }
    }

    #[test]
    fn each_sender_is_heard_in_order() {
        const EACH: usize = 20_000;
        let (sender, mut receiver) = channel();
        thread::scope(|scope| {
            for who in 0..2 {
                let sender = &sender;
                scope.spawn(move || {
                    for number in 0..EACH {
                        sender.send((who, number)).unwrap();
                    }
                });
            }
            let this = thread::current();
            let waker = Arc::new(Unpark(this)).into();
            let mut cx = Context::from_waker(&waker);
            let mut next = [0, 0];
            while next != [EACH, EACH] {
                match receiver.poll_recv(&mut cx) {
                    Poll::Ready(message) => {
                        let (who, number): (usize, usize) = message.unwrap();
                        assert_eq!(number, next[who]);
                        next[who] += 1;
                    }
                    Poll::Pending => thread::park(),
                }
            }
        });
    }

    struct Unpark(thread::Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
}
