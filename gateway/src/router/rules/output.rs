//! What the router tells its caller.

use meepo_proto::id::{ClientNumber, EventNumber, Seq};
use meepo_proto::link::event::Body;

use super::LinkId;

/// What the caller has to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Send this event over the link.
    Deliver {
        link: LinkId,
        /// The event's number on its link.
        seq: Seq,
        client: ClientNumber,
        /// The event's number among its client's, the same each time.
        number: EventNumber,
        body: Body,
        redelivered: bool,
        /// It is the first event of the client that the link sees.
        first: bool,
    },
    /// The client, which has nothing to say now, has come to this link.
    Attach { link: LinkId, client: ClientNumber },
    /// The client has left this link for another one.
    Detach { link: LinkId, client: ClientNumber },
    /// The draining link has nothing in flight any more: end it.
    Finished { link: LinkId },
    /// The client's next event has ended so many links that the next would be the last: [`release`](super::Router::release) it later.
    Hold { client: ClientNumber },
    /// An event of this client has ended too many links and was dropped.
    GiveUp { client: ClientNumber },
    /// What the client had sent by [`settle`](super::Router::settle) is done.
    Settled { client: ClientNumber },
    /// The client may be read again.
    Resume { client: ClientNumber },
    /// Nothing is left of the client here.
    Forget { client: ClientNumber },
}

/// Whether a client may be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Read on.
    Go,
    /// Stop reading until [`Output::Resume`].
    Pause,
}
