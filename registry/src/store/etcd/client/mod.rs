//! Calls of etcd: each has a time limit, and is tried at another member when one does not answer.

use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use meepo_node::rpc;
use meepo_proto::etcd::kv_client::KvClient;
use meepo_proto::etcd::lease_client::LeaseClient;
use meepo_proto::etcd::watch_client::WatchClient;
use meepo_proto::etcd::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, RangeRequest, RangeResponse, TxnRequest, TxnResponse,
    WatchCreateRequest, WatchRequest, WatchResponse, watch_request::RequestUnion,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};

use crate::store::etcd::keys::Range;

/// How long one member may take for an answer.
const ATTEMPT: Duration = Duration::from_millis(1500);
/// How long a call may take, however many members are tried.
const CALL: Duration = Duration::from_secs(3);
/// At most this long before another member is tried.
const PAUSE: Duration = Duration::from_millis(200);
/// etcd ends connections that are probed more often than every 5 s, or while nothing is under way.
const KEEP_ALIVE: Duration = Duration::from_secs(6);
/// A member that stays away is logged again after this.
const REMIND: Duration = Duration::from_secs(300);
/// The list of many nodes is long.
const MAX_ANSWER: usize = 64 << 20;

/// The members of a cluster of etcd.
#[derive(Debug)]
pub(crate) struct Client {
    members: Vec<Member>,
    /// The member that is asked: the same as long as it answers.
    current: AtomicUsize,
}

#[derive(Debug)]
struct Member {
    address: String,
    endpoint: Endpoint,
    channel: Mutex<Channel>,
    /// It does not answer, and this was logged then.
    trouble: Mutex<Option<Instant>>,
}

/// A watch that one member has begun.
#[derive(Debug)]
pub(crate) struct Watch {
    member: usize,
    requests: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
}

