//! The store of several registries that share: etcd. Each registry child follows all that is in etcd, and puts there the nodes
//! that are registered with it. It knows nothing of heartbeats, which do not cross over to etcd.
//!
//! Each registry child has one etcd lease, which it keeps alive, and puts its nodes under that: if the child dies, they go
//! with it. So a node that is registered at several registries is in etcd several times, and is gone when the last of them
//! has withdrawn it. A drained gateway stays in etcd for a while, without an address and under a lease of its own.
//!
//! Watchers are told what a watch at etcd says. While etcd is away they keep what they have.
//!
//! # Layout
//!
//! - `client`: calls of etcd with time limits, at whichever member answers.
//! - `keys`: where registrations and leases are. `entry`: a registration there. `address`: which node may have an address.
//! - `view`: what this child knows of all nodes, and tells watchers. `replica`: the view with the way to etcd.
//! - `registrar`: puts registrations of this child, and deletes them. `leases`: who holds which name.
//! - `upkeep`: the tasks that keep the etcd lease, follow the watch, and mend what is not right in etcd.

mod address;
mod client;
mod entry;
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
use meepo_proto::registry::{HolderId, Node, NodeId, State, Term};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::changes::snapshot_then_changes;
use super::{Registration, Store, StoreError};
use crate::settings::EtcdSection;
use address::Arrival;
use replica::{InEtcd, Replica};

/// How long etcd may take to have a registration before the node is told to come again.
const PUT_TIMEOUT: Duration = Duration::from_secs(4);

/// Keeps nodes and leases in etcd. Cheap to clone; what it has there lasts until the last clone is dropped, and then for the
/// time of its etcd lease.
#[derive(Clone)]
pub struct EtcdStore {
    replica: Arc<Replica>,
    _tasks: Arc<[AbortOnDropHandle<()>; 3]>,
}

impl EtcdStore {
    /// Begins to work with etcd, whether etcd is there yet or not. Has to be called within a runtime.
    ///
    /// When the registry has died, its nodes are forgotten after `expiry`.
    pub fn start(settings: &EtcdSection, expiry: Duration) -> Result<Self, BoxError> {
        let replica = Arc::new(Replica::new(settings, expiry)?);
        let tasks = [
            tokio::spawn(upkeep::keep_lease(Arc::clone(&replica))),
            tokio::spawn(upkeep::watch(Arc::clone(&replica))),
            tokio::spawn(upkeep::mend(Arc::clone(&replica))),
        ];
        Ok(Self {
            replica,
            _tasks: Arc::new(tasks.map(AbortOnDropHandle::new)),
        })
    }

    async fn put(&self, id: NodeId) -> Result<(), StoreError> {
        match timeout(PUT_TIMEOUT, self.replica.register(id, Arrival::Announced)).await {
            Ok(registered) => registered,
            Err(elapsed) => Err(StoreError::Unavailable(elapsed.into())),
        }
    }
}

impl Store for EtcdStore {
    const SHARES_LEASES: bool = true;

    async fn join(&self, node: Node) -> Result<Registration, StoreError> {
        self.replica.ready().await?;
        let id = node.node_id();
        let (registration, in_etcd) = self.replica.add(node)?;
        if in_etcd == InEtcd::Known {
            // The node has only registered again, and etcd need not be there for that.
            self.replica.check([id]);
            return Ok(registration);
        }
        let put = self.put(id).await;
        if put.is_err() {
            self.replica.view().remove_own_node(registration);
            // It may have come to etcd all the same.
            self.replica.check([id]);
        }
        put.map(|()| registration)
    }

    async fn renew(&self, registration: Registration, node: Node) -> Result<(), StoreError> {
        if self.replica.update(registration, node)? == InEtcd::Known {
            return Ok(());
        }
        let id = registration.node;
        let put = self.put(id).await;
        match &put {
            Ok(()) => {}
            Err(StoreError::Unavailable(_)) => self.replica.check([id]),
            Err(_) => {
                self.replica.view().remove_own_node(registration);
                self.replica.check([id]);
            }
        }
        put
    }

    async fn leave(&self, registration: Registration) {
        let id = registration.node;
        let own = self.replica.view().own_node(id).cloned();
        if let Some(own) = own.filter(|own| own.registration == registration)
            && own.node.state() == State::Drained
        {
            // If etcd is away, workers that come later take the gateway for lost.
            let _ = timeout(PUT_TIMEOUT, self.replica.remember(&own.node)).await;
        }
        let removed = self.replica.view().remove_own_node(registration);
        if removed.is_some() && self.replica.withdraw(id).await.is_err() {
            self.replica.check([id]);
        }
    }

    async fn list(&self) -> Result<Vec<Node>, StoreError> {
        self.replica.loaded().await?;
        let view = self.replica.view();
        let nodes = view.nodes().values().filter(|node| node.state() != State::Drained);
        Ok(nodes.cloned().collect())
    }

    async fn watch(&self) -> Result<BoxStream<'static, Change>, StoreError> {
        self.replica.loaded().await?;
        let this = self.clone();
        Ok(snapshot_then_changes(move || this.replica.view().subscribe()))
    }

    async fn hold(&self, name: &str, holder: HolderId, term: Option<Term>) -> Result<Option<Term>, StoreError> {
        let Replica { client, keys, .. } = &*self.replica;
        leases::hold(client, keys, name, holder, term).await
    }

    async fn release(&self, name: &str, holder: HolderId) -> Result<(), StoreError> {
        let Replica { client, keys, .. } = &*self.replica;
        leases::release(client, keys, name, holder).await
    }
}

impl fmt::Debug for EtcdStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdStore").finish_non_exhaustive()
    }
}
