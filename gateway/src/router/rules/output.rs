//! The decisions of the router, for its caller to carry out.

use meepo_proto::id::{ClientNumber, EventNumber, Seq};
use meepo_proto::link::event::Body;

use super::LinkId;

/// A decision of the router.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Send this event over the link.
    Deliver {
        /// The link.
        link: LinkId,
        /// The event's number on its link.
        seq: Seq,
        /// The client that the event is of.
        client: ClientNumber,
        /// The event's number among its client's, the same each time.
        number: EventNumber,
        /// The event.
        body: Body,
        /// A worker was sent the event before.
        redelivered: bool,
        /// The link does not know the client: it has to be told how the client came.
        first: bool,
    },
    /// Tell the link that it serves the client, of which no event waits.
    Attach {
        /// The link.
        link: LinkId,
        /// The client.
        client: ClientNumber,
    },
    /// Tell the link that another link serves the client now.
    Detach {
        /// The link that served the client before.
        link: LinkId,
        /// The client.
        client: ClientNumber,
    },
    /// No event is in flight over the draining link any more: end it.
    Finished {
        /// The link.
        link: LinkId,
    },
    /// The next end of a link would be the last one for the client's next event: [`release`](super::Router::release) the client
    /// after a pause.
    Hold {
        /// The client.
        client: ClientNumber,
    },
    /// An event of the client has ended too many links and is given up: close the client.
    GiveUp {
        /// The client.
        client: ClientNumber,
    },
    /// Every event of the client is done, which somebody waits for since [`settle`](super::Router::settle).
    Settled {
        /// The client.
        client: ClientNumber,
    },
    /// The client may be read again.
    Resume {
        /// The client.
        client: ClientNumber,
    },
    /// The router has forgotten the client: nothing more comes of it.
    Forget {
        /// The client.
        client: ClientNumber,
    },
}

/// Whether a client may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Read on.
    Go,
    /// Stop reading until [`Output::Resume`].
    Pause,
}
