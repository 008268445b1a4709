//! The store of a registry that is alone: its own memory. What all stores have to do is tested in `tests/tests/stores.rs`.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::stream::BoxStream;
use meepo_node::clock::since_boot;
use meepo_proto::registry::change::Change;
use meepo_proto::registry::{Node, Snapshot, State as NodeState};
use tokio::sync::broadcast;

pub mod leases;

use leases::Grants;

use crate::store::changes::{MAX_BEHIND, feed};
use crate::store::{Grant, Lease, MAX_NODES, MAX_OUSTED, Refused, Store};

/// So many nodes that were done are remembered.
const MAX_DONE: usize = 1024;

/// Keeps the nodes in memory. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Memory {
    state: Arc<Mutex<State>>,
    grants: Arc<Mutex<Grants>>,
}

#[derive(Debug)]
struct State {
    nodes: BTreeMap<u64, (Lease, Node)>,
    /// Nodes that have gone and were done, oldest first.
    done: VecDeque<Node>,
    /// Which node an address belongs to.
    places: HashMap<String, Place>,
    leases: u64,
    /// Changes are sent under the lock, so that they have the order in which they were made.
    changes: broadcast::Sender<Change>,
}

#[derive(Debug)]
struct Place {
    holder: u64,
    /// Nodes that had the address before, oldest first.
    ousted: VecDeque<u64>,
}

impl Memory {
    /// An empty store.
    pub fn new() -> Self {
        let state = State {
            nodes: BTreeMap::new(),
            done: VecDeque::new(),
            places: HashMap::new(),
            leases: 0,
            changes: broadcast::Sender::new(MAX_BEHIND),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            grants: Arc::default(),
        }
    }

    /// Nobody else grants names at this address any more. Before this, and for [`TIME`](crate::store::TIME) after it, none
    /// is granted.
    pub fn begin_to_grant(&self) {
        self.grants().begin(since_boot());
    }

    fn grants(&self) -> MutexGuard<'_, Grants> {
        self.grants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A snapshot, and a receiver of all changes after it.
    fn subscribe(&self) -> (Change, broadcast::Receiver<Change>) {
        let state = self.state();
        let done = state.done.iter().cloned();
        let snapshot = Snapshot {
            nodes: state.list().into_iter().chain(done).collect(),
        };
        (Change::Snapshot(snapshot), state.changes.subscribe())
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Store for Memory {
    async fn join(&self, node: Node) -> Result<Lease, Refused> {
        let mut state = self.state();
        state.leases += 1;
        let lease = Lease {
            node: node.id,
            number: state.leases,
        };
        state.put(lease, node)?;
        Ok(lease)
    }

    async fn renew(&self, lease: Lease, node: Node) -> Result<(), Refused> {
        let mut state = self.state();
        match state.nodes.get(&lease.node) {
            None => Err(Refused::Superseded),
            Some((held, _)) if *held != lease => Err(Refused::Replaced),
            Some((_, known)) if *known == node => Ok(()),
            Some(_) => state.put(lease, node),
        }
    }

    async fn leave(&self, lease: Lease) {
        let mut state = self.state();
        if state.nodes.get(&lease.node).is_some_and(|(held, _)| *held == lease) {
            state.remove(lease.node);
        }
    }

    async fn list(&self) -> Result<Vec<Node>, Refused> {
        Ok(self.state().list())
    }

    async fn watch(&self) -> Result<BoxStream<'static, Change>, Refused> {
        let this = self.clone();
        Ok(feed(move || this.subscribe()))
    }

    async fn hold(&self, name: &str, holder: u64, term: u64) -> Result<Grant, Refused> {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = u64::try_from(wall.as_millis()).unwrap_or_default();
        self.grants().hold(name, holder, term, since_boot(), wall)
    }

    async fn release(&self, name: &str, holder: u64) -> Result<(), Refused> {
        self.grants().release(name, holder);
        Ok(())
    }
}

impl State {
    fn list(&self) -> Vec<Node> {
        self.nodes.values().map(|(_, node)| node.clone()).collect()
    }

    fn tell(&self, change: Change) {
        // An error means that nobody watches.
        let _ = self.changes.send(change);
    }

