//! From a request to its response: a WebSocket, a worker's response, or a file.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;

use crate::protocol::entrance::Entrance;
use crate::protocol::http::answer::{self, Body};
use crate::protocol::http::forward;
use crate::protocol::http::head::{handshake_of, wants_websocket};
use crate::protocol::http::offer::Offer;
use crate::protocol::ws;
use crate::protocol::ws::upgrade::{PendingClient, UpgradeRefusal, handshake_key};

/// The outcome of a request.
pub(crate) enum Answer {
    /// A response, after which HTTP goes on.
    Response(Response<Body>),
    /// A response, after which the connection is a WebSocket.
    Open(PendingClient, Response<Body>),
}

/// Answers a request. `busy` is set while a worker has it; `unread` is cleared once its body has been read.
pub(crate) async fn respond(
    entrance: &Arc<Entrance>,
    offer: &Offer,
    request: Request<Incoming>,
    peer: SocketAddr,
    busy: &AtomicBool,
    unread: &mut bool,
) -> Answer {
    if request.headers().get_all(header::HOST).iter().count() > 1 {
        let why = "There is more than one header Host.";
        return Answer::Response(answer::text(StatusCode::BAD_REQUEST, why));
    }
    let path = request.uri().path();
    let is_ws_path = offer.is_websocket(path);
    if is_ws_path && wants_websocket(request.headers()) {
        return open(entrance, &request, peer)
            .await
            .unwrap_or_else(|refusal| Answer::Response(refused(refusal)));
    }
    let (site, method) = (
        offer.sites.of(request.uri(), request.headers()).cloned(),
        request.method().clone(),
    );
    let response = if offer.is_forwarded(path) {
        busy.store(true, Ordering::Relaxed);
        let answered = forward::forward(entrance, request, peer, unread).await;
        busy.store(false, Ordering::Relaxed);
        match answered {
            Ok(response) => return Answer::Response(response),
            Err(own) => own,
        }
    } else {
        match &site {
            Some(site) => site.files.serve(request).await,
            None => answer::text(StatusCode::MISDIRECTED_REQUEST, "There is no site of this name here."),
        }
    };
    if is_ws_path && response.status() == StatusCode::NOT_FOUND {
        return Answer::Response(upgrade_required());
    }
    Answer::Response(match site {
        Some(site) => site.dress(response, &method).await,
        None => response,
    })
}

async fn open(
    entrance: &Arc<Entrance>,
    request: &Request<Incoming>,
    peer: SocketAddr,
) -> Result<Answer, UpgradeRefusal> {
    let key = handshake_key(request)?;
    let handshake = handshake_of(ws::CODEC.name, request, peer);
    let (pending, response) = ws::upgrade::open(entrance, &handshake, key).await?;
    Ok(Answer::Open(pending, response.map(|()| Body::default())))
}

fn refused(refusal: UpgradeRefusal) -> Response<Body> {
    let mut response = answer::text(refusal.status, &refusal.reason);
    response.headers_mut().extend(refusal.header);
    response
}

fn upgrade_required() -> Response<Body> {
    let mut response = answer::text(StatusCode::UPGRADE_REQUIRED, "This is a WebSocket.");
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    response
}
