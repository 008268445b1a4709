//! What workers ask for, carried out one command after the other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use meepo_proto::codes;
use meepo_proto::link::command::Body as Ask;
use meepo_proto::link::event::Body;
use meepo_proto::link::{Close, CloseCause, Command, Refused, RefusedWhy, Send, SessionChanged, SessionUpdate, Target};

use crate::client::close::ClientClose;
use crate::client::handle::{Client, FlushBatch, Verdict};
use crate::fanout::batch::Batch;
use crate::fanout::client_registry::{Gone, JoinError};
use crate::fanout::encode::OutboundMessage;
use crate::hub::Hub;
use crate::router::LinkId;
use crate::worker_link::queries;

/// Carries out the commands of one link.
#[derive(Debug)]
pub(crate) struct Commands<'a> {
    hub: &'a Hub,
    link: LinkId,
    /// What has still to be sent to the clients of a target: it waits for more to the same ones.
    publish: Option<Batch>,
    /// Events that are done once that is sent.
    done: Vec<u64>,
}

/// The longest name of a group, and the longest uid, in bytes.
const MAX_NAME: usize = 255;

/// To wait for more pays after so many messages together, to so many clients, that took so long to write. Fewer messages
/// would be later for nothing.
const SEVERAL: usize = 4;
const MANY: usize = 256;
const LONG: Duration = Duration::from_millis(2);
/// What comes meanwhile may have to wait for so long, and a millisecond more, in which timers count.
const GATHER: Duration = Duration::from_millis(4);

