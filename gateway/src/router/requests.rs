//! The transitions that a forwarded request causes. It is a client of its own in the router, with this one event.

use std::sync::Arc;

use meepo_proto::id::{ClientNumber, RequestNumber};
use meepo_proto::link::event::Body;
use meepo_proto::link::{Request, Respond};
use tokio::sync::oneshot;

use crate::router::dispatch::Dispatch;
use crate::router::effects::WaitingRequest;
use crate::router::request_budget::{OverBudget, Ticket};
use crate::router::rules::{LinkId, header_bytes};

/// A request that a worker has, or that waits for one. Dropped, it leaves the handler alone with the request.
#[derive(Debug)]
pub(crate) struct AskedRequest<'a> {
    /// Where the request stands.
    pub(crate) place: RequestPlace<'a>,
    /// The response. It ends without one when the worker is done and gave none.
    pub(crate) response: oneshot::Receiver<Result<Respond, OverBudget>>,
}

/// Where a request stands in the router.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestPlace<'a> {
    dispatch: &'a Dispatch,
    /// The number under which the router knows the request.
    pub(crate) number: RequestNumber,
}

impl Dispatch {
    /// Gives a request to a worker, or has it wait for one.
    pub(crate) fn ask(&self, request: Request, ticket: Arc<Ticket>) -> Result<AskedRequest<'_>, OverBudget> {
        ticket.count()?;
        let number = RequestNumber(self.clients.next_number());
        let (tell, response) = oneshot::channel();
        self.transition(|router, outputs, effects| {
            if router.is_full() {
                return Err(OverBudget);
            }
            let waiting = WaitingRequest {
                response: Some(tell),
                ticket,
            };
            effects.requests.insert(number, waiting);
            router.push(client_of(number), Body::Request(Box::new(request)), outputs);
            Ok(())
        })?;
        Ok(AskedRequest {
            place: RequestPlace { dispatch: self, number },
            response,
        })
    }

    /// A worker responds to a request. A response from another worker than the one that was asked last means nothing.
    pub(crate) fn respond(&self, link: LinkId, mut respond: Respond) {
        self.transition(|router, outputs, effects| {
            let number = RequestNumber(respond.request_number);
            if router.link_of(client_of(number)) != Some(link) {
                return;
            }
            let Some(waiting) = effects.requests.get_mut(&number) else {
                return;
            };
            let Some(response) = waiting.response.take() else {
                return;
            };
            let ticket = &waiting.ticket;
            let held = ticket.hold(header_bytes(&respond.headers));
            let held = held.and_then(|()| ticket.carry(std::mem::take(&mut respond.body)));
            // The client that made the request may have gone.
            let _ = response.send(held.map(|body| Respond { body, ..respond }));
            // It has its response, whatever becomes of the link: no worker is to handle it again.
            router.dismiss(client_of(number), outputs);
        });
    }
}

impl RequestPlace<'_> {
    /// Whether a worker has the request.
    pub(crate) fn is_with_worker(self) -> bool {
        self.dispatch
            .look(|router, _| router.link_of(client_of(self.number)).is_some())
    }
}

impl Drop for AskedRequest<'_> {
    fn drop(&mut self) {
        self.place.dispatch.dismiss(client_of(self.place.number));
    }
}

/// The client that a request is in the router. Both are counted together, so no client has this number.
fn client_of(request: RequestNumber) -> ClientNumber {
    ClientNumber(request.0)
}
