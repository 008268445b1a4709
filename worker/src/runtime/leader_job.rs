//! Jobs: what one worker child in the whole cluster does at a time.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use meepo_node::stats::Slot;
use meepo_node::{Lease, Membership};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::runtime::client_queues::guarded;
use crate::{Cluster, Result};

/// The longest name, in bytes: what registries take.
const MAX_NAME: usize = 128;
/// More jobs in one child are a mistake: each asks the registries about once a second.
const MAX_JOBS: usize = 64;
/// The pause after a job has returned, and after its first failure.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause after failures. One that has run for so long before it fails begins with the first one.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long a drain waits for leases to be given back, which itself is bounded.
const GOODBYE: Duration = Duration::from_secs(3);

/// A job cannot be added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// The name is empty or too long.
    #[error("the name of a job must have from 1 to {MAX_NAME} bytes, not {0}")]
    Name(usize),
    /// This child has it already.
    #[error("this worker child has the job \"{0}\" already")]
    Twice(String),
    /// This child has too many.
    #[error("a worker child can have {MAX_JOBS} jobs, not more")]
    TooMany,
}

/// The jobs of a worker child.
#[derive(Debug)]
pub(crate) struct Jobs {
    membership: Membership,
    names: Mutex<BTreeSet<String>>,
    /// Jobs may begin: what they send reaches the gateways that were known at first.
    open: CancellationToken,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// How a run of a job has ended.
enum End {
    Stopped,
    Lost,
    Returned,
    Failed(String),
}

impl Jobs {
    /// Jobs that end with the token, and begin when they are [opened](Self::open).
    pub(crate) fn new(membership: Membership, stop: CancellationToken) -> Self {
        Self {
            membership,
            names: Mutex::default(),
            open: CancellationToken::new(),
            stop,
            tasks: TaskTracker::new(),
        }
    }

    /// Lets jobs begin.
    pub(crate) fn open(&self) {
        self.open.cancel();
    }

    /// Waits until all jobs have ended, and given back their leases: after the stop, and not for ever.
    pub(crate) async fn over(&self) {
        self.stop.cancelled().await;
        self.tasks.close();
        if timeout(GOODBYE, self.tasks.wait()).await.is_err() {
            tracing::warn!("a job does not end; its lease is left to run out");
        }
    }

    /// Adds a job, to be run whenever this child has the lease.
    pub(crate) fn add<R>(
        &self,
        cluster: &Cluster,
        name: String,
        job: impl Fn(Cluster, Lease) -> R + Send + Sync + 'static,
    ) -> Result<(), JobError>
    where
        R: Future<Output = Result<()>> + Send + 'static,
    {
        if name.is_empty() || name.len() > MAX_NAME {
            return Err(JobError::Name(name.len()));
        }
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.contains(&name) {
            return Err(JobError::Twice(name));
        }
        if names.len() >= MAX_JOBS {
            return Err(JobError::TooMany);
        }
        names.insert(name.clone());
        let runner = Runner {
            name,
            job: Arc::new(job),
            cluster: cluster.clone(),
            membership: self.membership.clone(),
            stop: self.stop.clone(),
        };
        let open = self.open.clone();
        self.tasks.spawn(async move {
            if runner.stop.run_until_cancelled(open.cancelled()).await.is_some() {
                runner.run().await;
            }
        });
        Ok(())
    }
}

/// One job of this child.
struct Runner<J> {
    name: String,
    job: Arc<J>,
    cluster: Cluster,
    membership: Membership,
    stop: CancellationToken,
}

impl<J, R> Runner<J>
where
    J: Fn(Cluster, Lease) -> R + Send + Sync + 'static,
    R: Future<Output = Result<()>> + Send + 'static,
{
    /// Runs the job whenever this child has the lease, until the stop.
    async fn run(self) {
        let name = &self.name;
        let mut failures = FIRST_PAUSE;
        while let Some(held) = self.membership.acquire(name, &self.stop).await {
            let lease = held.lease().clone();
            let term = lease.term();
            tracing::info!(job = name, term, "job begins");
            let began = Instant::now();
            let end = self.once(lease).await;
            // Only now: nothing of the job is left.
            held.release().await;
            if began.elapsed() >= LONGEST_PAUSE {
                failures = FIRST_PAUSE;
            }
            let pause = match end {
                End::Stopped => {
                    tracing::info!(job = name, term, "job is left to others, this child drains");
                    return;
                }
                End::Lost => {
                    tracing::warn!(job = name, term, "job was cut off, its lease is lost");
                    continue;
                }
                End::Returned => {
                    tracing::debug!(job = name, term, "job has returned");
                    failures = FIRST_PAUSE;
                    FIRST_PAUSE
                }
                End::Failed(error) => {
                    self.cluster.stats().handler_errors.add(1);
                    let pause = failures;
                    failures = (pause * 2).min(LONGEST_PAUSE);
                    tracing::warn!(job = name, term, error, again_in = ?pause, "job failed");
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
        let _running = Running::new(self.cluster.stats());
        let handed = lease.clone();
        let job = guarded(async { (self.job)(self.cluster.clone(), handed).await });
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

/// Counts a job for as long as it runs.
struct Running(&'static Slot);

impl Running {
    fn new(stats: &'static Slot) -> Self {
        stats.jobs.add(1);
        Self(stats)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.jobs.sub(1);
    }
}

#[cfg(test)]
mod tests {
    use meepo_node::NodeSection;

    use super::*;
    use crate::instance::WorkerSection;
    use crate::link::send_budget::Room;

    #[tokio::test]
    async fn names_are_checked_and_jobs_bounded() {
        let stats: &'static Slot = Box::leak(Box::default());
        let section = NodeSection {
            registry: Vec::new(),
            ..NodeSection::default()
        };
        let stop = CancellationToken::new();
        let jobs = Jobs::new(Membership::new(&section), stop.clone());
        let room = Room::new(usize::MAX, None, stats);
        let cluster = Cluster::new(stats, &WorkerSection::default(), room, stop, jobs);
        let add = |name: &str| cluster.job(name, |_, _| async { Ok(()) });
        assert_eq!(add(""), Err(JobError::Name(0)));
        assert_eq!(add(&"x".repeat(129)), Err(JobError::Name(129)));
        for number in 1..MAX_JOBS {
            assert_eq!(add(&format!("job {number}")), Ok(()));
        }
        assert_eq!(add("job 1"), Err(JobError::Twice("job 1".into())));
        assert_eq!(add(&"x".repeat(128)), Ok(()));
        assert_eq!(add("one more"), Err(JobError::TooMany));
    }
}
