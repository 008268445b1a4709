//! The links to all gateways: one to each gateway child that the registry names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use meepo_link::Incoming;
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
use crate::backoff::Backoff;
use crate::link::send_budget::SendBudget;
use crate::link::{DialError, Identity, Link};

/// The first pause between two attempts to reach a gateway.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause between two attempts to reach a gateway.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How often a quiet link is looked after.
const TEND: Duration = Duration::from_secs(1);
/// Events that are taken before anything else is looked at.
const EVENTS_PER_TURN: usize = 64;
/// How long the registry's word on a gateway may take when another one answers at its address.
const NEWS: Duration = Duration::from_secs(3);

/// What it takes to keep links up.
pub(crate) struct Links<H> {
    pub(crate) queues: Arc<ClientQueues<H>>,
    pub(crate) identity: Identity,
    /// The nodes that the registry names, of all kinds.
    pub(crate) nodes: watch::Receiver<BTreeMap<u64, Node>>,
    /// Bytes that may wait in the outgoing queue of a link.
    pub(crate) queue_limit: usize,
    /// Tells to drain.
    pub(crate) stop: CancellationToken,
    /// Tells to end all links, whatever is in flight.
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
    /// Where it was by the registry's last word.
    address: String,
    backoff: Backoff,
    /// Attempts that failed since the last link.
    failures: u32,
    /// Held until it was dialled once.
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
        let lost = match self.word(id) {
            // All their ends are handled.
            Some((State::Drained, _)) => false,
            // This worker stops. If the gateway has died just now, nobody else knows of the clients.
            Some(_) => self.queues.has_left_behind(id) && self.has_gone(&mut gateway).await,
            None => true,
        };
        match lost {
            true => self.queues.lost(id),
            // It has moved the clients to other workers, or will.
            false => self.queues.moved(id),
        }
        id
    }

    /// Whether nobody, or another gateway, answers at a gateway's address. One that is silent may only be cut off.
    async fn has_gone(&self, gateway: &mut Gateway) -> bool {
        let budget = SendBudget::new(self.queue_limit, None, self.queues.cluster().stats());
        let mut identity = self.identity.clone();
        // Only to look: it is not to be given clients.
        identity.hello.outside = true;
        match Link::dial(gateway.id, &gateway.address, &identity, budget, true).await {
            Ok((link, _)) => {
                link.end();
                false
            }
            Err(error) => {
                gateway.dialled(&error);
                error.says_gone()
            }
        }
    }

    /// Dials a gateway until it answers. Nothing once it does not and the registry no longer names it, or says that it is
    /// done. Cancel safe.
    async fn reach(&self, gateway: &mut Gateway) -> Option<(Arc<Link>, Incoming<wire::Event>)> {
        let id = gateway.id;
        // Since when another one answers in its place.
        let mut gone = None;
        let mut told = false;
        loop {
            match self.word(id) {
                Some((State::Drained, _)) => return None,
                Some((_, address)) => gateway.address = address,
                None => {}
            }
            let cluster = self.queues.cluster();
            let budget = SendBudget::new(self.queue_limit, Some(cluster.budget().clone()), cluster.stats());
            // Past the network in turn with over it: one way may fail where the other goes.
            let local = gateway.failures.is_multiple_of(2);
            let dialled = Link::dial(id, &gateway.address, &self.identity, budget, local).await;
            if let Err(error) = &dialled {
                gateway.dialled(error);
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
                // It need not be news: a gateway that has gone is named for a moment longer.
                Err(error) if gateway.failures == 2 => tracing::warn!(gateway = %id, address, %error, "no link"),
                Err(error) => tracing::debug!(gateway = %id, address, %error, "no link"),
            }
            gateway.failures = gateway.failures.saturating_add(1);
            gateway.first = None;
            // The registry may know whether it was done; whoever was frozen has to hear from it first.
            let (state, _) = self.word(id)?;
            if !told && gone.is_some_and(|since| since.elapsed() > NEWS) && state == State::Serving {
                told = true;
                self.queues.lost(id);
            }
            tokio::select! {
                () = gateway.pause() => {}
                () = self.other_word(id, state) => {}
            }
        }
    }

    /// Takes what comes over a link until it ends, and drains it when the time has come. True if it was drained.
    async fn run(&self, link: &Arc<Link>, mut events: Incoming<wire::Event>) -> bool {
        let id = link.gateway;
        let cluster = self.queues.cluster();
        // It lives: what was attached through an earlier link is with other workers now.
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

    /// What the registry says of a gateway: how it is, and where.
    fn word(&self, id: GatewayId) -> Option<(State, String)> {
        let nodes = self.nodes.borrow();
        let node = nodes.get(&id.0).filter(|node| node.kind() == Kind::Gateway)?;
        Some((node.state(), node.address().to_owned()))
    }

    /// Waits until the registry no longer says this of a gateway. Cancel safe.
    async fn other_word(&self, id: GatewayId, state: State) {
        let mut nodes = self.nodes.clone();
        let other = nodes.wait_for(|nodes| nodes.get(&id.0).is_none_or(|node| node.state() != state));
        if other.await.is_err() {
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

    /// It was dialled in vain.
    fn dialled(&mut self, error: &DialError) {
        if let Some(link) = self.ended.take().filter(|_| error.says_gone()) {
            link.gateway_has_gone();
        }
    }

    async fn pause(&mut self) {
        tokio::time::sleep(self.backoff.pause()).await;
    }
}

/// The gateways that take links: one that leaves may have nobody else to finish what it has.
fn gateways(nodes: &BTreeMap<u64, Node>) -> Vec<GatewayId> {
    let there = |node: &Node| node.kind() == Kind::Gateway && node.state() != State::Drained;
    let gateways = nodes.iter().filter(|(_, node)| there(node));
    gateways.map(|(id, _)| GatewayId(*id)).collect()
}
