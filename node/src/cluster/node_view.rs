//! The nodes that all registries together know.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};

use meepo_proto::registry::change::Change;
use meepo_proto::registry::{Node, State};

/// The nodes that all registries together know.
///
/// What a registry said before it was lost counts until it has settled, where no registry that is there contradicts it: a
/// registry that was restarted and knows no node yet must not make the nodes vanish.
#[derive(Debug)]
pub(crate) struct NodeView {
    registries: Vec<RegistryView>,
}

/// The nodes that one registry knows.
#[derive(Debug, Default, Clone)]
struct RegistryView {
    /// The nodes that it lists now.
    now: BTreeMap<u64, Node>,
    /// The nodes that it listed before it was lost.
    before: BTreeMap<u64, Node>,
}

impl NodeView {
    pub(crate) fn new(registries: usize) -> Self {
        Self {
            registries: vec![RegistryView::default(); registries],
        }
    }

    /// The registry was lost.
    pub(crate) fn lost(&mut self, registry: usize) {
        let view = &mut self.registries[registry];
        view.before.append(&mut view.now);
    }

    /// The registry told a change.
    pub(crate) fn said(&mut self, registry: usize, change: Change) {
        let now = &mut self.registries[registry].now;
        match change {
            Change::Snapshot(snapshot) => *now = snapshot.nodes.into_iter().map(|node| (node.id, node)).collect(),
            Change::Joined(node) => {
                now.insert(node.id, node);
            }
            Change::Left(id) => {
                now.remove(&id);
                for view in &mut self.registries {
                    view.before.remove(&id);
                }
            }
        }
    }

    /// The registry is back for so long that all nodes have come to it: forgets what it said before it was lost.
    pub(crate) fn settled(&mut self, registry: usize) {
        self.registries[registry].before.clear();
    }

    /// All nodes, by their ids.
    pub(crate) fn nodes(&self) -> BTreeMap<u64, Node> {
        let mut all = BTreeMap::new();
        for node in self.registries.iter().flat_map(|view| view.now.values()) {
            add(&mut all, node);
        }
        let there = all.values().filter(|node| node.state() != State::Drained);
        let taken: BTreeSet<Option<String>> = there.map(|node| node.address.clone()).collect();
        for node in self.registries.iter().flat_map(|view| view.before.values()) {
            if node.address.is_none() || !taken.contains(&node.address) || all.contains_key(&node.id) {
                add(&mut all, node);
            }
        }
        all
    }
}

/// Adds a node. Of several registries the one with the latest state counts: a node's state never goes back.
fn add(all: &mut BTreeMap<u64, Node>, node: &Node) {
    match all.entry(node.id) {
        Entry::Vacant(entry) => {
            entry.insert(node.clone());
        }
        Entry::Occupied(mut entry) if entry.get().state < node.state => {
            entry.insert(node.clone());
        }
        Entry::Occupied(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use meepo_proto::registry::Snapshot;

    use super::*;

    fn node(id: u64, address: &str) -> Node {
        Node {
            id,
            address: (!address.is_empty()).then(|| address.into()),
            ..Node::default()
        }
    }

    fn snapshot(nodes: &[Node]) -> Change {
        Change::Snapshot(Snapshot { nodes: nodes.to_vec() })
    }

    fn ids(view: &NodeView) -> Vec<u64> {
        view.nodes().into_keys().collect()
    }

    #[test]
    fn it_is_the_union() {
        let mut view = NodeView::new(2);
        view.said(0, snapshot(&[node(1, "a:1"), node(2, "b:1")]));
        view.said(1, snapshot(&[node(2, "b:1"), node(3, "")]));
        assert_eq!(ids(&view), [1, 2, 3]);
        view.said(0, Change::Left(2));
        assert_eq!(ids(&view), [1, 2, 3], "the other registry has it still");
        view.said(1, Change::Left(2));
        view.said(1, Change::Joined(node(4, "")));
        assert_eq!(ids(&view), [1, 3, 4]);
    }

    #[test]
    fn an_absent_registry_keeps_its_word_until_it_has_settled() {
        let mut view = NodeView::new(1);
        view.said(0, snapshot(&[node(1, "a:1"), node(2, "")]));
        view.lost(0);
        assert_eq!(ids(&view), [1, 2]);
        view.said(0, snapshot(&[]));
        assert_eq!(ids(&view), [1, 2], "nobody had the time to come");
        view.said(0, Change::Joined(node(2, "")));
        view.settled(0);
        assert_eq!(ids(&view), [2]);
    }

    #[test]
    fn the_latest_state_of_a_node_counts_whoever_has_heard_it() {
        let in_state = |state: State| Node {
            state: state.into(),
            ..node(1, "a:1")
        };
        let mut view = NodeView::new(2);
        for registry in [0, 1] {
            view.said(registry, snapshot(&[in_state(State::Serving)]));
        }
        for state in [State::Draining, State::Drained] {
            view.said(0, Change::Joined(in_state(state)));
            assert_eq!(view.nodes()[&1].state(), state);
        }
        // One registry lost the node before it was done, the other remembers.
        view.said(1, Change::Left(1));
        assert_eq!(view.nodes()[&1].state(), State::Drained);

        // The last word of a registry that was away is older than its new one.
        let mut view = NodeView::new(1);
        view.said(0, snapshot(&[in_state(State::Serving)]));
        view.lost(0);
        view.said(0, snapshot(&[in_state(State::Drained)]));
        assert_eq!(view.nodes()[&1].state(), State::Drained);
        // And the address of a node that is done is free for another.
        view.said(0, snapshot(&[node(2, "a:1")]));
        view.lost(0);
        view.said(0, snapshot(&[in_state(State::Drained)]));
        assert_eq!(ids(&view), [1, 2]);
    }

    #[test]
    fn a_registry_that_is_there_knows_better() {
        let mut view = NodeView::new(2);
        for registry in [0, 1] {
            view.said(registry, snapshot(&[node(1, "a:1"), node(2, ""), node(3, "")]));
        }
        view.lost(0);
        view.said(1, Change::Left(2));
        assert_eq!(ids(&view), [1, 3], "it left while the other was away");
        view.said(1, snapshot(&[node(3, ""), node(4, "a:1")]));
        assert_eq!(ids(&view), [3, 4], "another node is at its address");
    }
}
