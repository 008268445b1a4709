//! Names that one holder has at a time, in etcd: a key for each, under a lease of its own. Its revision is the term.

use meepo_proto::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use meepo_proto::etcd::request_op::Request;
use meepo_proto::etcd::{Compare, KeyValue, PutRequest, RequestOp, TxnRequest};
use tonic::Status;

use super::client::Client;
use super::keys::Keys;
use crate::store::Grant;
use crate::store::{MAX_NAMES, Refused, TIME};

/// What became of a request.
#[derive(Debug)]
pub(crate) enum Failure {
    Full,
    Etcd(Status),
}

impl From<Status> for Failure {
    fn from(error: Status) -> Self {
        Self::Etcd(error)
    }
}

/// Grants a name if nobody has it, or keeps it for its holder.
pub(crate) async fn hold(client: &Client, keys: &Keys, name: &str, holder: u64, term: u64) -> Result<Grant, Failure> {
    if let Some(known) = get(client, keys, name).await? {
        return Ok(keep(client, &known, holder).await?);
    }
    // One that had it has lost it: another may have had it meanwhile.
    if term != 0 {
        return Ok(refused());
    }
    let all = client.range(keys.all_held()).await?;
    if all.kvs.len() >= MAX_NAMES {
        return Err(Failure::Full);
    }
    let (lease, _) = client.grant(TIME).await?;
    let key = keys.held(name).0;
    let absent = Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key: key.clone(),
        target_union: Some(TargetUnion::ModRevision(0)),
        range_end: Default::default(),
    };
    let value = holder.to_be_bytes().to_vec().into();
    let put = RequestOp {
        request: Some(Request::RequestPut(PutRequest { key, value, lease })),
    };
    let answer = client
        .txn(TxnRequest {
            compare: vec![absent],
            success: vec![put],
        })
        .await?;
    if answer.succeeded {
        let revision = answer.header.unwrap_or_default().revision;
        return Ok(granted(revision));
    }
    // Either another was faster, or this was tried twice and its answer lost.
    let there = get(client, keys, name).await?;
    if there.as_ref().is_none_or(|there| there.lease != lease) {
        // What is left of it ends by itself.
        let _ = client.revoke(lease).await;
    }
    match there {
        Some(there) => Ok(keep(client, &there, holder).await?),
        None => Ok(refused()),
    }
}

/// Deletes the key of a name, if it is the holder's.
pub(crate) async fn release(client: &Client, keys: &Keys, name: &str, holder: u64) -> Result<(), Status> {
    match get(client, keys, name).await? {
        // The lease is for this key alone, so nobody else's goes with it.
        Some(known) if known.value == holder.to_be_bytes()[..] => client.revoke(known.lease).await,
        _ => Ok(()),
    }
}

async fn get(client: &Client, keys: &Keys, name: &str) -> Result<Option<KeyValue>, Status> {
    Ok(client.range(keys.held(name)).await?.kvs.pop())
}

/// Keeps what is there, if it is the holder's.
async fn keep(client: &Client, known: &KeyValue, holder: u64) -> Result<Grant, Status> {
    if known.value == holder.to_be_bytes()[..] && client.keep_alive(known.lease).await? {
        return Ok(granted(known.mod_revision));
    }
    Ok(refused())
}

fn granted(revision: i64) -> Grant {
    Grant {
        granted: true,
        term: u64::try_from(revision).unwrap_or_default(),
        shared: true,
    }
}

fn refused() -> Grant {
    Grant {
        granted: false,
        term: 0,
        shared: true,
    }
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Full => Self::Full,
            Failure::Etcd(error) => super::registrar::unavailable(&error),
        }
    }
}
