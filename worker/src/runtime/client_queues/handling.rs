//! Runs the handler of a task, guarded against panics, and tells the application of errors.

use std::sync::Arc;

use meepo_proto::ClientId;
use meepo_proto::link as wire;
use meepo_proto::link::command::Body as Command;
use tokio::time::timeout;

use super::ClientQueues;
use super::last_words::SayLastWords;
use super::task::{Task, TaskKind};
use crate::api::client::Client;
use crate::api::error::{HandlerError, guarded};
use crate::api::event::close::CloseReason;
use crate::api::event::hello::Reject;
use crate::api::handler::Handler;
use crate::link::Link;

impl<H: Handler> ClientQueues<H> {
    /// Runs the handler of a task. Messages are many: all else has its future in a place of its own.
    pub(super) async fn handle(&self, client: &Client, task: Task) -> Result<(), HandlerError> {
        let handler = task.kind.handler();
        let link = client.link();
        match task.kind {
            TaskKind::Message(message) => match guarded(async { self.handler.on_message(client, message).await }).await
            {
                Ok(handled) => handled.map_err(|error| HandlerError::Failed { handler, error }),
                Err(panic) => Err(HandlerError::panicked(handler, panic)),
            },
            TaskKind::Opened => Box::pin(self.connect(client, link)).await,
            TaskKind::Closed(reason) => Box::pin(self.close(client, link, reason)).await,
            TaskKind::GatewayLost => {
                let closed = Box::pin(self.close(client, link, CloseReason::gateway_lost())).await;
                // No gateway is left that would take the event back.
                self.forget(client.id(), link);
                closed
            }
            TaskKind::LastWords(last_words) => Box::pin(self.say_last_words(client, &last_words)).await,
            TaskKind::Timer(run) => run.into_future().await,
            TaskKind::BufferFull => Box::pin(self.buffer_full(client, handler)).await,
            TaskKind::BufferEmpty => Box::pin(self.buffer_empty(client, handler)).await,
            TaskKind::Refused(error) => {
                Box::pin(self.tell(client, &error)).await;
                Ok(())
            }
        }
    }

    async fn buffer_full(&self, client: &Client, handler: &'static str) -> Result<(), HandlerError> {
        let told = guarded(async { self.handler.on_buffer_full(client).await }).await;
        told.map_err(|panic| HandlerError::panicked(handler, panic))
    }

    async fn buffer_empty(&self, client: &Client, handler: &'static str) -> Result<(), HandlerError> {
        let told = guarded(async { self.handler.on_buffer_empty(client).await }).await;
        told.map_err(|panic| HandlerError::panicked(handler, panic))
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
                client.served().let_in();
                Command::Accept(wire::Accept { client: id.number.0 })
            }
            Err(reject) => {
                self.forget(id, link);
                Command::Reject(wire::Reject {
                    client: id.number.0,
                    status: reject.status().into(),
                    reason: reject.reason().to_owned(),
                })
            }
        };
        // If the link has ended, the gateway asks another worker.
        let _ = link.send(answer);
        result
    }

    async fn say_last_words(&self, client: &Client, last_words: &SayLastWords) -> Result<(), HandlerError> {
        // Behind a handler that has taken long, it is too late for last words.
        if !client.served().life().is_let_in() || last_words.left().is_zero() {
            return Ok(());
        }
        let said = guarded(async { self.handler.on_last_words(client, last_words.why).await }).await;
        said.map_err(|panic| HandlerError::panicked("on_last_words", panic))
    }

    async fn close(&self, client: &Client, link: &Arc<Link>, reason: CloseReason) -> Result<(), HandlerError> {
        let closed = match client.served().life().is_let_in() {
            true => guarded(async { self.handler.on_close(client, &reason).await }).await,
            false => Ok(()),
        };
        // Whoever hands the event back forgets the client with it.
        if !client.is_handed_back() {
            self.forget(client.id(), link);
        }
        closed.map_err(|panic| HandlerError::panicked("on_close", panic))
    }

    /// Tells the handler of an error. An error in `on_error` itself is only logged and counted.
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
