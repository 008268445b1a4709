//! Forwarded requests: a worker answers them over HTTP.
//!
//! A request is an event of its own in the router, and its client waits here. When the client goes, the handler goes on, and
//! its response is dropped.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use meepo_proto::link as wire;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::config::limits::DRAIN_WITHOUT_WORKERS;
use crate::protocol::entrance::Entrance;
use crate::protocol::http::answer::{self, Body};
use crate::protocol::http::head::{handshake_of, tokens};
use crate::router::request_budget::{OverBudget, Ticket};
use crate::router::requests::AskedRequest;
use crate::router::{head_bytes, only_once};

/// Why the gateway itself answers.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("The body is over the limit of {0} bytes.")]
    TooBig(usize),
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

/// When a client may try again that finds no room or no worker, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// Has a worker answer a request. The error is the gateway's own response, if no worker does. `unread` is cleared once the
/// body has been read.
pub(crate) async fn forward(
    entrance: &Entrance,
    request: Request<Incoming>,
    peer: SocketAddr,
    unread: &mut bool,
) -> Result<Response<Body>, Response<Body>> {
    forwarded(entrance, request, peer, unread).await.map_err(|failure| {
        if failure.status().is_server_error() {
            entrance.stats.failed_requests.add(1);
        }
        failure.into_response()
    })
}

