//! The life of a worker child.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use meepo_node::secret::SecretHeader;
use meepo_node::{BoxError, Child, Membership, Stop};
use meepo_proto::registry::{Kind, Node};
use meepo_proto::{WorkerId, link as wire};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::client_queues::ClientQueues;
use super::leader_jobs::LeaderJobRunner;
use super::links::Links;
use crate::api::cluster::Cluster;
use crate::api::cluster::leader_jobs::LeaderJobs;
use crate::api::error::guarded;
use crate::api::handler::Handler;
use crate::figures::WorkerFigures;
use crate::link::Identity;
use crate::link::send_budget::SendBudget;
use crate::settings::Limits;

/// How long a child that starts waits for its first links before it says that it is ready. It serves without links too.
const FIRST_LINKS: Duration = Duration::from_secs(1);
/// The part of the time for a stop that is kept for `on_stop`.
const STOP_SHARE: u32 = 4;
/// The send budget of a whole child is that of so many links.
const LINKS_AT_LIMIT: usize = 4;

/// Serves programs that are no workers, until the child is told to stop and they have their answers: their commands need
/// the links, which drain after that.
pub(crate) type Entrance = Box<dyn FnOnce(Cluster) -> BoxFuture<'static, ()> + Send>;

/// Runs a worker child from its start until it has drained.
pub(crate) async fn serve<H: Handler>(
    handler: H,
    limits: Limits,
    child: Child,
    entrance: Option<Entrance>,
) -> Result<(), BoxError> {
    let id = WorkerId::random();
    let membership = Membership::new(&child.node);
    let worker = Worker {
        handler,
        limits,
        identity: Identity {
            hello: wire::Hello {
                worker_id: id.0,
                name: child.node.name.clone(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                ..wire::Hello::default()
            },
            secret: SecretHeader::new(&child.node.secret),
        },
        stats: child.stats.view(),
        stop: child.stop.clone(),
        membership: membership.clone(),
        entrance,
    };
    let watched = CancellationToken::new();
    let _unwatch = watched.clone().drop_guard();
    let nodes = membership.watch(watched);

    let node = Node {
        id: id.0,
        kind: Kind::Worker.into(),
        name: worker.identity.hello.name.clone(),
        pid: std::process::id(),
        version: worker.identity.hello.version.clone(),
        ..Node::default()
    };
    // The child leaves the registry as soon as it begins to drain.
    let announced = membership.announce(node, child.stop.token().clone());
    worker.run(nodes, announced, || child.ready()).await
}

/// A worker child, apart from its master and the registry.
pub(crate) struct Worker<H> {
    pub(crate) handler: H,
    pub(crate) limits: Limits,
    pub(crate) identity: Identity,
    pub(crate) stats: &'static WorkerFigures,
    pub(crate) stop: Stop,
    /// For the leases of leader jobs.
    pub(crate) membership: Membership,
    pub(crate) entrance: Option<Entrance>,
}

impl<H: Handler> Worker<H> {
    /// Starts, serves and drains. `ready` is called once the child serves; `announced` runs meanwhile.
    pub(crate) async fn run(
        self,
        nodes: watch::Receiver<BTreeMap<u64, Node>>,
        announced: impl Future<Output = ()>,
        ready: impl FnOnce(),
    ) -> Result<(), BoxError> {
        let limit = self.limits.send_queue;
        let budget = SendBudget::new(limit.saturating_mul(LINKS_AT_LIMIT), None, self.stats);
        let stop = self.stop.token();
        let (leader_jobs, added) = LeaderJobs::new();
        let cluster = Cluster::new(self.stats, self.limits, budget, stop.clone(), leader_jobs);
        let started = guarded(async { self.handler.on_start(&cluster).await });
        let Some(started) = stop.run_until_cancelled(started).await else {
            return Ok(());
        };
        started??;

        let queues = ClientQueues::new(self.handler, cluster);
        let leader_jobs = LeaderJobRunner {
            added,
            membership: self.membership,
            stats: self.stats,
            open: CancellationToken::new(),
            stop: stop.clone(),
        };
        let open_leader_jobs = leader_jobs.open.clone();
        let cut = CancellationToken::new();
        let drain = CancellationToken::new();
        let entrance = self.entrance.map(|entrance| entrance(queues.cluster().clone()));
        let links = Arc::new(Links {
            queues: queues.clone(),
            identity: self.identity,
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
            queues.open();
            open_leader_jobs.cancel();
            if !stop.is_cancelled() {
                ready();
            }
            match entrance {
                Some(entrance) => entrance.await,
                None => self.stop.requested().await,
            }
            drain.cancel();
        };
        let mut links = tokio::spawn(links.keep_all(first));
        let drained = async {
            serving.await;
            let drained = async {
                let _ = (&mut links).await;
                queues.idle().await;
            };
            let time = self.stop.timeout();
            let time = time - time / STOP_SHARE;
            if timeout(time, drained).await.is_err() {
                let events = self.stats.events_in_flight.get();
                tracing::warn!(
                    events,
                    "drain takes too long, events in flight are left to other workers"
                );
                cut.cancel();
                let _ = links.await;
            }
        };
        tokio::join!(drained, announced, leader_jobs.run());

        queues
            .cluster()
            .change_gateways(|gateways| *gateways = Default::default());
        let stopped = guarded(async { queues.handler().on_stop(queues.cluster()).await });
        if let Err(panic) = stopped.await {
            tracing::warn!(handler = "on_stop", error = %panic, "handler failed");
        }
        Ok(())
    }
}
