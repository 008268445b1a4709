//! The life of a worker child.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use meepo_node::secret::SecretHeader;
use meepo_node::stats::Slot;
use meepo_node::{BoxError, Child, Membership, Stop};
use meepo_proto::registry::{Kind, Node};
use meepo_proto::{WorkerId, link as wire};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::instance::WorkerSection;
use crate::link::Card;
use crate::link::send_budget::Room;
use crate::push::{self, Push};
use crate::runtime::client_queues::{Lanes, guarded};
use crate::runtime::leader_job::Jobs;
use crate::runtime::links::Links;
use crate::{Cluster, Handler};

/// How long a child that starts waits for its first links before it says that it serves. It serves without them too.
const FIRST_LINKS: Duration = Duration::from_secs(1);
/// The part of the time for a stop that is kept for `on_stop`.
const STOP_SHARE: u32 = 4;
/// The part of the time for a stop that pushes from outside may take to be answered.
const PUSH_SHARE: u32 = 2;
/// Outgoing queues of a whole child may be as long as those of so many links.
const LINKS_AT_LIMIT: usize = 4;

/// Runs a worker child from its start until it has drained.
pub(crate) async fn serve<H: Handler>(handler: H, section: WorkerSection, mut child: Child) -> Result<(), BoxError> {
    let id = WorkerId::random();
    let membership = Membership::new(&child.node);
    let push = child.shared.pop().map(TcpListener::from_std).transpose()?;
    if let Some(address) = section.push.address.filter(|_| section.push.token.is_empty()) {
        tracing::warn!(%address, "everyone who reaches this address is let in to push: set a token");
    }
    let worker = Worker {
        handler,
        section,
        card: Card {
            hello: wire::Hello {
                worker_id: id.0,
                name: child.node.name.clone(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                ..wire::Hello::default()
            },
            secret: SecretHeader::new(&child.node.secret),
        },
        stats: child.stats,
        stop: child.stop.clone(),
        membership: membership.clone(),
        push,
    };
    let watched = CancellationToken::new();
    let _unwatch = watched.clone().drop_guard();
    let nodes = membership.watch(watched);

    let node = Node {
        id: id.0,
        kind: Kind::Worker.into(),
        address: String::new(),
        name: worker.card.hello.name.clone(),
        pid: std::process::id(),
        version: worker.card.hello.version.clone(),
        ..Node::default()
    };
    // It leaves the registry as soon as it begins to drain.
    let announced = membership.announce(node, child.stop.token().clone());
    worker.run(nodes, announced, || child.ready()).await
}

/// A worker child, apart from its master and the registry.
pub(crate) struct Worker<H> {
    pub(crate) handler: H,
    pub(crate) section: WorkerSection,
    pub(crate) card: Card,
    pub(crate) stats: &'static Slot,
    pub(crate) stop: Stop,
    /// For the leases of jobs.
    pub(crate) membership: Membership,
    /// Where pushes come in from outside.
    pub(crate) push: Option<TcpListener>,
}

impl<H: Handler> Worker<H> {
    /// Starts, serves and drains. It says `ready` once it serves; `announced` runs meanwhile.
    pub(crate) async fn run(
        self,
        nodes: watch::Receiver<BTreeMap<u64, Node>>,
        announced: impl Future<Output = ()>,
        ready: impl FnOnce(),
    ) -> Result<(), BoxError> {
        let limit = self.section.queue_limit();
        let room = Room::new(limit.saturating_mul(LINKS_AT_LIMIT), None, self.stats);
        let stop = self.stop.token();
        let jobs = Jobs::new(self.membership, stop.clone());
        let cluster = Cluster::new(self.stats, &self.section, room, stop.clone(), jobs);
        let started = guarded(async { self.handler.on_start(&cluster).await });
        let Some(started) = stop.run_until_cancelled(started).await else {
            return Ok(());
        };
        started??;

        let lanes = Lanes::new(self.handler, self.section.handler_timeout, cluster);
        let cut = CancellationToken::new();
        // Pushes that have come in need the links: these drain after them.
        let drain = CancellationToken::new();
        let push = self.push.map(|listener| {
            let push = Push::new(lanes.cluster().clone(), self.section.push.clone());
            let stopping = self.stop.clone();
            push::serve(push, listener, self.stats, stop.clone(), move || {
                stopping.timeout() / PUSH_SHARE
            })
        });
        let links = Arc::new(Links {
            lanes: lanes.clone(),
            card: self.card,
            nodes,
            queue_limit: limit,
            stop: drain.clone(),
            cut: cut.clone(),
            undrained: watch::Sender::new(0),
        });
        let (first, mut tried) = mpsc::channel(1);
        let serving = async {
            // Only closed, never sent to.
            let _ = timeout(FIRST_LINKS, tried.recv()).await;
            lanes.open();
            lanes.cluster().jobs().open();
            if !stop.is_cancelled() {
                ready();
            }
            match push {
                Some(push) => push.await,
                None => self.stop.requested().await,
            }
            drain.cancel();
        };
        let mut links = tokio::spawn(links.keep_all(first));
        let drained = async {
            serving.await;
            let drained = async {
                let _ = (&mut links).await;
                lanes.idle().await;
            };
            let time = self.stop.timeout();
            let time = time - time / STOP_SHARE;
            if timeout(time, drained).await.is_err() {
                let events = self.stats.events_in_flight.get();
                tracing::warn!(
                    events,
                    "drain takes too long, what is in flight is left to other workers"
                );
                cut.cancel();
                let _ = links.await;
            }
        };
        tokio::join!(drained, announced, lanes.cluster().jobs().over());

        lanes
            .cluster()
            .change_gateways(|gateways| *gateways = Default::default());
        let stopped = guarded(async { lanes.handler().on_stop(lanes.cluster()).await });
        if let Err(panic) = stopped.await {
            tracing::warn!(handler = "on_stop", error = %panic, "handler failed");
        }
        Ok(())
    }
}
