//! One client, wherever it is connected.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use meepo_proto::ClientId;
use meepo_proto::link as wire;
use meepo_proto::link::command::Body;
use meepo_proto::link::query::Body as Query;
use tokio::time::timeout;

use super::served::ServedClient;
use crate::api::cluster::Cluster;
use crate::api::cluster::gateway_copy::GatewayCopy;
use crate::api::event::message::Message;
use crate::api::receipt::{Receipt, receipt};
use crate::api::targets::{close, close_reason, destroy, only, send_one};
use crate::link::{Link, NotSent};

/// One client, wherever it is connected.
///
/// ```
/// # use meepo_worker::{ClientId, Cluster};
/// # fn example(cluster: &Cluster, guest: ClientId) {
/// cluster.client(guest).send("goodbye");
/// cluster.client(guest).close(4001, "the party is over");
/// # }
/// ```
#[must_use = "nothing is sent before one of its methods is called"]
#[derive(Clone)]
pub struct ClientTarget<'a> {
    via: Via<'a>,
}

/// The way to a client.
#[derive(Clone)]
enum Via<'a> {
    /// A client that this child serves: through the link that it came through, or not at all.
    Served(Arc<ServedClient>),
    /// A client anywhere: through the link to its gateway that is up now.
    Id(&'a Cluster, ClientId),
}

impl Cluster {
    /// One client, wherever it is connected.
    pub fn client(&self, id: ClientId) -> ClientTarget<'_> {
        ClientTarget { via: Via::Id(self, id) }
    }
}

impl ClientTarget<'static> {
    pub(super) fn of_served(served: Arc<ServedClient>) -> Self {
        Self {
            via: Via::Served(served),
        }
    }
}

