//! Forwarded requests: each by itself, beside the queues of clients.

use std::sync::Arc;

use meepo_proto::link as wire;
use meepo_proto::link::command::Body as Command;
use meepo_proto::{RequestNumber, Seq};
use tokio::time::timeout;

use super::ClientQueues;
use super::task::InFlight;
use crate::api::error::guarded;
use crate::api::handler::Handler;
use crate::api::request::Request;
use crate::api::response::{Fault, Response};
use crate::link::{Link, NotSent};

/// A request as log lines name it.
struct About {
    method: String,
    path: String,
    peer: String,
}

impl<H: Handler> ClientQueues<H> {
    /// Has the handler answer a request.
    pub(super) fn request(
        self: &Arc<Self>,
        link: &Arc<Link>,
        number: RequestNumber,
        delivery: Option<wire::Delivery>,
        request: wire::Request,
    ) {
        let stats = self.cluster.stats();
        stats.requests.add(1);
        let in_flight = InFlight::new(stats);
        let seq = delivery.map(|delivery| Seq(delivery.seq));
        let (queues, link) = (self.clone(), link.clone());
        let request = Request::from_wire(
            request,
            delivery.is_some_and(|delivery| delivery.redelivered),
            self.cluster.clone(),
        );
        self.tasks.spawn(async move {
            let _in_flight = in_flight;
            queues.open.cancelled().await;
            link.available().await;
            // If the link has ended, the gateway has given the request to another worker, or has answered by itself.
            if !link.has_ended() {
                queues.answer(&link, number, request).await;
                link.done(seq);
            }
        });
    }

    async fn answer(&self, link: &Link, number: RequestNumber, request: Request) {
        let about = About {
            method: request.method().to_owned(),
            path: request.path().to_owned(),
            peer: request.peer().to_owned(),
        };
        let handled = guarded(async { self.handler.on_request(request).await });
        let response = match timeout(self.limit, handled).await {
            Ok(Ok(Ok(response))) => response,
            Ok(Ok(Err(error))) => self.request_failed(&about, &*error),
            Ok(Err(panic)) => self.request_failed(&about, &panic),
            Err(_) => {
                self.cluster.stats().handler_errors.add(1);
                let About { method, path, peer } = &about;
                tracing::warn!(method, path, peer, limit = ?self.limit, "handler of a request has taken too long and was cut off");
                Response::text("No answer came in time.\n").with_status(504)
            }
        };
        let sent = response
            .into_wire(number)
            .and_then(|respond| match link.send(Command::Respond(respond)) {
                Err(NotSent::TooBig) => Err(Fault::TooBig),
                // If the link has ended, the gateway asks another worker, or has answered by itself.
                Ok(()) | Err(NotSent::Ended) => Ok(()),
            });
        if let Err(fault) = sent {
            let response = self.request_failed(&about, &fault);
            if let Ok(respond) = response.into_wire(number) {
                let _ = link.send(Command::Respond(respond));
            }
        }
    }

    /// Logs and counts why a request was not answered, of which its client is told nothing.
    fn request_failed(&self, about: &About, error: &(dyn std::error::Error + '_)) -> Response {
        self.cluster.stats().handler_errors.add(1);
        let About { method, path, peer } = about;
        tracing::warn!(method, path, peer, handler = "on_request", error = %error, "handler failed");
        Response::text("The server could not answer.\n").with_status(500)
    }
}
