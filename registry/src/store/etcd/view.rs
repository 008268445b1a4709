//! What a registry child knows: what is in etcd, and what it holds itself. Without sockets or clocks.
//!
//! A node is told to watchers as long as any registry has it in etcd. One that has come to this child, and heartbeats
//! here, is told as well when etcd has lost it (a lease has expired), unless another has taken its address.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use meepo_proto::registry::change::Change;
use meepo_proto::registry::{Node, Record, Snapshot};
use tokio::sync::broadcast;

use super::keys::Key;
use crate::store::Lease;
use crate::store::changes::MAX_BEHIND;

/// A registration in etcd.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: Key,
    pub(crate) record: Record,
    /// Of its last change.
    pub(crate) revision: i64,
}

/// What has happened in etcd.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    Put(Entry),
    Deleted(Key),
}

/// A registration that this child holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Held {
    pub(crate) lease: Lease,
    pub(crate) node: Node,
    /// Where it was put last; none yet if it never was.
    pub(crate) key: Option<Key>,
    /// Nodes that had the address before.
    pub(crate) ousted: Vec<u64>,
}

#[derive(Debug)]
pub(crate) struct View {
    entries: BTreeMap<Key, (Record, i64)>,
    keys: HashMap<u64, BTreeSet<Key>>,
    held: BTreeMap<u64, Held>,
    /// The lease of what is held.
    session: Option<i64>,
    /// What watchers know.
    told: BTreeMap<u64, Node>,
    changes: broadcast::Sender<Change>,
}

impl View {
    pub(crate) fn new() -> Self {
        Self {
            entries: BTreeMap::new(),
            keys: HashMap::new(),
            held: BTreeMap::new(),
            session: None,
            told: BTreeMap::new(),
            changes: broadcast::Sender::new(MAX_BEHIND),
        }
    }

    pub(crate) fn nodes(&self) -> &BTreeMap<u64, Node> {
        &self.told
    }

    /// A snapshot, and a receiver of all changes after it.
    pub(crate) fn subscribe(&self) -> (Change, broadcast::Receiver<Change>) {
        let nodes = self.told.values().cloned().collect();
        (Change::Snapshot(Snapshot { nodes }), self.changes.subscribe())
    }

    pub(crate) fn held(&self, node: u64) -> Option<&Held> {
        self.held.get(&node)
    }

    /// Holds a node, or knows more of one that it holds.
    pub(crate) fn hold(&mut self, held: Held) {
        let id = held.node.id;
        self.held.insert(id, held);
        self.tell([id]);
    }

    /// No longer holds a node, if the lease is still its.
    pub(crate) fn release(&mut self, lease: Lease) -> Option<Held> {
        if self.held.get(&lease.node)?.lease != lease {
            return None;
        }
        let held = self.held.remove(&lease.node);
        self.tell([lease.node]);
        held
    }

    /// What is held is under this lease from now on. Gives all that has to be put again.
    pub(crate) fn begin(&mut self, session: i64) -> Vec<u64> {
        self.session = Some(session);
        self.held.keys().copied().collect()
    }

    /// Whether etcd has what is held of a node, or nothing if nothing is.
    pub(crate) fn is_right(&self, node: u64) -> bool {
        let in_etcd: Vec<_> = self.own_keys(node).collect();
        match self.held.get(&node) {
            None => in_etcd.is_empty(),
            Some(held) => {
                let [key] = in_etcd[..] else { return false };
                key.address == held.node.address() && self.entries[key].0.node.as_ref() == Some(&held.node)
            }
        }
    }

    /// The keys of a node under this child's lease.
    pub(crate) fn own_keys(&self, node: u64) -> impl Iterator<Item = &Key> {
        let keys = self.keys.get(&node).into_iter().flatten();
        keys.filter(|key| Some(key.session) == self.session)
    }