impl ClientTarget<'_> {
    pub(super) fn served(&self) -> Option<&Arc<ServedClient>> {
        match &self.via {
            Via::Served(served) => Some(served),
            Via::Id(..) => None,
        }
    }

    /// The client's id, which names it everywhere in the cluster, and never names another client.
    pub fn id(&self) -> ClientId {
        match &self.via {
            Via::Served(served) => served.id(),
            Via::Id(_, id) => *id,
        }
    }

    /// All gateways and their clients.
    pub fn cluster(&self) -> &Cluster {
        match &self.via {
            Via::Served(served) => served.cluster(),
            Via::Id(cluster, _) => cluster,
        }
    }

    /// Sends the client a message.
    pub fn send(&self, message: impl Into<Message>) {
        let message = message.into();
        self.cluster().count_sent(&message);
        self.tell(Body::Send(send_one(message, self.id().number)));
    }

    /// Sends the client a message, and waits until it is known what became of it, for the setting `query_timeout` at most.
    ///
    /// Not for `on_connect`: a client is sent nothing before that has returned.
    pub async fn send_and_confirm(&self, message: impl Into<Message>) -> Receipt {
        let message = message.into();
        let cluster = self.cluster();
        cluster.count_sent(&message);
        let send = send_one(message, self.id().number);
        let receipt = match self.link() {
            Some(link) => match link.ask(Query::Confirm(send)) {
                Some(asked) => {
                    let reply = timeout(cluster.limits().query_timeout, asked.reply()).await;
                    receipt(reply.ok().flatten())
                }
                None => Receipt::Unknown,
            },
            // The gateway may be back soon, with the client.
            None if cluster.gateways().away.contains(&self.id().gateway) => Receipt::Unknown,
            None => Receipt::Gone,
        };
        if receipt != Receipt::Delivered {
            cluster.stats().failed_sends.add(1);
        }
        receipt
    }

    /// Closes the client after all messages that it was sent before, with a WebSocket close code and a reason.
    ///
    /// A code is one of 1000, 1001, 1008, 1011 to 1013 and 3000 to 4999; with any other the client is closed with 1000,
    /// and a warning is logged. A reason is cut after 123 bytes: a close frame has no room for more.
    pub fn close(&self, code: u16, reason: impl Into<String>) {
        let (code, reason) = close_reason(code, reason.into());
        self.tell(close(only(self.id().number), code, reason));
    }

    /// Cuts the client off: messages that it has not got yet are lost, and it gets no close frame.
    pub fn destroy(&self) {
        self.tell(destroy(only(self.id().number)));
    }

    /// Pauses the client: the gateway reads nothing more from it until [`resume`](Self::resume), so that TCP holds it back.
    ///
    /// Messages that the gateway has read already are still delivered: up to 64 (the setting `client_in_flight`) and those
    /// that wait behind them. The client stays paused when another worker serves it. A client that is paused is not judged
    /// by its silence, and its pings are not answered. Its graceful close is noticed when it is sent something, such as the
    /// next ping.
    ///
    /// ```
    /// # use meepo_worker::Client;
    /// # async fn store(order: String) {}
    /// # async fn example(client: &Client, orders: Vec<String>) {
    /// client.pause();
    /// for order in orders {
    ///     store(order).await;
    /// }
    /// client.resume();
    /// # }
    /// ```
    pub fn pause(&self) {
        self.set_paused(true);
    }

    /// Ends a pause: the gateway reads from the client again.
    pub fn resume(&self) {
        self.set_paused(false);
    }

    fn set_paused(&self, paused: bool) {
        let pause = Body::Pause(wire::Pause {
            client: self.id().number.0,
            paused,
        });
        self.with_copy(|copy| {
            let mut copy = copy.map(GatewayCopy::paused);
            if self.tell(pause)
                && let Some(copy) = &mut copy
            {
                **copy = paused;
            }
        });
    }

    /// Makes the client a member of a group. It leaves the group by itself when it closes.
    pub fn join(&self, group: impl Into<String>) {
        self.tell(Body::Join(wire::Join {
            client: self.id().number.0,
            group: group.into(),
        }));
    }

    /// Takes the client out of a group.
    pub fn leave(&self, group: impl Into<String>) {
        self.tell(Body::Leave(wire::Leave {
            client: self.id().number.0,
            group: group.into(),
        }));
    }

    /// Binds the client to the uid of a user, in place of an earlier one. A user can have several clients.
    pub fn bind(&self, uid: impl Into<String>) {
        self.tell(Body::Bind(wire::Bind {
            client: self.id().number.0,
            uid: uid.into(),
        }));
    }

    /// Takes the client's uid away. That happens by itself when the client closes.
    pub fn unbind(&self) {
        self.tell(Body::Unbind(wire::Unbind {
            client: self.id().number.0,
        }));
    }

    /// Sets a key of the client's session; other keys stay as they are. A gateway refuses a session that is over its limit.
    pub fn set(&self, key: impl Into<String>, value: impl Into<String>) {
        self.update([(key, value)]);
    }

    /// Sets several keys of the client's session at once: no reader sees some of them without the others.
    pub fn update<K: Into<String>, V: Into<String>>(&self, set: impl IntoIterator<Item = (K, V)>) {
        self.change_session(wire::SessionChanged {
            set: map(set),
            ..wire::SessionChanged::default()
        });
    }

    /// Removes a key of the client's session.
    pub fn remove(&self, key: impl Into<String>) {
        self.change_session(wire::SessionChanged {
            remove: vec![key.into()],
            ..wire::SessionChanged::default()
        });
    }

    /// Replaces the client's session by a new one.
    pub fn replace_session<K: Into<String>, V: Into<String>>(&self, session: impl IntoIterator<Item = (K, V)>) {
        self.change_session(wire::SessionChanged {
            set: map(session),
            clear: true,
            ..wire::SessionChanged::default()
        });
    }

    /// Makes several changes of the client's session at once.
    pub(crate) fn change_session(&self, change: wire::SessionChanged) {
        let wire::SessionChanged { set, remove, clear } = change.clone();
        let update = Body::Session(wire::SessionUpdate {
            client: self.id().number.0,
            set,
            remove,
            clear,
        });
        self.with_copy(|copy| {
            let mut copy = copy.map(GatewayCopy::session);
            if self.tell(update)
                && let Some(copy) = &mut copy
            {
                copy.change(change);
            }
        });
    }

    /// Does something with this child's copy of what the gateway holds for the client, if this child serves the client.
    fn with_copy(&self, change: impl FnOnce(Option<&GatewayCopy>)) {
        match &self.via {
            Via::Served(served) => change(Some(served.copy())),
            Via::Id(cluster, id) => match cluster.served(*id) {
                Some(served) => change(Some(served.gateway_copy())),
                None => change(None),
            },
        }
    }

    /// Queues a command. False if that failed, which is counted.
    fn tell(&self, body: Body) -> bool {
        let sent = match &self.via {
            Via::Served(served) => served.link().send(body),
            Via::Id(cluster, id) => match cluster.gateways().up.get(&id.gateway) {
                Some(link) => link.send(body),
                None => Err(NotSent::Ended),
            },
        };
        if sent.is_err() {
            self.cluster().stats().failed_sends.add(1);
        }
        sent.is_ok()
    }

    fn link(&self) -> Option<Arc<Link>> {
        match &self.via {
            Via::Served(served) => Some(served.link().clone()),
            Via::Id(cluster, id) => cluster.gateways().up.get(&id.gateway).cloned(),
        }
    }
}

fn map<K: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (K, V)>) -> BTreeMap<String, String> {
    let pairs = pairs.into_iter();
    pairs.map(|(key, value)| (key.into(), value.into())).collect()
}

impl fmt::Debug for ClientTarget<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTarget")
            .field("id", &self.id())
            .finish_non_exhaustive()
    }
}
