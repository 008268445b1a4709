//! The push API: any program pushes from outside, over HTTP with JSON and over gRPC.
//!
//! An instance serves it beside the handlers of a child. It calls a cluster, and knows neither handlers nor the runtime.
//!
//! # Layout
//!
//! - `server`: connections, their limits and their end. This file lets requests in.
//! - `routes`, `grpc`: the two ways to call; `openapi` describes the first.
//! - `calls`: what can be called. The types are those of `push.proto`; `fields` checks what they hold.
//! - `orders`: commands to several gateways, and their outcome.
//! - `problem`: why a call failed.
//!
//! # Invariants
//!
//! - A call is answered once the gateways have carried it out; the answer names gateways that have not said so.
//! - Requests are bounded in size, number and time, and queue at most half of what handlers may.

pub(crate) mod calls;
mod fields;
mod grpc;
mod openapi;
mod orders;
pub(crate) mod problem;
mod routes;
mod server;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, Request, Response};
use meepo_node::Stop;
use meepo_node::quota::REFUSALS;
use meepo_proto::push::push_server::PushServer;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tonic::Status;
use tower_service::Service;

use self::grpc::Grpc;
use self::problem::{Problem, ProblemKind};
use crate::Cluster;
use crate::settings::PushSettings;

/// How long a request may take to arrive.
const COMING: Duration = Duration::from_secs(10);

/// Serves the push API of a child until it is told to stop, and then answers the requests that are there.
pub(crate) async fn serve(cluster: Cluster, settings: PushSettings, listener: TcpListener, stop: Stop) {
    server::serve(Push::new(cluster, settings), listener, stop).await;
}

/// The push API of a child, which all requests share.
pub(crate) struct Push {
    cluster: Cluster,
    settings: PushSettings,
    requests: Semaphore,
}

impl Push {
    fn new(cluster: Cluster, settings: PushSettings) -> Arc<Self> {
        Arc::new(Self {
            cluster,
            requests: Semaphore::new(settings.max_requests.min(Semaphore::MAX_PERMITS)),
            settings,
        })
    }

    /// The calls that callers who are let in can make.
    fn router(self: &Arc<Self>) -> Router {
        let grpc = PushServer::new(Grpc(self.clone())).max_decoding_message_size(self.settings.max_request);
        let path = format!("/{}/{{*call}}", push_service_name());
        routes::router(self).route_service(&path, grpc)
    }

    /// Answers a request that shows a token, unless there are too many requests at once.
    async fn answer(&self, router: &mut Router, peer: SocketAddr, request: Request<Body>) -> Response<Body> {
        let is_grpc = is_grpc(request.headers());
        let answered = async {
            self.let_in(peer, request.headers())?;
            let busy = |_| Problem::new(ProblemKind::Busy, "there are too many requests at once");
            let _permit = self.requests.try_acquire().map_err(busy)?;
            let limit = COMING + self.cluster.limits().query_timeout;
            let late = |_| {
                Problem::new(
                    ProblemKind::Timeout,
                    format!("the request has taken longer than {limit:?}"),
                )
            };
            let Ok(response) = timeout(limit, router.call(request)).await.map_err(late)?;
            Ok(response)
        };
        match answered.await {
            Ok(response) => response,
            Err(problem) if is_grpc => Status::from(problem).into_http(),
            Err(problem) => Problem::into_response(problem),
        }
    }

    fn let_in(&self, peer: SocketAddr, headers: &HeaderMap) -> Result<(), Problem> {
        let tokens = &self.settings.tokens;
        let shown = headers.get(AUTHORIZATION).map(|value| value.as_bytes());
        let token = shown.and_then(bearer);
        if tokens.is_empty() || token.is_some_and(|token| tokens.has(token)) {
            return Ok(());
        }
        if let Some(unlogged) = REFUSALS.take() {
            let why = if shown.is_some() { "wrong token" } else { "no token" };
            tracing::warn!(%peer, why, unlogged, "refused a push");
        }
        let why = "the header authorization has to be `Bearer` and a token that is known";
        Err(Problem::new(ProblemKind::Unauthenticated, why))
    }
}

/// The token in a header `authorization`.
fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

fn push_service_name() -> &'static str {
    <PushServer<Grpc> as tonic::server::NamedService>::NAME
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_after_the_scheme_in_any_case() {
        for (header, token) in [
            ("Bearer t", Some("t")),
            ("bearer  t ", Some("t")),
            ("Bearer", None),
            ("Bearer ", Some("")),
            ("Basic dDp0", None),
            ("t", None),
            ("", None),
        ] {
            assert_eq!(bearer(header.as_bytes()), token.map(str::as_bytes), "{header:?}");
        }
    }
}
