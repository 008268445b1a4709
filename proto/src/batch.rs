//! A channel without a bound to one receiver, which takes all that is there at once.
//!
//! A message costs the lock that it is put in under and little else. A link carries hundreds of thousands a second, and
//! a good part of what each costs is instructions that other cores have to agree to.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// Room for so many stays in an empty channel.
const SPARE: usize = 512;

/// The end that is put into, from any task.
#[derive(Debug)]
pub struct Sender<T>(Arc<Mutex<Shared<T>>>);

/// The end that is read.
#[derive(Debug)]
pub struct Receiver<T> {
    shared: Arc<Mutex<Shared<T>>>,
    taken: VecDeque<T>,
}

#[derive(Debug)]
struct Shared<T> {
    queued: VecDeque<T>,
    /// Who waits, once it has found nothing.
    waker: Option<Waker>,
    /// One of the ends has gone.
    closed: bool,
}

/// A channel.
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
    /// Queues a message. It comes back if the receiver has gone.
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
    /// The next message; none once the sender has gone and all is taken.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        if let Some(message) = self.taken.pop_front() {
            return Poll::Ready(Some(message));
        }
        let mut shared = self.shared.lock();
        if !shared.queued.is_empty() {
            mem::swap(&mut shared.queued, &mut self.taken);
            return Poll::Ready(self.taken.pop_front());
        }
        // A burst leaves nothing behind.
        shared.queued.shrink_to(SPARE);
        self.taken.shrink_to(SPARE);
        if shared.closed {
            return Poll::Ready(None);
        }
        if !shared.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            let earlier = shared.waker.replace(cx.waker().clone());
            // Without the lock, whatever that sets off.
            drop(shared);
            drop(earlier);
        }
        Poll::Pending
    }

    /// Lets nothing more in, and takes what is left.
    pub fn close(&mut self) -> impl Iterator<Item = T> + use<T> {
        let mut shared = self.shared.lock();
        shared.closed = true;
        let queued = mem::take(&mut shared.queued);
        mem::take(&mut self.taken).into_iter().chain(queued)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        // What is left is dropped without the lock too.
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
    fn who_waits_is_woken_once() {
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
    fn the_end_wakes_who_waits() {
        let (sender, mut receiver) = channel::<()>();
        let woken = Arc::<Woken>::default();
        let waker = woken.clone().into();
        assert_eq!(receiver.poll_recv(&mut Context::from_waker(&waker)), Poll::Pending);
        drop(sender);
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn what_nobody_reads_comes_back_or_is_dropped() {
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
