//! What the application makes of an event: its handlers, guarded, and who hears of what goes wrong there.

use std::sync::Arc;

use meepo_proto::ClientId;
use meepo_proto::link as wire;
use meepo_proto::link::command::Body as Command;
use tokio::time::timeout;

use super::task::{Job, What};
use super::{Lanes, guarded};
use crate::api::event::last_words::Parting;
use crate::link::Link;
use crate::{Client, CloseReason, Handler, HandlerError, Reject, Result};

impl<H: Handler> Lanes<H> {
    /// Messages are many: all else has its future in a place of its own.
    pub(super) async fn handle(&self, client: &Client, job: Job) -> Result<(), HandlerError> {
        let handler = job.what.handler();
        let link = client.link();
        match job.what {
            What::Message(message) => match guarded(async { self.handler.on_message(client, message).await }).await {
                Ok(handled) => handled.map_err(|error| HandlerError::Failed { handler, error }),
                Err(panic) => Err(HandlerError::panicked(handler, panic)),
            },
            What::Opened => Box::pin(self.connect(client, link)).await,
            What::Closed(reason) => Box::pin(self.close(client, link, reason)).await,
            What::Lost => Box::pin(self.close(client, link, CloseReason::gateway_lost())).await,
            What::Farewell(parting) => Box::pin(self.farewell(client, &parting)).await,
            What::Timer(run) => Box::pin(run.run(client.clone(), self.limit)).await,
            What::Buffered(full) => Box::pin(self.buffered(client, full)).await,
            What::Refused(error) => {
                Box::pin(self.tell(client, &error)).await;
                Ok(())
            }
        }
    }

    async fn buffered(&self, client: &Client, full: bool) -> Result<(), HandlerError> {
        let handler = What::Buffered(full).handler();
        let told = guarded(async {
            match full {
                true => self.handler.on_buffer_full(client).await,
                false => self.handler.on_buffer_empty(client).await,
            }
        });
        told.await.map_err(|panic| HandlerError::panicked(handler, panic))
    }

    async fn connect(&self, client: &Client, link: &Arc<Link>) -> Result<(), HandlerError> {
        let id = client.id();
        let connected = guarded(async { self.handler.on_connect(client, client.hello()).await }).await;
        if client.is_handed_back() {
            return Ok(());
        }
        let (answer, result) = match connected {
            Ok(answer) => (answer, Ok(())),
            Err(panic) => (
                Err(Reject::new(500, "internal error")),
                Err(HandlerError::panicked("on_connect", panic)),
            ),
        };
        let answer = match answer {
            Ok(()) => {
                client.known().accept();
                Command::Accept(wire::Accept { client: id.number })
            }
            Err(reject) => {
                self.forget(id, link);
                Command::Reject(wire::Reject {
                    client: id.number,
                    status: reject.status().into(),
                    reason: reject.reason().to_owned(),
                })
            }
        };
        // If the link has ended, the gateway asks another worker.
        let _ = link.send(answer);
        result
    }

    async fn farewell(&self, client: &Client, parting: &Parting) -> Result<(), HandlerError> {
        // Behind a handler that has taken long, it is too late for a last word.
        if !client.known().is_accepted() || parting.left().is_zero() {
            return Ok(());
        }
        let said = guarded(async { self.handler.on_farewell(client, parting.why).await }).await;
        said.map_err(|panic| HandlerError::panicked("on_farewell", panic))
    }

    async fn close(&self, client: &Client, link: &Arc<Link>, reason: CloseReason) -> Result<(), HandlerError> {
        let closed = match client.known().is_accepted() {
            true => guarded(async { self.handler.on_close(client, &reason).await }).await,
            false => Ok(()),
        };
        self.forget(client.id(), link);
        closed.map_err(|panic| HandlerError::panicked("on_close", panic))
    }

    /// Tells the handler what went wrong. What goes wrong there is only logged and counted.
    pub(super) async fn tell(&self, client: &Client, error: &HandlerError) {
        let handler = "on_error";
        let told = guarded(async { self.handler.on_error(client, error).await });
        let limit = self.limit;
        let error = match timeout(limit, told).await {
            Ok(Ok(())) => return,
            Ok(Err(panic)) => HandlerError::panicked(handler, panic),
            Err(_) => HandlerError::CutOff { handler, limit },
        };
        self.failed(client.id(), handler, &error);
    }

    pub(super) fn failed(&self, client: ClientId, handler: &'static str, error: &HandlerError) {
        self.cluster.stats().handler_errors.add(1);
        tracing::warn!(%client, handler, %error, "handler failed");
    }
}
