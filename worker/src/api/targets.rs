//! Targets: the clients that a command goes to, named by id, uid or group, or all.

use std::collections::BTreeMap;

use meepo_proto::link as wire;
use meepo_proto::link::command::Body;
use meepo_proto::link::send::To;
use meepo_proto::{ClientId, ClientNumber, GatewayId, codes};

use crate::api::cluster::Cluster;
use crate::api::cluster::gateways::Gateways;
use crate::api::event::close::cut;
use crate::api::event::message::Message;

/// Most clients that one command names, so that it stays far below the gateway's limit for a command.
pub(crate) const CLIENTS_AT_ONCE: usize = 4096;
/// Most bytes of the reason in a WebSocket close frame.
pub(crate) const MAX_CLOSE_REASON: usize = 123;

/// The clients that a command goes to: each client that is meant, on any gateway, once.
///
/// ```
/// # use meepo_worker::{ClientId, Cluster};
/// # fn example(cluster: &Cluster, sender: ClientId) {
/// cluster.group("lobby").except(sender).send("someone has joined");
/// cluster.uid("ann").send("to all of your devices");
/// cluster.groups(["red", "blue"]).except_uid("ann").send("once to each member of either");
/// cluster.uid("mallory").close(4003, "you are not welcome any more");
/// # }
/// ```
#[must_use = "nothing is sent before one of its methods is called"]
#[derive(Debug, Clone)]
pub struct Target<'a> {
    cluster: &'a Cluster,
    whom: Whom,
    except: Vec<ClientId>,
    except_uids: Vec<String>,
}

#[derive(Debug, Clone)]
enum Whom {
    Clients(Vec<ClientId>),
    Uids(Vec<String>),
    Groups(Vec<String>),
    All,
}

/// The part of a target that goes to one gateway.
#[derive(Debug)]
pub(crate) struct Share {
    pub(crate) gateway: GatewayId,
    pub(crate) target: wire::Target,
}

/// Builds targets.
impl Cluster {
    /// Several clients.
    pub fn clients(&self, ids: impl IntoIterator<Item = ClientId>) -> Target<'_> {
        self.target(Whom::Clients(ids.into_iter().collect()))
    }

    /// A user: all clients that are bound to a uid.
    pub fn uid(&self, uid: impl Into<String>) -> Target<'_> {
        self.target(Whom::Uids(vec![uid.into()]))
    }

    /// Several users.
    pub fn uids<U: Into<String>>(&self, uids: impl IntoIterator<Item = U>) -> Target<'_> {
        self.target(Whom::Uids(uids.into_iter().map(Into::into).collect()))
    }

    /// All members of a group. A group is there as long as it has members.
    pub fn group(&self, name: impl Into<String>) -> Target<'_> {
        self.target(Whom::Groups(vec![name.into()]))
    }

    /// All members of several groups.
    pub fn groups<G: Into<String>>(&self, names: impl IntoIterator<Item = G>) -> Target<'_> {
        self.target(Whom::Groups(names.into_iter().map(Into::into).collect()))
    }

    /// Everyone who is online.
    pub fn all(&self) -> Target<'_> {
        self.target(Whom::All)
    }

    fn target(&self, whom: Whom) -> Target<'_> {
        Target {
            cluster: self,
            whom,
            except: Vec::new(),
            except_uids: Vec::new(),
        }
    }
}

