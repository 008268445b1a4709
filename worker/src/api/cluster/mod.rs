//! All gateways and their clients: what every command and query goes through.
//!
//! Handlers, timers and the push API hold a cluster. It knows the links and, by a trait, the queues of served clients; it
//! does not know the runtime that fills it.

pub(crate) mod gateway_copy;
pub(crate) mod gateways;
pub(crate) mod leader_jobs;
pub(crate) mod served_clients;
pub(crate) mod timer_count;

use std::fmt;
use std::sync::{Arc, LazyLock, OnceLock, PoisonError, RwLock, RwLockReadGuard, Weak};

use meepo_node::Lease;
use meepo_proto::ClientId;
use meepo_proto::link as wire;
use meepo_proto::link::command::Body;
use tokio_util::sync::CancellationToken;

use self::gateway_copy::HasGatewayCopy;
use self::gateways::Gateways;
use self::leader_jobs::{JobError, LeaderJob, LeaderJobs};
use self::served_clients::ServedClients;
use self::timer_count::TimerCount;
use crate::Result;
use crate::api::event::message::Message;
use crate::figures::WorkerFigures;
use crate::link::send_budget::SendBudget;
use crate::settings::{Limits, WorkerSection};

/// All gateways of the cluster and their clients.
///
/// It is cheap to clone, and works outside of a handler too: in a timer, in a task that waits for a database.
///
/// Sends do not wait: they are queued, and carried out by each gateway in the order in which this worker child made
/// them, except that what concerns one client does not wait for messages of more than 64 KiB to others. What cannot
/// reach its client, because the client or its gateway has gone, is counted as a failed send.
/// Queries are async, ask all gateways at once, and say which did not [answer](crate::Answer).
///
/// ```
/// use std::time::Duration;
/// use meepo_worker::{Client, Cluster, Handler, Message, Result};
///
/// struct Clock;
///
/// impl Handler for Clock {
///     async fn on_start(&self, cluster: &Cluster) -> Result<()> {
///         cluster.every(Duration::from_secs(1), async |cluster| cluster.all().send("tick"));
///         Ok(())
///     }
///
///     async fn on_message(&self, client: &Client, _message: Message) -> Result<()> {
///         let online = client.cluster().count().await;
///         client.send(format!("{} are here", online.value));
///         Ok(())
///     }
/// }
/// ```
#[derive(Clone)]
pub struct Cluster {
    shared: Arc<Shared>,
}

struct Shared {
    gateways: RwLock<Gateways>,
    stats: &'static WorkerFigures,
    limits: Limits,
    /// The send budget of all links together.
    budget: Arc<SendBudget>,
    /// Filled once by the runtime.
    served: OnceLock<Weak<dyn ServedClients>>,
    /// Cancelled when the child is to drain.
    stopping: CancellationToken,
    timers: TimerCount,
    leader_jobs: LeaderJobs,
}

