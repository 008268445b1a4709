//! Whom something goes to: several clients, users, groups, or everyone.

use std::collections::BTreeMap;

use meepo_proto::link as wire;
use meepo_proto::link::command::Body;
use meepo_proto::{ClientId, GatewayId, codes};

use crate::close::cut;
use crate::{Cluster, Message};

/// Most clients that one command names, so that it stays far below the gateway's limit for a command.
const CLIENTS_AT_ONCE: usize = 4096;
/// Most bytes of the reason in a WebSocket close frame.
pub(crate) const MAX_CLOSE_REASON: usize = 123;

/// Whom something goes to: each client that is meant, on any gateway, once.
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
#[must_use = "nothing is done before one of its methods"]
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

/// Builds targets.
impl Cluster {
    /// Several clients.
    pub fn clients(&self, ids: impl IntoIterator<Item = ClientId>) -> Target<'_> {
        self.target(Whom::Clients(ids.into_iter().collect()))
    }

    /// A user: all clients that are bound to this uid.
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
    /// Leaves a client out. It can be said several times.
    pub fn except(mut self, id: ClientId) -> Self {
        self.except.push(id);
        self
    }

    /// Leaves a user out, with all clients. It can be said several times.
    pub fn except_uid(mut self, uid: impl Into<String>) -> Self {
        self.except_uids.push(uid.into());
        self
    }

    /// Sends a message.
    pub fn send(&self, message: impl Into<Message>) {
        let message = message.into();
        self.cluster.count_sent(&message);
        self.tell(|to| send(&message, to));
    }

    /// Closes the clients, each after all that it was sent before; as [`ClientTarget::close`](crate::ClientTarget::close).
    pub fn close(&self, code: u16, reason: impl Into<String>) {
        let (code, reason) = close_reason(code, reason.into());
        self.tell(|to| close(to, code, reason.clone()));
    }

    /// Cuts the clients off; as [`ClientTarget::destroy`](crate::ClientTarget::destroy).
    pub fn destroy(&self) {
        self.tell(destroy);
    }

    fn tell(&self, command: impl Fn(wire::Target) -> Body) {
        match &self.whom {
            Whom::Clients(ids) => self.tell_those(ids, command),
            Whom::Uids(uids) => self.tell_all(command, |target| target.uids.clone_from(uids)),
            Whom::Groups(groups) => self.tell_all(command, |target| target.groups.clone_from(groups)),
            Whom::All => self.tell_all(command, |target| target.everyone = true),
        }
    }

    /// Tells the gateways that have one of these clients.
    fn tell_those(&self, ids: &[ClientId], command: impl Fn(wire::Target) -> Body) {
        let mut by_gateway = BTreeMap::<GatewayId, Vec<u64>>::new();
        for id in ids.iter().filter(|id| !self.except.contains(id)) {
            by_gateway.entry(id.gateway).or_default().push(id.number);
        }
        let gateways = self.cluster.gateways();
        for (gateway, numbers) in by_gateway {
            let link = gateways.up.get(&gateway);
            for clients in numbers.chunks(CLIENTS_AT_ONCE) {
                let target = wire::Target {
                    clients: clients.to_vec(),
                    except_uids: self.except_uids.clone(),
                    ..wire::Target::default()
                };
                let told = link.is_some_and(|link| link.send(command(target)).is_ok());
                if !told {
                    self.cluster.stats().failed_sends.add(clients.len() as u64);
                }
            }
        }
    }

    fn tell_all(&self, command: impl Fn(wire::Target) -> Body, name: impl Fn(&mut wire::Target)) {
        let gateways = self.cluster.gateways();
        // Clients there, if any, are not reached: one failed send for each such gateway.
        let mut failed = gateways.away.len() as u64;
        for (gateway, link) in &gateways.up {
            let here = self.except.iter().filter(|id| id.gateway == *gateway);
            let mut target = wire::Target {
                except: here.map(|id| id.number).collect(),
                except_uids: self.except_uids.clone(),
                ..wire::Target::default()
            };
            name(&mut target);
            if link.send(command(target)).is_err() {
                failed += 1;
            }
        }
        if failed > 0 {
            self.cluster.stats().failed_sends.add(failed);
        }
    }
}

/// A target that is one client of a gateway.
pub(crate) fn only(client: u64) -> wire::Target {
    wire::Target {
        clients: vec![client],
        ..wire::Target::default()
    }
}

pub(crate) fn send(message: &Message, to: wire::Target) -> Body {
    Body::Send(wire_message(message, to))
}

pub(crate) fn wire_message(message: &Message, to: wire::Target) -> wire::Send {
    wire::Send {
        payload: message.bytes().clone(),
        binary: message.is_binary(),
        to: Some(to),
    }
}

pub(crate) fn close(to: wire::Target, code: u16, reason: String) -> Body {
    Body::Close(wire::Close {
        to: Some(to),
        code: code.into(),
        reason,
        at_once: false,
    })
}

pub(crate) fn destroy(to: wire::Target) -> Body {
    Body::Close(wire::Close {
        to: Some(to),
        at_once: true,
        ..wire::Close::default()
    })
}

/// What may be sent of a close code and a reason.
pub(crate) fn close_reason(code: u16, mut reason: String) -> (u16, String) {
    cut(&mut reason, MAX_CLOSE_REASON);
    if codes::may_be_sent(code) {
        return (code, reason);
    }
    tracing::warn!(code, "no application may send this close code");
    (codes::NORMAL.code, reason)
}
