//! What the router's decisions reach: links, clients, and whoever waits for the response to a request.

use std::sync::{Arc, Weak};

use foldhash::HashMap;
use meepo_link::channel;
use meepo_proto::id::{ClientNumber, RequestNumber};
use meepo_proto::link::event::{Body, Subject};
use meepo_proto::link::{Attach, Attached, Delivery, Detached, Drained, Event, Respond};
use tokio::sync::oneshot;
use tonic::Status;

use crate::client::handle::Client;
use crate::client::profile::Profile;
use crate::router::last_words::LastWords;
use crate::router::request_budget::{OverBudget, Ticket};
use crate::router::rules::{LinkId, Output};

/// Where a link's events go; the stream to the worker drains it whole.
pub(crate) type Events = channel::Sender<Result<Event, Status>>;

/// What the router's decisions reach.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// Links that are up, and those that are given no clients.
    pub(crate) links: HashMap<LinkId, Events>,
    /// Clients of which the router has something, also closed ones.
    pub(crate) retained: HashMap<ClientNumber, Retained>,
    /// Requests of which the router has something, also those whose client has gone.
    pub(crate) requests: HashMap<RequestNumber, WaitingRequest>,
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
    pub(crate) given_up: Vec<(ClientNumber, Option<Arc<Client>>)>,
    /// Clients to release after a while.
    pub(crate) held: Vec<ClientNumber>,
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

    /// Sends an event over a link that no worker answers with `done`, and that is never delivered again.
    pub(crate) fn tell(&self, link: LinkId, client: Option<ClientNumber>, body: Body) {
        let event = Event {
            subject: client.map(|number| Subject::Client(number.0)),
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
                        delivery: Some(Delivery {
                            seq: seq.0,
                            event_number: number.0,
                            redelivered,
                        }),
                        subject: Some(subject(client, &body)),
                        attach: if first { self.attach(client) } else { None },
                        body: Some(body),
                        ..Event::default()
                    };
                    self.send(link, event);
                }
                Output::Attach { link, client } => {
                    let event = Event {
                        subject: Some(Subject::Client(client.0)),
                        attach: self.attach(client),
                        body: Some(Body::Attached(Attached {})),
                        ..Event::default()
                    };
                    self.send(link, event);
                }
                Output::Detach { link, client } => self.tell(link, Some(client), Body::Detached(Detached {})),
                Output::Finished { link } => self.tell(link, None, Body::Drained(Drained {})),
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
                    self.requests.remove(&RequestNumber(client.0));
                }
            }
        }
        deferred
    }

    /// The client, unless its socket is closed.
    fn client(&self, number: ClientNumber) -> Option<Arc<Client>> {
        self.retained.get(&number)?.client.upgrade()
    }

    /// What a worker has to know of a client that it begins to serve.
    fn attach(&self, client: ClientNumber) -> Option<Box<Attach>> {
        let retained = self.retained.get(&client)?;
        Some(Box::new(retained.profile.attach()))
    }
}

/// What an event is about. A request is a client of its own in the router, under its own number.
fn subject(number: ClientNumber, body: &Body) -> Subject {
    match body {
        Body::Request(_) => Subject::RequestNumber(number.0),
        _ => Subject::Client(number.0),
    }
}
