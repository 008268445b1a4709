//! The leader jobs that an application has added to a worker child. The runtime runs them.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use futures_util::future::BoxFuture;
use meepo_node::Lease;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::Result;

/// The longest name of a leader job, in bytes: what registries take.
const MAX_NAME: usize = 128;
/// More leader jobs in one child are a mistake: each asks the registries about once a second.
const MAX_JOBS: usize = 64;

/// A leader job cannot be added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// The name is empty or longer than 128 bytes.
    #[error("the name of a leader job must have from 1 to {MAX_NAME} bytes, not {0}")]
    Name(usize),
    /// This child has a leader job of this name already.
    #[error("this worker child has a leader job \"{0}\" already")]
    Twice(String),
    /// This child has 64 leader jobs already.
    #[error("a worker child can have {MAX_JOBS} leader jobs, not more")]
    TooMany,
}

/// A leader job that was added.
pub(crate) struct LeaderJob {
    /// Its name, under which the registries give leases.
    pub(crate) name: String,
    /// Calls the application's function under a lease.
    pub(crate) run: Box<dyn Fn(Lease) -> BoxFuture<'static, Result<()>> + Send + Sync>,
}

/// The leader jobs of a child: their names, and the way to the runtime.
#[derive(Debug)]
pub(crate) struct LeaderJobs {
    names: Mutex<BTreeSet<String>>,
    added: UnboundedSender<LeaderJob>,
}

impl LeaderJobs {
    /// Leader jobs, and where those that are added come out.
    pub(crate) fn new() -> (Self, UnboundedReceiver<LeaderJob>) {
        let (added, jobs) = unbounded_channel();
        let names = Mutex::default();
        (Self { names, added }, jobs)
    }

    /// Adds a leader job, to be run whenever this child has the lease.
    pub(crate) fn add(&self, job: LeaderJob) -> Result<(), JobError> {
        let name = &job.name;
        if name.is_empty() || name.len() > MAX_NAME {
            return Err(JobError::Name(name.len()));
        }
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.contains(name) {
            return Err(JobError::Twice(job.name));
        }
        if names.len() >= MAX_JOBS {
            return Err(JobError::TooMany);
        }
        names.insert(name.clone());
        // A child that has ended runs no leader jobs.
        let _ = self.added.send(job);
        Ok(())
    }
}

impl fmt::Debug for LeaderJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LeaderJob").field(&self.name).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_and_leader_jobs_bounded() {
        let (jobs, mut added) = LeaderJobs::new();
        let add = |name: &str| {
            jobs.add(LeaderJob {
                name: name.to_owned(),
                run: Box::new(|_| Box::pin(async { Ok(()) })),
            })
        };
        assert_eq!(add(""), Err(JobError::Name(0)));
        assert_eq!(add(&"x".repeat(129)), Err(JobError::Name(129)));
        for number in 1..MAX_JOBS {
            assert_eq!(add(&format!("job {number}")), Ok(()));
        }
        assert_eq!(add("job 1"), Err(JobError::Twice("job 1".into())));
        assert_eq!(add(&"x".repeat(128)), Ok(()));
        assert_eq!(add("one more"), Err(JobError::TooMany));
        let names = std::iter::from_fn(|| added.try_recv().ok()).count();
        assert_eq!(names, MAX_JOBS, "none is lost, none comes twice");
    }
}
