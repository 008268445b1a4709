//! What is left to do when a child is to end.

use std::time::Duration;

use tokio::time::Instant;

use crate::hub::Hub;

/// How long a child that drains waits for workers when it has no link: longer than the pauses between their attempts.
pub(crate) const ALONE: Duration = Duration::from_secs(3);

impl Hub {
    /// Waits until every event is done, or nobody has been there to do them for a while. Cancel safe.
    pub(crate) async fn drained(&self) {
        let mut alone = None;
        loop {
            let notified = self.idle.notified();
            let links = {
                let dispatch = self.dispatch();
                if dispatch.router.is_settled() {
                    return;
                }
                dispatch.router.links()
            };
            if links > 0 {
                alone = None;
                notified.await;
                continue;
            }
            let since = *alone.get_or_insert_with(Instant::now);
            if since.elapsed() >= ALONE {
                return;
            }
            let _ = tokio::time::timeout_at(since + ALONE, notified).await;
        }
    }

    /// Whether nobody is there any more, and workers have handled everyone's end.
    pub(crate) fn is_done(&self) -> bool {
        self.unfinished() == 0 && self.registry().all().next().is_none()
    }

    /// Events that no worker has finished and somebody waits for.
    pub(crate) fn unfinished(&self) -> usize {
        self.dispatch().router.unfinished()
    }

    /// Ends all links' streams.
    pub(crate) fn end_links(&self) {
        self.dispatch().links.clear();
    }
}
