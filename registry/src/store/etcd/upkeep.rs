//! The tasks of a store: they keep its etcd lease, follow its watch, and mend what is not right in etcd.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use meepo_proto::etcd::Event;
use meepo_proto::etcd::event::EventType;
use meepo_proto::registry::NodeId;
use tokio::time::{Instant, interval, sleep, sleep_until};

use super::client::{EtcdError, EtcdLease, Revision, WatchEnd};
use super::entry::Entry;
use super::replica::Replica;
use super::view::EntryChange;

/// The longest pause before an etcd lease, a watch or a registration is tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// The pause before etcd is asked again to extend the etcd lease.
const RETRY: Duration = Duration::from_millis(300);
/// How often the member that is watched is probed, by a request of the watch: etcd ends connections that are probed by
/// HTTP/2 more often than every 5 s.
const PROBE: Duration = Duration::from_secs(2);
/// How long a watch may be silent before it is given up.
const SILENCE: Duration = Duration::from_secs(5);
/// How many nodes are mended at a time.
const MENDED_AT_ONCE: usize = 16;

/// Has an etcd lease as long as etcd is there, for ever.
pub(crate) async fn keep_lease(replica: Arc<Replica>) {
    loop {
        let Ok((lease, time)) = replica.client.grant(replica.lease_time).await else {
            // The client has logged the error.
            pause().await;
            continue;
        };
        replica.begin_lease(lease);
        extend_until_lost(&replica, lease, time).await;
        replica.lost_lease(lease);
        tracing::warn!("the lease at etcd has expired; all nodes are put there again");
    }
}

async fn extend_until_lost(replica: &Replica, lease: EtcdLease, time: Duration) {
    let mut next = Instant::now() + time / 3;
    loop {
        tokio::select! {
            () = sleep_until(next) => {}
            () = replica.lease_in_doubt.notified() => {}
        }
        match replica.client.keep_alive(lease).await {
            Ok(true) => {
                replica.confirm_lease(lease);
                next = Instant::now() + time / 3;
            }
            Ok(false) => return,
            Err(_) => next = Instant::now() + RETRY,
        }
    }
}

/// Follows what changes in etcd, for ever.
pub(crate) async fn watch(replica: Arc<Replica>) {
    loop {
        if let Err(error) = list_and_watch(&replica).await {
            tracing::debug!(%error, "the watch at etcd has ended, beginning again");
        }
        pause().await;
    }
}

/// Takes all registrations, and then each change, until the watch ends.
///
/// Changes since an earlier watch are never asked for, since etcd may have forgotten them.
async fn list_and_watch(replica: &Replica) -> Result<(), EtcdError> {
    let range = replica.keys.all_registrations();
    let listing = replica.client.range(range.clone()).await?;
    let entries = listing.pairs.iter().filter_map(|pair| Entry::read(&replica.keys, pair));
    let wrong = replica.view().load(entries.collect());
    replica.reach(listing.revision);
    replica.check(wrong);

    let after = Revision(listing.revision.0 + 1);
    let (member, mut watch) = replica.client.watch(range, after).await?;
    let mut probe = interval(PROBE);
    let mut silent_at = Instant::now() + SILENCE;
    let error = loop {
        tokio::select! {
            events = watch.next() => match events {
                Ok(events) => {
                    silent_at = Instant::now() + SILENCE;
                    take(replica, &events);
                }
                Err(WatchEnd::Cancelled(error)) => return Err(error),
                Err(WatchEnd::Broken(error)) => break error,
            },
            _ = probe.tick() => watch.probe(),
            () = sleep_until(silent_at) => break EtcdError::silent("the watch is silent"),
            () = replica.watch_behind.notified() => break EtcdError::silent("the watch is behind"),
        }
    };
    replica.client.avoid(member, &error);
    Err(error)
}

/// Takes changes, revision by revision.
fn take(replica: &Replica, events: &[Event]) {
    let revision = |event: &Event| Revision(event.kv.as_ref().map_or(0, |pair| pair.mod_revision));
    for at_once in events.chunk_by(|a, b| revision(a) == revision(b)) {
        let changes = at_once.iter().filter_map(|event| read(replica, event));
        let wrong = replica.view().apply(changes.collect());
        replica.reach(revision(&at_once[0]));
        replica.check(wrong);
    }
}

fn read(replica: &Replica, event: &Event) -> Option<EntryChange> {
    let pair = event.kv.as_ref()?;
    match event.r#type() {
        EventType::Put => Entry::read(&replica.keys, pair).map(EntryChange::Put),
        EventType::Delete => replica.keys.read(&pair.key).map(EntryChange::Deleted),
    }
}

/// Checks nodes of which etcd may not have what it should, and mends them, for ever.
pub(crate) async fn mend(replica: Arc<Replica>) {
    loop {
        replica.check_due.notified().await;
        let nodes = replica.take_checks();
        let mended = stream::iter(nodes).map(async |node| (node, replica.mend(node).await));
        let failed: Vec<NodeId> = mended
            .buffer_unordered(MENDED_AT_ONCE)
            .filter_map(async |(node, mended)| mended.is_err().then_some(node))
            .collect()
            .await;
        if !failed.is_empty() {
            pause().await;
            replica.check(failed);
        }
    }
}

async fn pause() {
    sleep(PAUSE.mul_f64(0.1 + 0.9 * fastrand::f64())).await;
}
