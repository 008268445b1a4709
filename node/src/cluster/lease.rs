//! Names that one holder in the cluster has at a time: asks the registries for a name, and keeps it. The rules are in `claim`.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use meepo_proto::registry::{HoldReply, HoldRequest, ReleaseRequest};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use crate::backoff::Backoff;
use crate::cluster::claim::{Claim, ClaimPhase};
use crate::cluster::clock::since_boot;
use crate::cluster::membership::Membership;
use crate::random;

/// How long a registry may take for an answer: it may have to try a second member of etcd.
const ANSWER_TIME: Duration = Duration::from_millis(2500);
/// How long giving a name back may take.
const RELEASE_TIME: Duration = Duration::from_secs(1);
/// The longest pause before a name that another holder has is asked for again.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause after a registry did not answer.
const RETRY: Duration = Duration::from_millis(400);
/// A holder asks again after this part of the granted time (a third), so that two answers may be missed.
const RENEWED: u32 = 3;
/// An outage that is shorter is not logged.
const GRACE: Duration = Duration::from_secs(10);
/// An outage that lasts is logged again after this.
const REMIND: Duration = Duration::from_secs(300);

/// A name that no other process in the cluster has, for as long as the lease lasts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Lease {
    term: u64,
    /// When it ends, as the time since the machine started. Zero when it is over.
    until: watch::Receiver<Duration>,
}

/// A lease that is kept until it is lost, given back or dropped.
#[derive(Debug)]
pub struct HeldLease {
    lease: Lease,
    until: Arc<watch::Sender<Duration>>,
    attempt: Arc<Attempt>,
    kept: AbortOnDropHandle<()>,
}

/// An attempt to get a name, and to keep it.
#[derive(Debug)]
struct Attempt {
    membership: Membership,
    name: String,
    /// The id of this attempt's holder: another for each attempt, so that no registry takes it for an earlier one.
    holder: u64,
    claim: Mutex<Claim>,
}

/// Not enough registries have answered.
#[derive(Debug)]
struct Unreached {
    answered: usize,
    needed: usize,
    error: Option<Status>,
}

impl Lease {
    /// A number that grows with each grant of the name: a database that keeps the largest one it was shown can refuse
    /// a holder that comes late with a smaller one. It fits into a signed 64-bit column.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Whether the lease lasts at this moment. It may be over in the next.
    pub fn is_held(&self) -> bool {
        since_boot() < *self.until.borrow()
    }

