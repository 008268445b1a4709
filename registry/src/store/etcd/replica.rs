//! What the tasks of a registry child work on.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use meepo_node::BoxError;
use meepo_proto::registry::{Node, State};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::client::Client;
use super::keys::Keys;
use super::view::{Held, View};
use crate::settings::EtcdSection;
use crate::store::{Lease, MAX_NODES, Refused};

/// How long a call waits for the lease, the first list, or the watch.
const WAIT: Duration = Duration::from_secs(1);

pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) keys: Keys,
    /// How long a lease lasts.
    pub(crate) time: Duration,
    view: Mutex<View>,
    progress: watch::Sender<Progress>,
    numbers: AtomicU64,
    /// Nodes that have to be looked at.
    to_check: Mutex<BTreeSet<u64>>,
    pub(crate) check: Notify,
    /// The lease may have gone.
    pub(crate) doubt: Notify,
    /// The watch may be stuck.
    pub(crate) behind: Notify,
}

/// How far this child is with etcd.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    session: Option<i64>,
    /// What the view is up to; 0 before the first list.
    revision: i64,
}

impl Shared {
    pub(crate) fn new(settings: &EtcdSection, expiry: Duration) -> Result<Self, BoxError> {
        Ok(Self {
            client: Client::new(&settings.endpoints)?,
            keys: Keys::new(&settings.prefix),
            time: expiry,
            view: Mutex::new(View::new()),
            progress: watch::Sender::default(),
            numbers: AtomicU64::new(0),
            to_check: Mutex::default(),
            check: Notify::new(),
            doubt: Notify::new(),
            behind: Notify::new(),
        })
    }

    pub(crate) fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds a node from now on, in place of what was held of it. Also gives whether the same node was put before.
    pub(crate) fn hold(&self, node: Node) -> Result<(Lease, bool), Refused> {
        let mut view = self.view();
        let there = view.nodes().values().filter(|node| node.state() != State::Drained);
        if !view.nodes().contains_key(&node.id) && there.count() >= MAX_NODES {
            return Err(Refused::Full);
        }
        let lease = Lease {
            node: node.id,
            number: 1 + self.numbers.fetch_add(1, Ordering::Relaxed),
        };
        let before = view.held(node.id).cloned();
        let known = before
            .as_ref()
            .is_some_and(|held| held.key.is_some() && held.node == node);
        let (key, ousted) = before.map(|held| (held.key, held.ousted)).unwrap_or_default();
        view.hold(Held {
            lease,
            node,
            key,
            ousted,
        });
        Ok((lease, known))
    }

    /// Whether what is held has to be put again, because the node has changed.
    pub(crate) fn change(&self, lease: Lease, node: Node) -> Result<bool, Refused> {
        let mut view = self.view();
        let held = match view.held(lease.node) {
            None => return Err(Refused::Superseded),
            Some(held) if held.lease != lease => return Err(Refused::Replaced),
            Some(held) if view.is_ousted(&held.node) => {
                view.release(lease);
                return Err(Refused::Superseded);
            }
            Some(held) if held.node == node => return Ok(false),
            Some(held) => Held { node, ..held.clone() },
        };
        view.hold(held);
        Ok(true)
    }

    /// Has nodes looked at: whether etcd has what this child holds of them.
    pub(crate) fn check(&self, nodes: impl IntoIterator<Item = u64>) {
        let mut to_check = self.to_check.lock().unwrap_or_else(PoisonError::into_inner);
        to_check.extend(nodes);
        if !to_check.is_empty() {
            self.check.notify_one();
        }
    }

    pub(crate) fn take_checks(&self) -> BTreeSet<u64> {
        std::mem::take(&mut self.to_check.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The lease, as soon as there is one.
    pub(crate) async fn session(&self) -> Result<i64, Refused> {
        let progress = self.wait(|progress| progress.session.is_some()).await?;
        progress.session.ok_or_else(away)
    }

    /// There is a new lease.
    pub(crate) fn begin(&self, session: i64) {
        let held = self.view().begin(session);
        self.progress.send_modify(|progress| progress.session = Some(session));
        self.check(held);
    }

    /// A lease has gone.
    pub(crate) fn lost(&self, session: i64) {
        let modified = self.progress.send_if_modified(|progress| {
            let current = progress.session == Some(session);
            if current {
                progress.session = None;
            }
            current
        });
        if modified {
            self.doubt.notify_one();
        }
    }

    /// A lease is there, whatever was thought of it.
    pub(crate) fn confirm(&self, session: i64) {
        self.progress.send_if_modified(|progress| {
            let lost = progress.session.is_none();
            progress.session = Some(session);
            lost
        });
    }

    /// The view is up to a revision.
    pub(crate) fn reach(&self, revision: i64) {
        self.progress.send_modify(|progress| progress.revision = revision);
    }

    /// Waits until nodes can join.
    pub(crate) async fn ready(&self) -> Result<(), Refused> {
        self.wait(|progress| progress.session.is_some() && progress.revision > 0)
            .await
            .map(drop)
    }

    /// Waits until there is a list.
    pub(crate) async fn loaded(&self) -> Result<(), Refused> {
        self.wait(|progress| progress.revision > 0).await.map(drop)
    }

    /// Waits until the view has what this child has done, so that it reads its own writes.
    pub(crate) async fn reached(&self, revision: i64) {
        if self.wait(|progress| progress.revision >= revision).await.is_err() {
            self.behind.notify_one();
        }
    }

    async fn wait(&self, holds: impl Fn(&Progress) -> bool) -> Result<Progress, Refused> {
        let mut progress = self.progress.subscribe();
        match timeout(WAIT, progress.wait_for(holds)).await {
            Ok(Ok(progress)) => Ok(*progress),
            // The sender is ours, so it can only be late.
            _ => Err(away()),
        }
    }
}

fn away() -> Refused {
    Refused::Unavailable("etcd is away".into())
}
