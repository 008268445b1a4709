//! Leases of names in etcd: a key for each name, under an etcd lease of its own. The key's revision is the term. Nothing is
//! kept here: etcd is asked each time.

use meepo_proto::etcd::KeyValue;
use meepo_proto::registry::{HolderId, Term};

use super::client::{EtcdClient, EtcdError, EtcdLease, KeyRange, Revision, Transaction};
use super::keys::Keys;
use crate::store::{LEASE_TIME, MAX_LEASES, StoreError};

/// A name that has a holder.
struct Holding {
    /// The value of the key: the holder's id.
    holder: bytes::Bytes,
    lease: EtcdLease,
    /// When the key was put.
    revision: Revision,
}

/// Grants or extends the lease of a name; see [`Store::hold`](crate::store::Store::hold).
pub(crate) async fn hold(
    client: &EtcdClient,
    keys: &Keys,
    name: &str,
    holder: HolderId,
    term: Option<Term>,
) -> Result<Option<Term>, StoreError> {
    if let Some(current) = get(client, keys, name).await? {
        return Ok(extend(client, &current, holder).await?);
    }
    // A holder that had the lease has lost it: another may have had it meanwhile.
    if term.is_some() {
        return Ok(None);
    }
    if client.range(keys.all_leases()).await?.pairs.len() >= MAX_LEASES {
        return Err(StoreError::Full);
    }
    let (lease, _) = client.grant(LEASE_TIME).await?;
    let key = keys.lease(name);
    let put = Transaction::new().if_absent(key.clone()).put(key, value(holder), lease);
    if let Some(revision) = client.commit(put).await? {
        return Ok(Some(term_of(revision)));
    }
    // Either another holder was faster, or the answer to a first attempt was lost.
    let current = get(client, keys, name).await?;
    if current.as_ref().is_none_or(|current| current.lease != lease) {
        // If this fails the lease ends by itself.
        let _ = client.revoke(lease).await;
    }
    match current {
        Some(current) => Ok(extend(client, &current, holder).await?),
        None => Ok(None),
    }
}

/// Ends the lease of a name, if the holder has it.
pub(crate) async fn release(client: &EtcdClient, keys: &Keys, name: &str, holder: HolderId) -> Result<(), StoreError> {
    match get(client, keys, name).await? {
        // No other key is under this etcd lease.
        Some(current) if current.holder == value(holder) => Ok(client.revoke(current.lease).await?),
        _ => Ok(()),
    }
}

async fn get(client: &EtcdClient, keys: &Keys, name: &str) -> Result<Option<Holding>, EtcdError> {
    let listing = client.range(KeyRange::one(keys.lease(name))).await?;
    let read = |pair: KeyValue| Holding {
        holder: pair.value,
        lease: EtcdLease(pair.lease),
        revision: Revision(pair.mod_revision),
    };
    Ok(listing.pairs.into_iter().next().map(read))
}

/// Extends the lease of a name, if the holder has it.
async fn extend(client: &EtcdClient, current: &Holding, holder: HolderId) -> Result<Option<Term>, EtcdError> {
    let extended = current.holder == value(holder) && client.keep_alive(current.lease).await?;
    Ok(extended.then(|| term_of(current.revision)))
}

fn value(holder: HolderId) -> bytes::Bytes {
    holder.0.to_be_bytes().to_vec().into()
}

fn term_of(revision: Revision) -> Term {
    Term(u64::try_from(revision.0).unwrap_or_default())
}
