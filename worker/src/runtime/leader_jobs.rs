//! Leader jobs: what one worker child in the whole cluster does at a time, under a lease.

use std::time::Duration;

use meepo_node::{Backoff, Lease, Membership};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::cluster::leader_jobs::LeaderJob;
use crate::api::error::guarded;
use crate::figures::WorkerFigures;

/// The pause after a leader job has returned, and after its first failure.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause after failures. A job that has run for so long before it fails begins with the first pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long a drain waits for leases to be given back, which itself is bounded.
const GOODBYE: Duration = Duration::from_secs(3);

/// Runs the leader jobs of a child.
pub(crate) struct LeaderJobRunner {
    /// The leader jobs that the application adds.
    pub(crate) added: UnboundedReceiver<LeaderJob>,
    pub(crate) membership: Membership,
    pub(crate) stats: &'static WorkerFigures,
    /// Leader jobs may begin: what they send reaches the gateways that were known at first.
    pub(crate) open: CancellationToken,
    /// Leader jobs are to end.
    pub(crate) stop: CancellationToken,
}

impl LeaderJobRunner {
    /// Runs each leader job whenever this child has its lease, until the stop. Then it waits until all have ended and given
    /// back their leases, though not for ever.
    pub(crate) async fn run(mut self) {
        let tasks = TaskTracker::new();
        let added = async {
            self.open.cancelled().await;
            while let Some(job) = self.added.recv().await {
                let holder = Holder {
                    job,
                    membership: self.membership.clone(),
                    stats: self.stats,
                    stop: self.stop.clone(),
                };
                tasks.spawn(holder.run());
            }
        };
        if self.stop.run_until_cancelled(added).await.is_some() {
            // Nobody can add a leader job any more.
            self.stop.cancelled().await;
        }
        tasks.close();
        if timeout(GOODBYE, tasks.wait()).await.is_err() {
            tracing::warn!("a leader job does not end; its lease is left to run out");
        }
    }
}

/// Runs one leader job whenever this child holds its lease.
struct Holder {
    job: LeaderJob,
    membership: Membership,
    stats: &'static WorkerFigures,
    stop: CancellationToken,
}

/// How a run of a leader job has ended.
enum End {
    /// This child drains.
    Stopped,
    /// The lease was lost.
    Lost,
    Returned,
    Failed(String),
}

impl Holder {
    async fn run(self) {
        let name = &self.job.name;
        let mut failures = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE).never_below(1.0);
        while let Some(held) = self.membership.acquire(name, &self.stop).await {
            let lease = held.lease().clone();
            let term = lease.term();
            tracing::info!(job = name, term, "leader job begins");
            let began = Instant::now();
            let end = self.once(lease).await;
            // Only now: nothing of the job is left.
            held.release().await;
            if began.elapsed() >= LONGEST_PAUSE {
                failures.reset();
            }
            let pause = match end {
                End::Stopped => {
                    tracing::info!(job = name, term, "leader job is left to others, this child drains");
                    return;
                }
                End::Lost => {
                    tracing::warn!(job = name, term, "leader job was cut off, its lease is lost");
                    continue;
                }
                End::Returned => {
                    tracing::debug!(job = name, term, "leader job has returned");
                    failures.reset();
                    FIRST_PAUSE
                }
                End::Failed(error) => {
                    self.stats.handler_errors.add(1);
                    let pause = failures.pause();
                    tracing::warn!(job = name, term, error, again_in = ?pause, "leader job failed");
                    pause
                }
            };
            if self.stop.run_until_cancelled(sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// Runs the job under a lease. Nothing is left of it when this returns.
    async fn once(&self, lease: Lease) -> End {
        let _running = Running::new(self.stats);
        let handed = lease.clone();
        let job = guarded(async { (self.job.run)(handed).await });
        tokio::select! {
            biased;
            () = self.stop.cancelled() => End::Stopped,
            ended = lease.guard(job) => match ended {
                None => End::Lost,
                Some(Ok(Ok(()))) => End::Returned,
                Some(Ok(Err(error))) => End::Failed(error.to_string()),
                Some(Err(panic)) => End::Failed(panic.to_string()),
            },
        }
    }
}

/// Counts a leader job for as long as it runs.
struct Running(&'static WorkerFigures);

impl Running {
    fn new(stats: &'static WorkerFigures) -> Self {
        stats.jobs.add(1);
        Self(stats)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.jobs.sub(1);
    }
}
