//! A watch of some keys, at the member of etcd where it was begun.

use meepo_proto::etcd::watch_client::WatchClient;
use meepo_proto::etcd::watch_request::RequestUnion;
use meepo_proto::etcd::{Event, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use super::error::EtcdError;
use super::ids::{KeyRange, Revision};

/// A watch that one member has begun.
#[derive(Debug)]
pub(crate) struct Watch {
    requests: mpsc::Sender<WatchRequest>,
    responses: Streaming<WatchResponse>,
}

/// Why a watch has ended.
#[derive(Debug)]
pub(crate) enum WatchEnd {
    /// etcd has ended the watch: no fault of the member.
    Cancelled(EtcdError),
    /// The member does not answer any more.
    Broken(EtcdError),
}

impl Watch {
    /// Begins to watch a range from a revision on.
    pub(crate) async fn begin(
        channel: Channel,
        range: KeyRange,
        from: Revision,
        max_response: usize,
    ) -> Result<Self, EtcdError> {
        let (key, range_end) = range.into_parts();
        let create = WatchCreateRequest {
            key,
            range_end,
            start_revision: from.0,
        };
        let (requests, outgoing) = mpsc::channel(4);
        // There is room: nothing was sent yet.
        let _ = requests.try_send(WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(create)),
        });
        let mut request = Request::new(ReceiverStream::new(outgoing));
        // A member that is cut off from the others then ends the watch.
        request
            .metadata_mut()
            .insert("hasleader", MetadataValue::from_static("true"));
        let mut client = WatchClient::new(channel).max_decoding_message_size(max_response);
        let responses = client.watch(request).await?.into_inner();
        Ok(Self { requests, responses })
    }

    /// The next changes, or none: a response without changes says that the member is alive. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Vec<Event>, WatchEnd> {
        let response = match self.responses.message().await {
            Ok(Some(response)) => response,
            Ok(None) => {
                let ended = Status::unavailable("the member has ended the watch");
                return Err(WatchEnd::Broken(ended.into()));
            }
            Err(error) => return Err(WatchEnd::Broken(error.into())),
        };
        if !response.canceled {
            return Ok(response.events);
        }
        let reason = match response.compact_revision {
            0 => Status::unavailable(format!("etcd has ended the watch: {}", response.cancel_reason)),
            revision => Status::out_of_range(format!("etcd has forgotten all changes before revision {revision}")),
        };
        Err(WatchEnd::Cancelled(reason.into()))
    }

    /// Asks the member for a response, so that its silence means that it is away.
    pub(crate) fn probe(&self) {
        let request = WatchRequest {
            request_union: Some(RequestUnion::ProgressRequest(WatchProgressRequest {})),
        };
        // Full only if the connection is stuck, and then the member's silence ends the watch.
        let _ = self.requests.try_send(request);
    }
}
