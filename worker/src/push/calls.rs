//! The calls of the push API, over HTTP and gRPC alike.

use meepo_proto::link as wire;
use meepo_proto::link::command::Body;
use meepo_proto::push::*;
use meepo_proto::{ClientId, ClientNumber, GatewayId};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::fields;
use super::orders::{CarriedOut, Orders};
use super::problem::{Problem, ProblemKind, names};
use crate::api::targets as target;
use crate::{Answer, Cluster, Member, Message};

/// A call that can be carried out. The types are those of `push.proto`.
pub(crate) trait Call: DeserializeOwned + JsonSchema + Send + 'static {
    /// The path of the call over HTTP.
    const PATH: &'static str;
    /// The answer.
    type Reply: Serialize + JsonSchema + Send;

    /// Carries the call out.
    fn carry_out(self, cluster: &Cluster) -> impl Future<Output = Result<Self::Reply, Problem>> + Send;
}

impl Call for SendRequest {
    const PATH: &'static str = "/api/send";
    type Reply = SendReply;

    async fn carry_out(self, cluster: &Cluster) -> Result<SendReply, Problem> {
        let field = if self.binary.is_some() { "binary" } else { "text" };
        let to = fields::target(cluster, self.to.as_ref())?;
        let message = fields::message(self.text, self.binary)?;
        let mut orders = Orders::new(cluster)?;
        check_size(cluster, field, &message)?;
        if self.confirm {
            return confirm(cluster, self.to.unwrap_or_default(), message).await;
        }
        orders.add(&to, |to| target::send(&message, to));
        let outcome = orders.carry_out(&wire::Select::default()).await?;
        cluster.count_sent(&message);
        Ok(SendReply {
            gone: ids(&outcome.gone),
            missing: names(&outcome.missing),
            receipt: None,
        })
    }
}

/// Sends a message to one client, and waits for its receipt.
async fn confirm(cluster: &Cluster, to: Target, message: Message) -> Result<SendReply, Problem> {
    let only = Target {
        clients: to.clients.clone(),
        ..Target::default()
    };
    if to.clients.len() != 1 || to != only {
        return Err(Problem::field(
            "confirm",
            "only a message to one client can be confirmed",
        ));
    }
    let id = fields::client("to.clients[0]", &to.clients[0])?;
    let link = cluster.gateways().up.get(&id.gateway).cloned();
    if let Some(link) = link {
        if !link.has_half() {
            let why = format!("the queue towards the gateway {} is full", id.gateway);
            return Err(Problem::new(ProblemKind::QueueFull, why));
        }
    } else if cluster.gateways().away.contains(&id.gateway) {
        return Err(Problem::unanswered(&[id.gateway]));
    }
    let receipt = match cluster.client(id).send_and_confirm(message).await {
        crate::Receipt::Delivered => Receipt::Delivered,
        crate::Receipt::Gone => Receipt::Gone,
        crate::Receipt::Full => Receipt::Full,
        crate::Receipt::Refused => Receipt::Refused,
        crate::Receipt::Unknown => Receipt::Unknown,
    };
    let gone = (receipt == Receipt::Gone).then_some(id);
    Ok(SendReply {
        gone: ids(&Vec::from_iter(gone)),
        missing: Vec::new(),
        receipt: Some(receipt.into()),
    })
}

/// Refuses a message that a gateway would refuse.
fn check_size(cluster: &Cluster, field: &str, message: &Message) -> Result<(), Problem> {
    match cluster.max_message() {
        Some(limit) if message.bytes().len() as u64 > limit => {
            let why = format!("the message is over the gateways' limit of {limit} bytes");
            Err(Problem::new(ProblemKind::TooLarge, why).of(field))
        }
        _ => Ok(()),
    }
}

impl Call for CloseRequest {
    const PATH: &'static str = "/api/close";
    type Reply = CommandReply;

    async fn carry_out(self, cluster: &Cluster) -> Result<CommandReply, Problem> {
        let to = fields::target(cluster, self.to.as_ref())?;
        let (code, reason) = fields::close(self.code, self.reason)?;
        let mut orders = Orders::new(cluster)?;
        match self.at_once {
            true => orders.add(&to, target::destroy),
            false => orders.add(&to, |to| target::close(to, code, reason.clone())),
        }
        Ok(reply(orders.carry_out_last().await?, |_| true))
    }
}

impl Call for JoinRequest {
    const PATH: &'static str = "/api/join";
    type Reply = CommandReply;

    async fn carry_out(self, cluster: &Cluster) -> Result<CommandReply, Problem> {
        fields::name("group", &self.group)?;
        let group = self.group;
        let join = |ClientNumber(client)| {
            Body::Join(wire::Join {
                client,
                group: group.clone(),
            })
        };
        let outcome = to_each(cluster, &self.clients, join, &with_groups()).await?;
        Ok(reply(outcome, |member| member.groups.contains(&group)))
    }
}

