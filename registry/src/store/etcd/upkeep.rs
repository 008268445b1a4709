//! The tasks of a registry child: its lease, its watch, and the mending of what is not right in etcd.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use meepo_proto::etcd::event::EventType;
use meepo_proto::etcd::{self};
use tokio::time::{Instant, interval, sleep, sleep_until};
use tonic::Status;

use super::client::why;
use super::registrar::entry;
use super::replica::Shared;
use super::view::Event;

/// The longest pause between attempts.
const PAUSE: Duration = Duration::from_secs(1);
/// The pause before etcd is asked to keep a lease once more.
const RETRY: Duration = Duration::from_millis(300);
/// How often the member that we watch is asked for a sign of life, for etcd ends connections that are probed more often
/// than every 5 s by other means.
const PROBE: Duration = Duration::from_secs(2);
/// A watch that was silent for so long is given up.
const SILENCE: Duration = Duration::from_secs(5);
/// Nodes that are put again at a time.
const MENDED_AT_ONCE: usize = 16;

/// Has a lease, as long as etcd is there.
pub(crate) async fn keep_lease(shared: Arc<Shared>) {
    loop {
        let Ok((session, time)) = shared.client.grant(shared.time).await else {
            // The client has said why.
            pause().await;
            continue;
        };
        shared.begin(session);
        keep(&shared, session, time).await;
        shared.lost(session);
        tracing::warn!("the lease at etcd has expired; all nodes are put there again");
    }
}

/// Keeps a lease until it has gone.
async fn keep(shared: &Shared, session: i64, time: Duration) {
    let mut next = Instant::now() + time / 3;
    loop {
        tokio::select! {
            () = sleep_until(next) => {}
            () = shared.doubt.notified() => {}
        }
        match shared.client.keep_alive(session).await {
            Ok(true) => {
                shared.confirm(session);
                next = Instant::now() + time / 3;
            }
            Ok(false) => return,
            Err(_) => next = Instant::now() + RETRY,
        }
    }
}

/// Follows what happens in etcd, for ever.
pub(crate) async fn watch(shared: Arc<Shared>) {
    loop {
        if let Err(error) = follow(&shared).await {
            tracing::debug!(error = why(&error), "the watch at etcd has ended, beginning again");
        }
        pause().await;
    }
}

/// Takes all that is there, and then each change, until the watch breaks.
///
/// What has happened since the last watch is never asked for, since etcd may have forgotten it.
async fn follow(shared: &Shared) -> Result<(), Status> {
    let answer = shared.client.range(shared.keys.all()).await?;
    let revision = answer.header.unwrap_or_default().revision;
    let entries = answer.kvs.iter().filter_map(|kv| entry(&shared.keys, kv)).collect();
    let wrong = shared.view().load(entries);
    shared.reach(revision);
    shared.check(wrong);

    let mut watch = shared.client.watch(shared.keys.all(), revision + 1).await?;
    let mut probe = interval(PROBE);
    let mut silent_until = Instant::now() + SILENCE;
    let error = loop {
        tokio::select! {
            answer = watch.next() => match answer {
                // No fault of the member.
                Ok(answer) if answer.canceled => return Err(ended(&answer)),
                Ok(answer) => {
                    silent_until = Instant::now() + SILENCE;
                    take(shared, &answer.events);
                }
                Err(error) => break error,
            },
            _ = probe.tick() => watch.probe(),
            () = sleep_until(silent_until) => break Status::deadline_exceeded("the watch is silent"),
            () = shared.behind.notified() => break Status::deadline_exceeded("the watch is behind"),
        }
    };
    shared.client.avoid(&watch, &error);
    Err(error)
}

/// Takes what has happened, revision by revision.
fn take(shared: &Shared, events: &[etcd::Event]) {
    let revision = |event: &etcd::Event| event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
    for at_once in events.chunk_by(|a, b| revision(a) == revision(b)) {
        let wrong = shared
            .view()
            .apply(at_once.iter().filter_map(|event| read(shared, event)).collect());
        shared.reach(revision(&at_once[0]));
        shared.check(wrong);
    }
}

fn read(shared: &Shared, event: &etcd::Event) -> Option<Event> {
    let kv = event.kv.as_ref()?;
    match event.r#type() {
        EventType::Put => entry(&shared.keys, kv).map(Event::Put),
        EventType::Delete => shared.keys.read(&kv.key).map(Event::Deleted),
    }
}

fn ended(answer: &etcd::WatchResponse) -> Status {
    match answer.compact_revision {
        0 => Status::unavailable(format!("etcd has ended the watch: {}", answer.cancel_reason)),
        revision => Status::out_of_range(format!("etcd has forgotten what was before revision {revision}")),
    }
}

/// Looks at nodes for which etcd may not be right, and puts or deletes what has to be.
pub(crate) async fn mend(shared: Arc<Shared>) {
    loop {
        shared.check.notified().await;
        let nodes = shared.take_checks();
        let mended = stream::iter(nodes).map(async |node| (node, shared.mend(node).await));
        let failed: Vec<u64> = mended
            .buffer_unordered(MENDED_AT_ONCE)
            .filter_map(async |(node, mended)| mended.is_err().then_some(node))
            .collect()
            .await;
        if !failed.is_empty() {
            pause().await;
            shared.check(failed);
        }
    }
}

async fn pause() {
    sleep(PAUSE.mul_f64(0.1 + 0.9 * fastrand::f64())).await;
}
