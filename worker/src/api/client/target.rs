//! One client, wherever it is connected.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use meepo_proto::ClientId;
use meepo_proto::link as wire;
use meepo_proto::link::command::Body;

use crate::api::client::Known;
use crate::api::targets::{close, close_reason, destroy, only, send_one};
use crate::link::{Link, NotSent};
use crate::{Cluster, Message};

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

/// What became of a message, by [`ClientTarget::send_and_confirm`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delivery {
    /// The gateway's system has taken all of it for the client's connection. It may still be on its way.
    Delivered,
    /// The client has gone before that.
    Gone,
    /// Its send buffer was full.
    Full,
    /// The gateway has refused the message: it is over the limit for messages.
    Refused,
    /// The gateway has not said so within the setting `query_timeout`, or there is no link to it now.
    Unknown,
}

impl Cluster {
    /// One client.
    pub fn client(&self, id: ClientId) -> ClientTarget<'_> {
        ClientTarget {
            cluster: self,
            id,
            known: None,
        }
    }
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
        self.tell(Body::Send(send_one(message, self.id.number)));
    }

    /// Sends the client a message, and waits until it is known what became of it.
    ///
    /// Not for `on_connect`: a client is sent nothing before that has returned.
    pub async fn send_and_confirm(&self, message: impl Into<Message>) -> Delivery {
        let message = message.into();
        self.cluster.count_sent(&message);
        let send = send_one(message, self.id.number);
        let delivery = match self.link() {
            Some(link) => self.cluster.confirm(&link, send).await,
            // Its gateway may be back soon, with the client.
            None if self.cluster.gateways().away.contains(&self.id.gateway) => Delivery::Unknown,
            None => Delivery::Gone,
        };
        if delivery != Delivery::Delivered {
            self.cluster.stats().failed_sends.add(1);
        }
        delivery
    }

    /// Closes the client after all that it was sent before, with a WebSocket close code and a reason.
    ///
    /// A code is one of 1000, 1001, 1008, 1011 to 1013 and 3000 to 4999; with any other the client is closed with 1000,
    /// and a warning is logged. A reason is cut after 123 bytes: a close frame has no room for more.
    pub fn close(&self, code: u16, reason: impl Into<String>) {
        let (code, reason) = close_reason(code, reason.into());
        self.tell(close(only(self.id.number), code, reason));
    }

    /// Cuts the client off: what it was sent and has not got yet is lost, and it is told nothing.
    pub fn destroy(&self) {
        self.tell(destroy(only(self.id.number)));
    }

    /// Has the gateway read nothing more from the client until [`resume`](Self::resume), so that TCP holds it back.
    ///
    /// What the gateway has read already is still delivered: up to 64 messages (the setting `client_in_flight`) and what
    /// waits behind them. It stays so when another worker serves the client. A client that is not read is not judged by its
    /// silence, and its pings are not answered. That it leaves in good order is noticed when it is sent something, such as
    /// the next ping.
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
        self.read(false);
    }

    /// Has the gateway read from the client again.
    pub fn resume(&self) {
        self.read(true);
    }

    fn read(&self, read: bool) {
        let known = self.known.cloned().or_else(|| self.cluster.served(self.id));
        // Held while sending, as for the session.
        let mut copy = known.as_ref().map(|known| known.paused());
        let reading = Body::Reading(wire::Reading {
            client: self.id.number,
            paused: !read,
        });
        if self.tell(reading)
            && let Some(copy) = &mut copy
        {
            **copy = !read;
        }
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

    /// Binds the client to the uid of a user, in place of an earlier one. A user can have several clients.
    pub fn bind(&self, uid: impl Into<String>) {
        self.tell(Body::Bind(wire::Bind {
            client: self.id.number,
            uid: uid.into(),
        }));
    }

    /// Binds the client to no uid any more. It does so by itself when it goes.
    pub fn unbind(&self) {
        self.tell(Body::Unbind(wire::Unbind { client: self.id.number }));
    }

    /// Sets a key of the client's session; other keys stay as they are.
    pub fn set(&self, key: impl Into<String>, value: impl Into<String>) {
        self.update([(key, value)]);
    }

    /// Sets several keys of the client's session at once: nobody sees some of them without the others.
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

    /// Puts a new session in the place of the client's session.
    pub fn replace_session<K: Into<String>, V: Into<String>>(&self, session: impl IntoIterator<Item = (K, V)>) {
        self.change_session(wire::SessionChanged {
            set: map(session),
            clear: true,
            ..wire::SessionChanged::default()
        });
    }

    /// Changes the client's session at once.
    pub(crate) fn change_session(&self, change: wire::SessionChanged) {
        let known = self.known.cloned().or_else(|| self.cluster.served(self.id));
        // It is held while sending: the copy and the gateway see the changes of this worker in the same order.
        let mut copy = known.as_ref().map(|known| known.session());
        let wire::SessionChanged { set, remove, clear } = change.clone();
        let update = Body::Session(wire::SessionUpdate {
            client: self.id.number,
            set,
            remove,
            clear,
        });
        if self.tell(update)
            && let Some(copy) = &mut copy
        {
            copy.change(change);
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

    fn link(&self) -> Option<Arc<Link>> {
        match self.known {
            Some(known) => Some(known.link().clone()),
            None => self.cluster.gateways().up.get(&self.id.gateway).cloned(),
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
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
