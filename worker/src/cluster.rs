//! All gateways and their clients: whom to send to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use meepo_node::stats::Slot;
use meepo_proto::link as wire;
use meepo_proto::link::command::Body;
use meepo_proto::link::send::To;
use meepo_proto::{ClientId, GatewayId, codes};

use crate::Message;
use crate::client::Known;
use crate::close::cut;
use crate::link::{Link, NotSent};
use crate::room::Room;

/// Most clients that one command names, so that it stays far below the gateway's limit for a command.
const CLIENTS_AT_ONCE: usize = 4096;
/// Most bytes of the reason in a WebSocket close frame.
const MAX_CLOSE_REASON: usize = 123;

/// All gateways of the cluster and their clients.
///
/// It is cheap to clone, and works outside of a handler too: in a timer, in a task that waits for a database.
///
/// Sends do not wait: they are queued, and carried out by each gateway in the order in which this worker child made
/// them. What cannot reach its client, because the client or its gateway has gone, is counted as a failed send.
/// Questions are async, ask all gateways at once, and say which did not [answer](crate::Answer).
///
/// ```
/// use std::time::Duration;
/// use meepo_worker::{Client, Cluster, Handler, Message, Result};
///
/// struct Clock;
///
/// impl Handler for Clock {
///     async fn on_start(&self, cluster: &Cluster) -> Result<()> {
///         let cluster = cluster.clone();
///         tokio::spawn(async move {
///             loop {
///                 tokio::time::sleep(Duration::from_secs(1)).await;
///                 cluster.all().send("tick");
///             }
///         });
///         Ok(())
///     }
///
///     async fn on_message(&self, client: &Client, _message: Message) -> Result<()> {
///         let online = client.cluster().online().await;
///         client.send(format!("{} are here", online.value));
///         Ok(())
///     }
/// }
/// ```
#[derive(Clone)]
pub struct Cluster {
    shared: Arc<Shared>,
}

struct Shared {
    gateways: RwLock<Gateways>,
    stats: &'static Slot,
    query_timeout: Duration,
    /// The room of all links together.
    room: Arc<Room>,
    served: OnceLock<Box<Served>>,
}

/// Finds what this worker child knows of a client that it serves.
type Served = dyn Fn(ClientId) -> Option<Arc<Known>> + Send + Sync;

/// The gateway children that this worker child knows.
#[derive(Debug, Default)]
pub(crate) struct Gateways {
    /// Those with a link that is up.
    pub(crate) up: BTreeMap<GatewayId, Arc<Link>>,
    /// Those that live, by what the registry says, and have no link now.
    pub(crate) away: BTreeSet<GatewayId>,
}

impl Cluster {
    pub(crate) fn new(stats: &'static Slot, query_timeout: Duration, room: Arc<Room>) -> Self {
        Self {
            shared: Arc::new(Shared {
                gateways: RwLock::default(),
                stats,
                query_timeout,
                room,
                served: OnceLock::new(),
            }),
        }
    }

    /// Tells how to find a client that this worker child serves. It is told once.
    pub(crate) fn serves(&self, served: impl Fn(ClientId) -> Option<Arc<Known>> + Send + Sync + 'static) {
        let _ = self.shared.served.set(Box::new(served));
    }

