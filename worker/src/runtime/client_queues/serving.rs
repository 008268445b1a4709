//! The queues as clusters, timers and requests to clients see them.

use std::sync::Arc;

use meepo_proto::ClientId;

use super::ClientQueues;
use super::task::{Owner, Task, TaskKind};
use crate::api::client::served::ServedClient;
use crate::api::cluster::gateway_copy::HasGatewayCopy;
use crate::api::cluster::served_clients::{ServedClients, TimerRun};
use crate::api::error::HandlerError;
use crate::api::handler::Handler;

impl<H: Handler> ServedClients for ClientQueues<H> {
    fn served(&self, id: ClientId) -> Option<Arc<dyn HasGatewayCopy>> {
        Some(ClientQueues::served(self, id)?)
    }

    fn queue_run(self: Arc<Self>, id: ClientId, run: TimerRun) {
        if let Some(queue) = self.queues.get_mut(&id)
            && let Some(served) = &queue.served
        {
            let owner = Owner::Client(served.clone());
            let kind = TaskKind::Timer(run);
            let task = Task::of_no_event(kind, self.cluster.stats());
            self.queue(id, queue, owner, task);
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.queues.len()
    }

    #[cfg(test)]
    fn served_client(&self, id: ClientId) -> Option<Arc<dyn std::any::Any + Send + Sync>> {
        Some(ClientQueues::served(self, id)?)
    }
}

impl<H: Handler> ClientQueues<H> {
    /// Whether an event is the reply to a request. The last event of a client ends its requests and timers at once: a
    /// handler that waits for them may run before it.
    pub(super) fn answers_request(&self, served: &ServedClient, task: &Task) -> bool {
        match &task.kind {
            TaskKind::Message(message) => served.requests().answer(message, |panic| {
                let handler = "request_matching";
                self.failed(served.id(), handler, &HandlerError::panicked(handler, panic));
            }),
            TaskKind::Closed(_) | TaskKind::GatewayLost => {
                served.close();
                false
            }
            _ => false,
        }
    }
}

impl Task {
    /// Whether the task may answer or end requests to its client. A message that is redelivered was sent before any of them
    /// was made.
    pub(super) fn may_concern_requests(&self, served: &ServedClient) -> bool {
        match self.kind {
            TaskKind::Message(_) => !self.event.redelivered && served.requests().any(),
            TaskKind::Closed(_) | TaskKind::GatewayLost => true,
            _ => false,
        }
    }
}
