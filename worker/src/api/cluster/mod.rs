//! All gateways and their clients.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, Weak};
use std::time::Duration;

use meepo_node::stats::Slot;
use meepo_proto::link as wire;
use meepo_proto::link::command::Body;
use meepo_proto::{ClientId, GatewayId};
use tokio_util::sync::CancellationToken;

use crate::api::client::Known;
use crate::api::timers::{Count, Run};
use crate::instance::WorkerSection;
use crate::link::Link;
use crate::link::send_budget::Room;
use crate::runtime::leader_job::{JobError, Jobs};
use crate::{Lease, Message, Result};

/// All gateways of the cluster and their clients.
///
/// It is cheap to clone, and works outside of a handler too: in a timer, in a task that waits for a database.
///
/// Sends do not wait: they are queued, and carried out by each gateway in the order in which this worker child made
/// them, except that what concerns one client does not wait for messages of more than 64 KiB to others. What cannot
/// reach its client, because the client or its gateway has gone, is counted as a failed send.
/// Questions are async, ask all gateways at once, and say which did not [answer](crate::Answer).
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
    stats: &'static Slot,
    query_timeout: Duration,
    handler_timeout: Duration,
    /// The room of all links together.
    room: Arc<Room>,
    serving: OnceLock<Weak<dyn Serving>>,
    /// Tells to drain.
    stopping: CancellationToken,
    timers: Count,
    jobs: Jobs,
}

/// Those clients that this worker child serves.
pub(crate) trait Serving: Send + Sync {
    /// What is known of a client, if it is one of them.
    fn known(&self, id: ClientId) -> Option<Arc<Known>>;

    /// Whether a client is one of them, and has been let in.
    fn has_let_in(&self, known: &Arc<Known>) -> bool;

    /// Runs a timer of a client, if it is one of them, when its turn has come.
    fn run(self: Arc<Self>, known: &Arc<Known>, run: Run);

    /// How many clients there is something of.
    #[cfg(test)]
    fn lanes(&self) -> usize;
}

/// The gateway children that this worker child knows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gateways {
    /// Those with a link that is up.
    pub(crate) up: BTreeMap<GatewayId, Arc<Link>>,
    /// Those that live, by what the registry says, and have no link now.
    pub(crate) away: BTreeSet<GatewayId>,
}

impl Cluster {
    pub(crate) fn new(
        stats: &'static Slot,
        section: &WorkerSection,
        room: Arc<Room>,
        stopping: CancellationToken,
        jobs: Jobs,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                gateways: RwLock::default(),
                stats,
                query_timeout: section.query_timeout,
                handler_timeout: section.handler_timeout,
                room,
                serving: OnceLock::new(),
                stopping,
                timers: Count::default(),
                jobs,
            }),
        }
    }

    /// Tells who serves clients. It is told once.
    pub(crate) fn serves(&self, serving: Weak<dyn Serving>) {
        let _ = self.shared.serving.set(serving);
    }

    /// Takes all clients out of a group.
    pub fn dissolve(&self, group: impl Into<String>) {
        let group = group.into();
        let gateways = self.gateways();
        for link in gateways.up.values() {
            let ungroup = wire::Ungroup { group: group.clone() };
            if link.send(Body::Ungroup(ungroup)).is_err() {
                self.shared.stats.failed_sends.add(1);
            }
        }
    }

    /// Runs a job in one worker child of the whole cluster at a time.
    ///
    /// Every worker child adds the job, in [`Handler::on_start`](crate::Handler::on_start). The registries give a lease on
    /// its name to one of them, where `job` is called and its future runs. When that child dies, another one runs the job
    /// within seconds; when it drains, at once. A name is of the whole cluster, also between different programs.
    ///
    /// The future is dropped, which cuts it off where it waits, when the child drains, and before another child can have
    /// the lease. This does not reach what it has handed on: tasks that it has spawned, threads, statements that a database
    /// has begun. A process that is stopped in the middle of a statement finishes that when it wakes up. Where that would
    /// do harm, give the database [`Lease::term`], and have it refuse smaller ones than it has seen.
    ///
    /// A job that returns, fails or panics gives its lease back, and is called again after a pause, perhaps in another
    /// child. After `Ok` the pause is about a second; failures are logged and counted, and their pauses double up to a
    /// minute in each child.
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
        self.shared.jobs.add(self, name.into(), job)
    }

    pub(crate) fn jobs(&self) -> &Jobs {
        &self.shared.jobs
    }

    pub(crate) fn gateways(&self) -> RwLockReadGuard<'_, Gateways> {
        self.shared.gateways.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The longest message that all gateways take, if any is there.
    pub(crate) fn max_message(&self) -> Option<u64> {
        self.gateways().up.values().map(|link| link.max_message).min()
    }

    pub(crate) fn change_gateways(&self, change: impl FnOnce(&mut Gateways)) {
        let mut gateways = self.shared.gateways.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut gateways);
        self.shared.stats.links.set(gateways.up.len() as u64);
    }

    pub(crate) fn stats(&self) -> &'static Slot {
        self.shared.stats
    }

    pub(crate) fn query_timeout(&self) -> Duration {
        self.shared.query_timeout
    }

    pub(crate) fn handler_timeout(&self) -> Duration {
        self.shared.handler_timeout
    }

    pub(crate) fn stopping(&self) -> &CancellationToken {
        &self.shared.stopping
    }

    pub(crate) fn timers(&self) -> &Count {
        &self.shared.timers
    }

    pub(crate) fn serving(&self) -> Option<Arc<dyn Serving>> {
        self.shared.serving.get()?.upgrade()
    }

    pub(crate) fn room(&self) -> &Arc<Room> {
        &self.shared.room
    }

    /// What this worker child knows of a client, if it serves it.
    pub(crate) fn served(&self, id: ClientId) -> Option<Arc<Known>> {
        self.serving()?.known(id)
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
