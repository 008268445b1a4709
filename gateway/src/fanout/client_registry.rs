//! The client registry: which clients there are at this child, in which groups, and bound to which uids.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foldhash::fast::RandomState;
use foldhash::{HashSet, HashSetExt};
use indexmap::IndexMap;
use meepo_proto::id::ClientNumber;
use meepo_proto::link::{Filter, Target};

use crate::client::handle::Client;
use crate::fanout::name_index::NameIndex;

/// The tables of clients, groups and uids.
#[derive(Debug, Default)]
pub(crate) struct ClientRegistry {
    // In the order in which they came, as in a name index: neighbours here are neighbours in memory.
    clients: IndexMap<ClientNumber, Entry, RandomState>,
    groups: NameIndex,
    uids: NameIndex,
}

/// A client, its groups and its uid.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) client: Arc<Client>,
    pub(crate) groups: BTreeSet<Arc<str>>,
    pub(crate) uid: Option<Arc<str>>,
}

/// Why a client could not join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JoinError {
    /// There is no client of this number, or no more.
    Gone,
    /// The client is a member of as many groups as it may be.
    TooMany,
}

/// There is no client of this number, or no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone;

impl ClientRegistry {
    /// Adds a client, in no group and bound to no uid.
    pub(crate) fn insert(&mut self, client: Arc<Client>) {
        self.clients.insert(
            client.number,
            Entry {
                client,
                groups: BTreeSet::new(),
                uid: None,
            },
        );
    }

    /// Takes a client out of the registry and of its groups. False if it was not there.
    pub(crate) fn remove(&mut self, number: ClientNumber) -> bool {
        let Some(entry) = self.clients.swap_remove(&number) else {
            return false;
        };
        for group in &entry.groups {
            self.groups.remove(group, number);
        }
        if let Some(uid) = &entry.uid {
            self.uids.remove(uid, number);
        }
        true
    }

    /// The client of this number.
    pub(crate) fn get(&self, number: ClientNumber) -> Option<&Arc<Client>> {
        self.clients.get(&number).map(|entry| &entry.client)
    }

