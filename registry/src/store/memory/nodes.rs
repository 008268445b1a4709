//! The nodes of one registry: who has which address, and which drained gateways are remembered. Without sockets or clocks.

use std::collections::{BTreeMap, HashMap, VecDeque};

use meepo_proto::registry::change::Change;
use meepo_proto::registry::{Node, NodeId, Snapshot, State};
use tokio::sync::broadcast;

use crate::store::changes::MAX_BEHIND;
use crate::store::{MAX_NODES, MAX_OUSTED, Registration, StoreError};

/// How many drained gateways are remembered after they have gone.
const MAX_DRAINED: usize = 1024;

/// All nodes that are registered, and those that watchers still have to hear of.
#[derive(Debug)]
pub(crate) struct Nodes {
    registered: BTreeMap<NodeId, (Registration, Node)>,
    /// Gateways that had drained before they left, oldest first.
    drained: VecDeque<Node>,
    addresses: HashMap<String, AddressOwner>,
    /// How many registrations there have been.
    registrations: u64,
    /// To all watchers. Changes are sent under the lock around this value, so that they have the order in which they were
    /// made.
    changes: broadcast::Sender<Change>,
}

#[derive(Debug)]
struct AddressOwner {
    node: NodeId,
    /// Nodes that had the address before, oldest first.
    ousted: VecDeque<NodeId>,
}

impl Default for Nodes {
    fn default() -> Self {
        Self {
            registered: BTreeMap::new(),
            drained: VecDeque::new(),
            addresses: HashMap::new(),
            registrations: 0,
            changes: broadcast::Sender::new(MAX_BEHIND),
        }
    }
}

impl Nodes {
    /// Registers a node, in place of its earlier registration if there is one.
    pub(crate) fn join(&mut self, node: Node) -> Result<Registration, StoreError> {
        self.registrations += 1;
        let registration = Registration {
            node: node.node_id(),
            number: self.registrations,
        };
        self.put(registration, node)?;
        Ok(registration)
    }

    /// The node is alive, and may have changed.
    pub(crate) fn renew(&mut self, registration: Registration, node: Node) -> Result<(), StoreError> {
        match self.registered.get(&registration.node) {
            None => Err(StoreError::Superseded),
            Some((current, _)) if *current != registration => Err(StoreError::Replaced),
            Some((_, known)) if *known == node => Ok(()),
            Some(_) => self.put(registration, node),
        }
    }

    /// Removes a node and frees its address. A drained gateway is remembered; watchers know already that it has drained.
    pub(crate) fn leave(&mut self, registration: Registration) {
        let id = registration.node;
        if self
            .registered
            .get(&id)
            .is_none_or(|(current, _)| *current != registration)
        {
            return;
        }
        let Some((_, node)) = self.registered.remove(&id) else {
            return;
        };
        self.addresses.remove(node.address());
        if node.state() != State::Drained {
            return self.notify(Change::Left(id.0));
        }
        self.drained.push_back(node);
        if self.drained.len() > MAX_DRAINED
            && let Some(oldest) = self.drained.pop_front()
        {
            self.notify(Change::Left(oldest.id));
        }
    }

    /// All nodes that are registered, in the order of their ids.
    pub(crate) fn list(&self) -> Vec<Node> {
        self.registered.values().map(|(_, node)| node.clone()).collect()
    }

    /// A snapshot, and a receiver of all changes after it.
    pub(crate) fn subscribe(&self) -> (Change, broadcast::Receiver<Change>) {
        let drained = self.drained.iter().cloned();
        let snapshot = Snapshot {
            nodes: self.list().into_iter().chain(drained).collect(),
        };
        (Change::Snapshot(snapshot), self.changes.subscribe())
    }

    /// Adds or changes a node.
    fn put(&mut self, registration: Registration, node: Node) -> Result<(), StoreError> {
        let id = node.node_id();
        let known = self.registered.get(&id).map(|(_, known)| known);
        if known.is_none() && self.registered.len() >= MAX_NODES {
            return Err(StoreError::Full);
        }
        let unchanged = known == Some(&node);
        let moved_from = known
            .and_then(|known| known.address.clone())
            .filter(|from| node.address.as_ref() != Some(from));
        self.take_address(&node)?;
        if let Some(from) = moved_from {
            self.addresses.remove(&from);
        }
        self.registered.insert(id, (registration, node.clone()));
        if !unchanged {
            self.notify(Change::Joined(node));
        }
        Ok(())
    }

    /// Gives a node the address that it announces, if any, and removes the node that had it.
    fn take_address(&mut self, node: &Node) -> Result<(), StoreError> {
        let Some(address) = &node.address else {
            return Ok(());
        };
        let id = node.node_id();
        let owner = self.addresses.entry(address.clone()).or_insert_with(|| AddressOwner {
            node: id,
            ousted: VecDeque::new(),
        });
        if owner.ousted.contains(&id) {
            return Err(StoreError::Superseded);
        }
        let before = std::mem::replace(&mut owner.node, id);
        if before != id {
            owner.ousted.push_back(before);
            if owner.ousted.len() > MAX_OUSTED {
                owner.ousted.pop_front();
            }
            self.registered.remove(&before);
            self.notify(Change::Left(before.0));
        }
        Ok(())
    }

    fn notify(&self, change: Change) {
        // An error means that there is no watcher.
        let _ = self.changes.send(change);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u64) -> Node {
        Node {
            id,
            address: Some("a:1".into()),
            ..Node::default()
        }
    }

    #[test]
    fn a_drained_gateway_is_remembered_and_its_address_is_free() {
        let mut nodes = Nodes::default();
        let (_, mut changes) = nodes.subscribe();
        let drained = |id| Node {
            state: State::Drained.into(),
            ..node(id)
        };
        for id in 1..=MAX_DRAINED as u64 + 1 {
            let registration = nodes.join(node(id)).unwrap();
            nodes.renew(registration, drained(id)).unwrap();
            nodes.leave(registration);
            assert_eq!(changes.try_recv(), Ok(Change::Joined(node(id))));
            assert_eq!(changes.try_recv(), Ok(Change::Joined(drained(id))));
        }
        assert_eq!(changes.try_recv(), Ok(Change::Left(1)), "the oldest is forgotten");
        assert_eq!(nodes.list(), [], "drained gateways are not registered any more");
        let expected = Snapshot {
            nodes: (2..=MAX_DRAINED as u64 + 1).map(drained).collect(),
        };
        assert_eq!(nodes.subscribe().0, Change::Snapshot(expected));
    }

    #[test]
    fn nothing_is_kept_of_nodes_that_left() {
        let mut nodes = Nodes::default();
        for id in 1..100 {
            let registration = nodes.join(node(id)).unwrap();
            if id % 10 == 0 {
                nodes.leave(registration);
                assert!(nodes.registered.is_empty() && nodes.addresses.is_empty());
            }
        }
        assert!(nodes.addresses["a:1"].ousted.len() <= MAX_OUSTED);
    }
}
