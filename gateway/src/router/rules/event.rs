//! An event that waits for a worker or is in flight, and what it costs.

use meepo_proto::id::EventNumber;
use meepo_proto::link::event::Body;
use meepo_proto::link::{Handshake, Header, Request};

/// An event of a client that no worker has finished.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Pending {
    pub(super) body: Body,
    /// The event's number among its client's events.
    pub(super) number: EventNumber,
    /// What the event costs, in bytes.
    pub(super) bytes: usize,
    /// Workers that died while the event was in front of its client's events.
    pub(super) failed: u32,
    /// Links that ended, for whatever reason, while it was in front.
    pub(super) returned: u32,
    /// A worker was sent the event before.
    pub(super) redelivered: bool,
}

/// Bytes that an event costs beside its payload, roughly.
const EVENT_OVERHEAD: usize = 128;
/// Bytes that a header costs beside its name and value, roughly.
const HEADER_OVERHEAD: usize = 64;

impl Pending {
    /// An event that no worker was sent yet.
    pub(super) fn new(number: EventNumber, body: Body) -> Self {
        let payload = match &body {
            Body::Message(message) => message.payload.len(),
            // Its body is bounded by the request budget. Counted here too, one upload would keep clients waiting.
            Body::Request(request) => request.handshake.as_ref().map_or(0, head_bytes),
            _ => 0,
        };
        Self {
            body,
            number,
            bytes: EVENT_OVERHEAD + payload,
            failed: 0,
            returned: 0,
            redelivered: false,
        }
    }

    /// The body to deliver. Of a request that is never delivered again, only the method is kept, which says so.
    pub(super) fn take_body(&mut self) -> Body {
        match &mut self.body {
            Body::Request(request) if only_once(&request.method) => {
                let method = request.method.clone();
                Body::Request(std::mem::replace(
                    request,
                    Box::new(Request {
                        method,
                        ..Request::default()
                    }),
                ))
            }
            body => body.clone(),
        }
    }

    /// Whether no event of its client can follow.
    pub(super) fn is_last(&self) -> bool {
        matches!(self.body, Body::Closed(_) | Body::Request(_))
    }

    /// Whether only one worker may ever be sent the event.
    pub(super) fn only_once(&self) -> bool {
        matches!(&self.body, Body::Request(request) if only_once(&request.method))
    }

    /// Whether it asks for a verdict, and no worker was sent it.
    pub(super) fn is_new_opened(&self) -> bool {
        matches!(self.body, Body::Opened(_)) && !self.redelivered
    }

    /// Whether it is news of a send buffer, and no worker was sent it.
    pub(super) fn is_new_send_buffer(&self) -> bool {
        matches!(self.body, Body::SendBuffer(_)) && !self.redelivered
    }
}

/// Whether a request must not be handled twice: by RFC 9110 it is neither safe nor idempotent.
pub(crate) fn only_once(method: &str) -> bool {
    !matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
}

/// Bytes that the head of a request costs, roughly.
pub(crate) fn head_bytes(head: &Handshake) -> usize {
    head.path.len() + head.query.len() + header_bytes(&head.headers)
}

/// Bytes that headers cost, roughly.
pub(crate) fn header_bytes(headers: &[Header]) -> usize {
    let headers = headers.iter();
    let each = headers.map(|header| header.name.len() + header.value.len() + HEADER_OVERHEAD);
    each.sum()
}
