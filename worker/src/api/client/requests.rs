//! Requests to a client: a message that the client is sent, and the message that it answers with.

use std::sync::Arc;
use std::time::Duration;

use meepo_proto::link::query::Body as Query;
use tokio::time::timeout;

use super::Client;
use super::open_requests::{Matches, RequestError};
use super::served::ServedClient;
use crate::api::event::message::Message;
use crate::api::receipt::{Receipt, receipt};
use crate::api::targets::send_one;

/// # Requests
///
/// A request waits for its client without holding up others, also in a handler of the same client: the reply does not
/// wait behind that handler. It works in a timer too, and in a handler of another client, through a `Client` that was
/// kept; not in `on_connect`, before the client is let in.
///
/// The reply is the first message that comes after the request was sent and that matches. It does not go to
/// [`on_message`](crate::Handler::on_message). All others do, in order, and wait as ever for the handler that runs; if
/// many are sent (`client_in_flight`), the gateway holds back what follows, also the reply, until the deadline. Several
/// requests at once, up to 16, are answered in the order of asking. A client that also speaks without being asked needs
/// [`request_matching`](Self::request_matching): what it had sent before it got the request may come after.
///
/// The event that is a reply is done as soon as the request has it. If this worker dies then, the event whose handler made
/// the request is redelivered, and the handler makes the request again. A handler that waits is subject to
/// `handler_timeout` as any: keep the deadline below that.
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
        let (served, cluster) = (self.served(), self.cluster());
        let over = served.over();
        if over.is_cancelled() || served.link().is_draining() {
            return Err(served.why_over());
        }
        if !served.life().is_let_in() {
            return Err(RequestError::NotConnected);
        }
        let mut asked = served.requests().ask(matches)?;
        let query = Query::Confirm(send_one(message.clone(), self.id().number));
        let Some(sent) = served.link().ask(query) else {
            cluster.stats().failed_sends.add(1);
            return Err(match served.link().has_ended() {
                true => RequestError::Moved,
                false => RequestError::NotSent(Receipt::Refused),
            });
        };
        cluster.count_sent(&message);
        let not_sent = async {
            let error = match receipt(sent.reply().await) {
                Receipt::Gone => RequestError::Gone,
                not_sent @ (Receipt::Full | Receipt::Refused) => RequestError::NotSent(not_sent),
                Receipt::Delivered | Receipt::Unknown => std::future::pending().await,
            };
            cluster.stats().failed_sends.add(1);
            error
        };
        let replied = async {
            tokio::select! {
                biased;
                Ok(reply) = &mut asked.reply => Ok(reply),
                error = not_sent => Err(error),
                () = over.cancelled() => Err(served.why_over()),
                // No event comes over a link that drains.
                () = served.link().drains() => Err(served.why_over()),
            }
        };
        let replied = timeout(deadline, replied).await.unwrap_or(Err(RequestError::Deadline));
        replied.or_else(|error| asked.withdraw().ok_or(error))
    }
}

impl ServedClient {
    fn why_over(&self) -> RequestError {
        match self.life().has_closed() {
            true => RequestError::Gone,
            false => RequestError::Moved,
        }
    }
}
