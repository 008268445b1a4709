//! Who may have an address.

use super::view::Entry;
use crate::store::MAX_OUSTED;

/// What becomes of an address when a node puts itself there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It has it, and these other nodes lose it.
    Granted {
        /// All that had it before, oldest first, as far as it is remembered.
        ousted: Vec<u64>,
        /// Those of them that are there.
        present: Vec<u64>,
    },
    /// Another node came later.
    Superseded,
}

/// Judges a claim from all that is there. A newcomer takes the address from anyone but a node that took it from it; a node
/// that was there before, and was lost, only takes it from those of which it `knew`.
pub(crate) fn claim(node: u64, there: &[Entry], knew: &[u64], newcomer: bool) -> Claim {
    let others = || there.iter().filter(|entry| entry.key.node != node);
    if others().any(|entry| entry.record.ousted.contains(&node)) {
        return Claim::Superseded;
    }
    let mut present: Vec<u64> = others().map(|entry| entry.key.node).collect();
    present.sort_unstable();
    present.dedup();
    if !newcomer && present.iter().any(|other| !knew.contains(other)) {
        return Claim::Superseded;
    }
    let mut ousted = Vec::new();
    let remembered = there.iter().flat_map(|entry| &entry.record.ousted);
    for &other in knew.iter().chain(remembered).chain(&present) {
        if !ousted.contains(&other) {
            ousted.push(other);
        }
    }
    ousted.drain(..ousted.len().saturating_sub(MAX_OUSTED));
    Claim::Granted { ousted, present }
}

#[cfg(test)]
mod tests {
    use meepo_proto::registry::Record;

    use super::*;
    use crate::store::etcd::keys::Key;

    fn entry(node: u64, session: i64, ousted: &[u64]) -> Entry {
        Entry {
            key: Key {
                address: "a:1".into(),
                node,
                session,
            },
            record: Record {
                node: None,
                ousted: ousted.to_vec(),
            },
            revision: 1,
        }
    }

    fn granted(ousted: &[u64], present: &[u64]) -> Claim {
        Claim::Granted {
            ousted: ousted.to_vec(),
            present: present.to_vec(),
        }
    }

    #[test]
    fn a_newcomer_takes_the_address_for_good() {
        assert_eq!(claim(1, &[], &[], true), granted(&[], &[]));
        // Two registries have the older one.
        let there = [entry(1, 10, &[]), entry(1, 20, &[])];
        assert_eq!(claim(2, &there, &[], true), granted(&[1], &[1]));
        assert_eq!(claim(1, &[entry(2, 10, &[1])], &[], true), Claim::Superseded);
        // At the second registry it remembers the same.
        assert_eq!(claim(2, &[entry(2, 10, &[1])], &[], true), granted(&[1], &[]));
        assert_eq!(claim(3, &[entry(2, 10, &[1])], &[], true), granted(&[1, 2], &[2]));
    }

    #[test]
    fn a_node_that_was_lost_takes_it_from_nobody_who_came_meanwhile() {
        assert_eq!(claim(1, &[entry(1, 20, &[])], &[], false), granted(&[], &[]));
        assert_eq!(claim(1, &[entry(2, 20, &[])], &[], false), Claim::Superseded);
        assert_eq!(claim(2, &[entry(1, 20, &[])], &[1], false), granted(&[1], &[1]));
    }

    #[test]
    fn the_memory_is_bounded_and_forgets_the_oldest() {
        let knew: Vec<u64> = (1..=MAX_OUSTED as u64).collect();
        let Claim::Granted { ousted, .. } = claim(99, &[entry(50, 10, &[])], &knew, true) else {
            panic!("it is refused");
        };
        assert_eq!(ousted.len(), MAX_OUSTED);
        assert_eq!((ousted[0], ousted[MAX_OUSTED - 1]), (2, 50));
    }
}