impl Cluster {
    pub(crate) fn new(
        stats: &'static WorkerFigures,
        limits: Limits,
        budget: Arc<SendBudget>,
        stopping: CancellationToken,
        leader_jobs: LeaderJobs,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                gateways: RwLock::default(),
                stats,
                limits,
                budget,
                served: OnceLock::new(),
                stopping,
                timers: TimerCount::default(),
                leader_jobs,
            }),
        }
    }

    /// A cluster without gateways, for requests that tests make.
    pub(crate) fn without_gateways() -> Self {
        static NOWHERE: LazyLock<Cluster> = LazyLock::new(|| {
            let stats: &'static WorkerFigures = Box::leak(Box::default());
            let limits = WorkerSection::default().limits();
            let budget = SendBudget::new(limits.send_queue, None, stats);
            let (leader_jobs, _) = LeaderJobs::new();
            Cluster::new(stats, limits, budget, CancellationToken::new(), leader_jobs)
        });
        NOWHERE.clone()
    }

    /// Takes all clients out of a group.
    pub fn dissolve(&self, group: impl Into<String>) {
        let group = group.into();
        let gateways = self.gateways();
        for link in gateways.up.values() {
            let dissolve = wire::Dissolve { group: group.clone() };
            if link.send(Body::Dissolve(dissolve)).is_err() {
                self.shared.stats.failed_sends.add(1);
            }
        }
    }

    /// Runs a leader job: in one worker child of the whole cluster at a time.
    ///
    /// Every worker child adds the leader job, in [`Handler::on_start`](crate::Handler::on_start). The registries give a
    /// lease on its name to one of them, where `job` is called and its future runs. When that child dies, another one runs
    /// the job within seconds; when it drains, at once. A name is of the whole cluster, also between different programs.
    ///
    /// The future is dropped, which cuts it off where it waits, when the child drains, and before another child can have
    /// the lease. This does not reach what it has handed on: tasks that it has spawned, threads, statements that a database
    /// has begun. A process that is stopped in the middle of a statement finishes that when it wakes up. Where that would
    /// do harm, give the database [`Lease::term`], and have it refuse smaller terms than it has seen.
    ///
    /// A job that returns, fails or panics gives its lease back, and is called again after a pause, perhaps in another
    /// child. After `Ok` the pause is about a second; failures are logged and counted, and their pauses double up to a
    /// minute in each child.
    ///
    /// # Errors
    ///
    /// When the name is empty or longer than 128 bytes, when this child has a leader job of this name already, or 64 leader
    /// jobs.
    ///
    /// ```
    /// use std::time::Duration;
    /// use meepo_worker::{Client, Cluster, Handler, Message, Result};
    ///
    /// struct Clock;
    ///
    /// impl Handler for Clock {
    ///     async fn on_start(&self, cluster: &Cluster) -> Result<()> {
    ///         cluster.job("clock", |cluster, _lease| async move {
    ///             let mut second = tokio::time::interval(Duration::from_secs(1));
    ///             loop {
    ///                 second.tick().await;
    ///                 cluster.all().send("tick");
    ///             }
    ///         })?;
    ///         Ok(())
    ///     }
    ///
    ///     async fn on_message(&self, _client: &Client, _message: Message) -> Result<()> {
    ///         Ok(())
    ///     }
    /// }
    /// ```
    pub fn job<R>(
        &self,
        name: impl Into<String>,
        job: impl Fn(Cluster, Lease) -> R + Send + Sync + 'static,
    ) -> Result<(), JobError>
    where
        R: Future<Output = Result<()>> + Send + 'static,
    {
        let cluster = self.clone();
        self.shared.leader_jobs.add(LeaderJob {
            name: name.into(),
            run: Box::new(move |lease| Box::pin(job(cluster.clone(), lease))),
        })
    }

    pub(crate) fn gateways(&self) -> RwLockReadGuard<'_, Gateways> {
        self.shared.gateways.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The longest message that all gateways take, in bytes, if there is a gateway.
    pub(crate) fn max_message(&self) -> Option<u64> {
        self.gateways().up.values().map(|link| link.max_message).min()
    }

    pub(crate) fn change_gateways(&self, change: impl FnOnce(&mut Gateways)) {
        let mut gateways = self.shared.gateways.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut gateways);
        self.shared.stats.links.set(gateways.up.len() as u64);
    }

    pub(crate) fn stats(&self) -> &'static WorkerFigures {
        self.shared.stats
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    pub(crate) fn stopping(&self) -> &CancellationToken {
        &self.shared.stopping
    }

    pub(crate) fn timers(&self) -> &TimerCount {
        &self.shared.timers
    }

    /// Names the clients that this child serves. Only the first call counts.
    pub(crate) fn set_served(&self, served: Weak<dyn ServedClients>) {
        let _ = self.shared.served.set(served);
    }

    pub(crate) fn served_clients(&self) -> Option<Arc<dyn ServedClients>> {
        self.shared.served.get()?.upgrade()
    }

    pub(crate) fn budget(&self) -> &Arc<SendBudget> {
        &self.shared.budget
    }

    /// A client, if this child serves it.
    pub(crate) fn served(&self, id: ClientId) -> Option<Arc<dyn HasGatewayCopy>> {
        self.served_clients()?.served(id)
    }

    pub(crate) fn count_sent(&self, message: &Message) {
        self.shared.stats.messages_out.add(1);
        self.shared.stats.bytes_out.add(message.bytes().len() as u64);
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gateways = self.gateways();
        f.debug_struct("Cluster")
            .field("up", &gateways.up.keys())
            .field("away", &gateways.away)
            .finish()
    }
}
