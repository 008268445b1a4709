//! Wakes a client's task.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

/// Wakes one task, from any thread: once, however often it is called before the task looks. Waiting takes no memory.
#[derive(Debug, Default)]
pub(crate) struct Waker {
    woken: AtomicBool,
    waker: AtomicWaker,
}

impl Waker {
    /// Has the task look again.
    pub(crate) fn wake(&self) {
        self.woken.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Whether the waker was called since the last look. If not, the task is woken when it is.
    pub(crate) fn poll_woken(&self, context: &Context<'_>) -> Poll<()> {
        // Registered first: a call that comes in between is seen below, or wakes the task.
        self.waker.register(context.waker());
        match self.woken.swap(false, Ordering::Acquire) {
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
    async fn several_calls_wake_once_before_and_while_the_task_waits() {
        let waker = Arc::new(Waker::default());
        waker.wake();
        waker.wake();
        poll_fn(|context| waker.poll_woken(context)).await;
        assert!(futures_util::poll!(poll_fn(|context| waker.poll_woken(context))).is_pending());
        let waiting = Arc::clone(&waker);
        let task = tokio::spawn(async move { poll_fn(|context| waiting.poll_woken(context)).await });
        tokio::task::yield_now().await;
        waker.wake();
        task.await.expect("the task ends");
    }
}