/// Why a command was not carried out.
#[derive(Debug)]
pub(crate) struct Refusal(RefusedWhy, &'static str);

const GONE: Refusal = Refusal(RefusedWhy::Gone, "the client is gone");

impl From<Gone> for Refusal {
    fn from(Gone: Gone) -> Self {
        GONE
    }
}

impl<'a> Commands<'a> {
    pub(crate) fn new(hub: &'a Hub, link: LinkId) -> Self {
        Self {
            hub,
            link,
            publish: None,
            done: Vec::new(),
        }
    }

    /// Carries out a command. Who is sent something is in `flush` and has still to be flushed, with `flush`.
    pub(crate) fn apply(&mut self, command: Command, flush: &mut FlushBatch) {
        let Some(ask) = command.body else {
            return self.refuse("unknown", 0, Refusal(RefusedWhy::Invalid, "unknown command"));
        };
        if !matches!(ask, Ask::Send(_) | Ask::Done(_)) {
            self.publish(flush);
        }
        match ask {
            Ask::Hello(_) => self.refuse("hello", 0, Refusal(RefusedWhy::Invalid, "hello was said already")),
            Ask::Part(_) => self.refuse("part", 0, Refusal(RefusedWhy::Invalid, "it belongs to nothing")),
            // It comes after what was sent before it, and does not end what goes together.
            Ask::Done(done) if self.publish.is_some() => self.done.extend(done.seq),
            Ask::Done(done) => self.hub.done(self.link, &done.seq),
            Ask::Undone(undone) => self.hub.undone(self.link, &undone),
            Ask::Draining(_) => self.hub.link_draining(self.link),
            Ask::Parted(_) => self.hub.parted(self.link),
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
                    let mut registry = self.hub.registry();
                    registry
                        .join(join.client, &join.group, self.hub.settings.max_groups)
                        .map_err(|error| match error {
                            JoinError::Gone => GONE,
                            JoinError::TooMany => Refusal(RefusedWhy::OverLimit, "the client is in too many groups"),
                        })
                });
                self.check("join", join.client, joined);
            }
            Ask::Leave(leave) => {
                let left = self.hub.registry().leave(leave.client, &leave.group);
                self.check("leave", leave.client, left.map_err(Into::into));
            }
            Ask::Ungroup(ungroup) => self.hub.registry().ungroup(&ungroup.group),
            Ask::Bind(bind) => {
                let bound =
                    check_name(&bind.uid).and_then(|()| Ok(self.hub.registry().bind(bind.client, Some(&bind.uid))?));
                self.check("bind", bind.client, bound);
            }
            Ask::Unbind(unbind) => {
                let unbound = self.hub.registry().bind(unbind.client, None);
                self.check("unbind", unbind.client, unbound.map_err(Into::into));
            }
            Ask::Session(update) => self.update_session(update),
            Ask::Reading(reading) => {
                let found = self.client(reading.client);
                let paused = found.map(|client| self.hub.pause(self.link, &client, reading.paused));
                self.check("reading", reading.client, paused);
            }
            Ask::Respond(respond) => self.hub.respond(self.link, respond),
            Ask::Query(query) => {
                if !queries::answer(self.hub, self.link, *query, flush) {
                    self.refuse("query", 0, Refusal(RefusedWhy::Invalid, "unknown query"));
                }
            }
        }
    }

    fn reject(&self, number: u64, verdict: Verdict) {
        let Ok(client) = self.client(number) else {
            // It left while the worker was asked. It never came in, so nobody is to hear of its end.
            return self.hub.dismiss(number);
        };
        if client.decide(verdict) {
            self.hub.dismiss(number);
        } else {
            self.hub.rejected_late(&client);
        }
    }

    /// Writes to all that were sent something. If that took long, and several messages went together last, it says how long
    /// to wait: those that are on their way already then go together too, and each costs less.
    pub(crate) fn flush(&mut self, flush: &mut FlushBatch) -> Option<Duration> {
        let several = self.publish.as_ref().is_some_and(|publish| publish.len() >= SEVERAL);
        let began = several.then(Instant::now);
        flush.nothing_follows = true;
        let members = self.publish(flush);
        flush.flush();
        self.hub.close_slow(flush);
        let took = began.filter(|_| members >= MANY)?.elapsed();
        (took >= LONG).then(|| (took / 8).min(GATHER))
    }

    /// Sends what waits for more, if anything does. Says to how many clients.
    fn publish(&mut self, flush: &mut FlushBatch) -> usize {
        let Some(publish) = self.publish.take() else { return 0 };
        // The last are written to at once, which takes too long for the registry's lock.
        let mut members = Vec::new();
        let registry = self.hub.registry();
        let gone = registry.each(publish.to(), |client| members.push(Arc::clone(client)));
        let left_out = publish.left_out(&registry);
        drop(registry);
        for client in &members {
            let share = publish.share(client.number, &left_out);
            self.hub.publish(client, &share, flush);
        }
        for number in gone {
            for _ in 0..publish.share(number, &left_out).len() {
                self.hub.stats.failed_sends.add(1);
                self.refuse("send", number, GONE);
            }
        }
        if !self.done.is_empty() {
            self.hub.done(self.link, &self.done);
            self.done.clear();
        }
        members.len()
    }

    fn send(&mut self, send: Send, flush: &mut FlushBatch) {
        let checked = check_message(self.hub, &send);
        let target = send.to.as_deref();
        if let Err(refusal) = checked.and_then(|()| target.map_or(Ok(()), check_target)) {
            let client = match target.map_or(&[][..], |target| &target.clients) {
                [client] if send.client == 0 => *client,
                _ => send.client,
            };
            self.hub.stats.failed_sends.add(1);
            return self.refuse("send", client, refusal);
        }
        if send.client == 0 && send.to.is_none() {
            self.hub.stats.failed_sends.add(1);
            return self.refuse("send", 0, Refusal(RefusedWhy::Invalid, "the message is to nobody"));
        }
        let message = OutboundMessage::new(send.payload, send.binary);
        match send.to.filter(|_| send.client == 0) {
            Some(to) => self.send_to(to, message, flush),
            None => {
                self.publish(flush);
                let registry = self.hub.registry();
                if let Some(client) = registry.get(send.client) {
                    self.hub.send_one(client, message, None, flush);
                    return;
                }
                drop(registry);
                self.hub.stats.failed_sends.add(1);
                self.refuse("send", send.client, GONE);
            }
        }
    }

    /// Sends to all clients of a target, or with what follows to the same ones.
    fn send_to(&mut self, to: Box<Target>, message: OutboundMessage, flush: &mut FlushBatch) {
        match &mut self.publish {
            Some(publish) if publish.takes(&to, message.len()) => publish.push(*to, message),
            _ => {
                self.publish(flush);
                self.publish = Some(Batch::new(to, message));
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
        let gone = self.hub.registry().each(&target, &mut named);
        for number in gone {
            self.refuse("close", number, GONE);
        }
        flush.flush();
        for client in clients {
            if close.at_once {
                self.hub.close(&client, ClientClose::at_once());
                continue;
            }
            // One that is closed before it is let in comes in first, to be told why.
            client.decide(Verdict::Accept);
            let end = ClientClose::with_reason(client.protocol, CloseCause::Kicked, code, &close.reason);
            self.hub.close(&client, end);
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
            let max = self.hub.settings.max_session.as_u64();
            self.hub
                .update_session(self.link, &client, SessionChanged { set, remove, clear }, max)
                .map_err(|_| Refusal(RefusedWhy::OverLimit, "the session is over `max_session`"))
        });
        self.check("session", number, updated);
    }

    fn client(&self, number: u64) -> Result<Arc<Client>, Refusal> {
        self.hub.registry().get(number).cloned().ok_or(GONE)
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
        self.hub.tell(self.link, client, Body::Refused(refused));
    }
}

/// Whether a message can go to clients.
pub(crate) fn check_message(hub: &Hub, send: &Send) -> Result<(), Refusal> {
    if send.payload.len() as u64 > hub.settings.max_message.as_u64() {
        return Err(Refusal(RefusedWhy::OverLimit, "the message is over `max_message`"));
    }
    if !send.binary && std::str::from_utf8(&send.payload).is_err() {
        return Err(Refusal(RefusedWhy::Invalid, "the text is not UTF-8"));
    }
    Ok(())
}

/// Whether clients can be named so.
fn check_target(target: &Target) -> Result<(), Refusal> {
    let mut names = target.groups.iter().chain(&target.uids).chain(&target.except_uids);
    names.try_for_each(|name| check_name(name))
}

/// Whether a group or a uid can be called so.
fn check_name(name: &str) -> Result<(), Refusal> {
    match name.len() {
        0 => Err(Refusal(RefusedWhy::Invalid, "the name is empty")),
        1..=MAX_NAME => Ok(()),
        _ => Err(Refusal(RefusedWhy::OverLimit, "the name is longer than 255 bytes")),
    }
}
