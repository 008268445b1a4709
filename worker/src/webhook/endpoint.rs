//! The endpoint: one POST and its answer.

use std::error::Error;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::header::{CONTENT_TYPE, HeaderMap, LOCATION, RETRY_AFTER};
use hyper::{Request, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{HttpConnector, capture_connection};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use meepo_node::error_text;
use tokio::time::timeout;

use super::settings::{WebhookSettings, without_query};

/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(20);

/// Where events are sent to. Connections are kept and used again.
pub(crate) struct Endpoint {
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    timeout: Duration,
    max_response: usize,
}

/// What the endpoint has answered.
#[derive(Debug)]
pub(crate) struct EndpointResponse {
    pub(crate) status: StatusCode,
    /// The content type without its parameters, in lower case.
    pub(crate) content_type: String,
    /// How long the endpoint wants to be left alone.
    pub(crate) retry_after: Option<Duration>,
    /// Where the endpoint redirects to, without a query.
    pub(crate) location: Option<String>,
    pub(crate) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoResponse {
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The endpoint cannot be reached: it has not had the request.
    #[error("{}", error_text::with_causes(&**.0))]
    Unreachable(Box<dyn Error + Send + Sync>),
    /// The connection has ended while the answer was waited for.
    #[error("{}", error_text::with_causes(&**.0))]
    Broken(Box<dyn Error + Send + Sync>),
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
}

impl Endpoint {
    pub(crate) fn new(settings: &WebhookSettings) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(IDLE));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config((*settings.tls).clone())
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let http = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(settings.connections)
            .build(connector);
        Self {
            http,
            timeout: settings.timeout,
            max_response: settings.max_response,
        }
    }

    pub(crate) async fn post(&self, mut request: Request<Full<Bytes>>) -> Result<EndpointResponse, NoResponse> {
        let connection = capture_connection(&mut request);
        let has_connected = || connection.connection_metadata().is_some();
        match timeout(self.timeout, self.exchange(request)).await {
            Ok(Err(NoResponse::Broken(error))) if !has_connected() => Err(NoResponse::Unreachable(error)),
            Ok(answer) => answer,
            Err(_) if has_connected() => Err(NoResponse::Timeout(self.timeout)),
            Err(_) => Err(NoResponse::Unreachable(
                format!("no connection within {:?}", self.timeout).into(),
            )),
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<EndpointResponse, NoResponse> {
        let response = self.http.request(request).await;
        let (head, body) = response.map_err(|error| NoResponse::Broken(error.into()))?.into_parts();
        let body = match Limited::new(body, self.max_response).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => match head.status.is_success() {
                true => return Err(NoResponse::TooLong(self.max_response)),
                // The status alone counts, such as that of a proxy with a long page.
                false => Bytes::new(),
            },
            Err(error) => return Err(NoResponse::Broken(error)),
        };
        let text = |name| header(&head.headers, name);
        let content_type = text(CONTENT_TYPE).unwrap_or_default();
        let content_type = content_type.split(';').next().unwrap_or_default().trim();
        Ok(EndpointResponse {
            status: head.status,
            content_type: content_type.to_ascii_lowercase(),
            retry_after: text(RETRY_AFTER).and_then(pause),
            location: text(LOCATION).map(|to| without_query(to).into()),
            body,
        })
    }
}

fn header(headers: &HeaderMap, name: hyper::header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// What `retry-after` says: seconds, or a date.
fn pause(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(pause("7"), Some(Duration::from_secs(7)));
        assert_eq!(pause("Thu, 01 Jan 1970 00:00:00 GMT"), Some(Duration::ZERO));
        let soon = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(60));
        let left = pause(&soon).unwrap();
        assert!(
            left > Duration::from_secs(30) && left <= Duration::from_secs(60),
            "{left:?}"
        );
        for text in ["", "-1", "soon"] {
            assert_eq!(pause(text), None, "{text:?}");
        }
    }
}
