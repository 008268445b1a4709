//! What became of a message to one client.

use meepo_proto::link as wire;
use meepo_proto::link::reply::Body as Reply;

/// What became of a message, by [`ClientTarget::send_and_confirm`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delivery {
    /// The gateway's system has taken all of it for the client's connection. It may still be on its way.
    Delivered,
    /// The client has gone before that.
    Gone,
    /// Its send buffer was full.
    Full,
    /// The gateway has refused the message: it is over the limit for messages.
    Refused,
    /// The gateway has not said so within the setting `query_timeout`, or there is no link to it now.
    Unknown,
}

/// What a gateway's reply says of a message.
pub(crate) fn delivery(reply: Option<Reply>) -> Delivery {
    let delivery = match reply {
        Some(Reply::Delivery(delivery)) => wire::Delivery::try_from(delivery).unwrap_or_default(),
        _ => wire::Delivery::Unspecified,
    };
    match delivery {
        wire::Delivery::Delivered => Delivery::Delivered,
        wire::Delivery::ClientGone => Delivery::Gone,
        wire::Delivery::BufferFull => Delivery::Full,
        wire::Delivery::NotValid => Delivery::Refused,
        wire::Delivery::Unspecified => Delivery::Unknown,
    }
}