impl Target<'_> {
    /// Leaves a client out. It can be called several times.
    pub fn except(mut self, id: ClientId) -> Self {
        self.except.push(id);
        self
    }

    /// Leaves a user out, with all clients. It can be called several times.
    pub fn except_uid(mut self, uid: impl Into<String>) -> Self {
        self.except_uids.push(uid.into());
        self
    }

    /// Sends a message to each of the clients.
    pub fn send(&self, message: impl Into<Message>) {
        let message = message.into();
        self.cluster.count_sent(&message);
        self.tell(|to| send(&message, to));
    }

    /// Closes the clients, each after all messages that it was sent before; as [`ClientTarget::close`](crate::ClientTarget::close).
    pub fn close(&self, code: u16, reason: impl Into<String>) {
        let (code, reason) = close_reason(code, reason.into());
        self.tell(|to| close(to, code, reason.clone()));
    }

    /// Cuts the clients off; as [`ClientTarget::destroy`](crate::ClientTarget::destroy).
    pub fn destroy(&self) {
        self.tell(destroy);
    }

    fn tell(&self, command: impl Fn(wire::Target) -> Body) {
        let gateways = self.cluster.gateways();
        for share in self.shares(&gateways) {
            // Clients at that gateway are not reached: one failed send for each client that is named, else for the gateway.
            let clients = share.target.clients.len().max(1) as u64;
            let link = gateways.up.get(&share.gateway);
            let told = link.is_some_and(|link| link.send(command(share.target)).is_ok());
            if !told {
                self.cluster.stats().failed_sends.add(clients);
            }
        }
    }

    /// The parts of the target for each gateway that can have such clients, whether a link to it is up or not.
    pub(crate) fn shares(&self, gateways: &Gateways) -> Vec<Share> {
        let name: &dyn Fn(&mut wire::Target) = match &self.whom {
            Whom::Clients(ids) => return self.shares_of(ids),
            Whom::Uids(uids) => &|target| target.uids.clone_from(uids),
            Whom::Groups(groups) => &|target| target.groups.clone_from(groups),
            Whom::All => &|target| target.everyone = true,
        };
        let all = gateways.up.keys().chain(&gateways.away).copied();
        let share = all.map(|gateway| {
            let here = self.except.iter().filter(|id| id.gateway == gateway);
            let mut target = wire::Target {
                except: here.map(|id| id.number.0).collect(),
                except_uids: self.except_uids.clone(),
                ..wire::Target::default()
            };
            name(&mut target);
            Share { gateway, target }
        });
        share.collect()
    }

    /// The parts for the gateways that have one of these clients.
    fn shares_of(&self, ids: &[ClientId]) -> Vec<Share> {
        let mut by_gateway = BTreeMap::<GatewayId, Vec<u64>>::new();
        for id in ids.iter().filter(|id| !self.except.contains(id)) {
            by_gateway.entry(id.gateway).or_default().push(id.number.0);
        }
        let mut shares = Vec::new();
        for (gateway, numbers) in by_gateway {
            for clients in numbers.chunks(CLIENTS_AT_ONCE) {
                let target = wire::Target {
                    clients: clients.to_vec(),
                    except_uids: self.except_uids.clone(),
                    ..wire::Target::default()
                };
                shares.push(Share { gateway, target });
            }
        }
        shares
    }
}

/// The target that is one client of a gateway.
pub(crate) fn only(client: ClientNumber) -> wire::Target {
    wire::Target {
        clients: vec![client.0],
        ..wire::Target::default()
    }
}

pub(crate) fn send(message: &Message, to: wire::Target) -> Body {
    Body::Send(wire::Send {
        payload: message.bytes().clone(),
        binary: message.is_binary(),
        to: Some(To::Target(Box::new(to))),
    })
}

/// A message to one client.
pub(crate) fn send_one(message: Message, client: ClientNumber) -> wire::Send {
    wire::Send {
        binary: message.is_binary(),
        payload: message.into_bytes(),
        to: Some(To::Client(client.0)),
    }
}

pub(crate) fn close(to: wire::Target, code: u16, reason: String) -> Body {
    Body::Close(Box::new(wire::Close {
        target: Some(to),
        code: Some(code.into()),
        reason,
        at_once: false,
    }))
}

pub(crate) fn destroy(to: wire::Target) -> Body {
    Body::Close(Box::new(wire::Close {
        target: Some(to),
        at_once: true,
        ..wire::Close::default()
    }))
}

/// A close code that may be sent, and a reason that fits in a close frame.
pub(crate) fn close_reason(code: u16, mut reason: String) -> (u16, String) {
    cut(&mut reason, MAX_CLOSE_REASON);
    if codes::may_be_sent(code) {
        return (code, reason);
    }
    tracing::warn!(code, "no application may send this close code");
    (codes::NORMAL.code, reason)
}