    /// All clients, also those that wait for a worker's verdict.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Client>> {
        self.clients.values().map(|entry| &entry.client)
    }

    /// The clients that a worker has let in.
    pub(crate) fn admitted(&self) -> impl Iterator<Item = &Arc<Client>> {
        self.all().filter(|client| !client.is_pending())
    }

    /// Each group with the number of its members.
    pub(crate) fn group_sizes(&self) -> BTreeMap<String, u64> {
        self.groups.sizes()
    }

    /// All uids that clients are bound to.
    pub(crate) fn uids(&self) -> impl Iterator<Item = &str> {
        self.uids.names()
    }

    /// Adds a client to a group.
    pub(crate) fn join(&mut self, number: ClientNumber, group: &str, max_groups: usize) -> Result<(), JoinError> {
        let entry = self.clients.get_mut(&number).ok_or(JoinError::Gone)?;
        if entry.groups.contains(group) {
            return Ok(());
        }
        if entry.groups.len() >= max_groups {
            return Err(JoinError::TooMany);
        }
        entry.groups.insert(self.groups.add(group, &entry.client));
        Ok(())
    }

    /// Takes a client out of a group, if it is a member.
    pub(crate) fn leave(&mut self, number: ClientNumber, group: &str) -> Result<(), Gone> {
        let entry = self.clients.get_mut(&number).ok_or(Gone)?;
        if entry.groups.remove(group) {
            self.groups.remove(group, number);
        }
        Ok(())
    }

    /// Takes all members out of a group.
    pub(crate) fn dissolve(&mut self, group: &str) {
        let members: Vec<ClientNumber> = self.groups.of(group).map(|client| client.number).collect();
        for number in members {
            let _ = self.leave(number, group);
        }
    }

    /// Binds a client to a uid, in place of an earlier one, or to none.
    pub(crate) fn bind(&mut self, number: ClientNumber, uid: Option<&str>) -> Result<(), Gone> {
        let entry = self.clients.get_mut(&number).ok_or(Gone)?;
        if let Some(old) = entry.uid.take() {
            self.uids.remove(&old, number);
        }
        entry.uid = uid.map(|uid| self.uids.add(uid, &entry.client));
        Ok(())
    }

    /// Gives each client of the target to `take`, once. Returns the numbers that the target names and no client has.
    pub(crate) fn each(&self, target: &Target, mut take: impl FnMut(&Arc<Client>)) -> Vec<ClientNumber> {
        let except: HashSet<ClientNumber> = self.numbers(&target.except, &target.except_uids).collect();
        let mut gone = Vec::new();
        let mut named = |number: &u64| {
            let number = ClientNumber(*number);
            let client = self.get(number);
            if client.is_none() && !except.contains(&number) {
                gone.push(number);
            }
            client
        };
        let mut take = |client: &Arc<Client>| {
            if except.is_empty() || !except.contains(&client.number) {
                take(client);
            }
        };
        match target {
            Target { everyone: true, .. } => self.admitted().for_each(take),
            // These common targets name no client twice.
            Target {
                clients, uids, groups, ..
            } if uids.is_empty() && groups.is_empty() && clients.len() == 1 => {
                named(&clients[0]).into_iter().for_each(take);
            }
            Target {
                clients, uids, groups, ..
            } if clients.is_empty() && uids.is_empty() && groups.len() == 1 => {
                self.groups.of(&groups[0]).for_each(take);
            }
            Target {
                clients, uids, groups, ..
            } => {
                let named = clients.iter().filter_map(named);
                let bound = uids.iter().flat_map(|uid| self.uids.of(uid));
                let members = groups.iter().flat_map(|group| self.groups.of(group));
                let mut seen = HashSet::new();
                for client in named.chain(bound).chain(members) {
                    if seen.insert(client.number) {
                        take(client);
                    }
                }
            }
        }
        gone
    }

    /// The numbers of clients that are named, or bound to one of the uids. A number may come several times.
    pub(crate) fn numbers(&self, clients: &[u64], uids: &[String]) -> impl Iterator<Item = ClientNumber> {
        let bound = uids.iter().flat_map(|uid| self.uids.of(uid));
        clients
            .iter()
            .map(|&number| ClientNumber(number))
            .chain(bound.map(|client| client.number))
    }

    /// The clients that meet all conditions of the filter.
    pub(crate) fn select(&self, filter: &Filter) -> impl Iterator<Item = &Entry> {
        let (named, bound, grouped) = (
            !filter.clients.is_empty(),
            !filter.uids.is_empty(),
            !filter.groups.is_empty(),
        );
        // The narrowest condition says where to look. It may name a client twice, a set does not.
        let numbers = |clients: &mut dyn Iterator<Item = &Arc<Client>>| clients.map(|client| client.number).collect();
        let narrowed: Option<BTreeSet<ClientNumber>> = if named {
            Some(filter.clients.iter().map(|&number| ClientNumber(number)).collect())
        } else if bound {
            Some(numbers(&mut filter.uids.iter().flat_map(|uid| self.uids.of(uid))))
        } else if grouped {
            Some(numbers(
                &mut filter.groups.iter().flat_map(|group| self.groups.of(group)),
            ))
        } else {
            None
        };
        let candidates: Box<dyn Iterator<Item = &Entry>> = match narrowed {
            Some(numbers) => Box::new(numbers.into_iter().filter_map(|number| self.clients.get(&number))),
            None => Box::new(self.clients.values()),
        };
        candidates.filter(move |entry| {
            let uid = || {
                entry
                    .uid
                    .as_ref()
                    .is_some_and(|uid| filter.uids.iter().any(|other| **other == **uid))
            };
            let group = || filter.groups.iter().any(|group| entry.groups.contains(group.as_str()));
            let session = || {
                let session = entry.client.profile.session.lock();
                filter
                    .session
                    .iter()
                    .all(|(key, value)| session.get(key) == Some(value))
            };
            (named || bound || grouped || !entry.client.is_pending())
                && (!bound || uid())
                && (!grouped || group())
                && (filter.session.is_empty() || session())
        })
    }
}

#[cfg(test)]
mod tests {
    use meepo_proto::link::Handshake;

    use super::*;
    use crate::protocol::line;

    fn client(number: u64) -> Arc<Client> {
        Client::new(number.into(), &line::CODEC, &Handshake::default(), None, 0).0
    }

    #[test]
    fn a_client_that_goes_leaves_nothing() {
        let mut registry = ClientRegistry::default();
        registry.insert(client(1));
        registry.insert(client(2));
        for (number, group) in [(1, "a"), (1, "b"), (2, "a")] {
            assert_eq!(registry.join(ClientNumber(number), group, 8), Ok(()));
        }
        assert!(registry.remove(ClientNumber(1)));
        assert!(!registry.remove(ClientNumber(1)));
        assert_eq!(registry.group_sizes(), BTreeMap::from([("a".into(), 1)]));
        assert_eq!(registry.join(ClientNumber(1), "a", 8), Err(JoinError::Gone));
        assert_eq!(registry.leave(ClientNumber(2), "a"), Ok(()));
        assert!(registry.groups.is_empty());
    }

    #[test]
    fn groups_of_a_client_are_bounded() {
        let mut registry = ClientRegistry::default();
        registry.insert(client(1));
        assert_eq!(registry.join(ClientNumber(1), "a", 1), Ok(()));
        assert_eq!(registry.join(ClientNumber(1), "a", 1), Ok(()));
        assert_eq!(registry.join(ClientNumber(1), "b", 1), Err(JoinError::TooMany));
    }

