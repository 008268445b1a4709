//! Wakes a client's task.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

/// Rung from anywhere, heard by one task: once, however often it was rung meanwhile. Waiting for it takes no memory.
#[derive(Debug, Default)]
pub(crate) struct Waker {
    rung: AtomicBool,
    waker: AtomicWaker,
}

impl Waker {
    pub(crate) fn ring(&self) {
        self.rung.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Whether it was rung since it was heard last. If not, the task is woken when it is.
    pub(crate) fn poll_heard(&self, context: &Context<'_>) -> Poll<()> {
        // Registered first: a ring that comes in between is seen here, or wakes.
        self.waker.register(context.waker());
        match self.rung.swap(false, Ordering::Acquire) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn what_is_rung_is_heard_once_before_and_while_it_is_waited_for() {
        let waker = Arc::new(Waker::default());
        waker.ring();
        waker.ring();
        poll_fn(|context| waker.poll_heard(context)).await;
        assert!(futures_util::poll!(poll_fn(|context| waker.poll_heard(context))).is_pending());
        let waiting = Arc::clone(&waker);
        let task = tokio::spawn(async move { poll_fn(|context| waiting.poll_heard(context)).await });
        tokio::task::yield_now().await;
        waker.ring();
        task.await.expect("it hears");
    }
}