    /// All that is in etcd. Gives the nodes for which it is not right.
    pub(crate) fn load(&mut self, entries: Vec<Entry>) -> Vec<u64> {
        let mut touched: BTreeSet<u64> = self.held.keys().chain(self.keys.keys()).copied().collect();
        self.entries.clear();
        self.keys.clear();
        for entry in entries {
            touched.insert(entry.key.node);
            self.put(entry);
        }
        self.settle(touched)
    }

    /// What has happened at once. Gives the nodes for which etcd is not right.
    pub(crate) fn apply(&mut self, events: Vec<Event>) -> Vec<u64> {
        let mut touched = BTreeSet::new();
        for event in events {
            match event {
                Event::Put(entry) => {
                    touched.insert(entry.key.node);
                    self.put(entry);
                }
                Event::Deleted(key) => {
                    touched.insert(key.node);
                    self.delete(&key);
                }
            }
        }
        self.settle(touched)
    }

    fn put(&mut self, entry: Entry) {
        let Entry { key, record, revision } = entry;
        self.keys.entry(key.node).or_default().insert(key.clone());
        self.entries.insert(key, (record, revision));
    }

    fn delete(&mut self, key: &Key) {
        self.entries.remove(key);
        if let Some(keys) = self.keys.get_mut(&key.node) {
            keys.remove(key);
            if keys.is_empty() {
                self.keys.remove(&key.node);
            }
        }
    }

    fn settle(&mut self, touched: BTreeSet<u64>) -> Vec<u64> {
        self.tell(touched.iter().copied());
        touched.into_iter().filter(|&node| !self.is_right(node)).collect()
    }

    /// Tells watchers what has become of nodes, the departures first.
    fn tell(&mut self, nodes: impl IntoIterator<Item = u64>) {
        let mut joined = Vec::new();
        for id in nodes {
            match self.current(id) {
                Some(node) if self.told.get(&id) == Some(node) => {}
                Some(node) => joined.push(node.clone()),
                None => {
                    if self.told.remove(&id).is_some() {
                        // An error means that nobody watches.
                        let _ = self.changes.send(Change::Left(id));
                    }
                }
            }
        }
        for node in joined {
            self.told.insert(node.id, node.clone());
            let _ = self.changes.send(Change::Joined(node));
        }
    }

    /// What is known of a node last.
    fn current(&self, id: u64) -> Option<&Node> {
        let held = self.held.get(&id);
        let keys = self.keys.get(&id).into_iter().flatten();
        // What this child has put there counts as long as it is held.
        let keys = keys.filter(|key| Some(key.session) != self.session || held.is_some());
        let latest = keys.map(|key| &self.entries[key]).max_by_key(|(_, revision)| *revision);
        if let Some((record, _)) = latest {
            return record.node.as_ref();
        }
        held.filter(|held| held.key.is_some() && !self.is_ousted(&held.node))
            .map(|held| &held.node)
    }

