//! The commands of a worker, carried out one after the other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use meepo_proto::codes;
use meepo_proto::link::command::Body as Ask;
use meepo_proto::link::event::Body;
use meepo_proto::link::{Close, CloseCause, Command, Refused, RefusedWhy, Send, SessionChanged, SessionUpdate, Target};

use crate::client::close::ClientClose;
use crate::client::handle::{Client, FlushBatch, Verdict};
use crate::fanout::batch::Batch;
use crate::fanout::client_registry::JoinError;
use crate::fanout::message::OutboundMessage;
use crate::router::LinkId;
use crate::worker_link::context::LinkContext;
use crate::worker_link::queries;
use crate::worker_link::refusal::{GONE, Refusal, check_message, check_name, check_target};

/// Carries out the commands of one link.
#[derive(Debug)]
pub(crate) struct Commands<'a> {
    context: &'a LinkContext,
    link: LinkId,
    /// Messages that are not sent yet: they wait for more to the same target.
    batch: Option<Batch>,
    /// Events that are done once the batch is sent.
    done: Vec<u64>,
}

/// It pays to wait for further messages after a batch of at least [`SEVERAL`] messages to [`MANY`] clients that took at least
/// [`LONG`] to write. Fewer messages would be later for nothing.
const SEVERAL: usize = 4;
const MANY: usize = 256;
const LONG: Duration = Duration::from_millis(2);
/// How long commands may have to wait then, and a millisecond more, in which timers count.
const GATHER: Duration = Duration::from_millis(4);

impl<'a> Commands<'a> {
    /// Commands of this link, none of which is carried out yet.
    pub(crate) fn new(context: &'a LinkContext, link: LinkId) -> Self {
        Self {
            context,
            link,
            batch: None,
            done: Vec::new(),
        }
    }

    /// Carries out a command. Clients that are sent messages by it are written to with the next [`flush`](Self::flush).
    pub(crate) fn apply(&mut self, command: Command, flush: &mut FlushBatch) {
        let Some(ask) = command.body else {
            return self.refuse("unknown", 0, Refusal(RefusedWhy::Invalid, "unknown command"));
        };
        if !matches!(ask, Ask::Send(_) | Ask::Done(_)) {
            self.send_batch(flush);
        }
        match ask {
            Ask::Hello(_) => self.refuse("hello", 0, Refusal(RefusedWhy::Invalid, "hello was said already")),
            Ask::Part(_) => self.refuse("part", 0, Refusal(RefusedWhy::Invalid, "it belongs to nothing")),
            // It takes effect after the messages that were sent before it, and does not end their batch.
            Ask::Done(done) if self.batch.is_some() => self.done.extend(done.seq),
            Ask::Done(done) => self.context.dispatch.done(self.link, &done.seq),
            Ask::Undone(undone) => self.context.dispatch.undone(self.link, &undone),
            Ask::Draining(_) => self.context.dispatch.link_draining(self.link),
            Ask::Parted(_) => self.context.dispatch.last_words_sent(self.link),
            Ask::Accept(accept) => {
                // An answer to a question that was asked twice may come twice.
                let accepted = self.client(accept.client).map(|client| client.decide(Verdict::Accept));
                self.check("accept", accept.client, accepted.map(|_| ()));
            }
            Ask::Reject(reject) => {
                let status = u16::try_from(reject.status)
                    .ok()
                    .filter(|status| (400..600).contains(status));
                let verdict = Verdict::Reject {
                    status: status.unwrap_or(403),
                    reason: reject.reason,
                };
                self.reject(reject.client, verdict);
            }
            Ask::Send(send) => self.send(send, flush),
            Ask::Close(close) => self.close(*close, flush),
            Ask::Join(join) => {
                let joined = check_name(&join.group).and_then(|()| {
                    let mut registry = self.context.dispatch.clients.registry();
                    registry
                        .join(join.client, &join.group, self.context.limits.max_groups)
                        .map_err(|error| match error {
                            JoinError::Gone => GONE,
                            JoinError::TooMany => Refusal(RefusedWhy::OverLimit, "the client is in too many groups"),
                        })
                });
                self.check("join", join.client, joined);
            }
            Ask::Leave(leave) => {
                let left = self
                    .context
                    .dispatch
                    .clients
                    .registry()
                    .leave(leave.client, &leave.group);
                self.check("leave", leave.client, left.map_err(Into::into));
            }
            Ask::Ungroup(ungroup) => self.context.dispatch.clients.registry().dissolve(&ungroup.group),
            Ask::Bind(bind) => {
                let bound = check_name(&bind.uid).and_then(|()| {
                    Ok(self
                        .context
                        .dispatch
                        .clients
                        .registry()
                        .bind(bind.client, Some(&bind.uid))?)
                });
                self.check("bind", bind.client, bound);
            }
            Ask::Unbind(unbind) => {
                let unbound = self.context.dispatch.clients.registry().bind(unbind.client, None);
                self.check("unbind", unbind.client, unbound.map_err(Into::into));
            }
            Ask::Session(update) => self.update_session(update),
            Ask::Reading(reading) => {
                let found = self.client(reading.client);
                let paused = found.map(|client| self.context.dispatch.pause(self.link, &client, reading.paused));
                self.check("reading", reading.client, paused);
            }
            Ask::Respond(respond) => self.context.dispatch.respond(self.link, respond),
            Ask::Query(query) => {
                if !queries::answer(self.context, self.link, *query, flush) {
                    self.refuse("query", 0, Refusal(RefusedWhy::Invalid, "unknown query"));
                }
            }
        }
    }

