//! What workers ask for, carried out one command after the other.

use std::collections::HashSet;
use std::sync::Arc;

use meepo_proto::codes;
use meepo_proto::link::command::Body as Ask;
use meepo_proto::link::event::Body;
use meepo_proto::link::{
    CloseCause, Command, Count, Groups, Member, Members, Query, Refused, RefusedWhy, Reply, Send, SessionChanged,
    SessionUpdate, Sessions, query, reply, send,
};

use crate::client::{Client, Sent, Turn, Verdict};
use crate::encode::Outgoing;
use crate::end::End;
use crate::hub::Hub;
use crate::roster::JoinError;
use crate::router::LinkId;
use crate::settings::SlowClient;

/// Carries out the commands of one link.
#[derive(Debug)]
pub(crate) struct Commands<'a> {
    hub: &'a Hub,
    link: LinkId,
}

/// The longest name of a group, in bytes.
const MAX_GROUP_NAME: usize = 255;

/// Why a command was not carried out.
struct Refusal(RefusedWhy, &'static str);

const GONE: Refusal = Refusal(RefusedWhy::Gone, "the client is gone");

impl<'a> Commands<'a> {
    pub(crate) fn new(hub: &'a Hub, link: LinkId) -> Self {
        Self { hub, link }
    }

    /// Carries out a command. Who is sent something is in `turn` and has still to be flushed.
    pub(crate) fn apply(&mut self, command: Command, turn: &mut Turn) {
        let Some(ask) = command.body else {
            return self.refuse("unknown", 0, Refusal(RefusedWhy::Invalid, "unknown command"));
        };
        match ask {
            Ask::Hello(_) => self.refuse("hello", 0, Refusal(RefusedWhy::Invalid, "hello was said already")),
            Ask::Done(done) => self.hub.done(self.link, &done.seq),
            Ask::Undone(undone) => self.hub.undone(self.link, undone.seq),
            Ask::Draining(_) => self.hub.link_draining(self.link),
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
            Ask::Send(send) => self.send(send, turn),
            Ask::Close(close) => self.close(close.client, close.code, &close.reason, turn),
            Ask::Join(join) => {
                let joined = check_group(&join.group).and_then(|()| {
                    let mut roster = self.hub.roster();
                    roster
                        .join(join.client, &join.group, self.hub.settings.max_groups)
                        .map_err(|error| match error {
                            JoinError::Gone => GONE,
                            JoinError::TooMany => Refusal(RefusedWhy::OverLimit, "the client is in too many groups"),
                        })
                });
                self.check("join", join.client, joined);
            }
            Ask::Leave(leave) => {
                let left = self.hub.roster().leave(leave.client, &leave.group);
                self.check("leave", leave.client, left.then_some(()).ok_or(GONE));
            }
            Ask::Session(update) => self.update_session(update),
            Ask::Query(query) => self.query(query),
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
            // Another worker had let it in before.
            let code = codes::POLICY;
            self.hub
                .close(&client, End::by_gateway(client.protocol, CloseCause::Kicked, code));
        }
    }

    fn send(&self, send: Send, turn: &mut Turn) {
        let Some(to) = send.to else {
            return self.refuse("send", 0, Refusal(RefusedWhy::Invalid, "a send to nobody"));
        };
        let limit = self.hub.settings.max_message.as_u64();
        let refusal = if send.payload.len() as u64 > limit {
            Some(Refusal(RefusedWhy::OverLimit, "the message is over `max_message`"))
        } else if !send.binary && std::str::from_utf8(&send.payload).is_err() {
            Some(Refusal(RefusedWhy::Invalid, "the text is not UTF-8"))
        } else {
            None
        };
        if let Some(refusal) = refusal {
            let client = match &to {
                send::To::Clients(clients) if clients.clients.len() == 1 => clients.clients[0],
                _ => 0,
            };
            self.hub.stats.failed_sends.add(1);
            return self.refuse("send", client, refusal);
        }
        let message = Outgoing::new(send.payload, send.binary);
        let except: HashSet<u64> = send.except.into_iter().collect();
        let spared = |client: &Arc<Client>| !except.is_empty() && except.contains(&client.number);
        match to {
            send::To::Clients(clients) => {
                for number in clients.clients {
                    let sent = match self.hub.roster().get(number) {
                        Some(client) if spared(client) => continue,
                        Some(client) => self.send_to(client, &message, turn),
                        None => Sent::Gone,
                    };
                    if sent == Sent::Gone {
                        self.hub.stats.failed_sends.add(1);
                        self.refuse("send", number, GONE);
                    }
                }
            }
            send::To::Group(group) => {
                if let Err(refusal) = check_group(&group) {
                    return self.refuse("send", 0, refusal);
                }
                for client in self.hub.roster().members(&group).filter(|client| !spared(client)) {
                    self.send_to(client, &message, turn);
                }
            }
            send::To::Everyone(_) => {
                for client in self.hub.roster().let_in().filter(|client| !spared(client)) {
                    self.send_to(client, &message, turn);
                }
            }
        }
    }

    fn send_to(&self, client: &Arc<Client>, message: &Outgoing, turn: &mut Turn) -> Sent {
        let stats = self.hub.stats;
        let sent = client.send(message.encoded(client.protocol), turn);
        match sent {
            Sent::Queued => {
                stats.messages_out.add(1);
                stats.bytes_out.add(message.len() as u64);
            }
            Sent::Full => {
                stats.failed_sends.add(1);
                stats.dropped_sends.add(1);
                if self.hub.settings.slow_client == SlowClient::Close {
                    turn.slow.push(Arc::clone(client));
                }
            }
            Sent::Gone => {}
        }
        sent
    }

    fn close(&self, number: u64, code: u32, reason: &str, turn: &mut Turn) {
        let client = match self.client(number) {
            Ok(client) => client,
            Err(gone) => return self.refuse("close", number, gone),
        };
        let code = match u16::try_from(code) {
            Ok(0) => codes::NORMAL.code,
            Ok(code) if codes::may_be_sent(code) => code,
            _ => {
                let refusal = Refusal(RefusedWhy::Invalid, "the close code is not one that may be sent");
                return self.refuse("close", number, refusal);
            }
        };
        turn.flush();
        // One that is closed before it is let in comes in first, to be told why.
        client.decide(Verdict::Accept);
        self.hub.close(
            &client,
            End::with_reason(client.protocol, CloseCause::Kicked, code, reason),
        );
    }

    fn update_session(&self, update: SessionUpdate) {
        let SessionUpdate {
            client: number,
            set,
            remove,
        } = update;
        let updated = self.client(number).and_then(|client| {
            let max = self.hub.settings.max_session.as_u64();
            self.hub
                .update_session(self.link, &client, SessionChanged { set, remove }, max)
                .map_err(|_| Refusal(RefusedWhy::OverLimit, "the session is over `max_session`"))
        });
        self.check("session", number, updated);
    }

    fn query(&self, query: Query) {
        let Some(body) = query.body else {
            return self.refuse("query", 0, Refusal(RefusedWhy::Invalid, "unknown query"));
        };
        let roster = self.hub.roster();
        let body = match body {
            query::Body::Members(group) => {
                let member = |client: &Arc<Client>| Member {
                    client: client.number,
                    session: client.profile.session.lock().clone(),
                };
                reply::Body::Members(Members {
                    members: roster.members(&group).map(member).collect(),
                })
            }
            query::Body::Groups(_) => reply::Body::Groups(Groups {
                groups: roster.group_sizes(),
            }),
            query::Body::Count(_) => reply::Body::Count(Count {
                count: roster.let_in().count() as u64,
            }),
            query::Body::Session(number) => reply::Body::Session(match roster.get(number) {
                Some(client) => Sessions {
                    online: true,
                    session: client.profile.session.lock().clone(),
                },
                None => Sessions::default(),
            }),
        };
        drop(roster);
        self.hub.reply(
            self.link,
            Reply {
                query: query.id,
                body: Some(body),
            },
        );
    }

    fn client(&self, number: u64) -> Result<Arc<Client>, Refusal> {
        self.hub.roster().get(number).cloned().ok_or(GONE)
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

fn check_group(group: &str) -> Result<(), Refusal> {
    match group.len() {
        0 => Err(Refusal(RefusedWhy::Invalid, "the group has no name")),
        1..=MAX_GROUP_NAME => Ok(()),
        _ => Err(Refusal(
            RefusedWhy::OverLimit,
            "the group's name is longer than 255 bytes",
        )),
    }
}
