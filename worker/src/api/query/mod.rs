//! Queries: what all gateways are asked at once.
//!
//! Applications and the push API ask through a cluster, over the links that are up. It knows neither single clients nor the
//! runtime.

pub(crate) mod selection;

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use meepo_proto::link as wire;
use meepo_proto::link::query::Body as Query;
use meepo_proto::link::reply::Body as Reply;
use meepo_proto::{ClientId, GatewayId};
use tokio::time::{Instant, timeout_at};

use self::selection::Member;
use crate::api::cluster::Cluster;

/// What the gateways answered, and which gateways did not answer.
///
/// ```
/// # use meepo_worker::{Client, Result};
/// # async fn example(client: &Client) -> Result<()> {
/// let members = client.cluster().members("lobby").await;
/// if !members.is_complete() {
///     return Err("some of the lobby cannot be seen now".into());
/// }
/// let names = members.value.iter().filter_map(|member| member.session.get("name"));
/// # let _ = names.count();
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<T> {
    /// What the gateways that answered know.
    pub value: T,
    /// Gateways that did not answer in time, or to which no link is up. What they know is not in the value.
    pub missing: Vec<GatewayId>,
}

impl<T> Answer<T> {
    fn map<U>(self, change: impl FnOnce(T) -> U) -> Answer<U> {
        Answer {
            value: change(self.value),
            missing: self.missing,
        }
    }

    /// Whether every gateway has answered.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }
}

/// # Queries
///
/// Each query is answered within the setting `query_timeout`, and sees the commands that this worker child sent before it.
impl Cluster {
    /// How many clients are online.
    pub async fn count(&self) -> Answer<u64> {
        self.select().count().await
    }

    /// Whether a client is online.
    pub async fn is_online(&self, id: ClientId) -> Answer<bool> {
        self.select().client(id).count().await.map(|count| count > 0)
    }

    /// Whether a user is online, with any client.
    pub async fn is_uid_online(&self, uid: impl Into<String>) -> Answer<bool> {
        self.select().uid(uid).count().await.map(|count| count > 0)
    }

    /// The clients of a user.
    pub async fn clients_of(&self, uid: impl Into<String>) -> Answer<Vec<ClientId>> {
        self.select().uid(uid).ids().await
    }

    /// The members of a group, with their uids and sessions.
    pub async fn members(&self, group: impl Into<String>) -> Answer<Vec<Member>> {
        self.select().group(group).with_uid().with_session().list().await
    }

    /// The users with a client in a group.
    pub async fn uids_in(&self, group: impl Into<String>) -> Answer<BTreeSet<String>> {
        self.select().group(group).uids().await
    }

    /// All users who are online.
    pub async fn online_uids(&self) -> Answer<BTreeSet<String>> {
        self.select().uids().await
    }

    /// The session of a client, wherever it is connected. `None` if it is not online.
    pub async fn session(&self, id: ClientId) -> Answer<Option<BTreeMap<String, String>>> {
        let found = self.select().client(id).with_session().list().await;
        found.map(|mut found| Some(found.pop()?.session))
    }

    /// The groups of a client. `None` if it is not online.
    pub async fn groups_of(&self, id: ClientId) -> Answer<Option<BTreeSet<String>>> {
        let found = self.select().client(id).with_groups().list().await;
        found.map(|mut found| Some(found.pop()?.groups))
    }

    /// The uid that a client is bound to, if it is online and bound to one.
    pub async fn uid_of(&self, id: ClientId) -> Answer<Option<String>> {
        let found = self.select().client(id).with_uid().list().await;
        found.map(|mut found| found.pop()?.uid)
    }

    /// All groups that have members, and how many members each has.
    pub async fn group_sizes(&self) -> Answer<BTreeMap<String, u64>> {
        let mut value = BTreeMap::new();
        let query = |_| Some(Query::Groups(wire::AllGroups {}));
        let missing = self.ask(query, |_, reply| match reply {
            Reply::Groups(groups) => {
                for (name, members) in groups.groups {
                    *value.entry(name).or_default() += members;
                }
                true
            }
            _ => false,
        });
        let missing = missing.await;
        Answer { value, missing }
    }

    /// Asks each gateway its query, gives each reply to `take`, which says whether it was one to the query, and
    /// returns those that did not answer.
    pub(crate) async fn ask(
        &self,
        query: impl Fn(GatewayId) -> Option<Query>,
        mut take: impl FnMut(GatewayId, Reply) -> bool,
    ) -> Vec<GatewayId> {
        let deadline = Instant::now() + self.limits().query_timeout;
        let (asked, mut missing) = {
            let gateways = self.gateways();
            let links = gateways.up.values();
            let asked: Vec<_> = links
                .filter_map(|link| Some((link.gateway, link.ask(query(link.gateway)?))))
                .collect();
            let away = gateways.away.iter().copied();
            let missing: Vec<_> = away.filter(|id| query(*id).is_some()).collect();
            (asked, missing)
        };
        let replies = asked.into_iter().map(async |(gateway, asked)| {
            let reply = async { asked?.reply().await };
            (gateway, timeout_at(deadline, reply).await.ok().flatten())
        });
        for (gateway, reply) in join_all(replies).await {
            if !reply.is_some_and(|reply| take(gateway, reply)) {
                missing.push(gateway);
            }
        }
        missing
    }
}