    fn reject(&self, number: u64, verdict: Verdict) {
        let Ok(client) = self.client(number) else {
            // It left while the worker was asked. It never came in, so no worker has to hear of its end.
            return self.context.dispatch.dismiss(number);
        };
        if client.decide(verdict) {
            self.context.dispatch.dismiss(number);
        } else {
            self.context.dispatch.reject_late(&client);
        }
    }

    /// Writes to all clients that were sent messages. If that took long, and the last batch had several messages, it says how
    /// long to wait: messages that are on their way then go together too, and each costs less.
    pub(crate) fn flush(&mut self, flush: &mut FlushBatch) -> Option<Duration> {
        let several = self.batch.as_ref().is_some_and(|batch| batch.len() >= SEVERAL);
        let began = several.then(Instant::now);
        flush.is_last = true;
        let members = self.send_batch(flush);
        flush.flush();
        self.context.dispatch.close_slow_of(flush);
        let took = began.filter(|_| members >= MANY)?.elapsed();
        (took >= LONG).then(|| (took / 8).min(GATHER))
    }

    /// Sends the batch, if there is one. Returns to how many clients.
    fn send_batch(&mut self, flush: &mut FlushBatch) -> usize {
        let Some(batch) = self.batch.take() else { return 0 };
        // Clients of the last batch are written to at once, which takes too long for the registry's lock.
        let mut members = Vec::new();
        let registry = self.context.dispatch.clients.registry();
        let gone = registry.each(batch.target(), |client| members.push(Arc::clone(client)));
        let left_out = batch.left_out(&registry);
        drop(registry);
        for client in &members {
            let share = batch.share(client.number, &left_out);
            self.context.sender.send_share(client, &share, flush);
        }
        for number in gone {
            for _ in 0..batch.share(number, &left_out).len() {
                self.context.sender.stats.failed_sends.add(1);
                self.refuse("send", number, GONE);
            }
        }
        if !self.done.is_empty() {
            self.context.dispatch.done(self.link, &self.done);
            self.done.clear();
        }
        members.len()
    }

