//! Requests over HTTP that workers answer.
//!
//! A request is an event of its own in the router. Who asks waits at the gateway; when it goes, the handler goes on, and its
//! answer is dropped.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as _, Incoming};
use meepo_proto::link as wire;
use meepo_proto::link::event::Body as Event;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::allowance::{NoRoom, Ticket};
use crate::assets::{self, Body};
use crate::dispatch::Dispatch;
use crate::http::handshake_of;
use crate::hub::Hub;
use crate::router::LinkId;

/// A request of which the router has something.
#[derive(Debug)]
pub(crate) struct Waiting {
    answer: Option<oneshot::Sender<wire::Respond>>,
    _ticket: Arc<Ticket>,
}

/// Who waits for an answer. Dropping it leaves the handler alone with it.
#[derive(Debug)]
struct Asked<'a> {
    hub: &'a Hub,
    number: u64,
    answer: oneshot::Receiver<wire::Respond>,
}

/// Why the gateway itself answers.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("The body is over the limit of {0} bytes.")]
    TooBig(u64),
    #[error("The body did not come in time.")]
    Slow,
    #[error("The body is not valid.")]
    BadBody,
    #[error("Too much is under way.")]
    Busy,
    #[error("No worker is there.")]
    NoWorker,
    #[error("The gateway stops.")]
    Stopping,
    #[error("No answer came in time.")]
    TooLong,
    #[error("The worker gave no answer.")]
    NoAnswer,
    #[error("The worker's answer is not valid.")]
    BadAnswer,
}

/// When a client may come back that finds no room or no worker, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// Has a worker answer a request. The gateway's own answer, if none does, is the error.
pub(crate) async fn answer(
    hub: &Hub,
    request: Request<Incoming>,
    peer: SocketAddr,
) -> Result<Response<Body>, Response<Body>> {
    answered(hub, request, peer).await.map_err(|failure| {
        if failure.status().is_server_error() {
            hub.stats.failed_requests.add(1);
        }
        failure.into_response()
    })
}

async fn answered(hub: &Hub, request: Request<Incoming>, peer: SocketAddr) -> Result<Response<Body>, Failure> {
    hub.stats.requests.add(1);
    let ticket = hub.allowance.ticket();
    let mut handshake = handshake_of(&request, peer);
    handshake.protocol = "http".into();
    let (head, body) = request.into_parts();
    let limit = hub.settings.max_message.as_u64();
    let body = timeout_at(
        Instant::now() + hub.settings.handshake_timeout,
        read(body, limit, &ticket),
    );
    let body = body.await.unwrap_or(Err(Failure::Slow))?;
    let request = wire::Request {
        method: head.method.as_str().to_owned(),
        handshake: Some(handshake),
        body,
    };
    let mut asked = hub.ask(request, Arc::clone(&ticket))?;
    let respond = asked.answer().await?;
    response(respond, &ticket).map_err(|why| {
        if let Some(unlogged) = hub.refusals.take() {
            let path = head.uri.path();
            tracing::warn!(path, why, unlogged, "answer of a worker is not valid");
        }
        Failure::BadAnswer
    })
}

/// Reads a body, and nothing of one that says that it is too big.
async fn read(mut body: Incoming, limit: u64, ticket: &Ticket) -> Result<Bytes, Failure> {
    if body.size_hint().lower() > limit {
        return Err(Failure::TooBig(limit));
    }
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Failure::BadBody)?.into_data() else {
            continue;
        };
        if (whole.len() + data.len()) as u64 > limit {
            return Err(Failure::TooBig(limit));
        }
        ticket.hold(data.len())?;
        // Copied: a piece of it would keep all of what was read with it.
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

impl Hub {
    /// Gives a request to a worker, or has it wait for one.
    fn ask(&self, request: wire::Request, ticket: Arc<Ticket>) -> Result<Asked<'_>, Failure> {
        ticket.count()?;
        let number = self.next_number();
        let (tell, answer) = oneshot::channel();
        let mut dispatch = self.dispatch();
        if dispatch.router.is_full() {
            return Err(Failure::Busy);
        }
        let waiting = Waiting {
            answer: Some(tell),
            _ticket: ticket,
        };
        dispatch.requests.insert(number, waiting);
        dispatch.push(number, Event::Request(request));
        self.carry_out(dispatch);
        Ok(Asked {
            hub: self,
            number,
            answer,
        })
    }

    /// A worker answers. What comes from another than the one that was asked last means nothing.
    pub(crate) fn respond(&self, link: LinkId, respond: wire::Respond) {
        let mut dispatch = self.dispatch();
        if dispatch.router.link_of(respond.request) != Some(link) {
            return;
        }
        let waiting = dispatch.requests.get_mut(&respond.request);
        if let Some(answer) = waiting.and_then(|waiting| waiting.answer.take()) {
            // Who asked may have gone.
            let _ = answer.send(respond);
        }
    }
}

