//! Which clients there are at this child, and in which groups.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::client::Client;

/// The tables of clients and groups. A group exists while it has members.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    clients: HashMap<u64, Entry>,
    groups: HashMap<Arc<str>, HashMap<u64, Arc<Client>>>,
}

#[derive(Debug)]
struct Entry {
    client: Arc<Client>,
    groups: BTreeSet<Arc<str>>,
}

/// Why a client could not join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JoinError {
    /// There is no such client (any more).
    Gone,
    /// It is in as many groups as it may be.
    TooMany,
}

impl Roster {
    pub(crate) fn insert(&mut self, client: Arc<Client>) {
        self.clients.insert(
            client.number,
            Entry {
                client,
                groups: BTreeSet::new(),
            },
        );
    }

    /// Takes a client out, and out of its groups. False if it was not there.
    pub(crate) fn remove(&mut self, number: u64) -> bool {
        let Some(entry) = self.clients.remove(&number) else {
            return false;
        };
        for group in &entry.groups {
            self.remove_member(group, number);
        }
        true
    }

    pub(crate) fn get(&self, number: u64) -> Option<&Arc<Client>> {
        self.clients.get(&number).map(|entry| &entry.client)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Client>> {
        self.clients.values().map(|entry| &entry.client)
    }

    /// Those whom a worker has let in.
    pub(crate) fn let_in(&self) -> impl Iterator<Item = &Arc<Client>> {
        self.all().filter(|client| !client.is_pending())
    }

    pub(crate) fn members(&self, group: &str) -> impl Iterator<Item = &Arc<Client>> {
        self.groups.get(group).into_iter().flat_map(HashMap::values)
    }

    /// Each group with the number of its members.
    pub(crate) fn group_sizes(&self) -> BTreeMap<String, u64> {
        self.groups
            .iter()
            .map(|(name, members)| (name.to_string(), members.len() as u64))
            .collect()
    }

    pub(crate) fn join(&mut self, number: u64, group: &str, max_groups: usize) -> Result<(), JoinError> {
        let entry = self.clients.get_mut(&number).ok_or(JoinError::Gone)?;
        if entry.groups.contains(group) {
            return Ok(());
        }
        if entry.groups.len() >= max_groups {
            return Err(JoinError::TooMany);
        }
        let name = match self.groups.get_key_value(group) {
            Some((name, _)) => Arc::clone(name),
            None => Arc::from(group),
        };
        entry.groups.insert(Arc::clone(&name));
        self.groups
            .entry(name)
            .or_default()
            .insert(number, Arc::clone(&entry.client));
        Ok(())
    }

    /// False if there is no such client.
    pub(crate) fn leave(&mut self, number: u64, group: &str) -> bool {
        let Some(entry) = self.clients.get_mut(&number) else {
            return false;
        };
        if entry.groups.remove(group) {
            self.remove_member(group, number);
        }
        true
    }

    fn remove_member(&mut self, group: &str, number: u64) {
        if let Some(members) = self.groups.get_mut(group) {
            members.remove(&number);
            if members.is_empty() {
                self.groups.remove(group);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use meepo_proto::link::Handshake;

    use super::*;
    use crate::settings::Protocol;

    fn client(number: u64) -> Arc<Client> {
        Client::new(number, Protocol::Line, Handshake::default(), None, 0).0
    }

    #[test]
    fn a_client_that_goes_leaves_nothing() {
        let mut roster = Roster::default();
        roster.insert(client(1));
        roster.insert(client(2));
        for (number, group) in [(1, "a"), (1, "b"), (2, "a")] {
            assert_eq!(roster.join(number, group, 8), Ok(()));
        }
        assert!(roster.remove(1));
        assert!(!roster.remove(1));
        assert_eq!(roster.group_sizes(), BTreeMap::from([("a".into(), 1)]));
        assert_eq!(roster.join(1, "a", 8), Err(JoinError::Gone));
        assert!(roster.leave(2, "a"));
        assert!(roster.groups.is_empty());
    }

    #[test]
    fn groups_of_a_client_are_bounded() {
        let mut roster = Roster::default();
        roster.insert(client(1));
        assert_eq!(roster.join(1, "a", 1), Ok(()));
        assert_eq!(roster.join(1, "a", 1), Ok(()));
        assert_eq!(roster.join(1, "b", 1), Err(JoinError::TooMany));
    }
}
