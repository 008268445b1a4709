//! A connection on a `ws` listener: HTTP first, then perhaps a WebSocket.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, header};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

use crate::protocol::entrance::Entrance;
use crate::protocol::http::offer::Offer;
use crate::protocol::http::respond::{Answer, respond};
use crate::protocol::http::write_timeout::WriteTimeout;
use crate::protocol::ws::upgrade::PendingClient;

/// Bytes that the head of a request may take, and headers that it may have.
const MAX_HEAD: usize = 32 * 1024;
const MAX_HEADERS: usize = 100;
/// How long a stop waits for the first head of a connection.
const FIRST_HEAD: Duration = Duration::from_secs(1);
/// Bytes that a client may still send of a body that was refused, so that it gets to read the response.
const MAX_REST: u64 = 1 << 20;

/// Serves HTTP on one connection. A WebSocket goes on in a task of its own.
pub(crate) async fn serve(
    entrance: Arc<Entrance>,
    offer: Arc<Offer>,
    stream: TcpStream,
    peer: SocketAddr,
    tasks: TaskTracker,
) {
    if let Some((pending, socket, read)) = until_upgrade(&entrance, &offer, stream, peer).await {
        pending.begin(socket, &read, &tasks);
    }
}

/// Answers requests until one opens a WebSocket. Gives its client, the socket, and the bytes that the client sent already.
async fn until_upgrade(
    entrance: &Arc<Entrance>,
    offer: &Arc<Offer>,
    stream: TcpStream,
    peer: SocketAddr,
) -> Option<(PendingClient, TcpStream, Bytes)> {
    let limits = &entrance.limits;
    let opened = Mutex::new(None);
    let asked = AtomicBool::new(false);
    let busy = AtomicBool::new(false);
    let refused = AtomicBool::new(false);
    let service = service_fn(|request| {
        asked.store(true, Ordering::Relaxed);
        Box::pin(async {
            let mut unread = !hyper::body::Body::is_end_stream(request.body());
            let answer = respond(entrance, offer, request, peer, &busy, &mut unread).await;
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
        .header_read_timeout(limits.handshake_timeout)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .serve_connection(
            TokioIo::new(WriteTimeout::new(stream, limits.handshake_timeout)),
            service,
        );
    let stopped = tokio::select! {
        ended = poll_fn(|context| connection.poll_without_shutdown(context)) => { ended.ok()?; false }
        () = entrance.stopping.cancelled() => true,
    };
    if stopped {
        // A stop waits for a response that is on its way, and for nothing else.
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
                    match tokio::time::timeout(limits.close_timeout, ended).await {
                        Ok(ended) => break ended.ok()?,
                        // A worker's response has a limit of its own.
                        Err(_) if busy.load(Ordering::Relaxed) => was_busy = true,
                        // The response may have come just now: it has the whole time to be written.
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
            linger(socket, limits.close_timeout).await;
        }
        return None;
    };
    Some((pending, socket, parts.read_buf))
}

/// Closes a connection on which bytes were left unread: closed at once, it would be reset, and the response lost.
async fn linger(mut socket: TcpStream, limit: Duration) {
    let discarded = async {
        socket.shutdown().await?;
        tokio::io::copy(&mut socket.take(MAX_REST), &mut tokio::io::sink()).await
    };
    let _ = tokio::time::timeout(limit, discarded).await;
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::limits::Limits;

    #[tokio::test]
    async fn a_stop_waits_for_the_first_head_of_a_connection() {
        let entrance = Entrance::for_test(Limits::default());
        let offer = Arc::new(Offer::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let mut client = TcpStream::connect(listener.local_addr().expect("its address"))
            .await
            .expect("it listens");
        let (stream, peer) = listener.accept().await.expect("a connection");
        entrance.stopping.cancel();
        let served = tokio::spawn(serve(entrance, offer, stream, peer, TaskTracker::new()));
        tokio::task::yield_now().await;
        let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        client.write_all(request).await.expect("the connection is open");
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer:?}");
        served.await.expect("the task ends");
    }
}
