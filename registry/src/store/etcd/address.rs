//! The rules of who may have an address. Without sockets or clocks.

use meepo_proto::registry::NodeId;

use super::entry::Entry;
use crate::store::MAX_OUSTED;

/// How a node comes to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// The node has announced itself: it takes the address from any node that was there before.
    Announced,
    /// The node was there before and etcd has lost it: it takes the address from no node that came meanwhile.
    Restored,
}

/// What becomes of an address when a node is put there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The node gets the address.
    Granted {
        /// Nodes that had the address before, oldest first, as far as they are remembered.
        ousted: Vec<NodeId>,
        /// The nodes of those that are still there, and lose it now.
        present: Vec<NodeId>,
    },
    /// A later node has the address.
    Superseded,
}

/// Decides whether a node gets an address. `there` are all registrations at the address; `known` are the nodes from which this
/// node is known to have taken it.
pub(crate) fn decide(node: NodeId, there: &[Entry], known: &[NodeId], arrival: Arrival) -> Decision {
    let others = || there.iter().filter(|entry| entry.key.node != node);
    if others().any(|entry| entry.ousted.contains(&node)) {
        return Decision::Superseded;
    }
    let mut present: Vec<NodeId> = others().map(|entry| entry.key.node).collect();
    present.sort_unstable();
    present.dedup();
    if arrival == Arrival::Restored && present.iter().any(|other| !known.contains(other)) {
        return Decision::Superseded;
    }
    let mut ousted = Vec::new();
    let remembered = there.iter().flat_map(|entry| &entry.ousted);
    for &other in known.iter().chain(remembered).chain(&present) {
        if !ousted.contains(&other) {
            ousted.push(other);
        }
    }
    ousted.drain(..ousted.len().saturating_sub(MAX_OUSTED));
    Decision::Granted { ousted, present }
}

#[cfg(test)]
mod tests {
    use meepo_proto::registry::Node;

    use super::Arrival::{Announced, Restored};
    use super::*;
    use crate::store::etcd::client::{EtcdLease, Revision};
    use crate::store::etcd::keys::RegistrationKey;

    fn ids(ids: &[u64]) -> Vec<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    fn entry(node: u64, lease: i64, ousted: &[u64]) -> Entry {
        Entry {
            key: RegistrationKey {
                address: Some("a:1".into()),
                node: NodeId(node),
                lease: EtcdLease(lease),
            },
            node: Node::default(),
            ousted: ids(ousted),
            revision: Revision(1),
        }
    }

    fn decide(node: u64, there: &[Entry], known: &[u64], arrival: Arrival) -> Decision {
        super::decide(NodeId(node), there, &ids(known), arrival)
    }

    fn granted(ousted: &[u64], present: &[u64]) -> Decision {
        Decision::Granted {
            ousted: ids(ousted),
            present: ids(present),
        }
    }

    #[test]
    fn a_newcomer_takes_the_address_for_good() {
        assert_eq!(decide(1, &[], &[], Announced), granted(&[], &[]));
        // Two registries have the older one.
        let there = [entry(1, 10, &[]), entry(1, 20, &[])];
        assert_eq!(decide(2, &there, &[], Announced), granted(&[1], &[1]));
        assert_eq!(decide(1, &[entry(2, 10, &[1])], &[], Announced), Decision::Superseded);
        // At the second registry the same is remembered.
        assert_eq!(decide(2, &[entry(2, 10, &[1])], &[], Announced), granted(&[1], &[]));
        assert_eq!(decide(3, &[entry(2, 10, &[1])], &[], Announced), granted(&[1, 2], &[2]));
    }

    #[test]
    fn a_node_that_was_lost_takes_the_address_from_no_node_that_came_meanwhile() {
        assert_eq!(decide(1, &[entry(1, 20, &[])], &[], Restored), granted(&[], &[]));
        assert_eq!(decide(1, &[entry(2, 20, &[])], &[], Restored), Decision::Superseded);
        assert_eq!(decide(2, &[entry(1, 20, &[])], &[1], Restored), granted(&[1], &[1]));
    }

    #[test]
    fn the_memory_is_bounded_and_forgets_the_oldest() {
        let known: Vec<u64> = (1..=MAX_OUSTED as u64).collect();
        let Decision::Granted { ousted, .. } = decide(99, &[entry(50, 10, &[])], &known, Announced) else {
            panic!("the node is refused");
        };
        assert_eq!(ousted.len(), MAX_OUSTED);
        assert_eq!((ousted[0], ousted[MAX_OUSTED - 1]), (NodeId(2), NodeId(50)));
    }
}