impl Asked<'_> {
    async fn answer(&mut self) -> Result<wire::Respond, Failure> {
        let settings = &self.hub.settings;
        let began = Instant::now();
        let at = |limit: Duration| began + limit.min(settings.request_timeout);
        for limit in [settings.connect_timeout, settings.request_timeout] {
            match timeout_at(at(limit), &mut self.answer).await {
                Ok(answer) => return answer.map_err(|_| Failure::NoAnswer),
                Err(_) if self.is_with_worker() => {}
                Err(_) if self.hub.stopping.is_cancelled() => return Err(Failure::Stopping),
                Err(_) => return Err(Failure::NoWorker),
            }
        }
        Err(Failure::TooLong)
    }

    fn is_with_worker(&self) -> bool {
        self.hub.dispatch().router.link_of(self.number).is_some()
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let mut dispatch = self.hub.dispatch();
        let Dispatch { router, out, .. } = &mut *dispatch;
        router.dismiss(self.number, out);
        self.hub.carry_out(dispatch);
    }
}

/// The response that a worker means.
fn response(respond: wire::Respond, ticket: &Arc<Ticket>) -> Result<Response<Body>, String> {
    let status = u16::try_from(respond.status)
        .ok()
        .filter(|status| (200..600).contains(status));
    let status = status.and_then(|status| StatusCode::from_u16(status).ok());
    let status = status.ok_or_else(|| format!("{} is no status of an answer", respond.status))?;
    let mut headers = HeaderMap::new();
    for wire::Header { name, value } in respond.headers {
        let wrong = || format!("header `{}` is not valid", name.escape_debug());
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| wrong())?;
        let name: HeaderName = name.parse().map_err(|_| wrong())?;
        headers
            .try_append(name, value)
            .map_err(|_| "there are too many headers")?;
    }
    let named: Vec<HeaderName> = tokens(&headers, &header::CONNECTION)
        .filter_map(|token| token.parse().ok())
        .collect();
    for name in OF_THE_CONNECTION.iter().chain(&named) {
        headers.remove(name);
    }
    let body = Full::new(ticket.carry(respond.body));
    let mut response = Response::new(body.map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

/// Headers that are about one connection (RFC 9110, 7.6.1): the gateway says these itself.
static OF_THE_CONNECTION: [HeaderName; 9] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::PROXY_AUTHENTICATE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

impl Failure {
    fn status(&self) -> StatusCode {
        match self {
            Self::TooBig(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::BadBody => StatusCode::BAD_REQUEST,
            Self::Busy | Self::NoWorker | Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooLong => StatusCode::GATEWAY_TIMEOUT,
            Self::NoAnswer | Self::BadAnswer => StatusCode::BAD_GATEWAY,
        }
    }

    fn into_response(self) -> Response<Body> {
        let status = self.status();
        let mut response = assets::text(status, &self.to_string());
        let headers = response.headers_mut();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        if matches!(self, Self::TooBig(_) | Self::Slow) {
            // The rest of the body is not read.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        assets::harden(headers);
        response
    }
}

impl From<NoRoom> for Failure {
    fn from(NoRoom: NoRoom) -> Self {
        Self::Busy
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::allowance::Allowance;

    fn made(status: u32, headers: &[(&str, &[u8])]) -> Result<Response<Body>, String> {
        let headers = headers.iter().map(|(name, value)| wire::Header {
            name: (*name).into(),
            value: Bytes::copy_from_slice(value),
        });
        let respond = wire::Respond {
            request: 1,
            status,
            headers: headers.collect(),
            body: "yes".into(),
        };
        response(respond, &Allowance::new(1, 1).ticket())
    }

    #[test]
    fn what_is_about_the_connection_is_the_gateways() {
        let response = made(
            200,
            &[
                ("Set-Cookie", b"a=1"),
                ("set-cookie", b"b=2"),
                ("Connection", b"close, X-Private"),
                ("x-private", b"1"),
                ("Content-Length", b"7"),
                ("Transfer-Encoding", b"chunked"),
                ("Upgrade", b"websocket"),
                ("Keep-Alive", b"timeout=5"),
            ],
        )
        .expect("it is valid");
        let left: Vec<_> = response.headers().iter().collect();
        assert!(
            left.iter().all(|(name, _)| **name == header::SET_COOKIE) && left.len() == 2,
            "{left:?}"
        );
    }

    #[test]
    fn an_answer_that_is_not_valid_is_told_with_its_fault() {
        for (status, headers, fault) in [
            (0, &[][..], "0 is no status"),
            (101, &[], "101 is no status"),
            (600, &[], "600 is no status"),
            (65_736, &[], "65736 is no status"),
            (200, &[("a b", &b"1"[..])], "`a b`"),
            (200, &[("", b"1")], "``"),
            (200, &[("location", b"/\r\nset-cookie: a=1")], "`location`"),
        ] {
            let why = made(status, headers).expect_err("it is refused");
            assert!(why.contains(fault), "{why}");
        }
    }
}