    fn send(&mut self, send: Send, flush: &mut FlushBatch) {
        let checked = check_message(&send, self.context.limits.max_message);
        let target = send.to.as_deref();
        if let Err(refusal) = checked.and_then(|()| target.map_or(Ok(()), check_target)) {
            let client = match target.map_or(&[][..], |target| &target.clients) {
                [client] if send.client == 0 => *client,
                _ => send.client,
            };
            self.context.sender.stats.failed_sends.add(1);
            return self.refuse("send", client, refusal);
        }
        if send.client == 0 && send.to.is_none() {
            self.context.sender.stats.failed_sends.add(1);
            return self.refuse("send", 0, Refusal(RefusedWhy::Invalid, "the message is to nobody"));
        }
        let message = OutboundMessage::new(send.payload, send.binary);
        match send.to.filter(|_| send.client == 0) {
            Some(to) => self.send_to(to, message, flush),
            None => {
                self.send_batch(flush);
                let registry = self.context.dispatch.clients.registry();
                if let Some(client) = registry.get(send.client) {
                    self.context.sender.send_one(client, message, None, flush);
                    return;
                }
                drop(registry);
                self.context.sender.stats.failed_sends.add(1);
                self.refuse("send", send.client, GONE);
            }
        }
    }

    /// Sends a message to a target, together with others for the same one.
    fn send_to(&mut self, to: Box<Target>, message: OutboundMessage, flush: &mut FlushBatch) {
        match &mut self.batch {
            Some(batch) if batch.takes(&to, message.len()) => batch.push(*to, message),
            _ => {
                self.send_batch(flush);
                self.batch = Some(Batch::new(to, message));
            }
        }
    }

    fn close(&self, close: Close, flush: &mut FlushBatch) {
        let target = close.to.unwrap_or_default();
        let code = match u16::try_from(close.code) {
            Ok(0) => codes::NORMAL.code,
            Ok(code) if codes::may_be_sent(code) => code,
            _ => {
                let refusal = Refusal(RefusedWhy::Invalid, "the close code is not one that may be sent");
                return self.refuse("close", 0, refusal);
            }
        };
        if let Err(refusal) = check_target(&target) {
            return self.refuse("close", 0, refusal);
        }
        let mut clients = Vec::new();
        let mut named = |client: &Arc<Client>| clients.push(Arc::clone(client));
        let gone = self.context.dispatch.clients.registry().each(&target, &mut named);
        for number in gone {
            self.refuse("close", number, GONE);
        }
        flush.flush();
        for client in clients {
            if close.at_once {
                self.context.dispatch.close(&client, ClientClose::at_once());
                continue;
            }
            // A client that is closed before it is let in comes in first, to be told why.
            client.decide(Verdict::Accept);
            let close = ClientClose::with_reason(client.codec, CloseCause::Kicked, Some(code), &close.reason);
            self.context.dispatch.close(&client, close);
        }
    }

    fn update_session(&self, update: SessionUpdate) {
        let SessionUpdate {
            client: number,
            set,
            remove,
            clear,
        } = update;
        let updated = self.client(number).and_then(|client| {
            let max = self.context.limits.max_session;
            self.context
                .dispatch
                .update_session(self.link, &client, SessionChanged { set, remove, clear }, max)
                .map_err(|_| Refusal(RefusedWhy::OverLimit, "the session is over `max_session`"))
        });
        self.check("session", number, updated);
    }

    fn client(&self, number: u64) -> Result<Arc<Client>, Refusal> {
        self.context.dispatch.clients.get(number).ok_or(GONE)
    }

    fn check(&self, command: &'static str, client: u64, result: Result<(), Refusal>) {
        if let Err(refusal) = result {
            self.refuse(command, client, refusal);
        }
    }

    fn refuse(&self, command: &'static str, client: u64, Refusal(why, detail): Refusal) {
        let refused = Refused {
            command: command.into(),
            client,
            why: why.into(),
            detail: detail.into(),
        };
        self.context.dispatch.tell(self.link, client, Body::Refused(refused));
    }
}
