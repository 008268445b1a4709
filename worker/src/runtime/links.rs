//! The links to all gateways: one to each gateway child that the registry names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use meepo_link::Incoming;
use meepo_node::Backoff;
use meepo_proto::GatewayId;
use meepo_proto::link as wire;
use meepo_proto::link::event::Body as Event;
use meepo_proto::registry::{Kind, Node, State};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, coop};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::client_queues::ClientQueues;
use crate::api::handler::Handler;
use crate::link::send_budget::SendBudget;
use crate::link::{DialError, Identity, Link};

/// The first pause between two attempts to reach a gateway.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause between two attempts to reach a gateway.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How often a quiet link is [tended](Link::tend).
const TEND: Duration = Duration::from_secs(1);
/// Events that are taken in a row before signals to stop are looked at.
const EVENTS_PER_TURN: usize = 64;
/// How long the registry may take to say what has become of a gateway when another gateway answers at its address.
const REGISTRY_DELAY: Duration = Duration::from_secs(3);

/// Keeps a link to each gateway.
pub(crate) struct Links<H> {
    pub(crate) queues: Arc<ClientQueues<H>>,
    pub(crate) identity: Identity,
    /// The nodes that the registry names, of all kinds.
    pub(crate) nodes: watch::Receiver<BTreeMap<u64, Node>>,
    /// Bytes that may wait in the outgoing queue of a link.
    pub(crate) queue_limit: usize,
    /// Cancelled when links are to drain.
    pub(crate) stop: CancellationToken,
    /// Cancelled when all links are to end, whatever is in flight.
    pub(crate) cut: CancellationToken,
    /// Links over which something may be in flight.
    pub(crate) undrained: watch::Sender<usize>,
}

/// Counts a link over which something may be in flight.
struct Undrained<'a>(&'a watch::Sender<usize>);