    fn named(target: &Target, registry: &ClientRegistry) -> Vec<u64> {
        let mut numbers = Vec::new();
        registry.each(target, |client| numbers.push(client.number.0));
        numbers.sort_unstable();
        numbers
    }

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    /// Clients 1 to 4, all in group "g"; 1 and 2 are the devices of "ann", 3 of "bob"; 1 and 4 are in "h" too.
    fn company() -> ClientRegistry {
        let mut registry = ClientRegistry::default();
        for number in 1..=4 {
            registry.insert(client(number));
            assert_eq!(registry.join(ClientNumber(number), "g", 8), Ok(()));
        }
        for (number, uid) in [(1, "ann"), (2, "ann"), (3, "bob")] {
            assert_eq!(registry.bind(ClientNumber(number), Some(uid)), Ok(()));
        }
        for number in [1, 4] {
            assert_eq!(registry.join(ClientNumber(number), "h", 8), Ok(()));
        }
        registry
    }

    #[test]
    fn each_client_of_a_target_is_given_once() {
        let registry = company();
        for (target, numbers) in [
            (
                Target {
                    groups: strings(&["g", "h"]),
                    ..Target::default()
                },
                vec![1, 2, 3, 4],
            ),
            (
                Target {
                    groups: strings(&["h"]),
                    uids: strings(&["ann", "nobody"]),
                    clients: vec![3, 9],
                    ..Target::default()
                },
                vec![1, 2, 3, 4],
            ),
            (
                Target {
                    groups: strings(&["g"]),
                    except_uids: strings(&["ann"]),
                    except: vec![4],
                    ..Target::default()
                },
                vec![3],
            ),
            (
                Target {
                    uids: strings(&["ann"]),
                    except: vec![2],
                    ..Target::default()
                },
                vec![1],
            ),
            (
                Target {
                    clients: vec![3],
                    ..Target::default()
                },
                vec![3],
            ),
            (
                Target {
                    clients: vec![3],
                    except_uids: strings(&["bob"]),
                    ..Target::default()
                },
                vec![],
            ),
            (
                Target {
                    everyone: true,
                    ..Target::default()
                },
                vec![],
            ),
            (Target::default(), vec![]),
        ] {
            assert_eq!(named(&target, &registry), numbers, "{target:?}");
        }
    }

    #[test]
    fn named_clients_that_are_not_there_are_given_back() {
        let registry = company();
        for (clients, gone) in [(vec![3], vec![]), (vec![9], vec![9]), (vec![3, 8, 9], vec![9])] {
            let target = Target {
                clients,
                except: vec![8],
                ..Target::default()
            };
            let named: Vec<_> = registry.each(&target, |_| {}).iter().map(|number| number.0).collect();
            assert_eq!(named, gone);
        }
    }

    #[test]
    fn a_selection_meets_all_conditions() {
        let registry = company();
        registry
            .get(ClientNumber(2))
            .expect("it is there")
            .profile
            .session
            .lock()
            .insert("k".into(), "v".into());
        let session = || BTreeMap::from([("k".to_owned(), "v".to_owned())]);
        for (filter, numbers) in [
            (
                Filter {
                    groups: strings(&["g", "h"]),
                    ..Filter::default()
                },
                vec![1, 2, 3, 4],
            ),
            (
                Filter {
                    groups: strings(&["h"]),
                    uids: strings(&["ann"]),
                    ..Filter::default()
                },
                vec![1],
            ),
            (
                Filter {
                    uids: strings(&["ann", "bob"]),
                    clients: vec![2, 3, 4, 9],
                    ..Filter::default()
                },
                vec![2, 3],
            ),
            (
                Filter {
                    groups: strings(&["g"]),
                    session: session(),
                    ..Filter::default()
                },
                vec![2],
            ),
            (
                Filter {
                    clients: vec![1],
                    session: session(),
                    ..Filter::default()
                },
                vec![],
            ),
            // No client was let in.
            (Filter::default(), vec![]),
        ] {
            let found: Vec<_> = registry.select(&filter).map(|entry| entry.client.number.0).collect();
            assert_eq!(found, numbers, "{filter:?}");
        }
    }

    #[test]
    fn a_client_has_one_uid_at_a_time() {
        let mut registry = company();
        assert_eq!(registry.bind(ClientNumber(1), Some("bob")), Ok(()));
        let of = |registry: &ClientRegistry, uid: &str| {
            named(
                &Target {
                    uids: strings(&[uid]),
                    ..Target::default()
                },
                registry,
            )
        };
        assert_eq!((of(&registry, "ann"), of(&registry, "bob")), (vec![2], vec![1, 3]));
        assert_eq!(registry.bind(ClientNumber(2), None), Ok(()));
        assert_eq!(registry.uids().collect::<Vec<_>>(), ["bob"]);
        assert!(registry.remove(ClientNumber(1)) && registry.remove(ClientNumber(3)));
        assert!(registry.uids.is_empty());
        assert_eq!(registry.bind(ClientNumber(1), Some("ann")), Err(Gone));
    }

    #[test]
    fn a_group_that_is_dissolved_has_no_member() {
        let mut registry = company();
        registry.dissolve("g");
        assert_eq!(registry.group_sizes(), BTreeMap::from([("h".into(), 2)]));
        assert_eq!(registry.leave(ClientNumber(1), "g"), Ok(()));
    }
}
