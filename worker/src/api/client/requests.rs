//! Requests to clients: a message that a client is sent, and the message that it answers with.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use meepo_proto::link::query::Body as Question;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::api::client::Known;
use crate::api::error::Panic;
use crate::api::query::delivery;
use crate::api::targets::send_one;
use crate::runtime::client_queues::guarded;
use crate::{Client, Delivery, Message};

/// Most requests that wait for replies of one client: each message of it is held against all of them.
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
    NotSent(Delivery),
    /// The client has not been let in yet: it is sent nothing before `on_connect` has returned.
    #[error("the client has not been let in yet")]
    NotConnected,
    /// Too many requests wait for replies of the client.
    #[error("{MAX_WAITING} requests wait for replies of the client")]
    TooMany,
}

/// Whether a message is the reply to a request.
type Matches = dyn Fn(&Message) -> bool + Send + Sync;

/// The requests that wait for replies of a client.
#[derive(Default)]
pub(crate) struct Requests {
    queue: Mutex<Queue>,
    /// Whether any waits: asked for each event.
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
    /// None: any message.
    matches: Option<Arc<Matches>>,
    reply: oneshot::Sender<Message>,
}

/// A request that waits for its reply. Dropping it forgets the request.
struct Asked<'a> {
    requests: &'a Requests,
    number: u64,
    reply: oneshot::Receiver<Message>,
}

/// # Requests
///
/// A request waits for its client without holding up others, also in a handler of the same client: the reply does not
/// wait behind that handler. It works in a timer too, and in a handler of another client, through a `Client` that was
/// kept; not in `on_connect`, before the client is let in.
///
/// The reply is the first message that comes after the request was sent, and matches. It does not go to
/// [`on_message`](crate::Handler::on_message). All others do, in order, and wait as ever for the handler that runs; if
/// many are sent (`client_in_flight`), the gateway holds back what follows, also the reply, until the deadline. Several
/// requests at once, up to 16, are answered in the order of asking. A client that also speaks without being asked needs
/// [`request_matching`](Self::request_matching): what it had sent before it got the request may come after.
///
/// A reply is done with as soon as the request has it. If this worker dies then, the event whose handler has asked comes
/// again, marked, and the handler asks again. A handler that waits is subject to `handler_timeout` as any: keep the
/// deadline below that.
impl Client {
    /// Sends the client a message and waits for its next one.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use meepo_worker::{Client, RequestError, Result};
    /// # async fn example(client: &Client) -> Result<()> {
    /// match client.request("your name?", Duration::from_secs(30)).await {
    ///     Ok(name) => client.set("name", name.text().unwrap_or("?")),
    ///     Err(RequestError::Deadline) => client.close(4000, "too slow"),
    ///     Err(error) => return Err(error.into()),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn request(&self, payload: impl Into<Message>, deadline: Duration) -> Result<Message, RequestError> {
        self.ask(payload.into(), deadline, None).await
    }

    /// Sends the client a message and waits for its next one for which the closure says true.
    ///
    /// The closure is called for each message of the client, before anything else is done with it, so it must be quick.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use meepo_worker::{Client, Message, Result};
    /// # async fn example(client: &Client) -> Result<()> {
    /// let is_reply = |message: &Message| message.text().is_some_and(|text| text.starts_with("re:7 "));
    /// let reply = client.request_matching("ask:7 ready?", Duration::from_secs(5), is_reply).await?;
    /// # let _ = reply;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn request_matching(
        &self,
        payload: impl Into<Message>,
        deadline: Duration,
        matches: impl Fn(&Message) -> bool + Send + Sync + 'static,
    ) -> Result<Message, RequestError> {
        self.ask(payload.into(), deadline, Some(Arc::new(matches))).await
    }

    async fn ask(
        &self,
        message: Message,
        deadline: Duration,
        matches: Option<Arc<Matches>>,
    ) -> Result<Message, RequestError> {
        let (known, cluster) = (self.known(), self.cluster());
        let over = known.over();
        if over.is_cancelled() || known.link().is_draining() {
            return Err(known.why_over());
        }
        if !cluster.serving().is_some_and(|serving| serving.has_let_in(known)) {
            return Err(RequestError::NotConnected);
        }
        let mut asked = known.requests().ask(matches)?;
        let question = Question::Confirm(send_one(message.clone(), self.id().number));
        let Some(sent) = known.link().ask(question) else {
            cluster.stats().failed_sends.add(1);
            return Err(match known.link().has_ended() {
                true => RequestError::Moved,
                false => RequestError::NotSent(Delivery::Refused),
            });
        };
        cluster.count_sent(&message);
        let not_sent = async {
            let error = match delivery(sent.reply().await) {
                Delivery::Gone => RequestError::Gone,
                not_sent @ (Delivery::Full | Delivery::Refused) => RequestError::NotSent(not_sent),
                Delivery::Delivered | Delivery::Unknown => std::future::pending().await,
            };
            cluster.stats().failed_sends.add(1);
            error
        };
        let replied = async {
            tokio::select! {
                biased;
                Ok(reply) = &mut asked.reply => Ok(reply),
                error = not_sent => Err(error),
                () = over.cancelled() => Err(known.why_over()),
                // No event comes over a link that drains.
                () = known.link().drains() => Err(known.why_over()),
            }
        };
        let replied = timeout(deadline, replied).await.unwrap_or(Err(RequestError::Deadline));
        replied.or_else(|error| asked.withdraw().ok_or(error))
    }
}

impl Known {
    fn why_over(&self) -> RequestError {
        match self.is_closed() {
            true => RequestError::Gone,
            false => RequestError::Moved,
        }
    }
}

impl Requests {
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

    fn ask(&self, matches: Option<Arc<Matches>>) -> Result<Asked<'_>, RequestError> {
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
        Ok(Asked {
            requests: self,
            number,
            reply,
        })
    }

    /// Gives a message to the first request whose reply it is. False if there is none. `failed` hears of closures that
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

impl Asked<'_> {
    /// Waits no longer. A reply that has come at this very moment is done already: it is not to be lost.
    fn withdraw(&mut self) -> Option<Message> {
        self.requests.remove(self.number);
        self.reply.try_recv().ok()
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.requests.remove(self.number);
    }
}

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Requests").field(&self.queue().waiting.len()).finish()
    }
}