impl Call for LeaveRequest {
    const PATH: &'static str = "/api/leave";
    type Reply = CommandReply;

    async fn carry_out(self, cluster: &Cluster) -> Result<CommandReply, Problem> {
        fields::name("group", &self.group)?;
        let group = self.group;
        let leave = |ClientNumber(client)| {
            Body::Leave(wire::Leave {
                client,
                group: group.clone(),
            })
        };
        let outcome = to_each(cluster, &self.clients, leave, &with_groups()).await?;
        Ok(reply(outcome, |member| !member.groups.contains(&group)))
    }
}

impl Call for DissolveRequest {
    const PATH: &'static str = "/api/dissolve";
    type Reply = CommandReply;

    async fn carry_out(self, cluster: &Cluster) -> Result<CommandReply, Problem> {
        fields::name("group", &self.group)?;
        let mut orders = Orders::new(cluster)?;
        let dissolve = |_| {
            Body::Dissolve(wire::Dissolve {
                group: self.group.clone(),
            })
        };
        orders.add(&cluster.all(), dissolve);
        Ok(reply(orders.carry_out(&wire::Select::default()).await?, |_| true))
    }
}

impl Call for BindRequest {
    const PATH: &'static str = "/api/bind";
    type Reply = CommandReply;

    async fn carry_out(self, cluster: &Cluster) -> Result<CommandReply, Problem> {
        fields::name("uid", &self.uid)?;
        let uid = self.uid;
        let bind = |ClientNumber(client)| {
            Body::Bind(wire::Bind {
                client,
                uid: uid.clone(),
            })
        };
        let outcome = to_each(cluster, &self.clients, bind, &with_uid()).await?;
        Ok(reply(outcome, |member| member.uid.as_deref() == Some(&*uid)))
    }
}

impl Call for UnbindRequest {
    const PATH: &'static str = "/api/unbind";
    type Reply = CommandReply;

    async fn carry_out(self, cluster: &Cluster) -> Result<CommandReply, Problem> {
        let unbind = |ClientNumber(client)| Body::Unbind(wire::Unbind { client });
        let outcome = to_each(cluster, &self.clients, unbind, &with_uid()).await?;
        Ok(reply(outcome, |member| member.uid.is_none()))
    }
}

impl Call for UpdateSessionRequest {
    const PATH: &'static str = "/api/session/update";
    type Reply = CommandReply;

    async fn carry_out(self, cluster: &Cluster) -> Result<CommandReply, Problem> {
        fields::short("remove", &self.remove)?;
        let Self { client, set, remove } = self;
        let change = wire::SessionUpdate {
            set: set.clone(),
            remove: remove.clone(),
            ..wire::SessionUpdate::default()
        };
        let outcome = change_session(cluster, &client, change).await?;
        Ok(reply(outcome, |member| {
            let is_set = set.iter().all(|(key, value)| member.session.get(key) == Some(value));
            let removed = remove
                .iter()
                .all(|key| set.contains_key(key) || !member.session.contains_key(key));
            is_set && removed
        }))
    }
}

impl Call for ReplaceSessionRequest {
    const PATH: &'static str = "/api/session/replace";
    type Reply = CommandReply;

    async fn carry_out(self, cluster: &Cluster) -> Result<CommandReply, Problem> {
        let session = self.session;
        let change = wire::SessionUpdate {
            set: session.clone(),
            clear: true,
            ..wire::SessionUpdate::default()
        };
        let outcome = change_session(cluster, &self.client, change).await?;
        Ok(reply(outcome, |member| member.session == session))
    }
}

async fn change_session(cluster: &Cluster, client: &str, change: wire::SessionUpdate) -> Result<CarriedOut, Problem> {
    let id = fields::client("client", client)?;
    let mut orders = Orders::new(cluster)?;
    let update = wire::SessionUpdate {
        client: id.number.0,
        ..change
    };
    orders.add_client(id, Body::Session(update));
    let wanted = wire::Select {
        session: true,
        ..wire::Select::default()
    };
    orders.carry_out(&wanted).await
}

impl Call for GetSessionRequest {
    const PATH: &'static str = "/api/session/get";
    type Reply = GetSessionReply;

    async fn carry_out(self, cluster: &Cluster) -> Result<GetSessionReply, Problem> {
        let id = fields::client("client", &self.client)?;
        let session = known_of_one(cluster, cluster.session(id).await)?;
        Ok(GetSessionReply {
            online: session.is_some(),
            session: session.unwrap_or_default(),
        })
    }
}

impl Call for CountRequest {
    const PATH: &'static str = "/api/query/count";
    type Reply = CountReply;

    async fn carry_out(self, cluster: &Cluster) -> Result<CountReply, Problem> {
        let select = fields::select(cluster, self.filter)?;
        let (count, missing) = known(cluster, select.count().await)?;
        Ok(CountReply { count, missing })
    }
}

