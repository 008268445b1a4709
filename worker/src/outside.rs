//! A program that is no worker, and pushes to clients and asks about them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use meepo_node::secret::SecretHeader;
use meepo_node::{Membership, NodeSection};
use meepo_proto::link::query::Body as Query;
use meepo_proto::registry::{Kind, Node};
use meepo_proto::{WorkerId, link as wire};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::api::cluster::leader_jobs::LeaderJobs;
use crate::figures::WorkerFigures;
use crate::link::Identity;
use crate::link::send_budget::SendBudget;
use crate::runtime::client_queues::ClientQueues;
use crate::runtime::leader_jobs::LeaderJobRunner;
use crate::runtime::links::Links;
use crate::settings::WorkerSection;
use crate::{Client, Cluster, Handler, Message, Result};

/// How long the registries may take to answer, and then the gateways.
const PATIENCE: Duration = Duration::from_secs(5);

/// A cluster, joined from outside: a [`Cluster`] for a program that serves no clients itself.
///
/// It has links to all gateways, which it looks after as a worker does, until it is dropped. What was sent and is still
/// queued then is lost: [`flush`](Self::flush) waits for it.
///
/// ```no_run
/// use meepo_worker::Outside;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let outside = Outside::connect(["10.0.0.1:19911"], "the secret").await?;
/// outside.cluster().group("lobby").send("tea is ready");
/// println!("{} are here", outside.cluster().count().await.value);
/// outside.flush().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Outside {
    cluster: Cluster,
    /// Failed sends that `flush` has returned already.
    told: AtomicU64,
    _until: DropGuard,
}

/// Why a cluster could not be joined, or commands are not known to be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OutsideError {
    /// No registry answers, or none knows a gateway; the log says which.
    #[error("no gateway is known at the registries {}", .0.join(", "))]
    NoGateway(Vec<String>),
    /// Some gateways did not answer.
    #[error("{0} gateways do not answer")]
    Missing(usize),
    /// This many sends have failed.
    #[error("{0} sends failed: the client has gone, or its gateway cannot be reached")]
    Failed(u64),
}

/// The handler of a program that serves no clients.
struct Nobody;

impl Handler for Nobody {
    async fn on_message(&self, _client: &Client, _message: Message) -> Result<()> {
        Ok(())
    }

    fn says_last_words(&self) -> bool {
        false
    }
}

impl Outside {
    /// Joins a cluster by its registries, host and port each, and its secret. It waits until all gateways were tried, for up
    /// to 10 s.
    ///
    /// # Errors
    ///
    /// When no registry answers, or none knows a gateway.
    pub async fn connect(
        registries: impl IntoIterator<Item = impl Into<String>>,
        secret: impl Into<String>,
    ) -> Result<Self, OutsideError> {
        let section = NodeSection {
            registry: registries.into_iter().map(Into::into).collect(),
            secret: secret.into(),
            ..NodeSection::default()
        };
        let limits = WorkerSection::default().limits();
        // The figures live as long as the links' tasks do; a program joins a cluster once.
        let stats: &'static WorkerFigures = Box::leak(Box::default());
        let budget = SendBudget::new(usize::MAX, None, stats);
        let until = CancellationToken::new();
        let guard = until.clone().drop_guard();
        let membership = Membership::new(&section);
        let mut nodes = membership.watch(until.clone());
        let (leader_jobs, added) = LeaderJobs::new();
        let runner = LeaderJobRunner {
            added,
            membership,
            stats,
            open: CancellationToken::new(),
            stop: until.clone(),
        };
        let queue_limit = limits.send_queue;
        let cluster = Cluster::new(stats, limits, budget, until.clone(), leader_jobs);
        let links = Arc::new(Links {
            queues: ClientQueues::new(Nobody, cluster.clone()),
            identity: Identity {
                hello: wire::Hello {
                    worker_id: WorkerId::random().0,
                    name: "outside".into(),
                    version: env!("CARGO_PKG_VERSION").into(),
                    outside: true,
                    ..wire::Hello::default()
                },
                secret: SecretHeader::new(&section.secret),
            },
            nodes: nodes.clone(),
            queue_limit,
            stop: until.clone(),
            cut: until,
            undrained: watch::Sender::new(0),
        });
        let has_gateway = |nodes: &BTreeMap<u64, Node>| nodes.values().any(|node| node.kind() == Kind::Gateway);
        if !matches!(timeout(PATIENCE, nodes.wait_for(has_gateway)).await, Ok(Ok(_))) {
            return Err(OutsideError::NoGateway(section.registry));
        }
        let (first, mut tried) = mpsc::channel(1);
        tokio::spawn(links.keep_all(first));
        // Only closed, never sent to.
        let _ = timeout(PATIENCE, tried.recv()).await;
        runner.open.cancel();
        tokio::spawn(runner.run());
        Ok(Self {
            cluster,
            told: AtomicU64::new(0),
            _until: guard,
        })
    }

    /// The cluster: what can be sent and asked goes through it.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Waits until all gateways have carried out the commands that were sent before.
    ///
    /// # Errors
    ///
    /// When a gateway does not answer, or sends have failed since the last call: their client had gone, or a gateway could
    /// not be reached.
    pub async fn flush(&self) -> Result<(), OutsideError> {
        // The reply comes once all is carried out that was sent before the query.
        let query = |_| Some(Query::Barrier(wire::Barrier {}));
        match self.cluster.ask(query, |_, _| true).await.len() {
            0 => {}
            missing => return Err(OutsideError::Missing(missing)),
        }
        let failed = self.cluster.stats().failed_sends.get();
        match failed - self.told.swap(failed, Ordering::Relaxed) {
            0 => Ok(()),
            failed => Err(OutsideError::Failed(failed)),
        }
    }
}
