//! Puts the registrations of this child into etcd, deletes them, and mends them.

use std::time::Duration;

use meepo_proto::registry::{Node, NodeId};

use super::address::{Arrival, Decision, decide};
use super::client::{EtcdError, KeyRange, Revision, Transaction};
use super::entry::{Entry, record};
use super::keys::RegistrationKey;
use super::replica::Replica;
use super::view::OwnNode;
use crate::store::StoreError;

/// How often a registration is tried again after a conflict: more conflicts in a row mean that something is wrong.
const MAX_TRIES: usize = 10;
/// How long a drained gateway is remembered.
const DRAINED_KEPT: Duration = Duration::from_secs(3600);

/// What one attempt to put a registration has led to.
enum Attempt {
    Put(Put),
    /// Another registration at the address was put meanwhile: to be tried again.
    Conflict,
}

/// A registration that was put.
struct Put {
    revision: Revision,
    /// Nodes that had the address before.
    ousted: Vec<NodeId>,
    /// The nodes of those that were still there.
    present: Vec<NodeId>,
}

/// Why a registration was not put.
enum PutError {
    Superseded,
    Etcd(EtcdError),
}

impl From<EtcdError> for PutError {
    fn from(error: EtcdError) -> Self {
        Self::Etcd(error)
    }
}

impl Replica {
    /// Puts an own node into etcd, and waits until the view has it.
    pub(crate) async fn register(&self, id: NodeId, arrival: Arrival) -> Result<(), StoreError> {
        for _ in 0..MAX_TRIES {
            let lease = self.lease().await?;
            let Some(own) = self.view().own_node(id).cloned() else {
                // It left meanwhile.
                return Ok(());
            };
            let key = RegistrationKey {
                address: own.node.address.clone(),
                node: id,
                lease,
            };
            match self.put(&own, &key, arrival).await {
                Ok(Attempt::Conflict) => {}
                Ok(Attempt::Put(put)) => {
                    let revision = put.revision;
                    self.was_put(&own, key, put);
                    self.reached(revision).await;
                    return Ok(());
                }
                // The etcd lease has ended, and a new one will come.
                Err(PutError::Etcd(error)) if error.is_not_found() => self.lost_lease(lease),
                Err(PutError::Etcd(error)) => return Err(error.into()),
                Err(PutError::Superseded) => return Err(StoreError::Superseded),
            }
        }
        Err(StoreError::Unavailable(
            "other nodes register at the same address all the time".into(),
        ))
    }

    /// Keeps a drained gateway in etcd for a while, away from its address, and waits until the view has it.
    pub(crate) async fn remember(&self, node: &Node) -> Result<(), StoreError> {
        let (lease, _) = self.client.grant(DRAINED_KEPT).await?;
        let key = RegistrationKey {
            address: None,
            node: node.node_id(),
            lease,
        };
        let put = Transaction::new().put(self.keys.registration(&key), record(node, &[]), lease);
        self.commit_and_see(put).await
    }

    /// Deletes what this child has put of a node, and waits until the view knows.
    pub(crate) async fn withdraw(&self, id: NodeId) -> Result<(), StoreError> {
        let own: Vec<_> = self.view().own_keys(id).cloned().collect();
        if own.is_empty() {
            return Ok(());
        }
        let delete = own
            .iter()
            .fold(Transaction::new(), |transaction, key| transaction.delete(self.one(key)));
        self.commit_and_see(delete).await
    }

    /// Makes etcd have the registration that a node has at this child, or none.
    pub(crate) async fn mend(&self, id: NodeId) -> Result<(), StoreError> {
        let own = {
            let view = self.view();
            if view.is_right(id) {
                return Ok(());
            }
            view.own_node(id).cloned()
        };
        match own {
            None => self.withdraw(id).await,
            // The call that has added it is about to put it.
            Some(own) if own.key.is_none() => Ok(()),
            Some(own) => match self.register(id, Arrival::Restored).await {
                Err(StoreError::Superseded) => {
                    self.view().remove_own_node(own.registration);
                    self.withdraw(id).await
                }
                mended => mended,
            },
        }
    }

    async fn put(&self, own: &OwnNode, key: &RegistrationKey, arrival: Arrival) -> Result<Attempt, PutError> {
        let mut transaction = Transaction::new();
        let (mut ousted, mut present) = (Vec::new(), Vec::new());
        // A node without an address only dials, and is in no other node's way.
        if let Some(address) = &key.address {
            let range = self.keys.at_address(address);
            let listing = self.client.range(range.clone()).await?;
            let there = listing.pairs.iter().filter_map(|pair| Entry::read(&self.keys, pair));
            let there: Vec<_> = there.collect();
            (ousted, present) = match decide(key.node, &there, &own.ousted, arrival) {
                Decision::Superseded => return Err(PutError::Superseded),
                Decision::Granted { ousted, present } => (ousted, present),
            };
            transaction = transaction.if_unchanged_since(range, listing.revision);
        }
        transaction = transaction.put(self.keys.registration(key), record(&own.node, &ousted), key.lease);
        for &other in &present {
            let address = key.address.as_deref().unwrap_or_default();
            transaction = transaction.delete(self.keys.of_node(address, other));
        }
        // Where it was before it moved.
        let own_keys: Vec<_> = self.view().own_keys(key.node).cloned().collect();
        for former in own_keys.iter().filter(|own| *own != key) {
            transaction = transaction.delete(self.one(former));
        }
        Ok(match self.client.commit(transaction).await? {
            None => Attempt::Conflict,
            Some(revision) => Attempt::Put(Put {
                revision,
                ousted,
                present,
            }),
        })
    }

    /// Takes down what was put: `put_node` is the own node as it was then.
    fn was_put(&self, put_node: &OwnNode, key: RegistrationKey, put: Put) {
        let id = key.node;
        let mut view = self.view();
        for &other in &put.present {
            let ousted = view.own_node(other).filter(|other| other.node.address == key.address);
            if let Some(registration) = ousted.map(|other| other.registration) {
                view.remove_own_node(registration);
            }
        }
        let is_current = match view.own_node(id).cloned() {
            Some(now) => {
                let is_current = now.node == put_node.node;
                view.set_own_node(OwnNode {
                    key: Some(key),
                    ousted: put.ousted,
                    ..now
                });
                is_current
            }
            // It left while it was put.
            None => false,
        };
        drop(view);
        if !is_current {
            self.check([id]);
        }
    }

    /// Commits a transaction without conditions, and waits until the view has its changes.
    async fn commit_and_see(&self, transaction: Transaction) -> Result<(), StoreError> {
        if let Some(revision) = self.client.commit(transaction).await? {
            self.reached(revision).await;
        }
        Ok(())
    }

    fn one(&self, key: &RegistrationKey) -> KeyRange {
        KeyRange::one(self.keys.registration(key))
    }
}
