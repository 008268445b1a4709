//! An event as a request: a CloudEvent in HTTP's binary mode.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::json;

use super::settings::{EventKind, WebhookSettings};
use crate::{Client, CloseReason, Hello, Message};

const TEXT: &str = "text/plain;charset=utf-8";
const BINARY: &str = "application/octet-stream";
const JSON: &str = "application/json";
/// Characters that CloudEvents wants encoded in a header, beside those that are not ASCII.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');
/// Most bytes of `ce-meeposession`: servers of HTTP take about 8 KiB of headers.
const MOST_SESSION: usize = 4096;

/// An event of a client that is to be sent.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) kind: EventKind,
    /// The name of the event, the same whichever worker sends it.
    pub(crate) id: String,
    subject: String,
    time: String,
    redelivered: bool,
    session: Option<HeaderValue>,
    content_type: &'static str,
    body: Bytes,
}

impl Event {
    pub(crate) fn opened(client: &Client, hello: &Hello, settings: &WebhookSettings) -> Self {
        let mut headers = BTreeMap::<String, Vec<String>>::new();
        for (name, value) in hello.headers() {
            let value = String::from_utf8_lossy(value).into_owned();
            headers.entry(name.to_ascii_lowercase()).or_default().push(value);
        }
        let body = json!({
            "client": client.id().to_string(),
            "peer": hello.peer(),
            "protocol": hello.protocol(),
            "path": hello.path(),
            "query": hello.query(),
            "headers": headers,
        });
        Self::new(client, EventKind::Opened, JSON, body.to_string().into(), settings)
    }

    pub(crate) fn message(client: &Client, message: Message, settings: &WebhookSettings) -> Self {
        let content_type = if message.is_text() { TEXT } else { BINARY };
        Self::new(client, EventKind::Message, content_type, message.into_bytes(), settings)
    }

    pub(crate) fn closed(client: &Client, reason: &CloseReason, settings: &WebhookSettings) -> Self {
        let body = json!({
            "client": client.id().to_string(),
            "cause": reason.cause.name(),
            "code": reason.code,
            "reason": reason.text,
        });
        Self::new(client, EventKind::Closed, JSON, body.to_string().into(), settings)
    }

    fn new(
        client: &Client,
        kind: EventKind,
        content_type: &'static str,
        body: Bytes,
        settings: &WebhookSettings,
    ) -> Self {
        let subject = client.id().to_string();
        // The first and the last event come once: `closed` has the same name if it is the news of a gateway that died.
        let id = match kind {
            EventKind::Message => match client.event_number() {
                Some(number) => format!("{subject}:{number}"),
                None => format!("{subject}:{}", kind.name()),
            },
            EventKind::Opened | EventKind::Closed => format!("{subject}:{}", kind.name()),
        };
        Self {
            kind,
            id,
            time: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            redelivered: client.redelivered(),
            session: session(client, &settings.session),
            subject,
            content_type,
            body,
        }
    }

    /// The request of one attempt, counted from 1.
    pub(crate) fn request(
        &self,
        attempt: u32,
        settings: &WebhookSettings,
    ) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let redelivered = self.redelivered || attempt > 1;
        let mut request = Request::post(settings.url.clone())
            .header(USER_AGENT, concat!("meepo-worker/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, self.content_type)
            // Also for an empty body: some servers want it in each POST.
            .header(CONTENT_LENGTH, self.body.len())
            .header("ce-specversion", "1.0")
            .header("ce-id", &self.id)
            .header("ce-source", &settings.source)
            .header("ce-type", self.kind.event_type())
            .header("ce-subject", &self.subject)
            .header("ce-time", &self.time)
            .header("ce-meepoattempt", attempt)
            .header("ce-meeporedelivered", if redelivered { "true" } else { "false" });
        if let Some(session) = &self.session {
            request = request.header(SESSION, session);
        }
        if !settings.keys.is_empty() {
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs();
            request = request
                .header("webhook-id", &self.id)
                .header("webhook-timestamp", now)
                .header("webhook-signature", settings.keys.sign(&self.id, now, &self.body));
        }
        request.body(Full::new(self.body.clone()))
    }
}

const SESSION: HeaderName = HeaderName::from_static("ce-meeposession");

impl EventKind {
    fn name(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Message => "message",
            Self::Closed => "closed",
        }
    }

    fn event_type(self) -> &'static str {
        match self {
            Self::Opened => "meepo.client.opened",
            Self::Message => "meepo.client.message",
            Self::Closed => "meepo.client.closed",
        }
    }
}

/// The wanted part of a client's session as a header, if there is any.
fn session(client: &Client, keys: &[String]) -> Option<HeaderValue> {
    let session: BTreeMap<&str, String> = keys
        .iter()
        .filter_map(|key| Some((key.as_str(), client.get(key)?)))
        .collect();
    if session.is_empty() {
        return None;
    }
    let json = json!(session).to_string();
    let encoded = utf8_percent_encode(&json, ENCODED).to_string();
    if encoded.len() > MOST_SESSION {
        let (bytes, limit) = (encoded.len(), MOST_SESSION);
        tracing::warn!(client = %client.id(), bytes, limit, "session is too long for a header and is not sent");
        return None;
    }
    HeaderValue::try_from(encoded).ok()
}
