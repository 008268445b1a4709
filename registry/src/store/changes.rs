//! The stream that a store gives to a watcher: a snapshot and then each change.

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use meepo_proto::registry::change::Change;
use tokio::sync::broadcast;

/// A watcher that is this many changes behind is sent a snapshot instead.
pub(crate) const MAX_BEHIND: usize = 1024;

/// Streams what `subscribe` gives: a snapshot, and a receiver of all changes after it. A watcher that has fallen behind is
/// subscribed anew.
pub(crate) fn snapshot_then_changes(
    subscribe: impl Fn() -> (Change, broadcast::Receiver<Change>) + Send + 'static,
) -> BoxStream<'static, Change> {
    let (snapshot, changes) = subscribe();
    let later = stream::unfold((subscribe, changes), async |(subscribe, mut changes)| {
        match changes.recv().await {
            Ok(change) => Some((change, (subscribe, changes))),
            Err(broadcast::error::RecvError::Lagged(_)) => {
                let (snapshot, changes) = subscribe();
                Some((snapshot, (subscribe, changes)))
            }
            Err(broadcast::error::RecvError::Closed) => None,
        }
    });
    stream::iter([snapshot]).chain(later).boxed()
}
