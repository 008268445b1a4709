//! What a caller is told when the store has failed.

use tonic::Status;

use crate::store::StoreError;

/// The gRPC status of a store's error.
pub(crate) fn status(error: StoreError) -> Status {
    let text = error.to_string();
    match error {
        StoreError::Superseded => Status::already_exists(text),
        StoreError::Replaced => Status::aborted(text),
        StoreError::Full => Status::resource_exhausted(text),
        StoreError::Unavailable(_) => Status::unavailable(text),
    }
}
