//! Queries about clients that meet conditions.

use std::collections::{BTreeMap, BTreeSet};

use meepo_proto::link as wire;
use meepo_proto::link::query::Body as Query;
use meepo_proto::link::reply::Body as Reply;
use meepo_proto::{ClientId, GatewayId};

use super::Answer;
use crate::api::cluster::Cluster;

/// A selection: clients that meet conditions, and what is asked of them. Without a condition it is everyone who is online.
///
/// Several conditions of one kind widen the selection, conditions of several kinds narrow it: clients of this uid **or**
/// that one, **and** in this group.
///
/// ```
/// # use meepo_worker::{Client, Result};
/// # async fn example(client: &Client) -> Result<()> {
/// let cluster = client.cluster();
/// let players = cluster.select().group("red").group("blue").session("ready", "yes").count().await;
/// let names = cluster.select().group("red").with_uid().with_session().list().await;
/// for member in names.value {
///     println!("{} is {:?}", member.uid.unwrap_or_default(), member.session.get("name"));
/// }
/// # let _ = players;
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is asked before `list`, `ids`, `count` or `uids`"]
#[derive(Debug, Clone)]
pub struct Select<'a> {
    cluster: &'a Cluster,
    clients: Vec<ClientId>,
    filter: wire::Filter,
    uid: bool,
    groups: bool,
    session: bool,
}

/// A client that was selected, with what was asked for of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The client.
    pub id: ClientId,
    /// The uid that it is bound to, if that was asked for and it is.
    pub uid: Option<String>,
    /// Its groups, if they were asked for.
    pub groups: BTreeSet<String>,
    /// Its session, if that was asked for.
    pub session: BTreeMap<String, String>,
}

impl Cluster {
    /// Begins a selection of clients.
    pub fn select(&self) -> Select<'_> {
        Select {
            cluster: self,
            clients: Vec::new(),
            filter: wire::Filter::default(),
            uid: false,
            groups: false,
            session: false,
        }
    }
}

impl Select<'_> {
    /// Selects this client, and others that are named so.
    pub fn client(mut self, id: ClientId) -> Self {
        self.clients.push(id);
        self
    }

    /// Selects clients that are bound to this uid, or another one that is named so.
    pub fn uid(mut self, uid: impl Into<String>) -> Self {
        self.filter.uids.push(uid.into());
        self
    }

    /// Selects members of this group, or of another one that is named so.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.filter.groups.push(group.into());
        self
    }

    /// Selects clients whose session has this value at this key. With several keys, all must have their value.
    pub fn session(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.filter.session.insert(key.into(), value.into());
        self
    }

    /// Asks for the uid of each client.
    pub fn with_uid(mut self) -> Self {
        self.uid = true;
        self
    }

    /// Asks for the groups of each client.
    pub fn with_groups(mut self) -> Self {
        self.groups = true;
        self
    }

    /// Asks for the session of each client.
    pub fn with_session(mut self) -> Self {
        self.session = true;
        self
    }

    /// The clients, with what is asked of them.
    pub async fn list(&self) -> Answer<Vec<Member>> {
        let mut value = Vec::new();
        let query = |filter| {
            Query::Select(wire::Select {
                filter: Some(filter),
                uid: self.uid,
                groups: self.groups,
                session: self.session,
            })
        };
        let missing = self.ask(query, |gateway, reply| match reply {
            Reply::Selected(selected) => {
                value.extend(selected.clients.into_iter().map(|found| Member::of(gateway, found)));
                true
            }
            _ => false,
        });
        let missing = missing.await;
        Answer { value, missing }
    }

    /// The clients' ids.
    pub async fn ids(&self) -> Answer<Vec<ClientId>> {
        let bare = Select {
            uid: false,
            groups: false,
            session: false,
            ..self.clone()
        };
        let found = bare.list().await;
        Answer {
            value: found.value.into_iter().map(|member| member.id).collect(),
            missing: found.missing,
        }
    }

    /// How many clients there are.
    pub async fn count(&self) -> Answer<u64> {
        let mut value = 0;
        let missing = self.ask(Query::Count, |_, reply| match reply {
            Reply::Count(count) => {
                value += count.count;
                true
            }
            _ => false,
        });
        let missing = missing.await;
        Answer { value, missing }
    }

    /// The uids that the clients are bound to.
    pub async fn uids(&self) -> Answer<BTreeSet<String>> {
        let mut value = BTreeSet::new();
        let missing = self.ask(Query::Uids, |_, reply| match reply {
            Reply::Uids(uids) => {
                value.extend(uids.uids);
                true
            }
            _ => false,
        });
        let missing = missing.await;
        Answer { value, missing }
    }

    /// Asks each gateway that can have such clients, with its part of the conditions. Returns the gateways that did not
    /// answer.
    async fn ask(
        &self,
        query: impl Fn(wire::Filter) -> Query,
        take: impl FnMut(GatewayId, Reply) -> bool,
    ) -> Vec<GatewayId> {
        let part = |gateway: GatewayId| {
            let here = self.clients.iter().filter(|id| id.gateway == gateway);
            let clients: Vec<_> = here.map(|id| id.number.0).collect();
            if clients.is_empty() && !self.clients.is_empty() {
                return None;
            }
            Some(query(wire::Filter {
                clients,
                ..self.filter.clone()
            }))
        };
        self.cluster.ask(part, take).await
    }
}

impl Member {
    pub(crate) fn of(gateway: GatewayId, found: wire::ClientInfo) -> Self {
        Self {
            id: ClientId::new(gateway, found.client),
            uid: found.uid,
            groups: found.groups.into_iter().collect(),
            session: found.session,
        }
    }
}
