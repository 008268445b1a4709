//! The store of a registry that shares with nobody: the memory of its one child. It forgets all when the child ends.

pub(crate) mod leases;
mod nodes;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::stream::BoxStream;
use meepo_node::clock::since_boot;
use meepo_proto::registry::change::Change;
use meepo_proto::registry::{HolderId, Node, Term};

use super::changes::snapshot_then_changes;
use super::{Registration, Store, StoreError};
use leases::Leases;
use nodes::Nodes;

/// Keeps nodes and leases in memory. Cheap to clone; all clones share one memory.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    nodes: Arc<Mutex<Nodes>>,
    leases: Arc<Mutex<Leases>>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// No other registry grants leases at this address any more. Before this, and for
    /// [`LEASE_TIME`](super::LEASE_TIME) after it, this one grants none.
    pub fn begin_to_grant(&self) {
        self.leases().begin_to_grant(since_boot());
    }

    fn leases(&self) -> MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn nodes(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    const SHARES_LEASES: bool = false;

    async fn join(&self, node: Node) -> Result<Registration, StoreError> {
        self.nodes().join(node)
    }

    async fn renew(&self, registration: Registration, node: Node) -> Result<(), StoreError> {
        self.nodes().renew(registration, node)
    }

    async fn leave(&self, registration: Registration) {
        self.nodes().leave(registration);
    }

    async fn list(&self) -> Result<Vec<Node>, StoreError> {
        Ok(self.nodes().list())
    }

    async fn watch(&self) -> Result<BoxStream<'static, Change>, StoreError> {
        let this = self.clone();
        Ok(snapshot_then_changes(move || this.nodes().subscribe()))
    }

    async fn hold(&self, name: &str, holder: HolderId, term: Option<Term>) -> Result<Option<Term>, StoreError> {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall_ms = u64::try_from(wall.as_millis()).unwrap_or_default();
        self.leases().hold(name, holder, term, since_boot(), wall_ms)
    }

    async fn release(&self, name: &str, holder: HolderId) -> Result<(), StoreError> {
        self.leases().release(name, holder);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use meepo_proto::registry::Snapshot;

    use super::*;
    use crate::store::changes::MAX_BEHIND;

    #[tokio::test]
    async fn a_slow_watcher_gets_a_snapshot_again() {
        let node = |id| Node { id, ..Node::default() };
        let store = MemoryStore::new();
        let mut changes = store.watch().await.unwrap();
        for id in 0..=MAX_BEHIND as u64 + 1 {
            store.join(node(id)).await.unwrap();
        }
        assert_eq!(changes.next().await, Some(Change::Snapshot(Snapshot { nodes: vec![] })));
        match changes.next().await {
            Some(Change::Snapshot(snapshot)) => assert_eq!(snapshot.nodes.len(), MAX_BEHIND + 2),
            other => panic!("{other:?}"),
        }
        store.join(node(9999)).await.unwrap();
        assert_eq!(changes.next().await, Some(Change::Joined(node(9999))));
    }
}