    /// Adds or changes a node.
    fn put(&mut self, lease: Lease, node: Node) -> Result<(), Refused> {
        let known = self.nodes.get(&node.id).map(|(_, known)| known);
        if known.is_none() && self.nodes.len() >= MAX_NODES {
            return Err(Refused::Full);
        }
        let unchanged = known == Some(&node);
        let moved_from = known
            .and_then(|known| known.address.clone())
            .filter(|from| node.address.as_ref() != Some(from));
        self.take_place(&node)?;
        if let Some(from) = moved_from {
            self.places.remove(&from);
        }
        self.nodes.insert(node.id, (lease, node.clone()));
        if !unchanged {
            self.tell(Change::Joined(node));
        }
        Ok(())
    }

    /// Gives a node the address that it announces. A node without one only dials.
    fn take_place(&mut self, node: &Node) -> Result<(), Refused> {
        let Some(address) = &node.address else {
            return Ok(());
        };
        let place = self.places.entry(address.clone()).or_insert_with(|| Place {
            holder: node.id,
            ousted: VecDeque::new(),
        });
        if place.ousted.contains(&node.id) {
            return Err(Refused::Superseded);
        }
        let before = std::mem::replace(&mut place.holder, node.id);
        if before != node.id {
            place.ousted.push_back(before);
            if place.ousted.len() > MAX_OUSTED {
                place.ousted.pop_front();
            }
            self.nodes.remove(&before);
            self.tell(Change::Left(before));
        }
        Ok(())
    }

    /// Takes a node off, and frees its address for anyone. One that was done is remembered, and all know it already.
    fn remove(&mut self, id: u64) {
        let Some((_, node)) = self.nodes.remove(&id) else {
            return;
        };
        self.places.remove(node.address());
        if node.state() != NodeState::Drained {
            return self.tell(Change::Left(id));
        }
        self.done.push_back(node);
        if self.done.len() > MAX_DONE
            && let Some(oldest) = self.done.pop_front()
        {
            self.tell(Change::Left(oldest.id));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    fn node(id: u64, address: &str) -> Node {
        Node {
            id,
            address: (!address.is_empty()).then(|| address.into()),
            ..Node::default()
        }
    }

    #[tokio::test]
    async fn a_slow_watcher_gets_a_snapshot_again() {
        let store = Memory::new();
        let mut changes = store.watch().await.unwrap();
        for id in 0..=MAX_BEHIND as u64 + 1 {
            store.join(node(id, "")).await.unwrap();
        }
        assert_eq!(changes.next().await, Some(Change::Snapshot(Snapshot { nodes: vec![] })));
        match changes.next().await {
            Some(Change::Snapshot(snapshot)) => assert_eq!(snapshot.nodes.len(), MAX_BEHIND + 2),
            other => panic!("{other:?}"),
        }
        store.join(node(9999, "")).await.unwrap();
        assert_eq!(changes.next().await, Some(Change::Joined(node(9999, ""))));
    }

    #[tokio::test]
    async fn one_that_was_done_is_remembered_and_its_address_is_free() {
        let store = Memory::new();
        let mut changes = store.watch().await.unwrap();
        changes.next().await;
        let done = |id| Node {
            state: NodeState::Drained.into(),
            ..node(id, "a:1")
        };
        for id in 1..=MAX_DONE as u64 + 1 {
            let lease = store.join(node(id, "a:1")).await.unwrap();
            store.renew(lease, done(id)).await.unwrap();
            store.leave(lease).await;
            assert_eq!(changes.next().await, Some(Change::Joined(node(id, "a:1"))));
            assert_eq!(changes.next().await, Some(Change::Joined(done(id))));
        }
        assert_eq!(changes.next().await, Some(Change::Left(1)), "the oldest is forgotten");
        assert_eq!(store.list().await.unwrap(), [], "they are no nodes any more");
        let expected = Snapshot {
            nodes: (2..=MAX_DONE as u64 + 1).map(done).collect(),
        };
        let later = store.watch().await.unwrap().next().await;
        assert_eq!(later, Some(Change::Snapshot(expected)));
    }

    #[tokio::test]
    async fn nothing_is_kept_of_those_who_left() {
        let store = Memory::new();
        for id in 1..100 {
            let lease = store.join(node(id, "a:1")).await.unwrap();
            if id % 10 == 0 {
                store.leave(lease).await;
                let state = store.state();
                assert!(state.nodes.is_empty() && state.places.is_empty());
            }
        }
        assert!(store.state().places["a:1"].ousted.len() <= MAX_OUSTED);
    }
}