impl Client {
    /// Of the members at these addresses, host and port. Connects when it is first used.
    pub(crate) fn new(endpoints: &[String]) -> Result<Self, tonic::transport::Error> {
        let members = endpoints.iter().map(|address| Member::new(address));
        let members = members.collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            // Not all registries ask the same one.
            current: AtomicUsize::new(fastrand::usize(..members.len().max(1))),
            members,
        })
    }

    /// All pairs of a range, as the majority of the members has them.
    pub(crate) async fn range(&self, Range(key, range_end): Range) -> Result<RangeResponse, Status> {
        let request = RangeRequest { key, range_end };
        self.call(|channel| {
            let request = request.clone();
            async move {
                let mut client = KvClient::new(channel).max_decoding_message_size(MAX_ANSWER);
                Ok(client.range(request).await?.into_inner())
            }
        })
        .await
    }

    /// Carries out a transaction, which may happen twice, or later, when there was no answer.
    pub(crate) async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Status> {
        self.call(|channel| {
            let request = request.clone();
            async move { Ok(KvClient::new(channel).txn(request).await?.into_inner()) }
        })
        .await
    }

    /// A new lease, and how long it lasts.
    pub(crate) async fn grant(&self, time: Duration) -> Result<(i64, Duration), Status> {
        let whole = time.as_secs() + u64::from(time.subsec_nanos() > 0);
        let request = LeaseGrantRequest {
            ttl: i64::try_from(whole).unwrap_or(i64::MAX),
            id: 0,
        };
        let answer = self
            .call(|channel| async move { Ok(LeaseClient::new(channel).lease_grant(request).await?.into_inner()) })
            .await?;
        Ok((answer.id, seconds(answer.ttl)))
    }

    /// Keeps a lease. Whether there still is one.
    pub(crate) async fn keep_alive(&self, lease: i64) -> Result<bool, Status> {
        let request = LeaseKeepAliveRequest { id: lease };
        self.call(|channel| async move {
            // A stream for each: it cannot hang unnoticed at a member that has gone.
            let answers = LeaseClient::new(channel)
                .lease_keep_alive(tokio_stream::iter([request]))
                .await?;
            let answer = answers.into_inner().message().await?;
            let answer = answer.ok_or_else(|| Status::unavailable("it did not answer"))?;
            Ok(answer.ttl > 0)
        })
        .await
    }

    /// Ends a lease, and deletes what goes with it. It is fine if there is none.
    pub(crate) async fn revoke(&self, lease: i64) -> Result<(), Status> {
        let request = LeaseRevokeRequest { id: lease };
        let revoked = self
            .call(|channel| async move { Ok(LeaseClient::new(channel).lease_revoke(request).await?.into_inner()) })
            .await;
        match revoked {
            Err(error) if error.code() != Code::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Watches a range from a revision on.
    pub(crate) async fn watch(&self, Range(key, range_end): Range, from: i64) -> Result<Watch, Status> {
        let create = WatchCreateRequest {
            key,
            range_end,
            start_revision: from,
        };
        let request = WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(create)),
        };
        let (member, answer) = self
            .call_and_say_whom(|channel| {
                let (requests, outgoing) = mpsc::channel(4);
                // There is room: nothing was sent yet.
                let _ = requests.try_send(request.clone());
                async move {
                    let mut request = Request::new(ReceiverStream::new(outgoing));
                    // A member that is cut off from the others ends the watch.
                    request
                        .metadata_mut()
                        .insert("hasleader", MetadataValue::from_static("true"));
                    let mut client = WatchClient::new(channel).max_decoding_message_size(MAX_ANSWER);
                    Ok((requests, client.watch(request).await?.into_inner()))
                }
            })
            .await?;
        let (requests, answers) = answer;
        Ok(Watch {
            member,
            requests,
            answers,
        })
    }

    /// Does not ask a member again soon, if another can be asked.
    pub(crate) fn avoid(&self, watch: &Watch, error: &Status) {
        self.failed(watch.member, error);
    }

    async fn call<T, F>(&self, call: impl Fn(Channel) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        Ok(self.call_and_say_whom(call).await?.1)
    }

    async fn call_and_say_whom<T, F>(&self, call: impl Fn(Channel) -> F) -> Result<(usize, T), Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let end = Instant::now() + CALL;
        loop {
            let index = self.current.load(Ordering::Relaxed) % self.members.len();
            let member = &self.members[index];
            let error = match timeout(ATTEMPT, call(member.channel())).await {
                Ok(Ok(answer)) => {
                    member.well();
                    return Ok((index, answer));
                }
                Ok(Err(error)) if error.code() == Code::NotFound => {
                    member.well();
                    return Err(error);
                }
                Ok(Err(error)) if is_refusal(&error) => {
                    member.failed(&error);
                    return Err(error);
                }
                Ok(Err(error)) => error,
                Err(_) => {
                    member.reconnect();
                    Status::deadline_exceeded("it does not answer")
                }
            };
            self.failed(index, &error);
            let pause = PAUSE.mul_f64(0.5 + fastrand::f64() / 2.0);
            if Instant::now() + pause >= end {
                return Err(error);
            }
            sleep(pause).await;
        }
    }

    /// Goes on to the next member, unless another call has.
    fn failed(&self, index: usize, error: &Status) {
        self.members[index].failed(error);
        let next = (index + 1) % self.members.len();
        let _ = self
            .current
            .compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

impl Watch {
    /// The next answer.
    pub(crate) async fn next(&mut self) -> Result<WatchResponse, Status> {
        let answer = self.answers.message().await?;
        answer.ok_or_else(|| Status::unavailable("it ended the watch"))
    }

    /// Asks for a sign of life.
    pub(crate) fn probe(&self) {
        let request = WatchRequest {
            request_union: Some(RequestUnion::ProgressRequest(Default::default())),
        };
        // Full only if the connection is stuck, and then the silence ends it.
        let _ = self.requests.try_send(request);
    }
}

impl Member {
    fn new(address: &str) -> Result<Self, tonic::transport::Error> {
        let endpoint = rpc::endpoint(address)?
            .connect_timeout(ATTEMPT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_while_idle(false);
        Ok(Self {
            address: address.into(),
            channel: Mutex::new(endpoint.connect_lazy()),
            endpoint,
            trouble: Mutex::default(),
        })
    }

    fn channel(&self) -> Channel {
        self.channel.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes a new connection: on the old one nothing may ever come again.
    fn reconnect(&self) {
        *self.channel.lock().unwrap_or_else(PoisonError::into_inner) = self.endpoint.connect_lazy();
    }

    fn failed(&self, error: &Status) {
        let now = Instant::now();
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if trouble.is_none_or(|logged| now - logged >= REMIND) {
            *trouble = Some(now);
            let error = why(error);
            tracing::warn!(etcd = self.address, error, "cannot use a member of etcd, still trying");
        }
    }

    fn well(&self) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if trouble.take().is_some() {
            tracing::info!(etcd = self.address, "the member of etcd is back");
        }
    }
}

/// Whether all members would answer the same.
fn is_refusal(error: &Status) -> bool {
    matches!(
        error.code(),
        Code::InvalidArgument | Code::OutOfRange | Code::Unimplemented | Code::Unauthenticated | Code::PermissionDenied
    )
}

/// What is wrong, in words.
pub(crate) fn why(error: &Status) -> String {
    match error.source() {
        Some(cause) => rpc::causes(cause),
        None => error.message().into(),
    }
}

fn seconds(number: i64) -> Duration {
    Duration::from_secs(u64::try_from(number).unwrap_or_default())
}