impl Call for OnlineRequest {
    const PATH: &'static str = "/api/query/online";
    type Reply = OnlineReply;

    async fn carry_out(self, cluster: &Cluster) -> Result<OnlineReply, Problem> {
        let (online, missing) = match (self.client, self.uid) {
            (Some(client), None) => {
                let id = fields::client("client", &client)?;
                (known_of_one(cluster, cluster.is_online(id).await)?, Vec::new())
            }
            (None, Some(uid)) => {
                fields::name("uid", &uid)?;
                known(cluster, cluster.is_uid_online(uid).await)?
            }
            _ => {
                return Err(Problem::field(
                    "client",
                    "there has to be exactly one of client and uid",
                ));
            }
        };
        Ok(OnlineReply { online, missing })
    }
}

impl Call for SelectRequest {
    const PATH: &'static str = "/api/query/select";
    type Reply = SelectReply;

    async fn carry_out(self, cluster: &Cluster) -> Result<SelectReply, Problem> {
        let mut select = fields::select(cluster, self.filter)?;
        if self.uid {
            select = select.with_uid();
        }
        if self.groups {
            select = select.with_groups();
        }
        if self.session {
            select = select.with_session();
        }
        let (members, missing) = known(cluster, select.list().await)?;
        let clients = members.into_iter().map(|member| meepo_proto::push::Member {
            id: member.id.to_string(),
            uid: member.uid,
            groups: member.groups.into_iter().collect(),
            session: member.session,
        });
        Ok(SelectReply {
            clients: clients.collect(),
            missing,
        })
    }
}

impl Call for UidsRequest {
    const PATH: &'static str = "/api/query/uids";
    type Reply = UidsReply;

    async fn carry_out(self, cluster: &Cluster) -> Result<UidsReply, Problem> {
        let select = fields::select(cluster, self.filter)?;
        let (uids, missing) = known(cluster, select.uids().await)?;
        Ok(UidsReply {
            uids: uids.into_iter().collect(),
            missing,
        })
    }
}

impl Call for GroupsRequest {
    const PATH: &'static str = "/api/query/groups";
    type Reply = GroupsReply;

    async fn carry_out(self, cluster: &Cluster) -> Result<GroupsReply, Problem> {
        let (groups, missing) = known(cluster, cluster.group_sizes().await)?;
        Ok(GroupsReply { groups, missing })
    }
}

/// A command about each of some clients.
async fn to_each(
    cluster: &Cluster,
    clients: &[String],
    command: impl Fn(ClientNumber) -> Body,
    wanted: &wire::Select,
) -> Result<CarriedOut, Problem> {
    let clients = fields::clients("clients", clients)?;
    let mut orders = Orders::new(cluster)?;
    for id in clients {
        orders.add_client(id, command(id.number));
    }
    orders.carry_out(wanted).await
}

fn with_groups() -> wire::Select {
    wire::Select {
        groups: true,
        ..wire::Select::default()
    }
}

fn with_uid() -> wire::Select {
    wire::Select {
        uid: true,
        ..wire::Select::default()
    }
}

/// The answer to a command. `done` says of a client that is there whether the command was carried out for it.
fn reply(outcome: CarriedOut, done: impl Fn(&Member) -> bool) -> CommandReply {
    let refused = outcome.found.iter().filter(|member| !done(member));
    CommandReply {
        refused: refused.map(|member| member.id.to_string()).collect(),
        gone: ids(&outcome.gone),
        missing: names(&outcome.missing),
    }
}

/// The value of an answer, with the gateways that are missing in it. An error if no gateway has answered.
fn known<T>(cluster: &Cluster, answer: Answer<T>) -> Result<(T, Vec<String>), Problem> {
    let Answer { value, missing } = answer;
    let (up, away): (Vec<GatewayId>, usize) = {
        let gateways = cluster.gateways();
        (gateways.up.keys().copied().collect(), gateways.away.len())
    };
    if up.is_empty() && away == 0 && missing.is_empty() {
        return Err(Problem::new(ProblemKind::NoGateway, "no gateway is there"));
    }
    let answered = missing.is_empty() || up.iter().any(|gateway| !missing.contains(gateway));
    match answered {
        true => Ok((value, names(&missing))),
        false => Err(Problem::unanswered(&missing)),
    }
}

/// The value of an answer that only one gateway can give. An error if it has not answered.
fn known_of_one<T>(cluster: &Cluster, answer: Answer<T>) -> Result<T, Problem> {
    match answer.missing.is_empty() {
        true => Ok(known(cluster, answer)?.0),
        false => Err(Problem::unanswered(&answer.missing)),
    }
}

fn ids(clients: &[ClientId]) -> Vec<String> {
    clients.iter().map(ToString::to_string).collect()
}
