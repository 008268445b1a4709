//! Why a call of etcd failed.

use std::error::Error;
use std::fmt;

use meepo_node::rpc;
use tonic::{Code, Status};

use crate::store::StoreError;

/// A call of etcd failed. Shown with its causes.
#[derive(Debug)]
pub(crate) struct EtcdError(Status);

impl EtcdError {
    /// The member does not answer, or not in time.
    pub(crate) fn silent(message: &str) -> Self {
        Self(Status::deadline_exceeded(message))
    }

    /// What was asked for, such as a lease, is not there.
    pub(crate) fn is_not_found(&self) -> bool {
        self.0.code() == Code::NotFound
    }

    /// Whether every member would answer the same.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(
            self.0.code(),
            Code::InvalidArgument
                | Code::OutOfRange
                | Code::Unimplemented
                | Code::Unauthenticated
                | Code::PermissionDenied
        )
    }
}

impl fmt::Display for EtcdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.source() {
            Some(cause) => f.write_str(&rpc::causes(cause)),
            None => f.write_str(self.0.message()),
        }
    }
}

impl Error for EtcdError {}

impl From<Status> for EtcdError {
    fn from(status: Status) -> Self {
        Self(status)
    }
}

impl From<EtcdError> for StoreError {
    fn from(error: EtcdError) -> Self {
        Self::Unavailable(error.into())
    }
}
