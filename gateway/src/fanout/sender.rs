//! Sends to clients, and counts what became of the messages.

use std::sync::Arc;

use meepo_node::stats::Slot;
use tokio::sync::oneshot;

use crate::client::handle::{Client, FlushBatch, Sent};
use crate::config::limits::SlowClient;
use crate::fanout::batch::Share;
use crate::fanout::message::OutboundMessage;

/// Sends to clients.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sender {
    /// Where messages are counted.
    pub(crate) stats: &'static Slot,
    /// What happens to a client whose send buffer is full.
    pub(crate) slow_client: SlowClient,
}

impl Sender {
    /// Sends a client its share of a batch, which it gets with the next flush, or at once if nothing is sent before that.
    pub(crate) fn send_share(self, client: &Arc<Client>, share: &Share<'_>, flush: &mut FlushBatch) {
        let messages = share.len();
        if messages == 0 {
            return;
        }
        match client.send(share.encoded(client.codec), None, flush) {
            // As many of them as there is room for.
            Sent::Full if messages > 1 => {
                for message in share.messages() {
                    let frame = message.encoded(client.codec).clone();
                    let sent = client.send(frame, None, flush);
                    self.count(client, sent, 1, message.len(), flush);
                }
            }
            sent => self.count(client, sent, messages, share.bytes(), flush),
        }
    }

    /// Sends a message to its only client, which gets it with the next flush. The receipt is told when the client's system
    /// has the message.
    pub(crate) fn send_one(
        self,
        client: &Arc<Client>,
        message: OutboundMessage,
        receipt: Option<oneshot::Sender<()>>,
        flush: &mut FlushBatch,
    ) -> Sent {
        let bytes = message.len();
        let sent = client.send(message.into_encoded(client.codec), receipt, flush);
        self.count(client, sent, 1, bytes, flush);
        sent
    }

    /// Counts what became of messages to a client.
    fn count(self, client: &Arc<Client>, sent: Sent, messages: usize, bytes: usize, flush: &mut FlushBatch) {
        match sent {
            Sent::Queued => {
                self.stats.messages_out.add(messages as u64);
                self.stats.bytes_out.add(bytes as u64);
            }
            Sent::Full => {
                self.stats.failed_sends.add(messages as u64);
                self.stats.dropped_sends.add(messages as u64);
                if self.slow_client == SlowClient::Close {
                    flush.slow.push(Arc::clone(client));
                }
            }
            Sent::Gone => {}
        }
    }
}
