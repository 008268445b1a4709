//! Commands to several gateways, and their outcome.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::join_all;
use meepo_proto::link as wire;
use meepo_proto::link::command::Body;
use meepo_proto::link::query::Body as Query;
use meepo_proto::link::reply::Body as Reply;
use meepo_proto::{ClientId, ClientNumber, GatewayId};
use tokio::time::{Instant, timeout_at};

use super::problem::{Problem, ProblemKind};
use crate::api::cluster::gateways::Gateways;
use crate::link::Link;
use crate::{Cluster, Member, Target};

/// Commands to several gateways. They are sent together, over the links that were up at one moment, each with a query
/// behind it: a gateway that answers the query has carried out the command.
pub(super) struct Orders<'a> {
    cluster: &'a Cluster,
    gateways: Gateways,
    parts: BTreeMap<GatewayId, Part>,
    gone: Vec<ClientId>,
    missing: BTreeSet<GatewayId>,
}

/// The commands to one gateway.
struct Part {
    link: Arc<Link>,
    commands: Vec<Body>,
    /// The clients that the commands name.
    clients: Vec<ClientNumber>,
}

/// The outcome of commands.
#[derive(Debug, Default)]
pub(super) struct CarriedOut {
    /// Clients that the commands name, and that are there.
    pub(super) found: Vec<Member>,
    pub(super) gone: Vec<ClientId>,
    pub(super) missing: Vec<GatewayId>,
}

impl<'a> Orders<'a> {
    pub(super) fn new(cluster: &'a Cluster) -> Result<Self, Problem> {
        let gateways = cluster.gateways().clone();
        if gateways.up.is_empty() && gateways.away.is_empty() {
            return Err(Problem::new(ProblemKind::NoGateway, "no gateway is there"));
        }
        Ok(Self {
            cluster,
            gateways,
            parts: BTreeMap::new(),
            gone: Vec::new(),
            missing: BTreeSet::new(),
        })
    }

    /// Adds a command to all clients of a target.
    pub(super) fn add(&mut self, target: &Target<'_>, command: impl Fn(wire::Target) -> Body) {
        for share in target.shares(&self.gateways) {
            let clients = share.target.clients.iter().copied().map(ClientNumber).collect();
            self.put(share.gateway, clients, command(share.target));
        }
    }

    /// Adds a command about one client.
    pub(super) fn add_client(&mut self, id: ClientId, command: Body) {
        self.put(id.gateway, vec![id.number], command);
    }

    fn put(&mut self, gateway: GatewayId, clients: Vec<ClientNumber>, command: Body) {
        if let Some(link) = self.gateways.up.get(&gateway) {
            let part = self.parts.entry(gateway).or_insert_with(|| Part {
                link: link.clone(),
                commands: Vec::new(),
                clients: Vec::new(),
            });
            part.commands.push(command);
            part.clients.extend(clients);
        } else if self.gateways.away.contains(&gateway) {
            self.missing.insert(gateway);
        } else {
            let gone = clients.into_iter().map(|number| ClientId::new(gateway, number));
            self.gone.extend(gone);
        }
    }

    /// Sends the commands, and waits until all gateways have carried them out, for the setting `query_timeout` at most.
    /// `wanted` says what is asked of the clients that the commands name.
    pub(super) async fn carry_out(self, wanted: &wire::Select) -> Result<CarriedOut, Problem> {
        self.carry_out_with(wanted, false).await
    }

    /// The same for commands that end clients: the gateways are asked before which of the clients are there.
    pub(super) async fn carry_out_last(self) -> Result<CarriedOut, Problem> {
        self.carry_out_with(&wire::Select::default(), true).await
    }

    async fn carry_out_with(mut self, wanted: &wire::Select, last: bool) -> Result<CarriedOut, Problem> {
        self.check()?;
        let deadline = Instant::now() + self.cluster.limits().query_timeout;
        let mut asked = Vec::new();
        for (gateway, part) in std::mem::take(&mut self.parts) {
            let who = (!part.clients.is_empty()).then(|| who(&part.clients, wanted));
            let barrier = Query::Barrier(wire::Barrier {});
            let queries = match (who, last) {
                (Some(who), true) => {
                    let who = part.link.ask(who);
                    part.tell();
                    [who, part.link.ask(barrier)]
                }
                (who, _) => {
                    part.tell();
                    let asked = part.link.ask(who.unwrap_or(barrier));
                    [asked, None]
                }
            };
            asked.push((gateway, part.clients, queries));
        }
        let replies = asked.into_iter().map(async |(gateway, clients, queries)| {
            let mut replies = Vec::new();
            for asked in queries.into_iter().flatten() {
                replies.push(timeout_at(deadline, asked.reply()).await.ok().flatten());
            }
            (gateway, clients, replies)
        });
        let mut outcome = CarriedOut::default();
        let mut answered = false;
        for (gateway, clients, replies) in join_all(replies).await {
            // Over a link that has ended no query was sent.
            if replies.is_empty() || replies.iter().any(Option::is_none) {
                self.missing.insert(gateway);
                continue;
            }
            answered = true;
            if clients.is_empty() {
                continue;
            }
            let found = replies.into_iter().flatten().find_map(|reply| match reply {
                Reply::Selected(selected) => Some(selected.clients),
                _ => None,
            });
            let found = found.unwrap_or_default();
            let there: BTreeSet<_> = found.iter().map(|found| ClientNumber(found.client)).collect();
            let gone = clients.into_iter().filter(|number| !there.contains(number));
            self.gone.extend(gone.map(|number| ClientId::new(gateway, number)));
            outcome
                .found
                .extend(found.into_iter().map(|found| Member::of(gateway, found)));
        }
        outcome.gone = self.gone;
        outcome.missing = self.missing.into_iter().collect();
        let failed = outcome.gone.len() + outcome.missing.len();
        self.cluster.stats().failed_sends.add(failed as u64);
        match answered || !outcome.gone.is_empty() || outcome.missing.is_empty() {
            true => Ok(outcome),
            false => Err(Problem::unanswered(&outcome.missing)),
        }
    }

    /// Refuses commands that do not fit, before any of them is sent.
    fn check(&self) -> Result<(), Problem> {
        for (gateway, part) in &self.parts {
            if !part.link.has_half() {
                let why = format!("the queue towards the gateway {gateway} is full");
                return Err(Problem::new(ProblemKind::QueueFull, why));
            }
            if !part.commands.iter().all(|command| part.link.takes(command)) {
                let why = format!("it is more than the gateway {gateway} takes in one command");
                return Err(Problem::new(ProblemKind::TooLarge, why));
            }
        }
        Ok(())
    }
}

impl Part {
    fn tell(&self) {
        for command in &self.commands {
            // If the link has ended, the query that follows fails.
            let _ = self.link.send(command.clone());
        }
    }
}

fn who(clients: &[ClientNumber], wanted: &wire::Select) -> Query {
    Query::Select(wire::Select {
        filter: Some(wire::Filter {
            clients: clients.iter().map(|number| number.0).collect(),
            ..wire::Filter::default()
        }),
        ..wanted.clone()
    })
}
