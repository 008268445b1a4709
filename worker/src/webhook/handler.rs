//! The handler of the webhook worker: each event is a POST, and its answer can carry commands.

use hyper::StatusCode;

use super::commands;
use super::delivery::{Delivered, Delivery};
use super::endpoint::EndpointResponse;
use super::event::Event;
use super::settings::{EventKind, WebhookSettings};
use crate::{Client, CloseCause, CloseReason, Cluster, Handler, Hello, Message, Reject, Result};

/// Sends events to an endpoint.
pub(crate) struct Webhook {
    delivery: Delivery,
}

impl Webhook {
    pub(crate) fn new(settings: WebhookSettings) -> Self {
        Self {
            delivery: Delivery::new(settings),
        }
    }

    fn settings(&self) -> &WebhookSettings {
        &self.delivery.settings
    }

    fn sends(&self, kind: EventKind) -> bool {
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
                "events are not signed, everyone who can reach the endpoint can make them up: set a secret"
            );
        }
        Ok(())
    }

    async fn on_connect(&self, client: &Client, hello: &Hello) -> Result<(), Reject> {
        if !self.sends(EventKind::Opened) {
            return Ok(());
        }
        let event = Event::opened(client, hello, self.settings());
        match self.delivery.deliver(client, &event, false).await {
            // An answer that cannot be obeyed lets no client in.
            Delivered::Done(answer) => obey(client, EventKind::Opened, &answer).map_err(|error| {
                complain(client, &event, &error);
                Reject::new(500, "internal error")
            }),
            Delivered::Refused(answer) => Err(reject(&answer)),
            Delivered::Failed(why) => {
                complain(client, &event, &why);
                Err(Reject::new(500, "internal error"))
            }
            Delivered::Left => Ok(()),
        }
    }

    async fn on_message(&self, client: &Client, message: Message) -> Result<()> {
        if !self.sends(EventKind::Message) {
            return Ok(());
        }
        let event = Event::message(client, message, self.settings());
        match self.delivery.deliver(client, &event, false).await {
            Delivered::Done(answer) => {
                obey(client, EventKind::Message, &answer).map_err(|why| format!("event {}: {why}", event.id).into())
            }
            Delivered::Refused(answer) => Err(format!("event {}: {}", event.id, refusal(&answer)).into()),
            Delivered::Failed(why) => Err(format!("event {}: {why}", event.id).into()),
            Delivered::Left => Ok(()),
        }
    }

    fn says_last_words(&self) -> bool {
        false
    }

    async fn on_close(&self, client: &Client, reason: &CloseReason) {
        if !self.sends(EventKind::Closed) {
            return;
        }
        let event = Event::closed(client, reason, self.settings());
        let only_here = reason.cause == CloseCause::GatewayLost;
        match self.delivery.deliver(client, &event, only_here).await {
            Delivered::Done(answer) => {
                if let Err(error) = obey(client, EventKind::Closed, &answer) {
                    complain(client, &event, &error);
                }
            }
            Delivered::Refused(answer) => complain(client, &event, &refusal(&answer)),
            Delivered::Failed(why) => complain(client, &event, &why),
            Delivered::Left => {}
        }
    }
}

/// Carries out all commands of an answer, or none.
fn obey(client: &Client, kind: EventKind, answer: &EndpointResponse) -> Result<(), String> {
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
    // A client that has closed gets no reply.
    if kind != EventKind::Closed {
        client.send(reply);
    }
    Ok(())
}

/// The longest message that every gateway takes, in bytes.
fn max_message(client: &Client) -> u64 {
    let all = client.cluster().max_message().unwrap_or(u64::MAX);
    all.min(client.link().max_message)
}

/// The rejection that an answer means.
fn reject(answer: &EndpointResponse) -> Reject {
    let text = match answer.content_type.as_str() {
        "text/plain" => std::str::from_utf8(&answer.body).ok().map(str::trim),
        _ => None,
    };
    let reason = text.filter(|text| !text.is_empty());
    let reason = reason.or_else(|| answer.status.canonical_reason()).unwrap_or_default();
    Reject::new(answer.status.as_u16(), reason)
}

fn refusal(answer: &EndpointResponse) -> String {
    let status: StatusCode = answer.status;
    format!("endpoint answered {status}")
}

/// Counts and logs an error that a handler cannot return.
fn complain(client: &Client, event: &Event, error: &str) {
    client.cluster().stats().handler_errors.add(1);
    tracing::warn!(client = %client.id(), event = event.id, error, "event has failed");
}
