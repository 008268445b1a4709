//! The handler of the webhook worker: each event is a POST, and its answer can carry commands.

use hyper::StatusCode;

use super::commands;
use super::delivery::{Delivery, Outcome};
use super::endpoint::Answer;
use super::event::Event;
use super::settings::{Kind, Settings};
use crate::{Client, CloseCause, CloseReason, Cluster, Handler, Hello, Message, Reject, Result};

/// Sends events to an endpoint.
pub(crate) struct Webhook {
    delivery: Delivery,
}

impl Webhook {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            delivery: Delivery::new(settings),
        }
    }

    fn settings(&self) -> &Settings {
        &self.delivery.settings
    }

    fn sends(&self, kind: Kind) -> bool {
        self.settings().events.contains(&kind)
    }
}

impl Handler for Webhook {
    async fn on_start(&self, _cluster: &Cluster) -> Result<()> {
        let url = &self.settings().place;
        tracing::info!(url, "events are sent to an endpoint");
        if self.settings().keys.is_empty() {
            tracing::warn!(
                url,
                "events are not signed, and who can reach the endpoint can make them up: set a secret"
            );
        }
        Ok(())
    }

    async fn on_connect(&self, client: &Client, hello: &Hello) -> Result<(), Reject> {
        if !self.sends(Kind::Opened) {
            return Ok(());
        }
        let event = Event::opened(client, hello, self.settings());
        match self.delivery.deliver(client, &event, false).await {
            // Nobody has said that this one may come in.
            Outcome::Done(answer) => obey(client, Kind::Opened, &answer).map_err(|error| {
                complain(client, &event, &error);
                Reject::new(500, "internal error")
            }),
            Outcome::Refused(answer) => Err(reject(&answer)),
            Outcome::Failed(why) => {
                complain(client, &event, &why);
                Err(Reject::new(500, "internal error"))
            }
            Outcome::Left => Ok(()),
        }
    }

    async fn on_message(&self, client: &Client, message: Message) -> Result<()> {
        if !self.sends(Kind::Message) {
            return Ok(());
        }
        let event = Event::message(client, message, self.settings());
        match self.delivery.deliver(client, &event, false).await {
            Outcome::Done(answer) => {
                obey(client, Kind::Message, &answer).map_err(|why| format!("event {}: {why}", event.id).into())
            }
            Outcome::Refused(answer) => Err(format!("event {}: {}", event.id, refusal(&answer)).into()),
            Outcome::Failed(why) => Err(format!("event {}: {why}", event.id).into()),
            Outcome::Left => Ok(()),
        }
    }

    fn says_last_words(&self) -> bool {
        false
    }

    async fn on_close(&self, client: &Client, reason: &CloseReason) {
        if !self.sends(Kind::Closed) {
            return;
        }
        let event = Event::closed(client, reason, self.settings());
        let nobody_else = reason.cause == CloseCause::GatewayLost;
        match self.delivery.deliver(client, &event, nobody_else).await {
            Outcome::Done(answer) => {
                if let Err(error) = obey(client, Kind::Closed, &answer) {
                    complain(client, &event, &error);
                }
            }
            Outcome::Refused(answer) => complain(client, &event, &refusal(&answer)),
            Outcome::Failed(why) => complain(client, &event, &why),
            Outcome::Left => {}
        }
    }
}

/// Does all that an answer asks for, or nothing of it.
fn obey(client: &Client, kind: Kind, answer: &Answer) -> Result<(), String> {
    if answer.body.is_empty() {
        return Ok(());
    }
    let max_message = max_message(client);
    let reply: Message = match answer.content_type.as_str() {
        "application/json" => {
            for command in commands::read(&answer.body, max_message).map_err(|error| error.to_string())? {
                command.carry_out(client);
            }
            return Ok(());
        }
        "text/plain" => match std::str::from_utf8(&answer.body) {
            Ok(text) => text.into(),
            Err(error) => return Err(format!("the answer is not UTF-8: {error}")),
        },
        "application/octet-stream" => answer.body.clone().into(),
        other => return Err(format!("an answer of the type \"{other}\" has no meaning here")),
    };
    if reply.bytes().len() as u64 > max_message {
        return Err(commands::too_long(reply.bytes().len(), max_message));
    }
    // Nobody is there any more to reply to.
    if kind != Kind::Closed {
        client.send(reply);
    }
    Ok(())
}

/// What every gateway takes.
fn max_message(client: &Client) -> u64 {
    let all = client.cluster().max_message().unwrap_or(u64::MAX);
    all.min(client.link().max_message)
}

/// How a client is turned away.
fn reject(answer: &Answer) -> Reject {
    let text = match answer.content_type.as_str() {
        "text/plain" => std::str::from_utf8(&answer.body).ok().map(str::trim),
        _ => None,
    };
    let reason = text.filter(|text| !text.is_empty());
    let reason = reason.or_else(|| answer.status.canonical_reason()).unwrap_or_default();
    Reject::new(answer.status.as_u16(), reason)
}

fn refusal(answer: &Answer) -> String {
    let status: StatusCode = answer.status;
    format!("endpoint answered {status}")
}

/// Counts and logs what a handler cannot return.
fn complain(client: &Client, event: &Event, error: &str) {
    client.cluster().stats().handler_errors.add(1);
    tracing::warn!(client = %client.id(), event = event.id, error, "event has failed");
}
