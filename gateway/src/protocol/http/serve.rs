//! A connection on a `ws` listener: HTTP first, for files and for what workers answer, then perhaps a WebSocket.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use meepo_proto::link::{CloseCause, Handshake, Header};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_util::task::TaskTracker;

use crate::client::close::ClientClose;
use crate::client::connection;
use crate::client::handle::{Client, Verdict};
use crate::config::settings::Protocol;
use crate::hub::Hub;
use crate::protocol::http::files::{self, Body};
use crate::protocol::http::forward;
use crate::protocol::http::sites::Sites;
use crate::protocol::http::write_timeout::WriteTimeout;
use crate::protocol::ws::decoder::WsDecoder;

/// What a `ws` listener offers.
#[derive(Debug)]
pub(crate) struct Offer {
    /// The paths on which a WebSocket may be opened.
    pub paths: Vec<String>,
    /// The paths whose requests workers answer; one that ends in a slash stands for all that begin with it.
    pub requests: Vec<String>,
    pub sites: Sites,
}

impl Offer {
    fn asks_worker(&self, path: &str) -> bool {
        self.requests.iter().any(|named| match named.ends_with('/') {
            true => path.starts_with(named),
            false => path == named,
        })
    }
}

/// The most that a request's head may take, and the most headers in it.
const MAX_HEAD: usize = 32 * 1024;
const MAX_HEADERS: usize = 100;
/// How long a stop waits for the first head of a connection.
const FIRST_HEAD: Duration = Duration::from_secs(1);
/// What a client may still send when its body was refused, so that it gets to read why.
const MAX_REST: u64 = 1 << 20;

/// Serves HTTP on one connection. A WebSocket goes on in a task of its own, which carries nothing of what HTTP needs.
pub(crate) async fn serve(hub: Arc<Hub>, offer: Arc<Offer>, stream: TcpStream, peer: SocketAddr, tasks: TaskTracker) {
    let Some((client, read)) = handshake(&hub, &offer, stream, peer).await else {
        return;
    };
    let max_message = usize::try_from(hub.settings.max_message.as_u64()).unwrap_or(usize::MAX);
    tasks.spawn(connection::run(hub, client, WsDecoder::new(&read, max_message)));
}

