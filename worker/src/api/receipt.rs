//! What became of a message to one client.

use meepo_proto::link as wire;
use meepo_proto::link::reply::Body as Reply;

/// What became of a message, by [`ClientTarget::send_and_confirm`](crate::ClientTarget::send_and_confirm).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Receipt {
    /// The gateway's system has taken all of the message for the client's connection. It may still be on its way.
    Delivered,
    /// The client had closed before that.
    Gone,
    /// The client's send buffer was full.
    Full,
    /// The gateway has refused the message: it is over the limit for messages.
    Refused,
    /// The gateway has not answered within the setting `query_timeout`, or there is no link to it now.
    Unknown,
}

/// The receipt in a gateway's reply, if it is one.
pub(crate) fn receipt(reply: Option<Reply>) -> Receipt {
    let receipt = match reply {
        Some(Reply::Receipt(receipt)) => wire::Receipt::try_from(receipt).unwrap_or_default(),
        _ => wire::Receipt::Unspecified,
    };
    match receipt {
        wire::Receipt::Delivered => Receipt::Delivered,
        wire::Receipt::ClientGone => Receipt::Gone,
        wire::Receipt::BufferFull => Receipt::Full,
        wire::Receipt::NotValid => Receipt::Refused,
        wire::Receipt::Unspecified => Receipt::Unknown,
    }
}
