//! Connections of those who push: accepting them, their limits, and their end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use meepo_node::Acceptor;
use meepo_node::stats::Slot;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Push;

/// Connections at a time; more of them wait to be accepted, here or by a sibling.
const MAX_CONNECTIONS: usize = 1024;
/// Requests of one connection at a time.
const MAX_STREAMS: u32 = 128;
/// How long a connection may have no request.
const IDLE: Duration = Duration::from_secs(60);
/// How long the head of a request may take.
const HEAD: Duration = Duration::from_secs(10);
/// The most that the head of a request may take.
const MAX_HEAD: usize = 16 << 10;
/// How long a new connection has for its first request when the child is told to stop: it came for that.
const FRESH: Duration = Duration::from_secs(1);
/// How often a quiet HTTP/2 connection is probed.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Serves until it is told to stop, and then answers what is there already, for this long at most.
pub(crate) async fn serve(
    push: Arc<Push>,
    listener: TcpListener,
    stats: &'static Slot,
    stop: CancellationToken,
    grace: impl FnOnce() -> Duration,
) {
    let router = push.router();
    let mut acceptor = Acceptor::new(listener, "push", stats);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            (socket, peer) = acceptor.accept(), if connections.len() < MAX_CONNECTIONS => {
                let connection = Connection { push: push.clone(), router: router.clone(), peer, requests: Arc::default() };
                connections.spawn(connection.serve(socket, stop.clone()));
            }
        }
    }
    drop(acceptor);
    let end = Instant::now() + grace();
    let rest = async { while connections.join_next().await.is_some() {} };
    if timeout_at(end, rest).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "pushes take too long, they are cut off"
        );
    }
}

/// Somebody who pushes.
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
    all: AtomicUsize,
    /// The first has come.
    begun: CancellationToken,
}

/// Counts a request for as long as it lives.
struct Open(Arc<Requests>);

impl Open {
    fn new(requests: &Arc<Requests>) -> Self {
        requests.open.fetch_add(1, Ordering::Relaxed);
        requests.all.fetch_add(1, Ordering::Relaxed);
        requests.begun.cancel();
        Self(requests.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
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
                drop(open);
                Ok::<_, Infallible>(response)
            }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
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
        // The first request has less time: whoever connects has something to ask.
        let mut idle = Instant::now() + HEAD;
        loop {
            tokio::select! {
                // What breaks a connection is its peer's concern.
                _ = connection.as_mut() => return,
                () = &mut stopped, if !ending => {
                    ending = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = tokio::time::sleep_until(idle) => {
                    let all = requests.all.load(Ordering::Relaxed);
                    if all == seen && requests.open.load(Ordering::Relaxed) == 0 {
                        return;
                    }
                    seen = all;
                    idle = Instant::now() + IDLE;
                }
            }
        }
    }
}