    /// One client.
    pub fn client(&self, id: ClientId) -> ClientTarget<'_> {
        ClientTarget {
            cluster: self,
            id,
            known: None,
        }
    }

    /// Several clients, on any gateways.
    pub fn clients(&self, ids: impl IntoIterator<Item = ClientId>) -> Target<'_> {
        self.target(Whom::Clients(ids.into_iter().collect()))
    }

    /// All members of a group, on all gateways. A group is there as long as it has members.
    pub fn group(&self, name: impl Into<String>) -> Target<'_> {
        self.target(Whom::Group(name.into()))
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
        }
    }

    pub(crate) fn gateways(&self) -> RwLockReadGuard<'_, Gateways> {
        self.shared.gateways.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn change_gateways(&self, change: impl FnOnce(&mut Gateways)) {
        let mut gateways = self.shared.gateways.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut gateways);
        self.shared.stats.links.set(gateways.up.len() as u64);
    }

    pub(crate) fn stats(&self) -> &'static Slot {
        self.shared.stats
    }

    pub(crate) fn query_timeout(&self) -> Duration {
        self.shared.query_timeout
    }

    pub(crate) fn room(&self) -> &Arc<Room> {
        &self.shared.room
    }

    /// What this worker child knows of a client, if it serves it.
    fn served(&self, id: ClientId) -> Option<Arc<Known>> {
        self.shared.served.get().and_then(|served| served(id))
    }

    fn count_sent(&self, message: &Message) {
        self.shared.stats.messages_out.add(1);
        self.shared.stats.bytes_out.add(message.bytes().len() as u64);
    }
}

/// Whom a message goes to.
///
/// ```
/// # use meepo_worker::{ClientId, Cluster};
/// # fn example(cluster: &Cluster, sender: ClientId) {
/// cluster.group("lobby").except(sender).send("someone has joined");
/// # }
/// ```
#[must_use = "nothing is sent before `send`"]
#[derive(Debug, Clone)]
pub struct Target<'a> {
    cluster: &'a Cluster,
    whom: Whom,
    except: Vec<ClientId>,
}

#[derive(Debug, Clone)]
enum Whom {
    Clients(Vec<ClientId>),
    Group(String),
    All,
}

impl Target<'_> {
    /// Leaves a client out. It can be said several times.
    pub fn except(mut self, id: ClientId) -> Self {
        self.except.push(id);
        self
    }

    /// Sends a message.
    pub fn send(&self, message: impl Into<Message>) {
        let message = message.into();
        self.cluster.count_sent(&message);
        match &self.whom {
            Whom::Clients(ids) => self.send_to_clients(ids, &message),
            Whom::Group(name) => self.send_to_all(To::Group(name.clone()), &message),
            Whom::All => self.send_to_all(To::Everyone(wire::Everyone {}), &message),
        }
    }

    fn send_to_clients(&self, ids: &[ClientId], message: &Message) {
        let mut by_gateway = BTreeMap::<GatewayId, Vec<u64>>::new();
        for id in ids.iter().filter(|id| !self.except.contains(id)) {
            by_gateway.entry(id.gateway).or_default().push(id.number);
        }
        let gateways = self.cluster.gateways();
        for (gateway, numbers) in by_gateway {
            let link = gateways.up.get(&gateway);
            for clients in numbers.chunks(CLIENTS_AT_ONCE) {
                let to = To::Clients(wire::Clients {
                    clients: clients.to_vec(),
                });
                let sent = link.is_some_and(|link| link.send(send(message, Vec::new(), to)).is_ok());
                if !sent {
                    self.cluster.stats().failed_sends.add(clients.len() as u64);
                }
            }
        }
    }

    fn send_to_all(&self, to: To, message: &Message) {
        let gateways = self.cluster.gateways();
        // Members there, if any, are not reached: one failed send for each such gateway.
        let mut failed = gateways.away.len() as u64;
        for (gateway, link) in &gateways.up {
            let here = self.except.iter().filter(|id| id.gateway == *gateway);
            let except = here.map(|id| id.number).collect();
            if link.send(send(message, except, to.clone())).is_err() {
                failed += 1;
            }
        }
        if failed > 0 {
            self.cluster.stats().failed_sends.add(failed);
        }
    }
}

fn send(message: &Message, except: Vec<u64>, to: To) -> Body {
    Body::Send(wire::Send {
        payload: message.bytes().clone(),
        binary: message.is_binary(),
        except,
        to: Some(to),
    })
}

