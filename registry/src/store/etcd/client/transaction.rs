//! What is done in etcd at once, if all conditions hold, or not at all.

use bytes::Bytes;
use meepo_proto::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use meepo_proto::etcd::request_op::Request;
use meepo_proto::etcd::{Compare, DeleteRangeRequest, PutRequest, RequestOp, TxnRequest};

use super::ids::{EtcdLease, KeyRange, Revision};

/// Conditions, and what is done if all of them hold.
#[derive(Debug, Clone, Default)]
pub(crate) struct Transaction(TxnRequest);

impl Transaction {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Only if the key is not there.
    pub(crate) fn if_absent(self, key: Bytes) -> Self {
        // What is not there has the revision 0.
        self.condition(KeyRange::one(key), CompareResult::Equal, 0)
    }

    /// Only if no key of the range was put after the revision. Nothing is known of keys that were deleted.
    pub(crate) fn if_unchanged_since(self, range: KeyRange, revision: Revision) -> Self {
        self.condition(range, CompareResult::Less, revision.0 + 1)
    }

    /// Puts a key under a lease.
    pub(crate) fn put(mut self, key: Bytes, value: Bytes, lease: EtcdLease) -> Self {
        let lease = lease.0;
        self.operation(Request::RequestPut(PutRequest { key, value, lease }));
        self
    }

    /// Deletes keys, if they are there.
    pub(crate) fn delete(mut self, range: KeyRange) -> Self {
        let (key, range_end) = range.into_parts();
        self.operation(Request::RequestDeleteRange(DeleteRangeRequest { key, range_end }));
        self
    }

    pub(crate) fn into_request(self) -> TxnRequest {
        self.0
    }

    fn condition(mut self, range: KeyRange, result: CompareResult, revision: i64) -> Self {
        let (key, range_end) = range.into_parts();
        self.0.compare.push(Compare {
            result: result.into(),
            target: CompareTarget::Mod.into(),
            key,
            target_union: Some(TargetUnion::ModRevision(revision)),
            range_end,
        });
        self
    }

    fn operation(&mut self, request: Request) {
        self.0.success.push(RequestOp { request: Some(request) });
    }
}
