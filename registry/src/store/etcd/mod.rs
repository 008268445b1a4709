//! The store of registries that are several: etcd.
//!
//! Each registry child has one lease there, which it keeps alive, and puts the nodes that come to it under that lease: if
//! the child dies, they go with it. So a node that comes to several registries is there several times, and is gone when
//! all of them say so. Heartbeats are watched by the child and do not cross over to etcd.
//!
//! A node that was done when it left stays in etcd for a while, without an address and under a lease of its own.
//!
//! What watchers see comes from a watch at etcd. While etcd is away they keep what they have.
//!
//! # Layout
//!
//! - `keys`: where registrations are. `client`: calls of etcd with time limits, at whichever member answers.
//! - `view`: what this child knows, and tells. `shared`: what the tasks work on.
//! - `place`: who may have an address. `registrar`: puts registrations, and deletes them.
//! - `holders`: names that one holder has at a time. Nothing of them is kept here: etcd is asked each time.
//! - `tasks`: the lease, the watch, and the mending of what is not right in etcd.

mod address;
mod client;
mod keys;
mod leases;
mod registrar;
mod replica;
mod upkeep;
mod view;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use meepo_node::BoxError;
use meepo_proto::registry::change::Change;
use meepo_proto::registry::{Node, State};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::settings::EtcdSection;
use crate::store::Grant;
use crate::store::changes::feed;
use crate::store::{Lease, Refused, Store};
use replica::Shared;
use view::Held;

/// How long a node waits for etcd before it is told to come again.
const PATIENCE: Duration = Duration::from_secs(4);

/// Keeps the nodes in etcd. Cheap to clone; what it has there lasts until the last clone is dropped, and then for the time
/// of its lease.
#[derive(Clone)]
pub struct Etcd {
    shared: Arc<Shared>,
    _tasks: Arc<[AbortOnDropHandle<()>; 3]>,
}

impl Etcd {
    /// Begins to work with etcd, be it there or not. Has to be called within a runtime.
    ///
    /// When the registry has died, its nodes are forgotten after `expiry`.
    pub fn start(settings: &EtcdSection, expiry: Duration) -> Result<Self, BoxError> {
        let shared = Arc::new(Shared::new(settings, expiry)?);
        let tasks = [
            tokio::spawn(upkeep::keep_lease(Arc::clone(&shared))),
            tokio::spawn(upkeep::watch(Arc::clone(&shared))),
            tokio::spawn(upkeep::mend(Arc::clone(&shared))),
        ];
        Ok(Self {
            shared,
            _tasks: Arc::new(tasks.map(AbortOnDropHandle::new)),
        })
    }
}

impl Store for Etcd {
    async fn join(&self, node: Node) -> Result<Lease, Refused> {
        self.shared.ready().await?;
        let id = node.id;
        let (lease, known) = self.shared.hold(node)?;
        if known {
            // It has only come again, and etcd need not be there for that.
            self.shared.check([id]);
            return Ok(lease);
        }
        let joined = match timeout(PATIENCE, self.shared.register(id, true)).await {
            Ok(joined) => joined,
            Err(late) => Err(Refused::Unavailable(late.into())),
        };
        if joined.is_err() {
            self.shared.view().release(lease);
            // It may have come to etcd all the same.
            self.shared.check([id]);
        }
        joined.map(|()| lease)
    }

    async fn renew(&self, lease: Lease, node: Node) -> Result<(), Refused> {
        if !self.shared.change(lease, node)? {
            return Ok(());
        }
        let renewed = match timeout(PATIENCE, self.shared.register(lease.node, true)).await {
            Ok(renewed) => renewed,
            Err(late) => Err(Refused::Unavailable(late.into())),
        };
        match &renewed {
            Ok(()) => {}
            Err(Refused::Unavailable(_)) => self.shared.check([lease.node]),
            Err(_) => {
                self.shared.view().release(lease);
                self.shared.check([lease.node]);
            }
        }
        renewed
    }

    async fn leave(&self, lease: Lease) {
        let held = self.shared.view().held(lease.node).cloned();
        if let Some(Held { node, .. }) = held.filter(|held| held.lease == lease)
            && node.state() == State::Drained
        {
            // If etcd is away, those who come later take it for lost.
            let _ = timeout(PATIENCE, self.shared.remember(&node)).await;
        }
        if self.shared.view().release(lease).is_some() && self.shared.withdraw(lease.node).await.is_err() {
            self.shared.check([lease.node]);
        }
    }

    async fn list(&self) -> Result<Vec<Node>, Refused> {
        self.shared.loaded().await?;
        let view = self.shared.view();
        let nodes = view.nodes().values().filter(|node| node.state() != State::Drained);
        Ok(nodes.cloned().collect())
    }

    async fn watch(&self) -> Result<BoxStream<'static, Change>, Refused> {
        self.shared.loaded().await?;
        let this = self.clone();
        Ok(feed(move || this.shared.view().subscribe()))
    }

    async fn hold(&self, name: &str, holder: u64, term: u64) -> Result<Grant, Refused> {
        let Shared { client, keys, .. } = &*self.shared;
        Ok(leases::hold(client, keys, name, holder, term).await?)
    }

    async fn release(&self, name: &str, holder: u64) -> Result<(), Refused> {
        let Shared { client, keys, .. } = &*self.shared;
        let released = leases::release(client, keys, name, holder).await;
        released.map_err(|error| registrar::unavailable(&error))
    }
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Etcd").finish_non_exhaustive()
    }
}
