//! What the tasks and the calls of a store work on together: the client, the view, and how far the view is with etcd.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use meepo_node::BoxError;
use meepo_proto::registry::{Node, NodeId, State};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::client::{EtcdClient, EtcdLease, Revision};
use super::keys::Keys;
use super::view::{OwnNode, View};
use crate::settings::EtcdSection;
use crate::store::{MAX_NODES, Registration, StoreError};

/// How long a call waits for the etcd lease, the first listing, or the watch.
const WAIT: Duration = Duration::from_secs(1);

/// One registry child's copy of what is in etcd, and its way there.
pub(crate) struct Replica {
    pub(crate) client: EtcdClient,
    pub(crate) keys: Keys,
    /// How long the etcd lease of this child lasts.
    pub(crate) lease_time: Duration,
    view: Mutex<View>,
    progress: watch::Sender<Progress>,
    /// How many registrations there have been.
    registrations: AtomicU64,
    /// Nodes of which etcd may not have what it should.
    to_check: Mutex<BTreeSet<NodeId>>,
    /// There is something to check.
    pub(crate) check_due: Notify,
    /// The etcd lease may have ended.
    pub(crate) lease_in_doubt: Notify,
    /// The watch may be stuck.
    pub(crate) watch_behind: Notify,
}

/// How far this child is with etcd.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    /// The etcd lease of this child; `None` while it has none.
    lease: Option<EtcdLease>,
    /// The revision that the view has reached; `None` before the first listing.
    revision: Option<Revision>,
}

/// Whether a node has to be put into etcd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InEtcd {
    /// The same was put before.
    Known,
    /// The node is new, or has changed.
    ToPut,
}

impl Replica {
    pub(crate) fn new(settings: &EtcdSection, lease_time: Duration) -> Result<Self, BoxError> {
        Ok(Self {
            client: EtcdClient::new(&settings.endpoints)?,
            keys: Keys::new(&settings.prefix),
            lease_time,
            view: Mutex::new(View::new()),
            progress: watch::Sender::default(),
            registrations: AtomicU64::new(0),
            to_check: Mutex::default(),
            check_due: Notify::new(),
            lease_in_doubt: Notify::new(),
            watch_behind: Notify::new(),
        })
    }

    pub(crate) fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a node at this child, in place of its earlier registration here.
    pub(crate) fn add(&self, node: Node) -> Result<(Registration, InEtcd), StoreError> {
        let id = node.node_id();
        let mut view = self.view();
        let there = view.nodes().values().filter(|node| node.state() != State::Drained);
        if !view.nodes().contains_key(&id) && there.count() >= MAX_NODES {
            return Err(StoreError::Full);
        }
        let registration = Registration {
            node: id,
            number: 1 + self.registrations.fetch_add(1, Ordering::Relaxed),
        };
        let before = view.own_node(id).cloned();
        let in_etcd = match &before {
            Some(own) if own.key.is_some() && own.node == node => InEtcd::Known,
            _ => InEtcd::ToPut,
        };
        let (key, ousted) = before.map(|own| (own.key, own.ousted)).unwrap_or_default();
        view.set_own_node(OwnNode {
            registration,
            node,
            key,
            ousted,
        });
        Ok((registration, in_etcd))
    }

    /// The node is alive, and may have changed.
    pub(crate) fn update(&self, registration: Registration, node: Node) -> Result<InEtcd, StoreError> {
        let mut view = self.view();
        let changed = match view.own_node(registration.node) {
            None => return Err(StoreError::Superseded),
            Some(own) if own.registration != registration => return Err(StoreError::Replaced),
            Some(own) if view.is_ousted(&own.node) => {
                view.remove_own_node(registration);
                return Err(StoreError::Superseded);
            }
            Some(own) if own.node == node => return Ok(InEtcd::Known),
            Some(own) => OwnNode { node, ..own.clone() },
        };
        view.set_own_node(changed);
        Ok(InEtcd::ToPut)
    }

    /// Has nodes checked: whether etcd has what it should have of them.
    pub(crate) fn check(&self, nodes: impl IntoIterator<Item = NodeId>) {
        let mut to_check = self.to_check.lock().unwrap_or_else(PoisonError::into_inner);
        to_check.extend(nodes);
        if !to_check.is_empty() {
            self.check_due.notify_one();
        }
    }

    /// The nodes to check, each once.
    pub(crate) fn take_checks(&self) -> BTreeSet<NodeId> {
        std::mem::take(&mut self.to_check.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The etcd lease, as soon as there is one.
    pub(crate) async fn lease(&self) -> Result<EtcdLease, StoreError> {
        let progress = self.wait(|progress| progress.lease.is_some()).await?;
        progress.lease.ok_or_else(away)
    }

    /// There is a new etcd lease.
    pub(crate) fn begin_lease(&self, lease: EtcdLease) {
        let own = self.view().begin_lease(lease);
        self.progress.send_modify(|progress| progress.lease = Some(lease));
        self.check(own);
    }

    /// An etcd lease has ended.
    pub(crate) fn lost_lease(&self, lease: EtcdLease) {
        let was_current = self.progress.send_if_modified(|progress| {
            let is_current = progress.lease == Some(lease);
            if is_current {
                progress.lease = None;
            }
            is_current
        });
        if was_current {
            self.lease_in_doubt.notify_one();
        }
    }

    /// The etcd lease is there, although it was in doubt.
    pub(crate) fn confirm_lease(&self, lease: EtcdLease) {
        self.progress.send_if_modified(|progress| {
            let was_lost = progress.lease.is_none();
            progress.lease = Some(lease);
            was_lost
        });
    }

    /// The view has reached a revision.
    pub(crate) fn reach(&self, revision: Revision) {
        self.progress.send_modify(|progress| progress.revision = Some(revision));
    }

    /// Waits until nodes can be registered.
    pub(crate) async fn ready(&self) -> Result<(), StoreError> {
        self.wait(|progress| progress.lease.is_some() && progress.revision.is_some())
            .await
            .map(drop)
    }

    /// Waits for the first listing.
    pub(crate) async fn loaded(&self) -> Result<(), StoreError> {
        self.wait(|progress| progress.revision.is_some()).await.map(drop)
    }

    /// Waits until the view has reached a revision that this child has written, so that it reads its own writes.
    pub(crate) async fn reached(&self, revision: Revision) {
        let reached = self.wait(|progress| progress.revision >= Some(revision)).await;
        if reached.is_err() {
            self.watch_behind.notify_one();
        }
    }

    async fn wait(&self, holds: impl Fn(&Progress) -> bool) -> Result<Progress, StoreError> {
        let mut progress = self.progress.subscribe();
        match timeout(WAIT, progress.wait_for(holds)).await {
            Ok(Ok(progress)) => Ok(*progress),
            // It is late: the sender is part of this value, so it cannot have been dropped.
            _ => Err(away()),
        }
    }
}

fn away() -> StoreError {
    StoreError::Unavailable("etcd is away".into())
}