async fn forwarded(
    entrance: &Entrance,
    request: Request<Incoming>,
    peer: SocketAddr,
    unread: &mut bool,
) -> Result<Response<Body>, Failure> {
    entrance.stats.requests.add(1);
    let limits = &entrance.limits;
    let ticket = entrance.budget.ticket();
    let handshake = handshake_of("http", &request, peer);
    ticket.hold(head_bytes(&handshake))?;
    let (head, body) = request.into_parts();
    let body = timeout_at(
        Instant::now() + limits.handshake_timeout,
        read(body, limits.max_message, &ticket),
    );
    let stopped = async {
        entrance.stopping.cancelled().await;
        sleep(limits.close_timeout).await;
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
    let mut asked = entrance.dispatch.ask(request, ticket)?;
    let respond = match response_of(entrance, &mut asked).await? {
        Ok(respond) => respond,
        Err(OverBudget) if only_once(head.method.as_str()) => return Err(Failure::Dropped),
        Err(OverBudget) => return Err(Failure::Busy),
    };
    response(respond).map_err(|why| {
        if let Some(unlogged) = entrance.refusals.take() {
            let path = head.uri.path();
            tracing::warn!(path, why, unlogged, "answer of a worker is not valid");
        }
        Failure::BadAnswer
    })
}

/// Reads a body, and nothing of a body that says that it is too big.
async fn read(mut body: Incoming, limit: usize, ticket: &Ticket) -> Result<Bytes, Failure> {
    if body.size_hint().lower() > limit as u64 {
        return Err(Failure::TooBig(limit));
    }
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Failure::BadBody)?.into_data() else {
            continue;
        };
        if whole.len() + data.len() > limit {
            return Err(Failure::TooBig(limit));
        }
        ticket.hold(data.len())?;
        // Copied: a piece of what was read would keep all of it.
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

/// Waits for the response to a request, as long as that makes sense.
async fn response_of(
    entrance: &Entrance,
    asked: &mut AskedRequest<'_>,
) -> Result<Result<wire::Respond, OverBudget>, Failure> {
    let (limits, place) = (&entrance.limits, asked.place);
    let too_long = async {
        let began = Instant::now();
        for limit in [limits.connect_timeout, limits.request_timeout] {
            sleep_until(began + limit.min(limits.request_timeout)).await;
            if !place.is_with_worker() {
                return Failure::NoWorker;
            }
        }
        Failure::TooLong
    };
    let stopped = async {
        entrance.stopping.cancelled().await;
        loop {
            sleep(DRAIN_WITHOUT_WORKERS).await;
            if !place.is_with_worker() {
                return Failure::Stopping;
            }
        }
    };
    tokio::select! {
        biased;
        response = &mut asked.response => response.map_err(|_| Failure::NoAnswer),
        failure = too_long => Err(failure),
        failure = stopped => Err(failure),
    }
}

/// The HTTP response of a worker's answer, or what is wrong with that.
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
    let mut response = Response::new(answer::full(respond.body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

/// Headers that concern one connection (RFC 9110, 7.6.1): the gateway sets these itself.
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
        let mut response = answer::text(status, &self.to_string());
        let headers = response.headers_mut();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        answer::harden(headers);
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

    use meepo_link::channel;
    use meepo_proto::id::Seq;

    use super::*;
    use crate::config::limits::Limits;
    use crate::drain::wait;
    use crate::router::Ending;

    #[tokio::test(start_paused = true)]
    async fn a_stop_waits_no_longer_for_a_worker_than_for_clients_events() {
        let entrance = Entrance::for_test(Limits::default());
        let dispatch = &entrance.dispatch;
        let ask = || {
            dispatch
                .ask(wire::Request::default(), entrance.budget.ticket())
                .expect("there is room")
        };
        let start = Instant::now();
        assert!(matches!(
            response_of(&entrance, &mut ask()).await,
            Err(Failure::NoWorker)
        ));
        assert_eq!(start.elapsed(), entrance.limits.connect_timeout);
        let mut asked = ask();
        entrance.stopping.cancel();
        let start = Instant::now();
        assert!(matches!(
            response_of(&entrance, &mut asked).await,
            Err(Failure::Stopping)
        ));
        assert_eq!(start.elapsed(), DRAIN_WITHOUT_WORKERS);
        let (events, _stream) = channel::channel();
        dispatch.link_up(events, false);
        let start = Instant::now();
        assert!(matches!(
            response_of(&entrance, &mut ask()).await,
            Err(Failure::TooLong)
        ));
        assert_eq!(start.elapsed(), entrance.limits.request_timeout, "a worker has it");
    }

    #[tokio::test(start_paused = true)]
    async fn a_handler_whose_client_has_gone_holds_no_stop() {
        let entrance = Entrance::for_test(Limits::default());
        let dispatch = &entrance.dispatch;
        let (events, _stream) = channel::channel();
        let link = dispatch.link_up(events, false);
        let ask = || {
            dispatch
                .ask(wire::Request::default(), entrance.budget.ticket())
                .expect("there is room")
        };
        let (gone, stays) = (ask(), ask());
        drop(gone);
        entrance.stopping.cancel();
        assert!(!wait::is_done(dispatch));
        tokio::join!(wait::drained(dispatch), async {
            sleep(Duration::from_secs(60)).await;
            dispatch.done(link, &[Seq(2)]);
        });
        assert!(wait::is_done(dispatch));
        assert!(dispatch.look(|router, _| !router.is_idle()), "one is still handled");
        drop(stays);
    }

    #[tokio::test]
    async fn what_was_answered_is_not_handled_again_and_an_answer_needs_room() {
        let entrance = Entrance::for_test(Limits {
            request_memory: 100,
            ..Limits::default()
        });
        let dispatch = &entrance.dispatch;
        let (events, _stream) = channel::channel();
        let link = dispatch.link_up(events, false);
        let request = || wire::Request {
            method: "GET".into(),
            ..wire::Request::default()
        };
        for (size, fits) in [(100, true), (101, false)] {
            let mut asked = dispatch
                .ask(request(), entrance.budget.ticket())
                .expect("there is room");
            let respond = wire::Respond {
                request_number: asked.place.number.0,
                status: 200,
                body: vec![0; size].into(),
                ..wire::Respond::default()
            };
            dispatch.respond(link, respond);
            assert_eq!(
                response_of(&entrance, &mut asked)
                    .await
                    .expect("it is answered")
                    .is_ok(),
                fits
            );
        }
        let mut asked = dispatch
            .ask(request(), entrance.budget.ticket())
            .expect("there is room");
        let respond = wire::Respond {
            request_number: asked.place.number.0,
            status: 200,
            ..wire::Respond::default()
        };
        dispatch.respond(link, respond);
        // In one batch: who asked has had no time to go.
        dispatch.link_down(link, Ending::Died);
        let (events, mut stream) = channel::channel();
        dispatch.link_up(events, false);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(stream.poll_recv(&mut cx).is_pending(), "it is answered");
        assert!(
            response_of(&entrance, &mut asked)
                .await
                .expect("it is answered")
                .is_ok()
        );
    }

    fn made(status: u32, headers: &[(&str, &[u8])]) -> Result<Response<Body>, String> {
        let headers = headers.iter().map(|(name, value)| wire::Header {
            name: (*name).into(),
            value: Bytes::copy_from_slice(value),
        });
        let respond = wire::Respond {
            request_number: 1,
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
