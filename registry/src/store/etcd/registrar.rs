//! Puts registrations into etcd, and deletes them.

use std::time::Duration;

use meepo_proto::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use meepo_proto::etcd::request_op::Request;
use meepo_proto::etcd::{Compare, DeleteRangeRequest, KeyValue, PutRequest, RequestOp, TxnRequest};
use meepo_proto::registry::{Node, Record, State};
use prost::Message;
use tonic::{Code, Status};

use super::address::{Claim, claim};
use super::client::why;
use super::keys::{Key, Keys, Range};
use super::replica::Shared;
use super::view::{Entry, Held};
use crate::store::Refused;

/// More conflicts in a row mean that something is wrong.
const MAX_TRIES: usize = 10;
/// How long a node that was done is remembered.
const DONE_KEPT: Duration = Duration::from_secs(3600);

/// What was put.
struct Put {
    revision: i64,
    ousted: Vec<u64>,
    present: Vec<u64>,
}

impl Shared {
    /// Puts what is held of a node, and waits until the view has it. See [`claim`] for the newcomer.
    pub(crate) async fn register(&self, id: u64, newcomer: bool) -> Result<(), Refused> {
        for _ in 0..MAX_TRIES {
            let session = self.session().await?;
            let Some(held) = self.view().held(id).cloned() else {
                // It has left meanwhile.
                return Ok(());
            };
            let key = Key {
                address: held.node.address().to_owned(),
                node: id,
                session,
            };
            match self.put(&held, &key, newcomer).await {
                Ok(None) => {}
                Ok(Some(put)) => {
                    self.was_put(held, key, &put);
                    self.reached(put.revision).await;
                    return Ok(());
                }
                // The lease has gone, and a new one will come.
                Err(Failure::Etcd(error)) if error.code() == Code::NotFound => self.lost(session),
                Err(Failure::Etcd(error)) => return Err(unavailable(&error)),
                Err(Failure::Superseded) => return Err(Refused::Superseded),
            }
        }
        Err(Refused::Unavailable(
            "others are at the same address all the time".into(),
        ))
    }

    /// Keeps a node that was done for a while, away from its address, and waits until the view has it.
    pub(crate) async fn remember(&self, node: &Node) -> Result<(), Refused> {
        let remembered = async {
            let (session, _) = self.client.grant(DONE_KEPT).await?;
            let key = Key {
                address: String::new(),
                node: node.id,
                session,
            };
            let record = Record {
                node: Some(node.clone()),
                ousted: Vec::new(),
            };
            let request = TxnRequest {
                compare: Vec::new(),
                success: vec![put(self.keys.write(&key), &record, session)],
            };
            self.client.txn(request).await
        };
        let answer = remembered.await.map_err(|error| unavailable(&error))?;
        self.reached(answer.header.unwrap_or_default().revision).await;
        Ok(())
    }

    /// Deletes what this child has put of a node.
    pub(crate) async fn withdraw(&self, id: u64) -> Result<(), Refused> {
        let own: Vec<_> = self.view().own_keys(id).cloned().collect();
        if own.is_empty() {
            return Ok(());
        }
        let request = TxnRequest {
            compare: Vec::new(),
            success: own.iter().map(|key| delete(exactly(&self.keys, key))).collect(),
        };
        let answer = self.client.txn(request).await.map_err(|error| unavailable(&error))?;
        self.reached(answer.header.unwrap_or_default().revision).await;
        Ok(())
    }

    /// Makes etcd have what this child holds of a node, and nothing else.
    pub(crate) async fn mend(&self, id: u64) -> Result<(), Refused> {
        let held = {
            let view = self.view();
            if view.is_right(id) {
                return Ok(());
            }
            view.held(id).cloned()
        };
        match held {
            None => self.withdraw(id).await,
            // Whoever holds it is about to put it.
            Some(held) if held.key.is_none() => Ok(()),
            Some(held) => match self.register(id, false).await {
                Err(Refused::Superseded) => {
                    self.view().release(held.lease);
                    self.withdraw(id).await
                }
                mended => mended,
            },
        }
    }

