//! What the router's decisions reach: links, clients, and whoever waits for the response to a request.

use std::sync::{Arc, Weak};

use foldhash::HashMap;
use meepo_proto::batch;
use meepo_proto::link::event::Body;
use meepo_proto::link::{Attach, Attached, Detached, Drained, Event, Respond};
use tokio::sync::oneshot;
use tonic::Status;

use crate::client::handle::Client;
use crate::client::profile::Profile;
use crate::router::last_words::LastWords;
use crate::router::request_budget::{OverBudget, Ticket};
use crate::router::rules::{LinkId, Output};

/// Where a link's events go; the stream to the worker drains it whole.
pub(crate) type Events = batch::Sender<Result<Event, Status>>;

/// What the router's decisions reach.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// Links that are up, and those that are given no clients.
    pub(crate) links: HashMap<LinkId, Events>,
    /// Clients of which the router has something, also closed ones.
    pub(crate) retained: HashMap<u64, Retained>,
    /// Requests of which the router has something, also those whose client has gone.
    pub(crate) requests: HashMap<u64, WaitingRequest>,
    /// Which workers were asked for last words.
    pub(crate) last_words: LastWords,
}

/// What is kept of a client until its last event is done: not its socket.
#[derive(Debug)]
pub(crate) struct Retained {
    profile: Arc<Profile>,
    client: Weak<Client>,
}

/// A request of which the router has something.
#[derive(Debug)]
pub(crate) struct WaitingRequest {
    /// Tells whoever waits for the response. Taken by the first one.
    pub(crate) response: Option<oneshot::Sender<Result<Respond, OverBudget>>>,
    /// What the request takes of the budget.
    pub(crate) ticket: Arc<Ticket>,
}

/// Effects that have to wait until the router's lock is released.
#[derive(Debug, Default)]
pub(crate) struct Deferred {
    /// Clients of which an event was given up, to close if they are not closed.
    pub(crate) given_up: Vec<(u64, Option<Arc<Client>>)>,
    /// Clients to release after a while.
    pub(crate) held: Vec<u64>,
}

impl Retained {
    /// What is kept of this client.
    pub(crate) fn of(client: &Arc<Client>) -> Self {
        Self {
            profile: Arc::clone(&client.profile),
            client: Arc::downgrade(client),
        }
    }
}

impl Effects {
    /// Sends an event over a link.
    pub(crate) fn send(&self, link: LinkId, event: Event) {
        // A link whose stream has ended is about to be taken down: its events come back then.
        if let Some(events) = self.links.get(&link) {
            let _ = events.send(Ok(event));
        }
    }

    /// Sends an event over a link that has no number and is never delivered again.
    pub(crate) fn tell(&self, link: LinkId, client: u64, body: Body) {
        let event = Event {
            client,
            body: Some(body),
            ..Event::default()
        };
        self.send(link, event);
    }

    /// Carries out what the router decided.
    pub(crate) fn carry_out(&mut self, outputs: &mut Vec<Output>) -> Deferred {
        let mut deferred = Deferred::default();
        for output in outputs.drain(..) {
            match output {
                Output::Deliver {
                    link,
                    seq,
                    client,
                    number,
                    body,
                    redelivered,
                    first,
                } => {
                    let event = Event {
                        seq,
                        client,
                        number,
                        redelivered,
                        attach: if first { self.attach(client) } else { None },
                        body: Some(body),
                        ..Event::default()
                    };
                    self.send(link, event);
                }
                Output::Attach { link, client } => {
                    let event = Event {
                        client,
                        attach: self.attach(client),
                        body: Some(Body::Attached(Attached {})),
                        ..Event::default()
                    };
                    self.send(link, event);
                }
                Output::Detach { link, client } => self.tell(link, client, Body::Detached(Detached {})),
                Output::Finished { link } => self.tell(link, 0, Body::Drained(Drained {})),
                Output::Hold { client } => deferred.held.push(client),
                Output::GiveUp { client } => deferred.given_up.push((client, self.client(client))),
                Output::Settled { client } => {
                    if let Some(client) = self.client(client) {
                        client.wake.wake();
                    }
                }
                Output::Resume { client } => {
                    if let Some(client) = self.client(client) {
                        client.resume();
                    }
                }
                Output::Forget { client } => {
                    self.retained.remove(&client);
                    // Whoever still waits for the response to a request learns that none comes.
                    self.requests.remove(&client);
                }
            }
        }
        deferred
    }

    /// The client, unless its socket is closed.
    fn client(&self, number: u64) -> Option<Arc<Client>> {
        self.retained.get(&number)?.client.upgrade()
    }

    /// What a worker has to know of a client that it begins to serve.
    fn attach(&self, client: u64) -> Option<Box<Attach>> {
        let retained = self.retained.get(&client)?;
        Some(Box::new(retained.profile.attach()))
    }
}
