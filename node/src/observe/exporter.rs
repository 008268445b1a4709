//! Serves `/metrics` and `/health` of the whole node over plain HTTP, in every child.
//!
//! People look at a node that has run out of descriptors, so some descriptors are kept back for that.

use std::convert::Infallible;
use std::net::TcpListener;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::observe::metrics::{self, NodeInfo};
use crate::observe::stats::Board;
use crate::stop::Stop;

/// Requests that are answered at a time; more of them wait.
const AT_A_TIME: usize = 16;
/// How long a request and its answer may take.
const LIMIT: Duration = Duration::from_secs(10);
/// How long to wait when no descriptor is free.
const EXHAUSTED: Duration = Duration::from_millis(200);
/// Descriptors that are kept back.
const RESERVED: rlim_t = 4;
/// The most that the head of a request may take.
const MAX_HEAD: usize = 16 * 1024;
/// The text format of Prometheus.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// A child's part in serving the node's metrics.
#[derive(Debug)]
pub(crate) struct Exporter {
    pub(crate) listener: TcpListener,
    pub(crate) source: MetricsSource,
}

/// The figures and facts that metrics are made of.
#[derive(Debug, Clone)]
pub(crate) struct MetricsSource {
    pub(crate) board: Board,
    pub(crate) info: NodeInfo,
}

impl Exporter {
    /// Answers until the child drains.
    pub(crate) async fn run(self, stop: Stop) {
        let listener = match tokio::net::TcpListener::from_std(self.listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "cannot serve metrics"),
        };
        let mut answers = JoinSet::new();
        let reserve = Reserve::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.requested() => break,
                Some(_) = answers.join_next() => continue,
                accepted = listener.accept(), if answers.len() < AT_A_TIME => accepted,
            };
            let accepted = match accepted {
                Err(_) => reserve.lend(|| listener.accept().now_or_never()),
                accepted => Some(accepted),
            };
            match accepted {
                Some(Ok((stream, _))) => drop(answers.spawn(answer(stream, self.source.clone(), reserve))),
                _ => sleep(EXHAUSTED).await,
            }
        }
        drop(listener);
        while answers.join_next().await.is_some() {}
    }
}

/// Descriptors that only this module uses: their numbers are above the limit, which it lifts for a moment.
#[derive(Debug, Clone, Copy)]
struct Reserve {
    limit: rlim_t,
    above: rlim_t,
}

impl Reserve {
    /// Keeps some descriptors of this process back.
    fn new() -> Self {
        let (_, above) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or_default();
        let reserve = Self {
            limit: above.saturating_sub(RESERVED),
            above,
        };
        reserve.set(reserve.limit);
        reserve
    }

    /// Does something with the descriptors that are kept back, unless the rest of this process takes them at that instant.
    fn lend<T>(self, act: impl FnOnce() -> T) -> T {
        self.set(self.above);
        let done = act();
        self.set(self.limit);
        done
    }

    fn set(self, limit: rlim_t) {
        // The limit is never above what this process may have.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, limit, self.above);
    }
}

/// Answers one request.
async fn answer(stream: TcpStream, source: MetricsSource, reserve: Reserve) {
    let service = service_fn(|request| {
        // The memory of processes is read from files, which takes descriptors.
        let response = reserve.lend(|| respond(&request, &source));
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    // A peer that sends no request, or does not read, is no failure of this node.
    let _ = timeout(LIMIT, connection).await;
}

fn respond(request: &Request<Incoming>, source: &MetricsSource) -> Response<Full<Bytes>> {
    let MetricsSource { board, info } = source;
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return response(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "Only GET is answered.\n".into());
    }
    match request.uri().path() {
        "/metrics" => response(StatusCode::OK, METRICS, metrics::text(&board.read(), info)),
        "/health" => match &metrics::not_serving(&board.read(), info)[..] {
            [] => response(StatusCode::OK, PLAIN, "ok\n".into()),
            missing => {
                let text = format!("no child serves: {}\n", missing.join(", "));
                response(StatusCode::SERVICE_UNAVAILABLE, PLAIN, text)
            }
        },
        _ => response(StatusCode::NOT_FOUND, PLAIN, "There are /metrics and /health.\n".into()),
    }
}

fn response(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
