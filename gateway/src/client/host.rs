//! What the task that reads a client asks of the gateway around it.

use std::sync::Arc;

use meepo_node::quota::LogQuota;
use meepo_proto::ClientId;
use meepo_proto::link::Message;

use crate::client::close::ClientClose;
use crate::client::handle::Client;
use crate::config::limits::Limits;

/// The gateway, as the task that reads a client sees it.
pub(crate) trait Host: Send + Sync + 'static {
    /// The limits of this child.
    fn limits(&self) -> &Limits;

    /// The id under which workers and logs know a client.
    fn client_id(&self, client: &Client) -> ClientId;

    /// Log lines that clients can cause.
    fn refusals(&self) -> &LogQuota;

    /// Queues a message of a client for a worker, and those that `next` gives, until the client is to be held back.
    fn push_messages(&self, client: &Client, first: Message, next: impl FnMut() -> Option<Message>);

    /// Queues an event that tells a worker that the client's send buffer is full, or empty again, if that is news.
    fn push_send_buffer(&self, client: &Client);

    /// Holds a client back that is about to be read while the events of all clients take too much room.
    fn hold_back_if_full(&self, client: &Client);

    /// Whether all events of the client are done. If not, the client's task is woken when they are.
    fn is_settled(&self, client: &Client) -> bool;

    /// Closes a client. False if it was closed before.
    fn close(&self, client: &Arc<Client>, close: ClientClose) -> bool;

    /// Closes a client that does not read.
    fn close_slow(&self, client: &Arc<Client>);
}
