//! What a registry child knows: the registrations in etcd, and its own. Without sockets or clocks.
//!
//! Watchers are told of a node as long as any registry has it in etcd. They are also told of a node that heartbeats at this
//! child while etcd has lost its registration (a lease has expired), unless another node has taken its address.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use meepo_proto::registry::change::Change;
use meepo_proto::registry::{Node, NodeId, Snapshot};
use tokio::sync::broadcast;

use super::client::EtcdLease;
use super::entry::Entry;
use super::keys::RegistrationKey;
use crate::store::Registration;
use crate::store::changes::MAX_BEHIND;

/// A change of a registration in etcd.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum EntryChange {
    Put(Entry),
    Deleted(RegistrationKey),
}

/// A node that is registered at this child.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OwnNode {
    pub(crate) registration: Registration,
    pub(crate) node: Node,
    /// Where it was last put in etcd; `None` if it never was.
    pub(crate) key: Option<RegistrationKey>,
    /// Nodes that had the address before, oldest first.
    pub(crate) ousted: Vec<NodeId>,
}

/// What a registry child knows.
#[derive(Debug)]
pub(crate) struct View {
    entries: BTreeMap<RegistrationKey, Entry>,
    /// The keys of `entries` by node.
    keys: HashMap<NodeId, BTreeSet<RegistrationKey>>,
    own: BTreeMap<NodeId, OwnNode>,
    /// The etcd lease of the own nodes; `None` before the first one.
    lease: Option<EtcdLease>,
    /// The nodes of which watchers are told.
    shown: BTreeMap<NodeId, Node>,
    changes: broadcast::Sender<Change>,
}

impl View {
    pub(crate) fn new() -> Self {
        Self {
            entries: BTreeMap::new(),
            keys: HashMap::new(),
            own: BTreeMap::new(),
            lease: None,
            shown: BTreeMap::new(),
            changes: broadcast::Sender::new(MAX_BEHIND),
        }
    }

    /// The nodes of which watchers are told.
    pub(crate) fn nodes(&self) -> &BTreeMap<NodeId, Node> {
        &self.shown
    }

    /// A snapshot, and a receiver of all changes after it.
    pub(crate) fn subscribe(&self) -> (Change, broadcast::Receiver<Change>) {
        let nodes = self.shown.values().cloned().collect();
        (Change::Snapshot(Snapshot { nodes }), self.changes.subscribe())
    }

    pub(crate) fn own_node(&self, id: NodeId) -> Option<&OwnNode> {
        self.own.get(&id)
    }

    /// Adds or changes an own node.
    pub(crate) fn set_own_node(&mut self, own: OwnNode) {
        let id = own.registration.node;
        self.own.insert(id, own);
        self.show([id]);
    }

    /// Removes an own node, unless another registration of it has replaced this one.
    pub(crate) fn remove_own_node(&mut self, registration: Registration) -> Option<OwnNode> {
        let id = registration.node;
        if self.own.get(&id)?.registration != registration {
            return None;
        }
        let own = self.own.remove(&id);
        self.show([id]);
        own
    }

    /// Own nodes are under this etcd lease from now on. Returns all of them: each has to be put again.
    pub(crate) fn begin_lease(&mut self, lease: EtcdLease) -> Vec<NodeId> {
        self.lease = Some(lease);
        self.own.keys().copied().collect()
    }

    /// Whether etcd has exactly what this child should have put there of a node: its registration here, or nothing.
    pub(crate) fn is_right(&self, id: NodeId) -> bool {
        let in_etcd: Vec<_> = self.own_keys(id).collect();
        match self.own.get(&id) {
            None => in_etcd.is_empty(),
            Some(own) => {
                let [key] = in_etcd[..] else { return false };
                key.address == own.node.address && self.entries[key].node == own.node
            }
        }
    }

    /// The keys of a node that are under this child's lease.
    pub(crate) fn own_keys(&self, id: NodeId) -> impl Iterator<Item = &RegistrationKey> {
        let keys = self.keys.get(&id).into_iter().flatten();
        keys.filter(|key| Some(key.lease) == self.lease)
    }

    /// Takes all registrations that are in etcd, in place of those known so far. Returns the nodes for which etcd is not
    /// [right](Self::is_right).
    pub(crate) fn load(&mut self, entries: Vec<Entry>) -> Vec<NodeId> {
        let mut touched: BTreeSet<NodeId> = self.own.keys().chain(self.keys.keys()).copied().collect();
        self.entries.clear();
        self.keys.clear();
        for entry in entries {
            touched.insert(entry.key.node);
            self.put(entry);
        }
        self.settle(touched)
    }

