//! Calls of etcd: each has a time limit, and is tried at another member when one does not answer. The rest of the store calls
//! them; nothing here knows what the keys mean.

mod error;
mod ids;
mod member;
mod transaction;
mod watch;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use meepo_proto::etcd::kv_client::KvClient;
use meepo_proto::etcd::lease_client::LeaseClient;
use meepo_proto::etcd::{
    KeyValue, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, RangeRequest, ResponseHeader,
};
use tokio::time::{Instant, sleep, timeout};
use tonic::Status;
use tonic::transport::Channel;

pub(crate) use error::EtcdError;
pub(crate) use ids::{EtcdLease, KeyRange, Revision};
use member::Member;
pub(crate) use transaction::Transaction;
pub(crate) use watch::{Watch, WatchEnd};

/// How long one member may take for an answer.
const ATTEMPT: Duration = Duration::from_millis(1500);
/// How long a call may take, however many members are tried.
const CALL: Duration = Duration::from_secs(3);
/// The longest pause before another member is tried.
const PAUSE: Duration = Duration::from_millis(200);
/// The longest response, in bytes: the list of all nodes is long.
const MAX_RESPONSE: usize = 64 << 20;

/// The members of one etcd.
#[derive(Debug)]
pub(crate) struct EtcdClient {
    members: Vec<Member>,
    /// The member that is asked: the same one as long as it answers.
    current: AtomicUsize,
}

/// The number of a member in the configuration, counted from 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MemberIndex(usize);

/// All pairs of a range, and the revision at which they were read.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) revision: Revision,
    pub(crate) pairs: Vec<KeyValue>,
}

impl EtcdClient {
    /// A client of the members at these addresses, host and port each. It connects when it is first used.
    pub(crate) fn new(endpoints: &[String]) -> Result<Self, tonic::transport::Error> {
        let members = endpoints.iter().map(|address| Member::new(address, ATTEMPT));
        let members = members.collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            // Random, so that not all registries ask the same one.
            current: AtomicUsize::new(fastrand::usize(..members.len().max(1))),
            members,
        })
    }

    /// All pairs of a range, as the majority of the members has them.
    pub(crate) async fn range(&self, range: KeyRange) -> Result<Listing, EtcdError> {
        let (key, range_end) = range.into_parts();
        let request = RangeRequest { key, range_end };
        self.call(|channel| {
            let request = request.clone();
            async move {
                let mut client = KvClient::new(channel).max_decoding_message_size(MAX_RESPONSE);
                let response = client.range(request).await?.into_inner();
                Ok(Listing {
                    revision: revision(response.header)?,
                    pairs: response.kvs,
                })
            }
        })
        .await
    }

    /// Carries out a transaction: the revision of its changes, or `None` if a condition did not hold. If there is no answer, the
    /// transaction may have been carried out all the same, once or twice, or may be later.
    pub(crate) async fn commit(&self, transaction: Transaction) -> Result<Option<Revision>, EtcdError> {
        let request = transaction.into_request();
        self.call(|channel| {
            let request = request.clone();
            async move {
                let response = KvClient::new(channel).txn(request).await?.into_inner();
                let revision = revision(response.header)?;
                Ok(response.succeeded.then_some(revision))
            }
        })
        .await
    }

    /// A new lease, and how long it lasts without [`keep_alive`](Self::keep_alive).
    pub(crate) async fn grant(&self, time: Duration) -> Result<(EtcdLease, Duration), EtcdError> {
        let whole = time.as_secs() + u64::from(time.subsec_nanos() > 0);
        let request = LeaseGrantRequest {
            ttl: i64::try_from(whole).unwrap_or(i64::MAX),
            id: 0,
        };
        let response = self
            .call(|channel| async move { Ok(LeaseClient::new(channel).lease_grant(request).await?.into_inner()) })
            .await?;
        let time = Duration::from_secs(u64::try_from(response.ttl).unwrap_or_default());
        Ok((EtcdLease(response.id), time))
    }

    /// Extends a lease. Whether it was still there.
    pub(crate) async fn keep_alive(&self, lease: EtcdLease) -> Result<bool, EtcdError> {
        let request = LeaseKeepAliveRequest { id: lease.0 };
        self.call(|channel| async move {
            // A stream for each request: it cannot hang unnoticed at a member that has gone.
            let responses = LeaseClient::new(channel)
                .lease_keep_alive(tokio_stream::iter([request]))
                .await?;
            let response = responses.into_inner().message().await?;
            let response = response.ok_or_else(|| Status::unavailable("the member has not answered"))?;
            Ok(response.ttl > 0)
        })
        .await
    }

    /// Ends a lease, and so deletes the keys under it. No error if there is no such lease.
    pub(crate) async fn revoke(&self, lease: EtcdLease) -> Result<(), EtcdError> {
        let request = LeaseRevokeRequest { id: lease.0 };
        let revoked = self
            .call(|channel| async move { Ok(LeaseClient::new(channel).lease_revoke(request).await?.into_inner()) })
            .await;
        match revoked {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// Watches a range from a revision on, at the member that is returned too.
    pub(crate) async fn watch(&self, range: KeyRange, from: Revision) -> Result<(MemberIndex, Watch), EtcdError> {
        self.call_at(|channel| Watch::begin(channel, range.clone(), from, MAX_RESPONSE))
            .await
    }

    /// A member has failed: it is not asked again soon, if another can be asked.
    pub(crate) fn avoid(&self, MemberIndex(index): MemberIndex, error: &EtcdError) {
        self.members[index].failed(error);
        let next = (index + 1) % self.members.len();
        // Nothing happens if another call has gone on to the next member already.
        let _ = self
            .current
            .compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    async fn call<T, F>(&self, call: impl Fn(Channel) -> F) -> Result<T, EtcdError>
    where
        F: Future<Output = Result<T, EtcdError>>,
    {
        Ok(self.call_at(call).await?.1)
    }

    /// Tries a call at one member after the other. Also gives the member that answered.
    async fn call_at<T, F>(&self, call: impl Fn(Channel) -> F) -> Result<(MemberIndex, T), EtcdError>
    where
        F: Future<Output = Result<T, EtcdError>>,
    {
        let end = Instant::now() + CALL;
        loop {
            let index = self.current.load(Ordering::Relaxed) % self.members.len();
            let member = &self.members[index];
            let error = match timeout(ATTEMPT, call(member.channel())).await {
                Ok(Ok(answer)) => {
                    member.answered();
                    return Ok((MemberIndex(index), answer));
                }
                Ok(Err(error)) if error.is_not_found() => {
                    member.answered();
                    return Err(error);
                }
                Ok(Err(error)) if error.is_refusal() => {
                    member.failed(&error);
                    return Err(error);
                }
                Ok(Err(error)) => error,
                Err(_) => {
                    member.reconnect();
                    EtcdError::silent("the member does not answer")
                }
            };
            self.avoid(MemberIndex(index), &error);
            let pause = PAUSE.mul_f64(0.5 + fastrand::f64() / 2.0);
            if Instant::now() + pause >= end {
                return Err(error);
            }
            sleep(pause).await;
        }
    }
}

/// The revision of a response.
fn revision(header: Option<ResponseHeader>) -> Result<Revision, EtcdError> {
    let header = header.ok_or_else(|| Status::internal("the response has no revision"))?;
    Ok(Revision(header.revision))
}
