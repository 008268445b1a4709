//! What a child that drains waits for: that workers have handled every event.

use tokio::time::{Instant, timeout_at};

use crate::config::limits::DRAIN_WITHOUT_WORKERS;
use crate::router::dispatch::Dispatch;

/// Waits until every event is done, or no worker has been there to handle them for a while. Cancel safe.
pub(crate) async fn drained(dispatch: &Dispatch) {
    let mut alone = None;
    loop {
        let next = dispatch.next_done();
        let (settled, links) = dispatch.look(|router, _| (router.is_settled(), router.links()));
        if settled {
            return;
        }
        if links > 0 {
            alone = None;
            next.await;
            continue;
        }
        let since = *alone.get_or_insert_with(Instant::now);
        if since.elapsed() >= DRAIN_WITHOUT_WORKERS {
            return;
        }
        let _ = timeout_at(since + DRAIN_WITHOUT_WORKERS, next).await;
    }
}

/// Whether all clients are gone, and workers have handled their ends.
pub(crate) fn is_done(dispatch: &Dispatch) -> bool {
    unfinished(dispatch) == 0 && dispatch.clients.is_empty()
}

/// Events that no worker has finished and somebody waits for.
pub(crate) fn unfinished(dispatch: &Dispatch) -> usize {
    dispatch.look(|router, _| router.unfinished())
}
