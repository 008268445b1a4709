//! Connections of callers: accepting them, their limits, and their end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use meepo_node::{Acceptor, Stop};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Push;

/// Connections at a time; more of them wait to be accepted, here or by a sibling.
const MAX_CONNECTIONS: usize = 1024;
/// Requests of one connection at a time.
const MAX_STREAMS: u32 = 128;
/// How long a connection may be without a request.
const IDLE: Duration = Duration::from_secs(60);
/// How long a new connection may take for the head of its first request. Heads of later requests may take [`IDLE`], which
/// runs from the request before.
const HEAD: Duration = Duration::from_secs(10);
/// The largest head of a request, in bytes.
const MAX_HEAD: usize = 16 << 10;
/// How long a new connection still has for its first request when the child is told to stop.
const FRESH: Duration = Duration::from_secs(1);
/// The largest piece of an answer that is handed over at a time, in bytes.
const PIECE: usize = 64 << 10;
/// How often a quiet HTTP/2 connection is probed.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// The part of the time for a stop in which requests that are there already are answered.
const STOP_SHARE: u32 = 2;

/// Serves until the child is told to stop, and then answers requests that are there already, within a part of the time
/// for the stop.
pub(crate) async fn serve(push: Arc<Push>, listener: TcpListener, stop: Stop) {
    let stopping = stop.token().clone();
    let router = push.router();
    let mut acceptor = Acceptor::new(listener, "push", &push.cluster.stats().common);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stopping.cancelled() => break,
            Some(_) = connections.join_next() => {}
            (socket, peer) = acceptor.accept(), if connections.len() < MAX_CONNECTIONS => {
                let connection = Connection { push: push.clone(), router: router.clone(), peer, requests: Arc::default() };
                connections.spawn(connection.serve(socket, stopping.clone()));
            }
        }
    }
    drop(acceptor);
    let end = Instant::now() + stop.timeout() / STOP_SHARE;
    let rest = async { while connections.join_next().await.is_some() {} };
    if timeout_at(end, rest).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "push requests take too long and are cut off"
        );
    }
}

/// The connection of a caller.
struct Connection {
    push: Arc<Push>,
    router: Router,
    peer: SocketAddr,
    requests: Arc<Requests>,
}

/// The requests of a connection.
#[derive(Debug, Default)]
struct Requests {
    open: AtomicUsize,
    /// How many requests have begun, and how many have ended, together.
    changes: AtomicUsize,
    /// Cancelled when the first request has come.
    begun: CancellationToken,
}

/// Counts a request until its answer is out.
struct Open(Arc<Requests>);

impl Open {
    fn new(requests: &Arc<Requests>) -> Self {
        requests.open.fetch_add(1, Ordering::Relaxed);
        requests.changes.fetch_add(1, Ordering::Relaxed);
        requests.begun.cancel();
        Self(requests.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        self.0.changes.fetch_add(1, Ordering::Relaxed);
    }
}

/// The body of an answer, whose request is open until all of it was taken.
struct CountedBody {
    body: Body,
    /// Bytes of the body that have come and were not taken yet.
    rest: Bytes,
    _open: Open,
}

impl CountedBody {
    fn new(body: Body, open: Open) -> Self {
        Self {
            body,
            rest: Bytes::new(),
            _open: open,
        }
    }
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                end => return Poll::Ready(end),
            }
        }
        // A long answer would be taken whole, and wait in buffers where it does not count as open.
        let length = self.rest.len().min(PIECE);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, body) = (self.rest.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        if let Some(upper) = body.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(body.lower() + rest);
        hint
    }
}

impl Connection {
    async fn serve(self, socket: TcpStream, stop: CancellationToken) {
        // Only a hint; a connection that has ended already will say so when it is read.
        let _ = socket.set_nodelay(true);
        let requests = self.requests.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let (push, mut router, peer) = (self.push.clone(), self.router.clone(), self.peer);
            let open = Open::new(&self.requests);
            async move {
                let response = push.answer(&mut router, peer, request.map(Body::new)).await;
                Ok::<_, Infallible>(response.map(|body| CountedBody::new(body, open)))
            }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .max_buf_size(MAX_HEAD);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE)
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEAD as u32);
        let connection = builder.serve_connection(TokioIo::new(socket), service);
        let mut connection = std::pin::pin!(connection);
        let stopped = async {
            stop.cancelled().await;
            let _ = timeout(FRESH, requests.begun.cancelled()).await;
        };
        let mut stopped = std::pin::pin!(stopped);
        let mut ending = false;
        let mut seen = 0;
        // The first request has less time: a caller connects to make a request.
        let mut idle = Instant::now() + HEAD;
        loop {
            tokio::select! {
                // An error of a connection concerns only its caller.
                _ = connection.as_mut() => return,
                () = &mut stopped, if !ending => {
                    ending = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = tokio::time::sleep_until(idle) => {
                    let changes = requests.changes.load(Ordering::Relaxed);
                    if changes == seen && requests.open.load(Ordering::Relaxed) == 0 {
                        return;
                    }
                    seen = changes;
                    idle = Instant::now() + IDLE;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_request_is_open_until_its_answer_is_out() {
        let text = Bytes::from("x".repeat(PIECE) + "yz");
        let requests = Arc::<Requests>::default();
        let mut answer = CountedBody::new(Body::from(text.clone()), Open::new(&requests));
        assert_eq!(answer.size_hint().exact(), Some(text.len() as u64));
        let first = answer.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(first, text[..PIECE]);
        assert!(!answer.is_end_stream());
        assert_eq!(answer.size_hint().exact(), Some(2));
        assert_eq!(requests.open.load(Ordering::Relaxed), 1);
        assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap(), "yz");
        assert!(answer.is_end_stream());
        drop(answer);
        let (open, changes) = (&requests.open, &requests.changes);
        assert_eq!((open.load(Ordering::Relaxed), changes.load(Ordering::Relaxed)), (0, 2));
    }
}
