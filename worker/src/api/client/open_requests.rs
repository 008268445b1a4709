//! The requests that wait for replies of a client.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use tokio::sync::oneshot;

use crate::api::error::{Panic, guarded};
use crate::api::event::message::Message;
use crate::api::receipt::Receipt;

/// Most requests that wait for replies of one client: each message of the client is compared with all of them.
const MAX_WAITING: usize = 16;

/// Why there is no reply to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The client has not answered in time. What it says from now on goes to `on_message`.
    #[error("the client did not answer in time")]
    Deadline,
    /// The client has closed.
    #[error("the client has gone")]
    Gone,
    /// Another worker serves the client from now on: the link to its gateway has ended, or this worker drains. If the
    /// client answers, the answer goes to that worker's `on_message`.
    #[error("another worker serves the client from now on")]
    Moved,
    /// The request has not reached the client: its send buffer was full, or the gateway refuses it as too large.
    #[error("the request was not sent: {0:?}")]
    NotSent(Receipt),
    /// The client has not been let in yet: it is sent nothing before `on_connect` has returned.
    #[error("the client has not been let in yet")]
    NotConnected,
    /// Too many requests wait for replies of the client.
    #[error("{MAX_WAITING} requests wait for replies of the client")]
    TooMany,
}

/// Whether a message is the reply to a request.
pub(super) type Matches = dyn Fn(&Message) -> bool + Send + Sync;

/// The requests that wait for replies of a client.
#[derive(Default)]
pub(crate) struct OpenRequests {
    queue: Mutex<Queue>,
    /// Whether a request waits: looked at for each event.
    any: AtomicBool,
}

#[derive(Default)]
struct Queue {
    /// In the order of asking.
    waiting: VecDeque<Waiting>,
    last: u64,
}

struct Waiting {
    number: u64,
    /// None: any message is the reply.
    matches: Option<Arc<Matches>>,
    reply: oneshot::Sender<Message>,
}

/// A request that waits for its reply. Dropping it forgets the request.
pub(super) struct OpenRequest<'a> {
    requests: &'a OpenRequests,
    number: u64,
    pub(super) reply: oneshot::Receiver<Message>,
}

impl OpenRequests {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether any request waits.
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    #[cfg(test)]
    pub(crate) fn is_full(&self) -> bool {
        self.queue().waiting.len() >= MAX_WAITING
    }

    pub(super) fn ask(&self, matches: Option<Arc<Matches>>) -> Result<OpenRequest<'_>, RequestError> {
        let (answer, reply) = oneshot::channel();
        let mut queue = self.queue();
        if queue.waiting.len() >= MAX_WAITING {
            return Err(RequestError::TooMany);
        }
        queue.last += 1;
        let number = queue.last;
        queue.waiting.push_back(Waiting {
            number,
            matches,
            reply: answer,
        });
        self.any.store(true, Ordering::Release);
        Ok(OpenRequest {
            requests: self,
            number,
            reply,
        })
    }

    /// Gives a message to the first request whose reply it is. False if there is none. `failed` is called for closures that
    /// panic.
    pub(crate) fn answer(&self, message: &Message, failed: impl Fn(Panic)) -> bool {
        // The application's closures are called without the lock.
        let waiting = self.queue().waiting.iter().map(Waiting::question).collect::<Vec<_>>();
        waiting.into_iter().any(|(number, matches)| {
            let right = matches.is_none_or(|matches| {
                let matched = guarded(async { matches(message) }).now_or_never();
                matched.is_some_and(|matched| {
                    matched.unwrap_or_else(|panic| {
                        failed(panic);
                        false
                    })
                })
            });
            right
                && self
                    .remove(number)
                    .is_some_and(|waiting| waiting.reply.send(message.clone()).is_ok())
        })
    }

    fn remove(&self, number: u64) -> Option<Waiting> {
        let mut queue = self.queue();
        let at = queue.waiting.iter().position(|waiting| waiting.number == number)?;
        let removed = queue.waiting.remove(at);
        self.any.store(!queue.waiting.is_empty(), Ordering::Release);
        removed
    }
}

impl Waiting {
    fn question(&self) -> (u64, Option<Arc<Matches>>) {
        (self.number, self.matches.clone())
    }
}

impl OpenRequest<'_> {
    /// Ends the request. A reply that has come at this very moment is an event that is done already, and must not be lost.
    pub(super) fn withdraw(&mut self) -> Option<Message> {
        self.requests.remove(self.number);
        self.reply.try_recv().ok()
    }
}

impl Drop for OpenRequest<'_> {
    fn drop(&mut self) {
        self.requests.remove(self.number);
    }
}

impl fmt::Debug for OpenRequests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OpenRequests")
            .field(&self.queue().waiting.len())
            .finish()
    }
}
