//! Questions that all gateways are asked at once.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use meepo_proto::link as wire;
use meepo_proto::link::query::Body as Question;
use meepo_proto::link::reply::Body as Reply;
use meepo_proto::{ClientId, GatewayId};
use tokio::time::{Instant, timeout_at};

use crate::Cluster;

/// What the gateways answered, and which did not.
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
    /// What those that answered know.
    pub value: T,
    /// Gateways that did not answer in time, or that no link leads to now. What they know is not in the value.
    pub missing: Vec<GatewayId>,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The client.
    pub id: ClientId,
    /// Its session.
    pub session: BTreeMap<String, String>,
}

impl<T> Answer<T> {
    /// Whether every gateway has answered.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }
}

/// Each question is answered within the setting `query_timeout`, and sees what this worker child sent before it.
impl Cluster {
    /// The members of a group and their sessions.
    pub async fn members(&self, group: impl Into<String>) -> Answer<Vec<Member>> {
        let mut value = Vec::new();
        let question = Question::Members(group.into());
        let missing = self.ask_all(question, |gateway, reply| match reply {
            Reply::Members(members) => {
                value.extend(members.members.into_iter().map(|member| Member {
                    id: ClientId::new(gateway, member.client),
                    session: member.session,
                }));
                true
            }
            _ => false,
        });
        let missing = missing.await;
        Answer { value, missing }
    }

    /// All groups that have members, and how many.
    pub async fn groups(&self) -> Answer<BTreeMap<String, u64>> {
        let mut value = BTreeMap::new();
        let question = Question::Groups(wire::AllGroups {});
        let missing = self.ask_all(question, |_, reply| match reply {
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

    /// How many clients are online.
    pub async fn online(&self) -> Answer<u64> {
        let mut value = 0;
        let question = Question::Count(wire::Everyone {});
        let missing = self.ask_all(question, |_, reply| match reply {
            Reply::Count(count) => {
                value += count.count;
                true
            }
            _ => false,
        });
        let missing = missing.await;
        Answer { value, missing }
    }

    /// The session of a client, wherever it is connected. Nothing if it is not online.
    pub async fn session(&self, id: ClientId) -> Answer<Option<BTreeMap<String, String>>> {
        let mut value = None;
        let question = Question::Session(id.number);
        let missing = self.ask(
            question,
            |gateway| gateway == id.gateway,
            |_, reply| match reply {
                Reply::Session(session) => {
                    value = session.online.then_some(session.session);
                    true
                }
                _ => false,
            },
        );
        let missing = missing.await;
        Answer { value, missing }
    }

    async fn ask_all(&self, question: Question, take: impl FnMut(GatewayId, Reply) -> bool) -> Vec<GatewayId> {
        self.ask(question, |_| true, take).await
    }

    /// Asks the gateways that are meant, gives each reply to `take`, which says whether it was one to the question, and
    /// returns those that did not answer.
    async fn ask(
        &self,
        question: Question,
        meant: impl Fn(GatewayId) -> bool,
        mut take: impl FnMut(GatewayId, Reply) -> bool,
    ) -> Vec<GatewayId> {
        let deadline = Instant::now() + self.query_timeout();
        let (links, mut missing) = {
            let gateways = self.gateways();
            let links: Vec<_> = gateways
                .up
                .values()
                .filter(|link| meant(link.gateway))
                .cloned()
                .collect();
            let away: Vec<_> = gateways.away.iter().copied().filter(|id| meant(*id)).collect();
            (links, away)
        };
        let replies = links.iter().map(|link| {
            let asked = link.ask(question.clone());
            async move { timeout_at(deadline, asked?.reply()).await.ok().flatten() }
        });
        for (link, reply) in links.iter().zip(join_all(replies).await) {
            if !reply.is_some_and(|reply| take(link.gateway, reply)) {
                missing.push(link.gateway);
            }
        }
        missing
    }
}
