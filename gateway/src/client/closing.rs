//! The end of a client's connection: what it was sent before still goes out, and its last bytes are read.

use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::sync::Arc;

use meepo_proto::link::CloseCause;
use tokio::io::Interest;
use tokio::task::{consume_budget, yield_now};
use tokio::time::timeout;

use crate::client::close::ClientClose;
use crate::client::decoder::{Decoded, Decoder};
use crate::client::handle::Client;
use crate::client::host::Host;
use crate::client::states::Phase;

/// How a client came to its end.
pub(crate) enum Last {
    /// Dropped without a graceful close.
    Cut,
    /// It was closed by the gateway or a worker.
    Closed,
    /// Its connection broke.
    Broken,
    /// By what it has sent.
    Sent(Box<ClientClose>),
}

/// Bytes that a closed client may still send.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// Messages, which are dropped, and at last its answer to the close.
    Decode,
    /// Bytes that mean nothing any more.
    Discard,
    /// Nothing that the gateway waits for.
    Nothing,
}

/// Closes a client that is not closed yet, and ends its connection gracefully, within `close_timeout`.
pub(crate) async fn finish<D: Decoder>(host: &impl Host, client: &Arc<Client>, last: Last, decoder: D) {
    let rest = match last {
        Last::Cut => return,
        Last::Closed => Rest::Decode,
        Last::Broken => {
            host.close(client, ClientClose::broken());
            Rest::Nothing
        }
        Last::Sent(close) => {
            let rest = match close.cause {
                // Both sides have closed: nothing more comes.
                CloseCause::Client => Rest::Nothing,
                CloseCause::Eof if D::READS_AFTER_EOF => {
                    answered(host, client).await;
                    Rest::Nothing
                }
                _ => {
                    log_refusal(host, client, &close);
                    Rest::Discard
                }
            };
            host.close(client, *close);
            rest
        }
    };
    let _ = timeout(host.limits().close_timeout, end_connection(client, rest, decoder)).await;
}

/// Logs why a client is closed for what it sent; many such clients do not flood the log.
fn log_refusal(host: &impl Host, client: &Client, close: &ClientClose) {
    if let Some(unlogged) = host.refusals().take() {
        let (id, peer) = (host.client_id(client), client.profile.handshake().peer());
        tracing::info!(client = %id, peer, cause = ?close.cause, reason = close.reason, unlogged, "closed a client");
    }
}

/// Waits until every event of a client is done that has ended its sending and still reads.
async fn answered(host: &impl Host, client: &Client) {
    let Some(socket) = client.socket() else { return };
    let settled = async {
        while !host.is_settled(client) {
            let condition = client.condition();
            if condition.phase != Phase::Open {
                return;
            }
            if condition.has_news {
                host.push_send_buffer(client);
            }
            tokio::select! {
                () = poll_fn(|context| client.wake.poll_woken(context)) => {}
                _ = socket.writable(), if condition.blocked => client.flush(),
            }
        }
    };
    let broken = socket.ready(Interest::ERROR);
    tokio::select! {
        () = settled => {}
        _ = broken => {}
        () = tokio::time::sleep(host.limits().connect_timeout) => {}
    }
}

/// Sends the frames that wait, and waits until the client has read them: a close with unread input would reset the
/// connection and destroy what is on its way.
async fn end_connection<D: Decoder>(client: &Client, mut rest: Rest, mut decoder: D) {
    let Some(socket) = client.socket() else { return };
    loop {
        client.flush();
        if client.condition().phase.is_broken() {
            return;
        }
        if client.unsent() == 0 {
            break;
        }
        if socket.writable().await.is_err() {
            return;
        }
    }
    let _ = socket2::SockRef::from(socket).shutdown(Shutdown::Write);
    loop {
        let decoded = match rest {
            Rest::Decode => decoder.next(client),
            Rest::Discard => match D::read(client, |_| {}) {
                Ok(1..) => Decoded::Heard,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Decoded::Blocked { heard: false },
                Ok(0) | Err(_) => return,
            },
            Rest::Nothing => return,
        };
        match decoded {
            Decoded::Message(_) => consume_budget().await,
            Decoded::Heard => yield_now().await,
            Decoded::Blocked { .. } => {
                if socket.readable().await.is_err() {
                    return;
                }
            }
            // The rest is read without its meaning, so that the client still reads what it was sent.
            Decoded::Close(close) => match close.cause {
                CloseCause::Client | CloseCause::Eof | CloseCause::Reset => return,
                _ => rest = Rest::Discard,
            },
        }
    }
}
