//! Which clients there are at this child, in which groups, and bound to which uids.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foldhash::fast::RandomState;
use foldhash::{HashSet, HashSetExt};
use indexmap::IndexMap;
use meepo_proto::link::{Filter, Target};

use crate::client::handle::Client;
use crate::fanout::name_index::NameIndex;

/// The tables of clients, groups and uids.
#[derive(Debug, Default)]
pub(crate) struct ClientRegistry {
    // In the order in which they came, as those of a name are.
    clients: IndexMap<u64, Entry, RandomState>,
    groups: NameIndex,
    uids: NameIndex,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub client: Arc<Client>,
    pub groups: BTreeSet<Arc<str>>,
    pub uid: Option<Arc<str>>,
}

/// Why a client could not join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JoinError {
    /// There is no such client (any more).
    Gone,
    /// It is in as many groups as it may be.
    TooMany,
}

/// There is no such client (any more).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone;

impl ClientRegistry {
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

    /// Takes a client out, and out of its groups. False if it was not there.
    pub(crate) fn remove(&mut self, number: u64) -> bool {
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

    /// Each group with the number of its members.
    pub(crate) fn group_sizes(&self) -> BTreeMap<String, u64> {
        self.groups.sizes()
    }

    /// All uids that clients are bound to.
    pub(crate) fn uids(&self) -> impl Iterator<Item = &str> {
        self.uids.names()
    }

    pub(crate) fn join(&mut self, number: u64, group: &str, max_groups: usize) -> Result<(), JoinError> {
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

    pub(crate) fn leave(&mut self, number: u64, group: &str) -> Result<(), Gone> {
        let entry = self.clients.get_mut(&number).ok_or(Gone)?;
        if entry.groups.remove(group) {
            self.groups.remove(group, number);
        }
        Ok(())
    }

    /// Takes all members out of a group.
    pub(crate) fn ungroup(&mut self, group: &str) {
        let members: Vec<u64> = self.groups.of(group).map(|client| client.number).collect();
        for number in members {
            let _ = self.leave(number, group);
        }
    }

    /// Binds a client to a uid, in place of an earlier one, or to none.
    pub(crate) fn bind(&mut self, number: u64, uid: Option<&str>) -> Result<(), Gone> {
        let entry = self.clients.get_mut(&number).ok_or(Gone)?;
        if let Some(old) = entry.uid.take() {
            self.uids.remove(&old, number);
        }
        entry.uid = uid.map(|uid| self.uids.add(uid, &entry.client));
        Ok(())
    }

    /// Gives each client that is meant to `take`, once. Gives back those that were named and are not there.
    pub(crate) fn each(&self, target: &Target, mut take: impl FnMut(&Arc<Client>)) -> Vec<u64> {
        let except: HashSet<u64> = self.numbers(&target.except, &target.except_uids).collect();
        let mut gone = Vec::new();
        let mut named = |number: &u64| {
            let client = self.get(*number);
            if client.is_none() && !except.contains(number) {
                gone.push(*number);
            }
            client
        };
        let mut take = |client: &Arc<Client>| {
            if except.is_empty() || !except.contains(&client.number) {
                take(client);
            }
        };
        match target {
            Target { everyone: true, .. } => self.let_in().for_each(take),
            // The common ones need no memory of whom they had.
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

    /// The numbers of clients that are named, or bound to a uid. One may come several times.
    pub(crate) fn numbers(&self, clients: &[u64], uids: &[String]) -> impl Iterator<Item = u64> {
        let bound = uids.iter().flat_map(|uid| self.uids.of(uid));
        clients.iter().copied().chain(bound.map(|client| client.number))
    }

    /// The clients that meet all conditions.
    pub(crate) fn select(&self, filter: &Filter) -> impl Iterator<Item = &Entry> {
        let (named, bound, grouped) = (
            !filter.clients.is_empty(),
            !filter.uids.is_empty(),
            !filter.groups.is_empty(),
        );
        // The narrowest condition says where to look, and may name a client twice.
        let numbers = |clients: &mut dyn Iterator<Item = &Arc<Client>>| clients.map(|client| client.number).collect();
        let narrowed: Option<BTreeSet<u64>> = if named {
            Some(filter.clients.iter().copied().collect())
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
    use crate::config::settings::Protocol;

    fn client(number: u64) -> Arc<Client> {
        Client::new(number, Protocol::Line, &Handshake::default(), None, 0).0
    }

    #[test]
    fn a_client_that_goes_leaves_nothing() {
        let mut registry = ClientRegistry::default();
        registry.insert(client(1));
        registry.insert(client(2));
        for (number, group) in [(1, "a"), (1, "b"), (2, "a")] {
            assert_eq!(registry.join(number, group, 8), Ok(()));
        }
        assert!(registry.remove(1));
        assert!(!registry.remove(1));
        assert_eq!(registry.group_sizes(), BTreeMap::from([("a".into(), 1)]));
        assert_eq!(registry.join(1, "a", 8), Err(JoinError::Gone));
        assert_eq!(registry.leave(2, "a"), Ok(()));
        assert!(registry.groups.is_empty());
    }

    #[test]
    fn groups_of_a_client_are_bounded() {
        let mut registry = ClientRegistry::default();
        registry.insert(client(1));
        assert_eq!(registry.join(1, "a", 1), Ok(()));
        assert_eq!(registry.join(1, "a", 1), Ok(()));
        assert_eq!(registry.join(1, "b", 1), Err(JoinError::TooMany));
    }

    fn named(target: &Target, registry: &ClientRegistry) -> Vec<u64> {
        let mut numbers = Vec::new();
        registry.each(target, |client| numbers.push(client.number));
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
            assert_eq!(registry.join(number, "g", 8), Ok(()));
        }
        for (number, uid) in [(1, "ann"), (2, "ann"), (3, "bob")] {
            assert_eq!(registry.bind(number, Some(uid)), Ok(()));
        }
        for number in [1, 4] {
            assert_eq!(registry.join(number, "h", 8), Ok(()));
        }
        registry
    }

    #[test]
    fn each_client_that_is_meant_is_meant_once() {
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
    fn those_who_are_named_and_not_there_are_told() {
        let registry = company();
        for (clients, gone) in [(vec![3], vec![]), (vec![9], vec![9]), (vec![3, 8, 9], vec![9])] {
            let target = Target {
                clients,
                except: vec![8],
                ..Target::default()
            };
            assert_eq!(registry.each(&target, |_| {}), gone);
        }
    }

    #[test]
    fn a_selection_meets_all_conditions() {
        let registry = company();
        registry
            .get(2)
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
            // Nobody was let in.
            (Filter::default(), vec![]),
        ] {
            let found: Vec<_> = registry.select(&filter).map(|entry| entry.client.number).collect();
            assert_eq!(found, numbers, "{filter:?}");
        }
    }

    #[test]
    fn a_client_has_one_uid_at_a_time() {
        let mut registry = company();
        assert_eq!(registry.bind(1, Some("bob")), Ok(()));
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
        assert_eq!(registry.bind(2, None), Ok(()));
        assert_eq!(registry.uids().collect::<Vec<_>>(), ["bob"]);
        assert!(registry.remove(1) && registry.remove(3));
        assert!(registry.uids.is_empty());
        assert_eq!(registry.bind(1, Some("ann")), Err(Gone));
    }

    #[test]
    fn a_group_that_is_dissolved_has_nobody() {
        let mut registry = company();
        registry.ungroup("g");
        assert_eq!(registry.group_sizes(), BTreeMap::from([("h".into(), 2)]));
        assert_eq!(registry.leave(1, "g"), Ok(()));
    }
}