/// One client, wherever it is connected.
///
/// ```
/// # use meepo_worker::{ClientId, Cluster};
/// # fn example(cluster: &Cluster, guest: ClientId) {
/// cluster.client(guest).send("goodbye");
/// cluster.client(guest).close(4001, "the party is over");
/// # }
/// ```
#[must_use = "nothing is done before one of its methods"]
#[derive(Clone)]
pub struct ClientTarget<'a> {
    cluster: &'a Cluster,
    id: ClientId,
    /// What a handler knows of it, which acts through the link that the client came through, or not at all.
    known: Option<&'a Arc<Known>>,
}

impl<'a> ClientTarget<'a> {
    pub(crate) fn known(mut self, known: &'a Arc<Known>) -> Self {
        self.known = Some(known);
        self
    }

    /// Sends the client a message.
    pub fn send(&self, message: impl Into<Message>) {
        let message = message.into();
        self.cluster.count_sent(&message);
        let to = To::Clients(wire::Clients {
            clients: vec![self.id.number],
        });
        self.tell(send(&message, Vec::new(), to));
    }

    /// Closes the client after all that it was sent before, with a WebSocket close code and a reason.
    ///
    /// A code is one of 1000, 1001, 1008, 1011 to 1013 and 3000 to 4999; with any other the client is closed with 1000,
    /// and a warning is logged. A reason is cut after 123 bytes: a close frame has no room for more.
    pub fn close(&self, code: u16, reason: impl Into<String>) {
        let mut reason = reason.into();
        cut(&mut reason, MAX_CLOSE_REASON);
        let code = if codes::may_be_sent(code) {
            code
        } else {
            tracing::warn!(client = %self.id, code, "no application may send this close code");
            codes::NORMAL.code
        };
        self.tell(Body::Close(wire::Close {
            client: self.id.number,
            code: code.into(),
            reason,
        }));
    }

    /// Makes the client a member of a group. It leaves by itself when it goes.
    pub fn join(&self, group: impl Into<String>) {
        self.tell(Body::Join(wire::Join {
            client: self.id.number,
            group: group.into(),
        }));
    }

    /// Takes the client out of a group.
    pub fn leave(&self, group: impl Into<String>) {
        self.tell(Body::Leave(wire::Leave {
            client: self.id.number,
            group: group.into(),
        }));
    }

    /// Sets a key of the client's session; other keys stay as they are.
    pub fn set(&self, key: impl Into<String>, value: impl Into<String>) {
        self.change_session(BTreeMap::from([(key.into(), value.into())]), Vec::new());
    }

    /// Removes a key of the client's session.
    pub fn remove(&self, key: impl Into<String>) {
        self.change_session(BTreeMap::new(), vec![key.into()]);
    }

    fn change_session(&self, set: BTreeMap<String, String>, remove: Vec<String>) {
        let known = self.known.cloned().or_else(|| self.cluster.served(self.id));
        // It is held while sending: the copy and the gateway see the changes of this worker in the same order.
        let mut copy = known.as_ref().map(|known| known.session());
        let update = Body::Session(wire::SessionUpdate {
            client: self.id.number,
            set: set.clone(),
            remove: remove.clone(),
        });
        if self.tell(update)
            && let Some(copy) = &mut copy
        {
            copy.change(set, &remove);
        }
    }

    /// Queues a command. False if that failed.
    fn tell(&self, body: Body) -> bool {
        let sent = match self.known {
            Some(known) => known.link().send(body),
            None => match self.cluster.gateways().up.get(&self.id.gateway) {
                Some(link) => link.send(body),
                None => Err(NotSent::Ended),
            },
        };
        if sent.is_err() {
            self.cluster.stats().failed_sends.add(1);
        }
        sent.is_ok()
    }
}

impl fmt::Debug for ClientTarget<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTarget")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gateways = self.gateways();
        f.debug_struct("Cluster")
            .field("up", &gateways.up.keys())
            .field("away", &gateways.away)
            .finish()
    }
}