    /// Whether another has taken the node's address.
    pub(crate) fn is_ousted(&self, node: &Node) -> bool {
        let first = Key {
            address: node.address().to_owned(),
            node: 0,
            session: i64::MIN,
        };
        self.entries
            .range(first..)
            .take_while(|(key, _)| key.address == node.address())
            .any(|(key, (record, _))| key.node != node.id && record.ousted.contains(&node.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINE: i64 = 10;
    const OTHERS: i64 = 20;
    /// No node has to be put or deleted.
    const NOBODY: [u64; 0] = [];

    fn node(id: u64, address: &str) -> Node {
        Node {
            id,
            address: (!address.is_empty()).then(|| address.into()),
            ..Node::default()
        }
    }

    fn key(id: u64, address: &str, session: i64) -> Key {
        Key {
            address: address.into(),
            node: id,
            session,
        }
    }

    fn entry(id: u64, address: &str, session: i64, ousted: &[u64]) -> Entry {
        Entry {
            key: key(id, address, session),
            record: Record {
                node: Some(node(id, address)),
                ousted: ousted.to_vec(),
            },
            revision: 1,
        }
    }

    fn lease(node: u64, number: u64) -> Lease {
        Lease { node, number }
    }

    fn held(id: u64, address: &str, put: bool) -> Held {
        Held {
            lease: lease(id, 1),
            node: node(id, address),
            key: put.then(|| key(id, address, MINE)),
            ousted: Vec::new(),
        }
    }

    /// A view, and what it tells.
    fn view() -> (View, broadcast::Receiver<Change>) {
        let mut view = View::new();
        view.begin(MINE);
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
        view.apply(vec![Event::Put(entry(1, "", OTHERS, &[]))]);
        view.apply(vec![Event::Put(entry(1, "", OTHERS + 1, &[]))]);
        assert_eq!(told(&mut changes), [joined(1, "")]);
        view.apply(vec![Event::Deleted(key(1, "", OTHERS))]);
        assert_eq!(told(&mut changes), []);
        view.apply(vec![Event::Deleted(key(1, "", OTHERS + 1))]);
        assert_eq!(told(&mut changes), [Change::Left(1)]);
        assert!(view.entries.is_empty() && view.keys.is_empty() && view.told.is_empty());
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
    fn what_is_held_stays_when_etcd_has_lost_it_and_is_to_be_put_again() {
        let (mut view, mut changes) = view();
        view.hold(held(1, "a:1", false));
        assert_eq!(told(&mut changes), [], "etcd has not taken it yet");
        assert_eq!(view.apply(vec![Event::Put(entry(1, "a:1", MINE, &[]))]), NOBODY);
        view.hold(held(1, "a:1", true));
        assert_eq!(told(&mut changes), [joined(1, "a:1")]);
        assert_eq!(view.apply(vec![Event::Deleted(key(1, "a:1", MINE))]), [1]);
        assert_eq!(view.load(vec![]), [1]);
        assert_eq!(view.begin(MINE + 1), [1]);
        assert_eq!(told(&mut changes), []);
        assert_eq!(view.apply(vec![Event::Put(entry(1, "a:1", MINE + 1, &[]))]), NOBODY);
        assert_eq!(told(&mut changes), []);
    }

    #[test]
    fn what_has_lost_its_address_is_gone_although_it_is_held() {
        let (mut view, mut changes) = view();
        view.hold(held(1, "a:1", true));
        view.apply(vec![Event::Put(entry(1, "a:1", MINE, &[]))]);
        told(&mut changes);
        let taken = vec![
            Event::Put(entry(2, "a:1", OTHERS, &[1])),
            Event::Deleted(key(1, "a:1", MINE)),
        ];
        assert_eq!(view.apply(taken), [1]);
        assert_eq!(told(&mut changes), [Change::Left(1), joined(2, "a:1")]);
        // A stranger elsewhere changes nothing.
        view.hold(held(3, "b:1", true));
        assert_eq!(told(&mut changes), [joined(3, "b:1")]);
    }

    #[test]
    fn what_is_released_is_gone_before_etcd_knows() {
        let (mut view, mut changes) = view();
        view.hold(held(1, "", true));
        view.apply(vec![Event::Put(entry(1, "", MINE, &[]))]);
        assert!(view.release(lease(1, 2)).is_none(), "it is another registration");
        assert!(view.release(lease(1, 1)).is_some());
        assert_eq!(told(&mut changes), [joined(1, ""), Change::Left(1)]);
        // It is in etcd still, or came there late: it has to be deleted.
        assert_eq!(view.load(vec![entry(1, "", MINE, &[])]), [1]);
        assert_eq!(told(&mut changes), []);
        assert_eq!(view.own_keys(1).count(), 1);
        assert_eq!(view.apply(vec![Event::Deleted(key(1, "", MINE))]), NOBODY);
    }

    #[test]
    fn a_node_that_has_moved_is_where_it_said_last() {
        let (mut view, mut changes) = view();
        let moved = Entry {
            revision: 2,
            ..entry(1, "b:1", OTHERS + 1, &[])
        };
        view.load(vec![entry(1, "a:1", OTHERS, &[]), moved]);
        assert_eq!(told(&mut changes), [joined(1, "b:1")]);
    }
}