/// Answers requests until one opens a WebSocket. Gives the client, and the bytes that it sent already.
async fn handshake(
    hub: &Arc<Hub>,
    offer: &Arc<Offer>,
    stream: TcpStream,
    peer: SocketAddr,
) -> Option<(Arc<Client>, Bytes)> {
    let opened = Mutex::new(None);
    let asked = AtomicBool::new(false);
    let busy = AtomicBool::new(false);
    let refused = AtomicBool::new(false);
    let service = service_fn(|request| {
        asked.store(true, Ordering::Relaxed);
        Box::pin(async {
            let mut unread = !hyper::body::Body::is_end_stream(request.body());
            let answer = respond(hub, offer, request, peer, &busy, &mut unread).await;
            Ok::<_, Infallible>(match answer {
                Answer::Response(mut response) => {
                    if unread {
                        // The rest of the body is not read.
                        let close = HeaderValue::from_static("close");
                        response.headers_mut().append(header::CONNECTION, close);
                        refused.store(true, Ordering::Relaxed);
                    }
                    response
                }
                Answer::Open(pending, response) => {
                    *opened.lock() = Some(pending);
                    response
                }
            })
        })
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(hub.settings.handshake_timeout)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .serve_connection(
            TokioIo::new(WriteTimeout::new(stream, hub.settings.handshake_timeout)),
            service,
        );
    let stopped = tokio::select! {
        ended = poll_fn(|context| connection.poll_without_shutdown(context)) => { ended.ok()?; false }
        () = hub.stopping.cancelled() => true,
    };
    if stopped {
        // A stop waits for an answer that is on its way, and for nothing else.
        let head = poll_fn(|context| match connection.poll_without_shutdown(context) {
            Poll::Ready(ended) => Poll::Ready(Some(ended)),
            Poll::Pending if asked.load(Ordering::Relaxed) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        // A client that has only just come has its request on the way.
        match tokio::time::timeout(FIRST_HEAD, head).await.ok()? {
            Some(ended) => ended.ok()?,
            None => {
                Pin::new(&mut connection).graceful_shutdown();
                let mut was_busy = busy.load(Ordering::Relaxed);
                loop {
                    let ended = poll_fn(|context| connection.poll_without_shutdown(context));
                    match tokio::time::timeout(hub.settings.close_timeout, ended).await {
                        Ok(ended) => break ended.ok()?,
                        // A worker's answer has a limit of its own.
                        Err(_) if busy.load(Ordering::Relaxed) => was_busy = true,
                        // It may have come just now: a whole time to write it.
                        Err(_) if std::mem::take(&mut was_busy) => {}
                        Err(_) => return None,
                    }
                }
            }
        }
    }
    // Taken apart, not upgraded: the socket comes back as it was given.
    let parts = connection.into_parts();
    let socket = parts.io.into_inner().into_inner();
    let Some(pending) = opened.lock().take() else {
        if refused.load(Ordering::Relaxed) {
            linger(socket, hub.settings.close_timeout).await;
        }
        return None;
    };
    let client = pending.keep();
    client.set_socket(socket);
    Some((client, parts.read_buf))
}

/// Closes a connection on which something was left unread: closed at once, it would be reset, and the answer lost.
async fn linger(mut socket: TcpStream, limit: Duration) {
    let discarded = async {
        socket.shutdown().await?;
        tokio::io::copy(&mut socket.take(MAX_REST), &mut tokio::io::sink()).await
    };
    let _ = tokio::time::timeout(limit, discarded).await;
}

enum Answer {
    Response(Response<Body>),
    Open(Pending, Response<Body>),
}

async fn respond(
    hub: &Arc<Hub>,
    offer: &Offer,
    request: Request<Incoming>,
    peer: SocketAddr,
    busy: &AtomicBool,
    unread: &mut bool,
) -> Answer {
    if request.headers().get_all(header::HOST).iter().count() > 1 {
        let why = "There is more than one header Host.";
        return Answer::Response(files::text(StatusCode::BAD_REQUEST, why));
    }
    let path = request.uri().path();
    let is_ws_path = offer.paths.iter().any(|named| named == path);
    let wants_ws = has_token(request.headers(), header::UPGRADE, "websocket");
    if is_ws_path && wants_ws {
        return match handshake_key(&request) {
            Ok(key) => open(hub, &request, peer, key).await,
            Err(bad) => Answer::Response(bad.into_response()),
        };
    }
    let (site, method) = (
        offer.sites.of(request.uri(), request.headers()).cloned(),
        request.method().clone(),
    );
    let response = if offer.asks_worker(path) {
        busy.store(true, Ordering::Relaxed);
        let answered = forward::answer(hub, request, peer, unread).await;
        busy.store(false, Ordering::Relaxed);
        match answered {
            Ok(response) => return Answer::Response(response),
            Err(own) => own,
        }
    } else {
        match &site {
            Some(site) => site.files.serve(request).await,
            None => files::text(StatusCode::MISDIRECTED_REQUEST, "There is no site of this name here."),
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

fn upgrade_required() -> Response<Body> {
    let mut response = files::text(StatusCode::UPGRADE_REQUIRED, "This is a WebSocket.");
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    response
}

/// Asks a worker; its verdict is the handshake's answer.
async fn open(hub: &Arc<Hub>, request: &Request<Incoming>, peer: SocketAddr, key: &str) -> Answer {
    let (client, answer) = hub.open(Protocol::Ws, handshake_of(request, peer), None);
    let mut pending = Pending {
        hub: Arc::clone(hub),
        client: Some(client),
    };
    match tokio::time::timeout(hub.settings.connect_timeout, answer).await {
        Ok(Ok(Verdict::Accept)) => {
            let mut response = files::status(StatusCode::SWITCHING_PROTOCOLS).map(|_| Body::default());
            let headers = response.headers_mut();
            headers.clear();
            headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
                headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
            }
            Answer::Open(pending, response)
        }
        Ok(Ok(Verdict::Reject { status, reason })) => {
            if let Some(client) = pending.client.take() {
                hub.rejected(&client, None);
            }
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::FORBIDDEN);
            Answer::Response(files::text(status, &reason))
        }
        // Closed while it waited, or nobody answered.
        Ok(Err(_)) | Err(_) => {
            pending.give_up(CloseCause::NoWorker);
            let why = if hub.stopping.is_cancelled() {
                "The gateway stops."
            } else {
                "No worker answered."
            };
            Answer::Response(files::text(StatusCode::SERVICE_UNAVAILABLE, why))
        }
    }
}

/// A client whose handshake is not through: it is closed if the connection ends first.
struct Pending {
    hub: Arc<Hub>,
    client: Option<Arc<Client>>,
}

impl Pending {
    fn keep(mut self) -> Arc<Client> {
        self.client
            .take()
            .expect("it is taken once, here or when it is given up")
    }

    fn give_up(&mut self, cause: CloseCause) {
        if let Some(client) = self.client.take() {
            self.hub
                .close(&client, ClientClose::by_client(cause, 0, "handshake was not completed"));
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.give_up(CloseCause::Reset);
    }
}

/// How a client came, as workers are told.
pub(crate) fn handshake_of(request: &Request<Incoming>, peer: SocketAddr) -> Handshake {
    let header = |(name, value): (&http::HeaderName, &HeaderValue)| Header {
        name: name.as_str().to_owned(),
        value: Bytes::copy_from_slice(value.as_bytes()),
    };
    Handshake {
        peer: peer.to_string(),
        protocol: Protocol::Ws.name().into(),
        path: request.uri().path().into(),
        query: request.uri().query().unwrap_or_default().into(),
        headers: request.headers().iter().map(header).collect(),
    }
}

/// What is wrong with an opening handshake.
#[derive(Debug)]
struct BadHandshake(StatusCode, &'static str);

impl BadHandshake {
    fn into_response(self) -> Response<Body> {
        let Self(status, why) = self;
        let mut response = files::text(status, why);
        if status == StatusCode::UPGRADE_REQUIRED {
            response
                .headers_mut()
                .insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        response
    }
}

/// The key of a valid opening handshake (RFC 6455, section 4.2.1).
fn handshake_key(request: &Request<Incoming>) -> Result<&str, BadHandshake> {
    let bad = |why| Err(BadHandshake(StatusCode::BAD_REQUEST, why));
    let headers = request.headers();
    if request.method() != Method::GET {
        return Err(BadHandshake(
            StatusCode::METHOD_NOT_ALLOWED,
            "A WebSocket handshake is a GET.",
        ));
    }
    if request.version() != Version::HTTP_11 {
        return bad("A WebSocket handshake needs HTTP/1.1.");
    }
    if !has_token(headers, header::CONNECTION, "upgrade") {
        return bad("The header Connection does not say Upgrade.");
    }
    if headers
        .get(header::SEC_WEBSOCKET_VERSION)
        .map(|version| version.as_bytes().trim_ascii())
        != Some(b"13")
    {
        return Err(BadHandshake(
            StatusCode::UPGRADE_REQUIRED,
            "Sec-WebSocket-Version must be 13.",
        ));
    }
    let key = headers
        .get(header::SEC_WEBSOCKET_KEY)
        .and_then(|key| key.to_str().ok())
        .map(str::trim);
    match key {
        Some(key) if BASE64.decode(key.as_bytes()).is_ok_and(|key| key.len() == 16) => Ok(key),
        _ => bad("The header Sec-WebSocket-Key is missing or wrong."),
    }
}

/// Whether a header that lists tokens has this one.
fn has_token(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use meepo_node::stats::Slot;
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::settings::GatewaySettings;

    #[tokio::test]
    async fn a_stop_waits_for_the_first_head_of_a_connection() {
        let hub = Hub::new(GatewaySettings::default(), Box::leak(Box::<Slot>::default()));
        let offer = Arc::new(Offer {
            paths: Vec::new(),
            requests: Vec::new(),
            sites: Sites::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let mut client = TcpStream::connect(listener.local_addr().expect("its address"))
            .await
            .expect("it listens");
        let (stream, peer) = listener.accept().await.expect("a connection");
        hub.stopping.cancel();
        let served = tokio::spawn(serve(hub, offer, stream, peer, TaskTracker::new()));
        tokio::task::yield_now().await;
        let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        client.write_all(request).await.expect("it is there");
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer:?}");
        served.await.expect("it ends");
    }
}
