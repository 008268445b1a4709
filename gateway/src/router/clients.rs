//! The transitions that a client causes: it comes, sends, is rejected, paused.

use std::sync::Arc;

use bytes::Bytes;
use meepo_proto::codes;
use meepo_proto::id::ClientNumber;
use meepo_proto::link::event::Body;
use meepo_proto::link::{CloseCause, Handshake, Message, Opened, PauseChanged, SendBuffer, SessionChanged};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::client::close::{ClientClose, WaitingFrames};
use crate::client::codec::Codec;
use crate::client::handle::{Client, FlushBatch, Verdict};
use crate::client::profile::SessionTooBig;
use crate::router::dispatch::Dispatch;
use crate::router::effects::Retained;
use crate::router::rules::{Flow, LinkId};

impl Dispatch {
    /// A client has come: a worker is asked for a verdict.
    pub(crate) fn open(
        &self,
        codec: &'static Codec,
        handshake: &Handshake,
        socket: Option<TcpStream>,
    ) -> (Arc<Client>, oneshot::Receiver<Verdict>) {
        let number = ClientNumber(self.clients.next_number());
        let (client, answer) = Client::new(number, codec, handshake, socket, self.send_buffer);
        let closing_all = self.clients.add(&client);
        self.transition(|router, outputs, effects| {
            effects.retained.insert(number, Retained::of(&client));
            router.push(number, Body::Opened(Opened {}), outputs);
        });
        if let Some(code) = closing_all {
            self.close(&client, ClientClose::by_gateway(codec, CloseCause::GatewayStop, code));
        }
        (client, answer)
    }

    /// Queues a message of a client, and those that `next` gives, until the client is to be held back.
    pub(crate) fn push_messages(&self, client: &Client, first: Message, mut next: impl FnMut() -> Option<Message>) {
        self.transition(|router, outputs, _| {
            // Its last event is pushed under this lock, after it was closed: nothing may follow that.
            if client.is_closed() {
                return;
            }
            let (mut messages, mut bytes) = (0, 0);
            let mut message = Some(first);
            while let Some(taken) = message {
                messages += 1;
                bytes += taken.payload.len() as u64;
                if router.push(client.number, Body::Message(taken), outputs) == Flow::Pause {
                    client.hold_back();
                    break;
                }
                message = next();
            }
            self.stats.messages_in.add(messages);
            self.stats.bytes_in.add(bytes);
        });
    }

    /// Queues an event that tells a worker that a client's send buffer is full, or empty again, if that is news.
    pub(crate) fn push_send_buffer(&self, client: &Client) {
        self.transition(|router, outputs, _| {
            // Taken under this lock, as for messages: nothing follows the last event.
            let Some(full) = client.tell_send_buffer() else { return };
            if router.push(client.number, Body::SendBuffer(SendBuffer { full }), outputs) == Flow::Pause {
                client.hold_back();
            }
        });
    }

    /// Holds a client back that is about to be read while too much waits for workers.
    pub(crate) fn hold_back_if_full(&self, client: &Client) {
        if !self.is_full() {
            return;
        }
        self.transition(|router, _, _| {
            if router.flow(client.number) == Flow::Pause {
                client.hold_back();
            }
        });
    }

    /// Whether all events of a client are done. If not, the client's task is woken when they are.
    pub(crate) fn is_settled(&self, client: &Client) -> bool {
        self.transition(|router, _, _| router.settle(client.number))
    }

    /// A worker has rejected a client before it came in: no event of it follows.
    pub(crate) fn dismiss(&self, number: ClientNumber) {
        self.transition(|router, outputs, _| router.dismiss(number, outputs));
    }

    /// A worker has rejected a client that another worker had let in before. The worker has forgotten the client, and has
    /// to hear of its end.
    pub(crate) fn reject_late(&self, client: &Arc<Client>) {
        self.transition(|router, _, _| router.forgotten(client.number));
        let close = ClientClose::by_gateway(client.codec, CloseCause::Kicked, codes::POLICY);
        self.close(client, close);
    }

    /// Takes a client out that a worker has rejected.
    pub(crate) fn remove_rejected(&self, client: &Arc<Client>, last: Option<Bytes>) {
        let mut close = ClientClose {
            last,
            waiting: WaitingFrames::Dropped,
            ..ClientClose::by_client(CloseCause::Kicked, None, "")
        };
        if client.close(&mut close).is_some() {
            self.clients.remove(client.number);
            self.dismiss(client.number);
        }
    }

    /// Closes the clients of a batch whose send buffer is full.
    pub(crate) fn close_slow_of(&self, flush: &mut FlushBatch) {
        for client in flush.slow.drain(..) {
            self.close_slow(&client);
        }
    }

    /// Closes a client that does not read.
    pub(crate) fn close_slow(&self, client: &Arc<Client>) {
        let close = ClientClose::by_gateway(client.codec, CloseCause::Slow, codes::SLOW_CLIENT);
        if self.close(client, close.dropping_waiting()) {
            self.stats.slow_clients.add(1);
            tracing::info!(client = %self.clients.id(client.number), "closed a client that does not read");
        }
    }

    /// Changes a client's session. The worker that serves the client is told what another worker has changed.
    pub(crate) fn update_session(
        &self,
        link: LinkId,
        client: &Client,
        change: SessionChanged,
        max_session: usize,
    ) -> Result<(), SessionTooBig> {
        self.look(|router, effects| {
            client.profile.update_session(&change, max_session)?;
            if let Some(serving) = router.link_of(client.number)
                && serving != link
            {
                effects.tell(serving, Some(client.number), Body::SessionChanged(change));
            }
            Ok(())
        })
    }

    /// Pauses or resumes a client. The worker that serves the client is told what another worker has done.
    pub(crate) fn pause(&self, link: LinkId, client: &Client, paused: bool) {
        self.look(|router, effects| {
            if client.set_paused(paused)
                && let Some(serving) = router.link_of(client.number)
                && serving != link
            {
                effects.tell(
                    serving,
                    Some(client.number),
                    Body::PauseChanged(PauseChanged { paused }),
                );
            }
        });
    }
}
