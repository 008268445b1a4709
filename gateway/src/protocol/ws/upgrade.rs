//! How a WebSocket begins: an HTTP request with an opening handshake, which a worker accepts or rejects.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use data_encoding::BASE64;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use meepo_proto::link::{CloseCause, Handshake};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_util::task::TaskTracker;

use crate::client::close::ClientClose;
use crate::client::connection;
use crate::client::handle::{Client, Verdict};
use crate::protocol::entrance::Entrance;
use crate::protocol::ws::CODEC;
use crate::protocol::ws::decoder::WsDecoder;

/// Why a WebSocket is not opened.
#[derive(Debug)]
pub(crate) struct UpgradeRefusal {
    /// The status of the response.
    pub(crate) status: StatusCode,
    /// Why, for the client to read.
    pub(crate) reason: Cow<'static, str>,
    /// One more header of the response.
    pub(crate) header: Option<(HeaderName, HeaderValue)>,
}

/// A client whose handshake is not complete: it is closed if the connection ends first.
#[derive(Debug)]
pub(crate) struct PendingClient {
    entrance: Arc<Entrance>,
    client: Option<Arc<Client>>,
}

/// Asks a worker whether a client may come in. Its verdict is the response to the opening handshake.
pub(crate) async fn open(
    entrance: &Arc<Entrance>,
    handshake: &Handshake,
    key: &str,
) -> Result<(PendingClient, Response<()>), UpgradeRefusal> {
    let (client, answer) = entrance.dispatch.open(&CODEC, handshake, None);
    let mut pending = PendingClient {
        entrance: Arc::clone(entrance),
        client: Some(client),
    };
    match timeout(entrance.limits.connect_timeout, answer).await {
        Ok(Ok(Verdict::Accept)) => Ok((pending, switching_protocols(key))),
        Ok(Ok(Verdict::Reject { status, reason })) => {
            if let Some(client) = pending.client.take() {
                entrance.dispatch.remove_rejected(&client, None);
            }
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::FORBIDDEN);
            Err(UpgradeRefusal::new(status, reason))
        }
        // Closed while it waited, or no worker answered.
        Ok(Err(_)) | Err(_) => {
            pending.give_up(CloseCause::NoWorker);
            let why = match entrance.stopping.is_cancelled() {
                true => "The gateway stops.",
                false => "No worker answered.",
            };
            Err(UpgradeRefusal::new(StatusCode::SERVICE_UNAVAILABLE, why))
        }
    }
}

fn switching_protocols(key: &str) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}

impl PendingClient {
    /// The handshake is complete: the client is read on this socket, by a task of its own that carries nothing of what HTTP
    /// needed. `read` is what the client has sent already.
    pub(crate) fn begin(mut self, socket: TcpStream, read: &Bytes, tasks: &TaskTracker) {
        let client = self
            .client
            .take()
            .expect("the client is taken once, here or when it is given up");
        client.set_socket(socket);
        let decoder = WsDecoder::new(read, self.entrance.limits.max_message);
        tasks.spawn(connection::run(Arc::clone(&self.entrance), client, decoder));
    }

    fn give_up(&mut self, cause: CloseCause) {
        if let Some(client) = self.client.take() {
            let close = ClientClose::by_client(cause, None, "handshake was not completed");
            self.entrance.dispatch.close(&client, close);
        }
    }
}

impl Drop for PendingClient {
    fn drop(&mut self) {
        self.give_up(CloseCause::Reset);
    }
}

impl UpgradeRefusal {
    fn new(status: StatusCode, reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            reason: reason.into(),
            header: None,
        }
    }
}

/// The key of a valid opening handshake (RFC 6455, section 4.2.1).
pub(crate) fn handshake_key<B>(request: &Request<B>) -> Result<&str, UpgradeRefusal> {
    let bad = |why| Err(UpgradeRefusal::new(StatusCode::BAD_REQUEST, why));
    let headers = request.headers();
    if request.method() != Method::GET {
        let why = "A WebSocket handshake is a GET.";
        return Err(UpgradeRefusal::new(StatusCode::METHOD_NOT_ALLOWED, why));
    }
    if request.version() != Version::HTTP_11 {
        return bad("A WebSocket handshake needs HTTP/1.1.");
    }
    if !says_upgrade(headers) {
        return bad("The header Connection does not say Upgrade.");
    }
    let version = headers.get(header::SEC_WEBSOCKET_VERSION);
    if version.map(|version| version.as_bytes().trim_ascii()) != Some(b"13") {
        let mut refusal = UpgradeRefusal::new(StatusCode::UPGRADE_REQUIRED, "Sec-WebSocket-Version must be 13.");
        let version = HeaderValue::from_static("13");
        refusal.header = Some((header::SEC_WEBSOCKET_VERSION, version));
        return Err(refusal);
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY);
    let key = key.and_then(|key| key.to_str().ok()).map(str::trim);
    match key {
        Some(key) if BASE64.decode(key.as_bytes()).is_ok_and(|key| key.len() == 16) => Ok(key),
        _ => bad("The header Sec-WebSocket-Key is missing or wrong."),
    }
}

fn says_upgrade(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CONNECTION).iter();
    let values = values.filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .any(|token| token.trim().eq_ignore_ascii_case("upgrade"))
}
