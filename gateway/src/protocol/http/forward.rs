//! Requests over HTTP that workers answer.
//!
//! A request is an event of its own in the router. Who asks waits at the gateway; when it goes, the handler goes on, and its
//! answer is dropped.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as _, Incoming};
use meepo_proto::link as wire;
use meepo_proto::link::event::Body as Event;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::drain::wait::ALONE;
use crate::hub::Hub;
use crate::protocol::http::files::{self, Body};
use crate::protocol::http::serve::handshake_of;
use crate::router::dispatch::Dispatch;
use crate::router::request_budget::{OverBudget, Ticket};
use crate::router::{LinkId, head_bytes, header_bytes, only_once};

/// A request of which the router has something.
#[derive(Debug)]
pub(crate) struct Waiting {
    answer: Option<oneshot::Sender<Result<wire::Respond, OverBudget>>>,
    ticket: Arc<Ticket>,
}

/// Who waits for an answer. Dropping it leaves the handler alone with it.
#[derive(Debug)]
struct Asked<'a> {
    hub: &'a Hub,
    number: u64,
    answer: oneshot::Receiver<Result<wire::Respond, OverBudget>>,
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
    #[error("There is no room for the worker's answer.")]
    Dropped,
}

/// When a client may come back that finds no room or no worker, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// Has a worker answer a request. The gateway's own answer, if none does, is the error. `unread` is cleared once the body has
/// been read.
pub(crate) async fn answer(
    hub: &Hub,
    request: Request<Incoming>,
    peer: SocketAddr,
    unread: &mut bool,
) -> Result<Response<Body>, Response<Body>> {
    answered(hub, request, peer, unread).await.map_err(|failure| {
        if failure.status().is_server_error() {
            hub.stats.failed_requests.add(1);
        }
        failure.into_response()
    })
}

async fn answered(
    hub: &Hub,
    request: Request<Incoming>,
    peer: SocketAddr,
    unread: &mut bool,
) -> Result<Response<Body>, Failure> {
    hub.stats.requests.add(1);
    let ticket = hub.allowance.ticket();
    let mut handshake = handshake_of(&request, peer);
    handshake.protocol = "http".into();
    ticket.hold(head_bytes(&handshake))?;
    let (head, body) = request.into_parts();
    let limit = hub.settings.max_message.as_u64();
    let body = timeout_at(
        Instant::now() + hub.settings.handshake_timeout,
        read(body, limit, &ticket),
    );
    let stopped = async {
        hub.stopping.cancelled().await;
        sleep(hub.settings.close_timeout).await;
    };
    let body = tokio::select! {
        body = body => body.unwrap_or(Err(Failure::Slow))?,
        () = stopped => return Err(Failure::Stopping),
    };
    *unread = false;
    let request = wire::Request {
        method: head.method.as_str().to_owned(),
        handshake: Some(handshake),
        body,
    };
    let mut asked = hub.ask(request, ticket)?;
    let respond = match asked.answer().await? {
        Ok(respond) => respond,
        Err(OverBudget) if only_once(head.method.as_str()) => return Err(Failure::Dropped),
        Err(OverBudget) => return Err(Failure::Busy),
    };
    response(respond).map_err(|why| {
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
            ticket,
        };
        dispatch.requests.insert(number, waiting);
        dispatch.push(number, Event::Request(Box::new(request)));
        self.carry_out(dispatch);
        Ok(Asked {
            hub: self,
            number,
            answer,
        })
    }

    /// A worker answers. What comes from another than the one that was asked last means nothing.
    pub(crate) fn respond(&self, link: LinkId, mut respond: wire::Respond) {
        let mut dispatch = self.dispatch();
        if dispatch.router.link_of(respond.request) != Some(link) {
            return;
        }
        let Some(waiting) = dispatch.requests.get_mut(&respond.request) else {
            return;
        };
        let Some(answer) = waiting.answer.take() else { return };
        let ticket = &waiting.ticket;
        let held = ticket.hold(header_bytes(&respond.headers));
        let held = held.and_then(|()| ticket.carry(std::mem::take(&mut respond.body)));
        // Who asked may have gone.
        let _ = answer.send(held.map(|body| wire::Respond { body, ..respond }));
        // It is answered, whatever becomes of the link: nobody is to handle it again.
        let Dispatch { router, out, .. } = &mut *dispatch;
        router.dismiss(respond.request, out);
        self.carry_out(dispatch);
    }
}