    /// Takes changes that were made at once. Returns the nodes for which etcd is not [right](Self::is_right).
    pub(crate) fn apply(&mut self, changes: Vec<EntryChange>) -> Vec<NodeId> {
        let mut touched = BTreeSet::new();
        for change in changes {
            match change {
                EntryChange::Put(entry) => {
                    touched.insert(entry.key.node);
                    self.put(entry);
                }
                EntryChange::Deleted(key) => {
                    touched.insert(key.node);
                    self.delete(&key);
                }
            }
        }
        self.settle(touched)
    }

    fn put(&mut self, entry: Entry) {
        self.keys.entry(entry.key.node).or_default().insert(entry.key.clone());
        self.entries.insert(entry.key.clone(), entry);
    }

    fn delete(&mut self, key: &RegistrationKey) {
        self.entries.remove(key);
        if let Some(keys) = self.keys.get_mut(&key.node) {
            keys.remove(key);
            if keys.is_empty() {
                self.keys.remove(&key.node);
            }
        }
    }

    fn settle(&mut self, touched: BTreeSet<NodeId>) -> Vec<NodeId> {
        self.show(touched.iter().copied());
        touched.into_iter().filter(|&id| !self.is_right(id)).collect()
    }

    /// Tells watchers how nodes have changed, departures first.
    fn show(&mut self, ids: impl IntoIterator<Item = NodeId>) {
        let mut joined = Vec::new();
        for id in ids {
            match self.latest(id) {
                Some(node) if self.shown.get(&id) == Some(node) => {}
                Some(node) => joined.push(node.clone()),
                None => {
                    if self.shown.remove(&id).is_some() {
                        // An error means that there is no watcher.
                        let _ = self.changes.send(Change::Left(id.0));
                    }
                }
            }
        }
        for node in joined {
            self.shown.insert(node.node_id(), node.clone());
            let _ = self.changes.send(Change::Joined(node));
        }
    }

    /// The last that is known of a node; `None` if it has gone.
    fn latest(&self, id: NodeId) -> Option<&Node> {
        let own = self.own.get(&id);
        let keys = self.keys.get(&id).into_iter().flatten();
        // What this child has put counts only as long as the node is registered here.
        let keys = keys.filter(|key| Some(key.lease) != self.lease || own.is_some());
        let latest = keys.map(|key| &self.entries[key]).max_by_key(|entry| entry.revision);
        if let Some(entry) = latest {
            return Some(&entry.node);
        }
        own.filter(|own| own.key.is_some() && !self.is_ousted(&own.node))
            .map(|own| &own.node)
    }

