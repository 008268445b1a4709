//! The router, and what carries out its decisions.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use foldhash::HashMap;
use meepo_proto::batch;
use meepo_proto::link::event::Body;
use meepo_proto::link::{Attach, Attached, Detached, Drained, Event};
use tonic::Status;

use crate::client::handle::{Client, Profile};
use crate::drain::last_words::LastWords;
use crate::protocol::http::forward::Waiting;
use crate::router::{Flow, LinkId, Output, Router};

/// Where a link's events go; the stream to the worker drains it whole.
pub(crate) type Events = batch::Sender<Result<Event, Status>>;

/// The router and what carries out its decisions. One lock, so that a link sees events in the order of their numbers.
#[derive(Debug)]
pub(crate) struct Dispatch {
    pub(crate) router: Router,
    pub(crate) links: HashMap<LinkId, Events>,
    /// Clients of which the router has something, also those that are closed.
    pub(crate) clients: HashMap<u64, Retained>,
    /// Requests of which the router has something, also those whose client has gone.
    pub(crate) requests: HashMap<u64, Waiting>,
    pub(crate) out: Vec<Output>,
    pub(crate) parting: LastWords,
}

/// What is kept of a client until its last event is done: not its socket.
#[derive(Debug)]
pub(crate) struct Retained {
    pub(crate) profile: Arc<Profile>,
    pub(crate) client: Weak<Client>,
}

/// What is left to do once the lock is let go.
#[derive(Debug, Default)]
pub(crate) struct Later {
    /// Clients of which an event was given up, to close if they are not.
    pub(crate) given_up: Vec<(u64, Option<Arc<Client>>)>,
    /// Clients to release after a while.
    pub(crate) held: Vec<u64>,
}

impl Dispatch {
    pub(crate) fn push(&mut self, client: u64, body: Body) -> Flow {
        self.router.push(client, body, &mut self.out)
    }

    pub(crate) fn send(&self, link: LinkId, event: Event) {
        // A link whose stream has ended is about to be taken down: its events come back then.
        if let Some(events) = self.links.get(&link) {
            let _ = events.send(Ok(event));
        }
    }

    pub(crate) fn carry_out(&mut self) -> Later {
        let mut later = Later::default();
        let mut out = std::mem::take(&mut self.out);
        for output in out.drain(..) {
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
                    let attach = if first { self.attach(client) } else { None };
                    let event = Event {
                        seq,
                        client,
                        number,
                        redelivered,
                        attach,
                        body: Some(body),
                        ..Event::default()
                    };
                    self.send(link, event);
                }
                Output::Attach { link, client } => {
                    let attach = self.attach(client);
                    let body = Some(Body::Attached(Attached {}));
                    self.send(
                        link,
                        Event {
                            client,
                            attach,
                            body,
                            ..Event::default()
                        },
                    );
                }
                Output::Detach { link, client } => {
                    self.send(
                        link,
                        Event {
                            client,
                            body: Some(Body::Detached(Detached {})),
                            ..Event::default()
                        },
                    );
                }
                Output::Finished { link } => {
                    let body = Some(Body::Drained(Drained {}));
                    self.send(
                        link,
                        Event {
                            body,
                            ..Event::default()
                        },
                    );
                }
                Output::Hold { client } => later.held.push(client),
                Output::GiveUp { client } => later.given_up.push((client, self.client(client))),
                Output::Settled { client } => {
                    if let Some(client) = self.client(client) {
                        client.wake.ring();
                    }
                }
                Output::Resume { client } => {
                    if let Some(client) = self.client(client) {
                        client.let_go();
                    }
                }
                Output::Forget { client } => {
                    self.clients.remove(&client);
                    // Who still waits for the answer to a request learns that none comes.
                    self.requests.remove(&client);
                }
            }
        }
        self.out = out;
        later
    }

    /// The client, unless it is closed.
    fn client(&self, number: u64) -> Option<Arc<Client>> {
        self.clients.get(&number)?.client.upgrade()
    }

    fn attach(&self, client: u64) -> Option<Box<Attach>> {
        let profile = &self.clients.get(&client)?.profile;
        let session = profile.session.lock().clone();
        Some(Box::new(Attach {
            handshake: Some(profile.handshake()),
            session,
            paused: profile.paused.load(Ordering::Relaxed),
        }))
    }
}