impl Asked<'_> {
    async fn answer(&mut self) -> Result<Result<wire::Respond, OverBudget>, Failure> {
        let (hub, number) = (self.hub, self.number);
        let settings = &hub.settings;
        let is_with_worker = || hub.dispatch().router.link_of(number).is_some();
        let too_long = async {
            let began = Instant::now();
            for limit in [settings.connect_timeout, settings.request_timeout] {
                sleep_until(began + limit.min(settings.request_timeout)).await;
                if !is_with_worker() {
                    return Failure::NoWorker;
                }
            }
            Failure::TooLong
        };
        let stopped = async {
            hub.stopping.cancelled().await;
            loop {
                sleep(ALONE).await;
                if !is_with_worker() {
                    return Failure::Stopping;
                }
            }
        };
        tokio::select! {
            biased;
            answer = &mut self.answer => answer.map_err(|_| Failure::NoAnswer),
            failure = too_long => Err(failure),
            failure = stopped => Err(failure),
        }
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
fn response(respond: wire::Respond) -> Result<Response<Body>, String> {
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
    let body = Full::new(respond.body);
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
            Self::NoAnswer | Self::BadAnswer | Self::Dropped => StatusCode::BAD_GATEWAY,
        }
    }

    fn into_response(self) -> Response<Body> {
        let status = self.status();
        let mut response = files::text(status, &self.to_string());
        let headers = response.headers_mut();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        files::harden(headers);
        response
    }
}

impl From<OverBudget> for Failure {
    fn from(OverBudget: OverBudget) -> Self {
        Self::Busy
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};
    use std::time::Duration;

    use meepo_proto::batch;

    use super::*;
    use crate::config::settings::GatewaySettings;
    use crate::router::Ending;

    #[tokio::test(start_paused = true)]
    async fn a_stop_waits_no_longer_for_a_worker_than_for_clients_events() {
        let hub = Hub::new(GatewaySettings::default(), Box::leak(Box::default()));
        let ask = || {
            hub.ask(wire::Request::default(), hub.allowance.ticket())
                .expect("there is room")
        };
        let start = Instant::now();
        assert!(matches!(ask().answer().await, Err(Failure::NoWorker)));
        assert_eq!(start.elapsed(), hub.settings.connect_timeout);
        let mut asked = ask();
        hub.stopping.cancel();
        let start = Instant::now();
        assert!(matches!(asked.answer().await, Err(Failure::Stopping)));
        assert_eq!(start.elapsed(), ALONE);
        let (events, _stream) = batch::channel();
        hub.link_up(events, false);
        let start = Instant::now();
        assert!(matches!(ask().answer().await, Err(Failure::TooLong)));
        assert_eq!(start.elapsed(), hub.settings.request_timeout, "a worker has it");
    }

    #[tokio::test(start_paused = true)]
    async fn a_handler_whose_client_has_gone_holds_no_stop() {
        let hub = Hub::new(GatewaySettings::default(), Box::leak(Box::default()));
        let (events, _stream) = batch::channel();
        let link = hub.link_up(events, false);
        let ask = || {
            hub.ask(wire::Request::default(), hub.allowance.ticket())
                .expect("there is room")
        };
        let (gone, stays) = (ask(), ask());
        drop(gone);
        hub.stopping.cancel();
        assert!(!hub.is_done());
        tokio::join!(hub.drained(), async {
            sleep(Duration::from_secs(60)).await;
            hub.done(link, &[2]);
        });
        assert!(hub.is_done());
        assert!(!hub.dispatch().router.is_idle(), "one is still handled");
        drop(stays);
    }

    #[tokio::test]
    async fn what_was_answered_is_not_handled_again_and_an_answer_needs_room() {
        let settings = GatewaySettings {
            request_memory: bytesize::ByteSize(100),
            ..GatewaySettings::default()
        };
        let hub = Hub::new(settings, Box::leak(Box::default()));
        let (events, _stream) = batch::channel();
        let link = hub.link_up(events, false);
        let request = || wire::Request {
            method: "GET".into(),
            ..wire::Request::default()
        };
        for (size, fits) in [(100, true), (101, false)] {
            let mut asked = hub.ask(request(), hub.allowance.ticket()).expect("there is room");
            let respond = wire::Respond {
                request: asked.number,
                status: 200,
                body: vec![0; size].into(),
                ..wire::Respond::default()
            };
            hub.respond(link, respond);
            assert_eq!(asked.answer().await.expect("it is answered").is_ok(), fits);
        }
        let mut asked = hub.ask(request(), hub.allowance.ticket()).expect("there is room");
        let respond = wire::Respond {
            request: asked.number,
            status: 200,
            ..wire::Respond::default()
        };
        hub.respond(link, respond);
        // In one batch: who asked has had no time to go.
        hub.link_down(link, Ending::Died);
        let (events, mut stream) = batch::channel();
        hub.link_up(events, false);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(stream.poll_recv(&mut cx).is_pending(), "it is answered");
        assert!(asked.answer().await.expect("it is answered").is_ok());
    }

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
        response(respond)
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
