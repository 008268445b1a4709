//! The commands of a worker, carried out one after the other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use meepo_proto::codes;
use meepo_proto::id::{ClientNumber, Seq};
use meepo_proto::link::command::Body as Ask;
use meepo_proto::link::event::Body;
use meepo_proto::link::send::To;
use meepo_proto::link::{
    Close, CloseCause, Command, Pong, Refused, RefusedWhy, Send, SessionChanged, SessionUpdate, Target,
};

use crate::client::close::ClientClose;
use crate::client::handle::{Client, FlushBatch, Verdict};
use crate::fanout::batch::Batch;
use crate::fanout::client_registry::JoinError;
use crate::fanout::message::OutboundMessage;
use crate::router::LinkId;
use crate::worker_link::context::LinkContext;
use crate::worker_link::queries;
use crate::worker_link::refusal::{GONE, Refusal, check_message, check_name, check_target, only_client};

/// Carries out the commands of one link.
#[derive(Debug)]
pub(crate) struct Commands<'a> {
    context: &'a LinkContext,
    link: LinkId,
    /// Messages that are not sent yet: they wait for more to the same target.
    batch: Option<Batch>,
    /// Events that are done once the batch is sent.
    done: Vec<Seq>,
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
            return self.refuse("unknown", None, Refusal(RefusedWhy::Invalid, "unknown command"));
        };
        if !matches!(ask, Ask::Send(_) | Ask::Done(_)) {
            self.send_batch(flush);
        }
        match ask {
            Ask::Hello(_) => self.refuse("hello", None, Refusal(RefusedWhy::Invalid, "hello was said already")),
            Ask::Part(_) => self.refuse("part", None, Refusal(RefusedWhy::Invalid, "it belongs to nothing")),
            // It takes effect after the messages that were sent before it, and does not end their batch.
            Ask::Done(done) if self.batch.is_some() => self.done.extend(done.seq.into_iter().map(Seq)),
            Ask::Done(done) => {
                let events: Vec<_> = done.seq.into_iter().map(Seq).collect();
                self.context.dispatch.done(self.link, &events);
            }
            Ask::Undone(undone) => {
                let event = Seq(undone.seq);
                self.context.dispatch.undone(self.link, event, undone.handed_back);
            }
            Ask::Draining(_) => self.context.dispatch.link_draining(self.link),
            Ask::LastWordsSent(_) => self.context.dispatch.last_words_sent(self.link),
            Ask::Accept(accept) => {
                // An answer to a question that was asked twice may come twice.
                let accepted = self
                    .client(accept.client.into())
                    .map(|client| client.decide(Verdict::Accept));
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
                self.reject(reject.client.into(), verdict);
            }
            Ask::Send(send) => self.send(send, flush),
            Ask::Close(close) => self.close(*close, flush),
            Ask::Join(join) => {
                let joined = check_name(&join.group).and_then(|()| {
                    let mut registry = self.context.dispatch.clients.registry();
                    registry
                        .join(join.client.into(), &join.group, self.context.limits.max_groups)
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
                    .leave(leave.client.into(), &leave.group);
                self.check("leave", leave.client, left.map_err(Into::into));
            }
            Ask::Dissolve(dissolve) => self.context.dispatch.clients.registry().dissolve(&dissolve.group),
            Ask::Bind(bind) => {
                let bound = check_name(&bind.uid).and_then(|()| {
                    Ok(self
                        .context
                        .dispatch
                        .clients
                        .registry()
                        .bind(bind.client.into(), Some(&bind.uid))?)
                });
                self.check("bind", bind.client, bound);
            }
            Ask::Unbind(unbind) => {
                let unbound = self
                    .context
                    .dispatch
                    .clients
                    .registry()
                    .bind(unbind.client.into(), None);
                self.check("unbind", unbind.client, unbound.map_err(Into::into));
            }
            Ask::Session(update) => self.update_session(update),
            Ask::Pause(pause) => {
                let found = self.client(pause.client.into());
                let paused = found.map(|client| self.context.dispatch.pause(self.link, &client, pause.paused));
                self.check("pause", pause.client, paused);
            }
            Ask::Respond(respond) => self.context.dispatch.respond(self.link, respond),
            Ask::Ping(_) => self.context.dispatch.tell(self.link, None, Body::Pong(Pong {})),
            Ask::Query(query) => {
                if !queries::answer(self.context, self.link, *query, flush) {
                    self.refuse("query", None, Refusal(RefusedWhy::Invalid, "unknown query"));
                }
            }
        }
    }

    fn reject(&self, number: ClientNumber, verdict: Verdict) {
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
                self.refuse("send", Some(number), GONE);
            }
        }
        if !self.done.is_empty() {
            self.context.dispatch.done(self.link, &self.done);
            self.done.clear();
        }
        members.len()
    }

    fn send(&mut self, send: Send, flush: &mut FlushBatch) {
        let mut checked = check_message(&send, self.context.limits.max_message);
        if let Some(To::Target(target)) = &send.to {
            checked = checked.and_then(|()| check_target(target));
        }
        if let Err(refusal) = checked {
            self.context.sender.stats.failed_sends.add(1);
            return self.refuse("send", only_client(&send), refusal);
        }
        let message = OutboundMessage::new(send.payload, send.binary);
        match send.to {
            None => {
                self.context.sender.stats.failed_sends.add(1);
                let refusal = Refusal(RefusedWhy::Invalid, "the message is to nobody");
                self.refuse("send", None, refusal);
            }
            Some(To::Target(target)) => self.send_to(target, message, flush),
            Some(To::Client(number)) => {
                let number = ClientNumber(number);
                self.send_batch(flush);
                let registry = self.context.dispatch.clients.registry();
                if let Some(client) = registry.get(number) {
                    self.context.sender.send_one(client, message, None, flush);
                    return;
                }
                drop(registry);
                self.context.sender.stats.failed_sends.add(1);
                self.refuse("send", Some(number), GONE);
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
        let target = close.target.unwrap_or_default();
        let code = match close.code.map(u16::try_from) {
            None => codes::NORMAL.code,
            Some(Ok(code)) if codes::may_be_sent(code) => code,
            Some(_) => {
                let refusal = Refusal(RefusedWhy::Invalid, "the close code is not one that may be sent");
                return self.refuse("close", None, refusal);
            }
        };
        if let Err(refusal) = check_target(&target) {
            return self.refuse("close", None, refusal);
        }
        let mut clients = Vec::new();
        let mut named = |client: &Arc<Client>| clients.push(Arc::clone(client));
        let gone = self.context.dispatch.clients.registry().each(&target, &mut named);
        for number in gone {
            self.refuse("close", Some(number), GONE);
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
        let updated = self.client(number.into()).and_then(|client| {
            let max = self.context.limits.max_session;
            self.context
                .dispatch
                .update_session(self.link, &client, SessionChanged { set, remove, clear }, max)
                .map_err(|_| Refusal(RefusedWhy::OverLimit, "the session is over `max_session`"))
        });
        self.check("session", number, updated);
    }

    fn client(&self, number: ClientNumber) -> Result<Arc<Client>, Refusal> {
        self.context.dispatch.clients.get(number).ok_or(GONE)
    }

    fn check(&self, command: &'static str, client: u64, result: Result<(), Refusal>) {
        if let Err(refusal) = result {
            self.refuse(command, Some(client.into()), refusal);
        }
    }

    fn refuse(&self, command: &'static str, client: Option<ClientNumber>, Refusal(why, detail): Refusal) {
        let refused = Refused {
            command: command.into(),
            why: why.into(),
            detail: detail.into(),
        };
        self.context.dispatch.tell(self.link, client, Body::Refused(refused));
    }
}