    /// One attempt; none when others were faster.
    async fn put(&self, held: &Held, key: &Key, newcomer: bool) -> Result<Option<Put>, Failure> {
        let mut compare = Vec::new();
        let (mut ousted, mut present) = (Vec::new(), Vec::new());
        // Nodes without an address only dial, and are in nobody's way.
        if !key.address.is_empty() {
            let place = self.keys.at(&key.address);
            let answer = self.client.range(place.clone()).await?;
            let there: Vec<_> = answer.kvs.iter().filter_map(|kv| entry(&self.keys, kv)).collect();
            match claim(key.node, &there, &held.ousted, newcomer) {
                Claim::Superseded => return Err(Failure::Superseded),
                Claim::Granted {
                    ousted: before,
                    present: others,
                } => (ousted, present) = (before, others),
            }
            compare.push(unchanged_since(place, answer.header.unwrap_or_default().revision));
        }
        let record = Record {
            node: Some(held.node.clone()),
            ousted: ousted.clone(),
        };
        let mut success = vec![put(self.keys.write(key), &record, key.session)];
        success.extend(present.iter().map(|&other| delete(self.keys.of(&key.address, other))));
        // Where it was before it moved.
        let own: Vec<_> = self.view().own_keys(key.node).cloned().collect();
        let former = own.iter().filter(|own| *own != key);
        success.extend(former.map(|former| delete(exactly(&self.keys, former))));
        let answer = self.client.txn(TxnRequest { compare, success }).await?;
        Ok(answer.succeeded.then(|| Put {
            revision: answer.header.unwrap_or_default().revision,
            ousted,
            present,
        }))
    }

    fn was_put(&self, held: Held, key: Key, put: &Put) {
        let mut view = self.view();
        for &other in &put.present {
            let lease = view
                .held(other)
                .filter(|other| other.node.address() == key.address)
                .map(|other| other.lease);
            if let Some(lease) = lease {
                view.release(lease);
            }
        }
        match view.held(key.node).cloned() {
            Some(now) => {
                let put_what_is_held = now.node == held.node;
                let id = key.node;
                view.hold(Held {
                    key: Some(key),
                    ousted: put.ousted.clone(),
                    ..now
                });
                drop(view);
                if !put_what_is_held {
                    self.check([id]);
                }
            }
            // It left while it was put.
            None => {
                drop(view);
                self.check([key.node]);
            }
        }
    }
}

enum Failure {
    Superseded,
    Etcd(Status),
}

impl From<Status> for Failure {
    fn from(error: Status) -> Self {
        Self::Etcd(error)
    }
}

/// What is in etcd, if it is a registration.
pub(crate) fn entry(keys: &Keys, kv: &KeyValue) -> Option<Entry> {
    let key = keys.read(&kv.key)?;
    let record = Record::decode(kv.value.clone()).ok()?;
    let is_there = |node: &Node| node.address() == key.address || node.state() == State::Drained;
    let is_whole = |node: &Node| node.id == key.node && is_there(node);
    record.node.as_ref().is_some_and(is_whole).then_some(Entry {
        key,
        record,
        revision: kv.mod_revision,
    })
}

pub(crate) fn unavailable(error: &Status) -> Refused {
    Refused::Unavailable(why(error).into())
}

fn exactly(keys: &Keys, key: &Key) -> Range {
    Range(keys.write(key), Default::default())
}

fn unchanged_since(Range(key, range_end): Range, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Less.into(),
        target: CompareTarget::Mod.into(),
        key,
        target_union: Some(TargetUnion::ModRevision(revision + 1)),
        range_end,
    }
}

fn put(key: bytes::Bytes, record: &Record, lease: i64) -> RequestOp {
    let value = record.encode_to_vec().into();
    RequestOp {
        request: Some(Request::RequestPut(PutRequest { key, value, lease })),
    }
}

fn delete(Range(key, range_end): Range) -> RequestOp {
    RequestOp {
        request: Some(Request::RequestDeleteRange(DeleteRangeRequest { key, range_end })),
    }
}