    /// Whether another node has taken the node's address.
    pub(crate) fn is_ousted(&self, node: &Node) -> bool {
        let id = node.node_id();
        let first = RegistrationKey {
            address: node.address.clone(),
            node: NodeId(0),
            lease: EtcdLease(i64::MIN),
        };
        self.entries
            .range(first..)
            .take_while(|(key, _)| key.address == node.address)
            .any(|(key, entry)| key.node != id && entry.ousted.contains(&id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::etcd::client::Revision;

    const MINE: EtcdLease = EtcdLease(10);
    const OTHERS: EtcdLease = EtcdLease(20);
    /// Another lease of another registry.
    const THIRD: EtcdLease = EtcdLease(21);
    /// No node has to be put or deleted.
    const NONE: [NodeId; 0] = [];

    fn node(id: u64, address: &str) -> Node {
        Node {
            id,
            address: (!address.is_empty()).then(|| address.into()),
            ..Node::default()
        }
    }

    fn key(id: u64, address: &str, lease: EtcdLease) -> RegistrationKey {
        RegistrationKey {
            address: node(id, address).address,
            node: NodeId(id),
            lease,
        }
    }

    fn entry(id: u64, address: &str, lease: EtcdLease, ousted: &[u64]) -> Entry {
        Entry {
            key: key(id, address, lease),
            node: node(id, address),
            ousted: ousted.iter().copied().map(NodeId).collect(),
            revision: Revision(1),
        }
    }

    fn registration(node: u64, number: u64) -> Registration {
        let node = NodeId(node);
        Registration { node, number }
    }

    fn own(id: u64, address: &str, put: bool) -> OwnNode {
        OwnNode {
            registration: registration(id, 1),
            node: node(id, address),
            key: put.then(|| key(id, address, MINE)),
            ousted: Vec::new(),
        }
    }

    /// A view, and a watcher of it.
    fn view() -> (View, broadcast::Receiver<Change>) {
        let mut view = View::new();
        view.begin_lease(MINE);
        let (_, changes) = view.subscribe();
        (view, changes)
    }

    fn told(changes: &mut broadcast::Receiver<Change>) -> Vec<Change> {
        std::iter::from_fn(|| changes.try_recv().ok()).collect()
    }

    fn joined(id: u64, address: &str) -> Change {
        Change::Joined(node(id, address))
    }

    #[test]
    fn a_node_is_there_as_long_as_any_registry_has_it() {
        let (mut view, mut changes) = view();
        view.apply(vec![EntryChange::Put(entry(1, "", OTHERS, &[]))]);
        view.apply(vec![EntryChange::Put(entry(1, "", THIRD, &[]))]);
        assert_eq!(told(&mut changes), [joined(1, "")]);
        view.apply(vec![EntryChange::Deleted(key(1, "", OTHERS))]);
        assert_eq!(told(&mut changes), []);
        view.apply(vec![EntryChange::Deleted(key(1, "", THIRD))]);
        assert_eq!(told(&mut changes), [Change::Left(1)]);
        assert!(view.entries.is_empty() && view.keys.is_empty() && view.shown.is_empty());
    }

    #[test]
    fn loading_again_tells_only_what_differs() {
        let (mut view, mut changes) = view();
        view.load(vec![entry(1, "a:1", OTHERS, &[]), entry(2, "", OTHERS, &[])]);
        assert_eq!(told(&mut changes), [joined(1, "a:1"), joined(2, "")]);
        view.load(vec![entry(2, "", OTHERS, &[]), entry(3, "", OTHERS, &[])]);
        assert_eq!(told(&mut changes), [Change::Left(1), joined(3, "")]);
    }

    #[test]
    fn an_own_node_stays_when_etcd_has_lost_it_and_is_to_be_put_again() {
        let (mut view, mut changes) = view();
        view.set_own_node(own(1, "a:1", false));
        assert_eq!(told(&mut changes), [], "etcd has not taken it yet");
        let put = vec![EntryChange::Put(entry(1, "a:1", MINE, &[]))];
        assert_eq!(view.apply(put), NONE);
        view.set_own_node(own(1, "a:1", true));
        assert_eq!(told(&mut changes), [joined(1, "a:1")]);
        let deleted = vec![EntryChange::Deleted(key(1, "a:1", MINE))];
        assert_eq!(view.apply(deleted), [NodeId(1)]);
        assert_eq!(view.load(vec![]), [NodeId(1)]);
        let next = EtcdLease(MINE.0 + 1);
        assert_eq!(view.begin_lease(next), [NodeId(1)]);
        assert_eq!(told(&mut changes), []);
        let put = vec![EntryChange::Put(entry(1, "a:1", next, &[]))];
        assert_eq!(view.apply(put), NONE);
        assert_eq!(told(&mut changes), []);
    }

    #[test]
    fn an_own_node_that_has_lost_its_address_is_gone() {
        let (mut view, mut changes) = view();
        view.set_own_node(own(1, "a:1", true));
        view.apply(vec![EntryChange::Put(entry(1, "a:1", MINE, &[]))]);
        told(&mut changes);
        let taken = vec![
            EntryChange::Put(entry(2, "a:1", OTHERS, &[1])),
            EntryChange::Deleted(key(1, "a:1", MINE)),
        ];
        assert_eq!(view.apply(taken), [NodeId(1)]);
        assert_eq!(told(&mut changes), [Change::Left(1), joined(2, "a:1")]);
        // A node at another address changes nothing.
        view.set_own_node(own(3, "b:1", true));
        assert_eq!(told(&mut changes), [joined(3, "b:1")]);
    }

    #[test]
    fn an_own_node_that_is_removed_is_gone_before_etcd_knows() {
        let (mut view, mut changes) = view();
        view.set_own_node(own(1, "", true));
        view.apply(vec![EntryChange::Put(entry(1, "", MINE, &[]))]);
        let other = view.remove_own_node(registration(1, 2));
        assert!(other.is_none(), "it is another registration");
        assert!(view.remove_own_node(registration(1, 1)).is_some());
        assert_eq!(told(&mut changes), [joined(1, ""), Change::Left(1)]);
        // It is in etcd still, or came there late: it has to be deleted.
        assert_eq!(view.load(vec![entry(1, "", MINE, &[])]), [NodeId(1)]);
        assert_eq!(told(&mut changes), []);
        assert_eq!(view.own_keys(NodeId(1)).count(), 1);
        let deleted = vec![EntryChange::Deleted(key(1, "", MINE))];
        assert_eq!(view.apply(deleted), NONE);
    }

    #[test]
    fn a_node_that_has_moved_is_where_it_was_put_last() {
        let (mut view, mut changes) = view();
        let moved = Entry {
            revision: Revision(2),
            ..entry(1, "b:1", THIRD, &[])
        };
        view.load(vec![entry(1, "a:1", OTHERS, &[]), moved]);
        assert_eq!(told(&mut changes), [joined(1, "b:1")]);
    }
}