    /// Waits until the lease is over. Cancel safe.
    pub async fn lost(&self) {
        let mut until = self.until.clone();
        loop {
            let end = *until.borrow_and_update();
            let Some(left) = end.checked_sub(since_boot()).filter(|left| !left.is_zero()) else {
                return;
            };
            tokio::select! {
                () = sleep(left) => {}
                changed = until.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Runs a future as long as the lease lasts: no step of it begins later, not even when this process or machine has
    /// slept, and timers come late. None if the lease was over first.
    pub async fn guard<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        let mut lost = pin!(self.lost());
        poll_fn(|cx| {
            if !self.is_held() || lost.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            future.as_mut().poll(cx).map(Some)
        })
        .await
    }
}

impl HeldLease {
    /// The lease, to be handed on to whatever needs it.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Gives the name back, so that another can have it at once. Whatever needs the lease has to have ended.
    pub async fn release(mut self) {
        self.until.send_replace(Duration::ZERO);
        // The name is not asked for again once it is given back.
        self.kept.abort();
        let _ = (&mut self.kept).await;
        self.attempt.give_back().await;
    }
}

impl Drop for HeldLease {
    fn drop(&mut self) {
        self.until.send_replace(Duration::ZERO);
    }
}

impl Membership {
    /// Waits until this process alone has a name, which has from 1 to 128 bytes. None when the token is cancelled first.
    pub async fn acquire(&self, name: &str, stop: &CancellationToken) -> Option<HeldLease> {
        let mut outage = MajorityOutage::default();
        let mut backoff = Backoff::steady(PAUSE);
        loop {
            let attempt = Arc::new(Attempt {
                membership: self.clone(),
                name: name.into(),
                // From the system: generators of several processes may begin with the same seed.
                holder: random::number().max(1),
                claim: Mutex::new(Claim::new(self.size())),
            });
            match stop.run_until_cancelled(attempt.run()).await {
                Some(Ok(())) => return Some(attempt.keep()),
                Some(Err(unreached)) => outage.saw(name, unreached),
                None => {
                    attempt.give_back().await;
                    return None;
                }
            }
            // Holders that got a part of the registries each must not meet again.
            let pause = sleep(backoff.pause());
            tokio::join!(attempt.give_back(), stop.run_until_cancelled(pause)).1?;
        }
    }
}

impl Attempt {
    /// Tries to get the name. An error has the outage, if not enough registries answered.
    async fn run(&self) -> Result<(), Option<Unreached>> {
        for phase in [ClaimPhase::Asking, ClaimPhase::Telling] {
            let answered = self.round(phase).await;
            if self.claim().phase(since_boot()) == phase {
                return Err(answered);
            }
        }
        match self.claim().phase(since_boot()) {
            ClaimPhase::Held => Ok(()),
            _ => Err(None),
        }
    }

    /// Asks all registries once, until their answers are enough for the next phase.
    async fn round(&self, phase: ClaimPhase) -> Option<Unreached> {
        let registries = 0..self.membership.size();
        let mut calls: FuturesUnordered<_> = registries.map(|registry| self.ask(registry)).collect();
        let (mut answered, mut enough, mut last_error) = (0, false, None);
        while let Some(result) = calls.next().await {
            match result {
                Ok(answer) => {
                    answered += 1;
                    enough |= answer.shared;
                }
                Err(error) => last_error = Some(error),
            }
            if self.claim().phase(since_boot()) != phase {
                return None;
            }
        }
        let needed = self.claim().majority();
        (answered < needed && !enough).then_some(Unreached {
            answered,
            needed,
            error: last_error,
        })
    }

    /// Asks one registry, and notes its answer.
    async fn ask(&self, registry: usize) -> Result<HoldReply, Status> {
        let sent = self.claim().ask(registry, since_boot());
        let request = HoldRequest {
            name: self.name.clone(),
            holder: self.holder,
            term: sent.term,
        };
        let call = self.membership.call(registry, ANSWER_TIME, async |mut client| {
            client.hold(request).await.map(tonic::Response::into_inner)
        });
        let answer = call.await?;
        self.claim().answer(registry, since_boot(), sent, &answer);
        Ok(answer)
    }

    /// Keeps the name from now on.
    fn keep(self: Arc<Self>) -> HeldLease {
        let (term, end) = {
            let claim = self.claim();
            let term = claim.term().expect("a name that is held has a term");
            (term, claim.until())
        };
        let (sender, until) = watch::channel(end);
        let sender = Arc::new(sender);
        let (attempt, told) = (Arc::clone(&self), Arc::clone(&sender));
        let kept = tokio::spawn(async move {
            let registries = 0..attempt.membership.size();
            join_all(registries.map(|registry| attempt.renew(registry, &told))).await;
        });
        HeldLease {
            lease: Lease { term, until },
            until: sender,
            attempt: self,
            kept: AbortOnDropHandle::new(kept),
        }
    }

    /// Keeps the name at one registry, until it is lost.
    async fn renew(&self, registry: usize, until: &watch::Sender<Duration>) {
        let mut backoff = Backoff::steady(RETRY);
        loop {
            let answer = self.ask(registry).await;
            let end = {
                let mut claim = self.claim();
                if claim.phase(since_boot()) == ClaimPhase::Lost {
                    until.send_replace(Duration::ZERO);
                    return;
                }
                claim.until()
            };
            until.send_if_modified(|known| {
                // A lease that was given back stays over.
                let later = *known < end && !known.is_zero();
                if later {
                    *known = end;
                }
                later
            });
            let pause = match answer {
                Ok(HoldReply { grant: Some(grant), .. }) => Duration::from_millis(grant.time_ms.into()) / RENEWED,
                _ => backoff.pause(),
            };
            sleep(pause).await;
        }
    }

    /// Gives the name back to all registries that may have granted it.
    async fn give_back(&self) {
        let open = self.claim().open();
        let released = open.into_iter().map(|registry| {
            let request = ReleaseRequest {
                name: self.name.clone(),
                holder: self.holder,
            };
            // A registry that does not answer frees the name when the lease has run out.
            self.membership.call(registry, RELEASE_TIME, async |mut client| {
                client.release(request).await.map(tonic::Response::into_inner)
            })
        });
        join_all(released).await;
    }

    fn claim(&self) -> MutexGuard<'_, Claim> {
        self.claim.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Since when not enough registries have answered.
#[derive(Debug, Default)]
struct MajorityOutage {
    since: Option<Instant>,
    logged: Option<Instant>,
}

impl MajorityOutage {
    fn saw(&mut self, name: &str, unreached: Option<Unreached>) {
        let Some(Unreached {
            answered,
            needed,
            error,
        }) = unreached
        else {
            self.since = None;
            return;
        };
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        if now - since < GRACE || self.logged.is_some_and(|logged| now - logged < REMIND) {
            return;
        }
        self.logged = Some(now);
        let error = error.map(|error| error.message().to_owned()).unwrap_or_default();
        tracing::warn!(
            job = name,
            answered,
            needed,
            error,
            "not enough registries answer, so nobody can have the lease; still trying"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(until: Duration) -> (Lease, watch::Sender<Duration>) {
        let (sender, until) = watch::channel(until);
        (Lease { term: 1, until }, sender)
    }

    #[tokio::test]
    async fn nothing_begins_once_it_is_over() {
        let (over, _sender) = lease(since_boot());
        over.lost().await;
        assert!(!over.is_held());
        let begun = over.guard(async { panic!("it has begun") }).await;
        assert_eq!(begun, None::<()>);
    }

    #[tokio::test]
    async fn it_is_cut_off_where_it_waits() {
        let (lease, sender) = lease(since_boot() + REMIND);
        assert_eq!(lease.guard(async { 7 }).await, Some(7));
        let cut = lease.guard(async {
            sender.send_replace(Duration::ZERO);
            // Not woken by the lease: the runtime comes back by itself.
            tokio::task::yield_now().await;
            panic!("it went on");
        });
        assert_eq!(cut.await, None::<()>);
    }

    #[tokio::test]
    async fn it_lasts_as_long_as_it_is_renewed_and_ends_when_nobody_keeps_it() {
        let (lease, sender) = lease(since_boot() + Duration::from_millis(50));
        let later = since_boot() + Duration::from_millis(100);
        sender.send_replace(later);
        lease.lost().await;
        assert!(since_boot() >= later);
        sender.send_replace(since_boot() + REMIND);
        assert!(lease.is_held());
        drop(sender);
        lease.lost().await;
    }
}
