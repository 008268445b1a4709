//! Why a call failed: a problem in JSON (RFC 9457), or a gRPC status.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{Response, StatusCode};
use meepo_proto::GatewayId;
use schemars::JsonSchema;
use serde::Serialize;
use tonic::{Code, Status};

/// The kind of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "Kind")]
pub(crate) enum ProblemKind {
    /// A field cannot be as it is.
    Invalid,
    /// The token is missing or wrong.
    Unauthenticated,
    /// There is nothing at this path.
    NotFound,
    /// The path does not answer to this method.
    MethodNotAllowed,
    /// The request took too long.
    Timeout,
    /// The request, or the message in it, is too large.
    TooLarge,
    /// The body is no JSON.
    NotJson,
    /// There are too many requests at once.
    Busy,
    /// The queue towards a gateway is full.
    QueueFull,
    /// No gateway is there.
    NoGateway,
    /// No gateway answered in time.
    Unanswered,
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Problem {
    code: ProblemKind,
    /// The HTTP status.
    status: u16,
    /// The HTTP status in words.
    title: &'static str,
    /// What is wrong.
    detail: String,
    /// The field that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    field: Option<String>,
    /// The gateways that did not answer. They may have carried out what was asked, or not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing: Vec<String>,
}

/// When to try again, in seconds: the header `retry-after`.
const RETRY: HeaderValue = HeaderValue::from_static("1");

impl ProblemKind {
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::Invalid => StatusCode::BAD_REQUEST,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotJson => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Busy | Self::QueueFull | Self::NoGateway | Self::Unanswered => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn code(self) -> Code {
        match self {
            Self::Invalid | Self::TooLarge | Self::NotJson => Code::InvalidArgument,
            Self::Unauthenticated => Code::Unauthenticated,
            Self::NotFound | Self::MethodNotAllowed => Code::Unimplemented,
            Self::Timeout => Code::DeadlineExceeded,
            Self::Busy => Code::ResourceExhausted,
            Self::QueueFull | Self::NoGateway | Self::Unanswered => Code::Unavailable,
        }
    }
}

impl Problem {
    pub(crate) fn new(code: ProblemKind, detail: impl Into<String>) -> Self {
        let status = code.status();
        Self {
            code,
            status: status.as_u16(),
            title: status.canonical_reason().unwrap_or_default(),
            detail: detail.into(),
            field: None,
            missing: Vec::new(),
        }
    }

    /// A field cannot be as it is.
    pub(crate) fn field(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(ProblemKind::Invalid, why).of(field)
    }

    /// The same problem, about a field.
    pub(crate) fn of(self, field: impl Into<String>) -> Self {
        Self {
            field: Some(field.into()).filter(|field| !field.is_empty()),
            ..self
        }
    }

    /// The problem in words.
    #[cfg(test)]
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    pub(crate) fn unanswered(missing: &[GatewayId]) -> Self {
        Self {
            missing: names(missing),
            ..Self::new(ProblemKind::Unanswered, "no gateway has answered in time")
        }
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        let mut response = json(&self);
        *response.status_mut() = self.code.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match self.code {
            ProblemKind::Unauthenticated => headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
            code if code.status() == StatusCode::SERVICE_UNAVAILABLE => headers.insert(RETRY_AFTER, RETRY),
            _ => None,
        };
        response
    }
}

impl From<Problem> for Status {
    fn from(problem: Problem) -> Self {
        let mut text = problem.detail;
        if let Some(field) = problem.field {
            text = format!("{field}: {text}");
        }
        if !problem.missing.is_empty() {
            text = format!("{text}: {}", problem.missing.join(", "));
        }
        Self::new(problem.code.code(), text)
    }
}

/// A body in JSON.
pub(crate) fn json(value: &impl Serialize) -> Response<Body> {
    let text = serde_json::to_vec(value).unwrap_or_default();
    let mut response = Response::new(Body::from(text));
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// The ids of gateways as text.
pub(crate) fn names(gateways: &[GatewayId]) -> Vec<String> {
    gateways.iter().map(ToString::to_string).collect()
}
