//! What several registries say, put together.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};

use meepo_proto::registry::change::Change;
use meepo_proto::registry::{Node, State};

/// The words of all registries.
///
/// The last word of a registry that is away, or has just come back, counts where no registry that is there contradicts
/// it: a registry that was restarted and knows nobody yet must not make the nodes vanish.
#[derive(Debug)]
pub(crate) struct Roster {
    views: Vec<View>,
}

/// The word of one registry.
#[derive(Debug, Default, Clone)]
struct View {
    /// What it says now.
    now: BTreeMap<u64, Node>,
    /// What it said before it was lost.
    before: BTreeMap<u64, Node>,
}

impl Roster {
    pub(crate) fn new(registries: usize) -> Self {
        Self {
            views: vec![View::default(); registries],
        }
    }

    /// The registry is away.
    pub(crate) fn lost(&mut self, registry: usize) {
        let view = &mut self.views[registry];
        view.before.append(&mut view.now);
    }

    /// The registry said something.
    pub(crate) fn said(&mut self, registry: usize, change: Change) {
        let now = &mut self.views[registry].now;
        match change {
            Change::Snapshot(snapshot) => *now = snapshot.nodes.into_iter().map(|node| (node.id, node)).collect(),
            Change::Joined(node) => {
                now.insert(node.id, node);
            }
            Change::Left(id) => {
                now.remove(&id);
                for view in &mut self.views {
                    view.before.remove(&id);
                }
            }
        }
    }

    /// The registry is back for so long that all nodes have come to it: what it said before is of no more use.
    pub(crate) fn settled(&mut self, registry: usize) {
        self.views[registry].before.clear();
    }

    /// All nodes.
    pub(crate) fn nodes(&self) -> BTreeMap<u64, Node> {
        let mut all = BTreeMap::new();
        for node in self.views.iter().flat_map(|view| view.now.values()) {
            add(&mut all, node);
        }
        let there = all.values().filter(|node| node.state() != State::Done);
        let taken: BTreeSet<String> = there.map(|node| node.address.clone()).collect();
        for node in self.views.iter().flat_map(|view| view.before.values()) {
            if node.address.is_empty() || !taken.contains(&node.address) || all.contains_key(&node.id) {
                add(&mut all, node);
            }
        }
        all
    }
}

/// Adds a node. What one registry has heard later of it counts: a node's state never goes back.
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
            address: address.into(),
            ..Node::default()
        }
    }

    fn snapshot(nodes: &[Node]) -> Change {
        Change::Snapshot(Snapshot { nodes: nodes.to_vec() })
    }

    fn ids(roster: &Roster) -> Vec<u64> {
        roster.nodes().into_keys().collect()
    }

    #[test]
    fn it_is_the_union() {
        let mut roster = Roster::new(2);
        roster.said(0, snapshot(&[node(1, "a:1"), node(2, "b:1")]));
        roster.said(1, snapshot(&[node(2, "b:1"), node(3, "")]));
        assert_eq!(ids(&roster), [1, 2, 3]);
        roster.said(0, Change::Left(2));
        assert_eq!(ids(&roster), [1, 2, 3], "the other registry has it still");
        roster.said(1, Change::Left(2));
        roster.said(1, Change::Joined(node(4, "")));
        assert_eq!(ids(&roster), [1, 3, 4]);
    }

    #[test]
    fn an_absent_registry_keeps_its_word_until_it_has_settled() {
        let mut roster = Roster::new(1);
        roster.said(0, snapshot(&[node(1, "a:1"), node(2, "")]));
        roster.lost(0);
        assert_eq!(ids(&roster), [1, 2]);
        roster.said(0, snapshot(&[]));
        assert_eq!(ids(&roster), [1, 2], "nobody had the time to come");
        roster.said(0, Change::Joined(node(2, "")));
        roster.settled(0);
        assert_eq!(ids(&roster), [2]);
    }

    #[test]
    fn the_latest_state_of_a_node_counts_whoever_has_heard_it() {
        let in_state = |state: State| Node {
            state: state.into(),
            ..node(1, "a:1")
        };
        let mut roster = Roster::new(2);
        for registry in [0, 1] {
            roster.said(registry, snapshot(&[in_state(State::Serving)]));
        }
        for state in [State::Leaving, State::Done] {
            roster.said(0, Change::Joined(in_state(state)));
            assert_eq!(roster.nodes()[&1].state(), state);
        }
        // One registry lost the node before it was done, the other remembers.
        roster.said(1, Change::Left(1));
        assert_eq!(roster.nodes()[&1].state(), State::Done);

        // The last word of a registry that was away is older than its new one.
        let mut roster = Roster::new(1);
        roster.said(0, snapshot(&[in_state(State::Serving)]));
        roster.lost(0);
        roster.said(0, snapshot(&[in_state(State::Done)]));
        assert_eq!(roster.nodes()[&1].state(), State::Done);
        // And the address of one that is done is nobody's.
        roster.said(0, snapshot(&[node(2, "a:1")]));
        roster.lost(0);
        roster.said(0, snapshot(&[in_state(State::Done)]));
        assert_eq!(ids(&roster), [1, 2]);
    }

    #[test]
    fn a_registry_that_is_there_knows_better() {
        let mut roster = Roster::new(2);
        for registry in [0, 1] {
            roster.said(registry, snapshot(&[node(1, "a:1"), node(2, ""), node(3, "")]));
        }
        roster.lost(0);
        roster.said(1, Change::Left(2));
        assert_eq!(ids(&roster), [1, 3], "it left while the other was away");
        roster.said(1, snapshot(&[node(3, ""), node(4, "a:1")]));
        assert_eq!(ids(&roster), [3, 4], "another node is at its address");
    }
}
