//! Clients by a name that several clients can have: a group, or a uid.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use foldhash::fast::RandomState;
use indexmap::IndexMap;
use meepo_proto::id::ClientNumber;

use crate::client::handle::Client;

/// Names, each with its clients. A name is there as long as it has any.
#[derive(Debug, Default)]
pub(crate) struct NameIndex {
    // Names may be chosen by an attacker, so their hashes are hard to foresee; numbers are the gateway's own.
    // Clients of a name stand in the order in which they came. So does what is kept of each in memory, here and in the
    // kernel: a walk through many of them finds the next one near.
    names: HashMap<Arc<str>, IndexMap<ClientNumber, Arc<Client>, RandomState>>,
}

impl NameIndex {
    /// Adds a client to a name. Returns the name as it is stored.
    pub(crate) fn add(&mut self, name: &str, client: &Arc<Client>) -> Arc<str> {
        let name = match self.names.get_key_value(name) {
            Some((name, _)) => Arc::clone(name),
            None => Arc::from(name),
        };
        let clients = self.names.entry(Arc::clone(&name)).or_default();
        clients.insert(client.number, Arc::clone(client));
        name
    }

    /// Takes a client from a name.
    pub(crate) fn remove(&mut self, name: &str, number: ClientNumber) {
        if let Some(clients) = self.names.get_mut(name) {
            clients.swap_remove(&number);
            if clients.is_empty() {
                self.names.remove(name);
            }
        }
    }

    /// The clients of a name.
    pub(crate) fn of(&self, name: &str) -> impl Iterator<Item = &Arc<Client>> {
        self.names.get(name).into_iter().flat_map(IndexMap::values)
    }

    /// All names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(AsRef::as_ref)
    }

    /// Each name with the number of its clients.
    pub(crate) fn sizes(&self) -> BTreeMap<String, u64> {
        self.names
            .iter()
            .map(|(name, clients)| (name.to_string(), clients.len() as u64))
            .collect()
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}