impl<'a> Undrained<'a> {
    fn new(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for Undrained<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// A gateway child that is to have a link.
struct Gateway {
    id: GatewayId,
    /// Its address, as the registry told it last.
    address: String,
    backoff: Backoff,
    /// Attempts to dial that failed since the last link.
    failures: u32,
    /// Held until the gateway was dialled once.
    first: Option<mpsc::Sender<()>>,
    /// The link that has ended, until the gateway is dialled again.
    ended: Option<Arc<Link>>,
}

impl<H: Handler> Links<H> {
    /// Keeps a link to each gateway that the registry names, until it is told to drain and all links have ended.
    ///
    /// `first` is dropped once each gateway that the registry named at first was dialled once.
    pub(crate) async fn keep_all(self: Arc<Self>, first: mpsc::Sender<()>) {
        let mut nodes = self.nodes.clone();
        let mut first = Some(first);
        let mut heard = false;
        let mut tasks = JoinSet::new();
        let mut kept = BTreeSet::new();
        loop {
            for id in gateways(&nodes.borrow_and_update()) {
                if kept.insert(id) {
                    tasks.spawn(self.clone().keep(Gateway::new(id, first.clone())));
                }
            }
            if heard || !kept.is_empty() {
                first = None;
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                Some(ended) = tasks.join_next() => {
                    if let Ok(id) = ended {
                        kept.remove(&id);
                    }
                }
                changed = nodes.changed() => {
                    heard = true;
                    if changed.is_err() {
                        // The registries are no longer watched. The links stand.
                        self.stop.cancelled().await;
                    }
                }
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Keeps the link to one gateway, until the registry no longer names it, or says that it is done, and it cannot be
    /// reached either.
    async fn keep(self: Arc<Self>, mut gateway: Gateway) -> GatewayId {
        let id = gateway.id;
        let cluster = self.queues.cluster();
        cluster.change_gateways(|gateways| {
            gateways.away.insert(id);
        });
        // A gateway whose link has ended is dialled once more in any case, before the registry is believed that it has gone.
        while let Some(Some((link, events))) = self.stop.run_until_cancelled(self.reach(&mut gateway)).await {
            let since = Instant::now();
            let drained = self.run(&link, events).await;
            gateway.ended = Some(link);
            if drained {
                // The gateway lives, and moves the clients to other workers.
                self.queues.moved(id);
            }
            if since.elapsed() > LONGEST_PAUSE {
                gateway.backoff.reset();
            }
            self.stop.run_until_cancelled(gateway.pause()).await;
        }
        cluster.change_gateways(|gateways| {
            gateways.away.remove(&id);
        });
        let lost = match self.registered(id) {
            // The ends of all its clients are handled.
            Some((State::Drained, _)) => false,
            // This worker stops. If the gateway has died just now, no other worker knows of its clients.
            Some(_) => self.queues.has_left_behind(id) && self.has_gone(&mut gateway).await,
            None => true,
        };
        match lost {
            true => self.queues.lost(id),
            // The gateway has moved the clients to other workers, or will.
            false => self.queues.moved(id),
        }
        id
    }

    /// Whether no program, or another gateway, answers at a gateway's address. A gateway that is silent may only be cut off.
    async fn has_gone(&self, gateway: &mut Gateway) -> bool {
        let budget = SendBudget::new(self.queue_limit, None, self.queues.cluster().stats());
        let mut identity = self.identity.clone();
        // The link is only tried: it is not to be given clients.
        identity.hello.outside = true;
        match Link::dial(gateway.id, &gateway.address, &identity, budget, true).await {
            Ok((link, _)) => {
                link.end();
                false
            }
            Err(error) => {
                gateway.dial_failed(&error);
                error.says_gone()
            }
        }
    }

    /// Dials a gateway until it answers. None once it does not answer and the registry no longer names it, or says that it
    /// is done. Cancel safe.
    async fn reach(&self, gateway: &mut Gateway) -> Option<(Arc<Link>, Incoming<wire::Event>)> {
        let id = gateway.id;
        // When another gateway answered in its place for the first time.
        let mut gone = None;
        let mut said_lost = false;
        loop {
            match self.registered(id) {
                Some((State::Drained, _)) => return None,
                Some((_, address)) => gateway.address = address,
                None => {}
            }
            let cluster = self.queues.cluster();
            let budget = SendBudget::new(self.queue_limit, Some(cluster.budget().clone()), cluster.stats());
            // Over a local socket and over the network in turn: one way may fail where the other works.
            let local = gateway.failures.is_multiple_of(2);
            let dialled = Link::dial(id, &gateway.address, &self.identity, budget, local).await;
            if let Err(error) = &dialled {
                gateway.dial_failed(error);
            }
            let address = &gateway.address;
            match dialled {
                Ok(linked) => {
                    gateway.failures = 0;
                    gateway.first = None;
                    return Some(linked);
                }
                Err(DialError::Another) => {
                    if gone.is_none() {
                        tracing::info!(gateway = %id, address, "another gateway answers");
                    }
                    gone.get_or_insert_with(Instant::now);
                }
                // The registry names a gateway that has gone for a moment longer: the first failures are no news.
                Err(error) if gateway.failures == 2 => tracing::warn!(gateway = %id, address, %error, "no link"),
                Err(error) => tracing::debug!(gateway = %id, address, %error, "no link"),
            }
            gateway.failures = gateway.failures.saturating_add(1);
            gateway.first = None;
            // The registry may know whether the gateway was done; a worker that was frozen has to hear from it first.
            let (state, _) = self.registered(id)?;
            if !said_lost && gone.is_some_and(|since| since.elapsed() > REGISTRY_DELAY) && state == State::Serving {
                said_lost = true;
                self.queues.lost(id);
            }
            tokio::select! {
                () = gateway.pause() => {}
                () = self.state_changes(id, state) => {}
            }
        }
    }

    /// Takes what comes over a link until it ends, and drains it when the time has come. True if it was drained.
    async fn run(&self, link: &Arc<Link>, mut events: Incoming<wire::Event>) -> bool {
        let id = link.gateway;
        let cluster = self.queues.cluster();
        // The gateway lives: clients that were attached through an earlier link are with other workers now.
        self.queues.moved(id);
        cluster.change_gateways(|gateways| {
            gateways.away.remove(&id);
            gateways.up.insert(id, link.clone());
        });
        tracing::info!(gateway = %id, "link is up");
        let end = self.take_all(link, &mut events).await;
        link.end();
        cluster.change_gateways(|gateways| {
            gateways.up.remove(&id);
            gateways.away.insert(id);
        });
        match end {
            Ok(drained) => {
                tracing::info!(gateway = %id, drained, "link has ended");
                drained
            }
            Err(error) => {
                tracing::warn!(gateway = %id, error = error.message(), "link broke");
                false
            }
        }
    }

    async fn take_all(&self, link: &Arc<Link>, events: &mut Incoming<wire::Event>) -> Result<bool, Status> {
        let mut draining = false;
        let mut undrained = Some(Undrained::new(&self.undrained));
        let mut count = self.undrained.subscribe();
        let mut finished = false;
        let mut tend = tokio::time::interval(TEND);
        tend.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled(), if !draining => {
                    draining = true;
                    link.drain();
                }
                () = self.cut.cancelled() => return Ok(false),
                // Handlers of clients of other gateways may have sent to clients of this one until now.
                _ = count.wait_for(|count| *count == 0), if draining && !finished => {
                    finished = true;
                    link.finish();
                }
                _ = tend.tick() => {}
                event = events.message() => {
                    let mut next = Some(event);
                    let mut left = EVENTS_PER_TURN;
                    while let Some(event) = next {
                        match event? {
                            Some(wire::Event { body: Some(Event::Drained(_)), .. }) => drop(undrained.take()),
                            Some(event) if !link.has_ended() => self.queues.take(link, event),
                            Some(_) => {}
                            None => return Ok(draining),
                        }
                        left -= 1;
                        // What is there already comes along: to ask all of the above takes longer than an event. Handlers
                        // run meanwhile, so it is the turn of others after as many as ever.
                        let goes_on = left > 0 && coop::consume_budget().now_or_never().is_some();
                        next = if goes_on { events.message().now_or_never() } else { None };
                    }
                }
            }
            if link.has_ended() {
                return Err(Status::aborted("this worker was frozen or blocked for too long"));
            }
            link.tend();
            // Many events may be there at once; handlers get their turn in between.
            coop::consume_budget().await;
        }
    }

    /// The state and the address of a gateway by the registry, if the registry names it.
    fn registered(&self, id: GatewayId) -> Option<(State, String)> {
        let nodes = self.nodes.borrow();
        let node = nodes.get(&id.0).filter(|node| node.kind() == Kind::Gateway)?;
        Some((node.state(), node.address().to_owned()))
    }

    /// Waits until the registry no longer names a gateway with this state. Cancel safe.
    async fn state_changes(&self, id: GatewayId, state: State) {
        let mut nodes = self.nodes.clone();
        let changed = nodes.wait_for(|nodes| nodes.get(&id.0).is_none_or(|node| node.state() != state));
        if changed.await.is_err() {
            std::future::pending().await
        }
    }
}

impl Gateway {
    fn new(id: GatewayId, first: Option<mpsc::Sender<()>>) -> Self {
        Self {
            id,
            address: String::new(),
            backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE),
            failures: 0,
            first,
            ended: None,
        }
    }

    /// The gateway was dialled in vain.
    fn dial_failed(&mut self, error: &DialError) {
        if let Some(link) = self.ended.take().filter(|_| error.says_gone()) {
            link.gateway_has_gone();
        }
    }

    async fn pause(&mut self) {
        tokio::time::sleep(self.backoff.pause()).await;
    }
}

/// The gateways that take links. A gateway that drains takes them too: it may have no other worker to finish its events.
fn gateways(nodes: &BTreeMap<u64, Node>) -> Vec<GatewayId> {
    let there = |node: &Node| node.kind() == Kind::Gateway && node.state() != State::Drained;
    let gateways = nodes.iter().filter(|(_, node)| there(node));
    gateways.map(|(id, _)| GatewayId(*id)).collect()
}
