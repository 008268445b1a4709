//! The calls over HTTP, with bodies in JSON, and their description.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use axum::http::{Request, Response};
use axum::routing::{MethodRouter, get, post};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use meepo_proto::push::*;

use super::Push;
use super::calls::Call;
use super::openapi::{self, Describe, Described};
use super::problem::{Problem, ProblemKind, json};

/// Where the description is served.
const DESCRIPTION: &str = "/api/openapi.json";

/// A call over HTTP: it is served and described by the same types.
struct Route {
    path: &'static str,
    describe: Describe,
    serve: fn(Arc<Push>) -> MethodRouter,
}

/// All calls.
fn all() -> [Route; 15] {
    [
        route::<SendRequest>(),
        route::<CloseRequest>(),
        route::<JoinRequest>(),
        route::<LeaveRequest>(),
        route::<DissolveRequest>(),
        route::<BindRequest>(),
        route::<UnbindRequest>(),
        route::<UpdateSessionRequest>(),
        route::<ReplaceSessionRequest>(),
        route::<GetSessionRequest>(),
        route::<CountRequest>(),
        route::<OnlineRequest>(),
        route::<SelectRequest>(),
        route::<UidsRequest>(),
        route::<GroupsRequest>(),
    ]
}

fn route<C: Call>() -> Route {
    Route {
        path: C::PATH,
        describe: Described::call::<C>,
        serve: |push| {
            let call = move |request: Request<Body>| {
                let push = push.clone();
                async move { answer::<C>(&push, request).await.unwrap_or_else(Problem::into_response) }
            };
            post(call).fallback(async || not_allowed("POST"))
        },
    }
}

/// Each path with its part of the description.
pub(super) fn described() -> impl Iterator<Item = (&'static str, Describe)> {
    all().into_iter().map(|route| (route.path, route.describe))
}

pub(super) fn router(push: &Arc<Push>) -> Router {
    let text = openapi::description(described()).to_string();
    let description = move || {
        let kind = HeaderValue::from_static("application/json");
        let text = text.clone();
        async move { ([(CONTENT_TYPE, kind)], text) }
    };
    let mut router = Router::new().route(
        DESCRIPTION,
        get(description).fallback(async || not_allowed("GET, HEAD")),
    );
    for Route { path, serve, .. } in all() {
        router = router.route(path, serve(push.clone()));
    }
    router.fallback(async || Problem::new(ProblemKind::NotFound, "there is nothing at this path").into_response())
}

fn not_allowed(allowed: &'static str) -> Response<Body> {
    let why = format!("this path answers to {allowed} only");
    let mut response = Problem::new(ProblemKind::MethodNotAllowed, why).into_response();
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

async fn answer<C: Call>(push: &Push, request: Request<Body>) -> Result<Response<Body>, Problem> {
    let call: C = read(request, push.settings.max_request).await?;
    let reply = call.carry_out(&push.cluster).await?;
    Ok(json(&reply))
}

/// Reads a body of JSON.
async fn read<C: Call>(request: Request<Body>, limit: usize) -> Result<C, Problem> {
    let headers = request.headers();
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let kind = header(CONTENT_TYPE).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        let why = "the body has to be JSON, with the content type application/json";
        return Err(Problem::new(ProblemKind::NotJson, why));
    }
    let too_large = || {
        Problem::new(
            ProblemKind::TooLarge,
            format!("the request is over the limit of {limit} bytes"),
        )
    };
    let length = header(CONTENT_LENGTH).and_then(|length| length.parse::<usize>().ok());
    if length.is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let body = match Limited::new(request.into_body(), limit).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => return Err(too_large()),
        Err(error) => {
            return Err(Problem::new(
                ProblemKind::Invalid,
                format!("the body cannot be read: {error}"),
            ));
        }
    };
    parse(&body)
}

fn parse<C: Call>(body: &[u8]) -> Result<C, Problem> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let Object(call) = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let why = error.into_inner().to_string();
        Problem::field(place(&path, &why), why)
    })?;
    let end = json.end();
    end.map_err(|error| Problem::new(ProblemKind::Invalid, error.to_string()))?;
    Ok(call)
}

/// The field that an error is about, also when the field is missing or unknown.
fn place(path: &str, why: &str) -> String {
    let path = if path == "." || path == "?" { "" } else { path };
    let named = why.split_once(" field `").and_then(|(_, rest)| rest.split_once('`'));
    match named {
        Some((field, _)) if path.is_empty() => field.into(),
        Some((field, _)) if path != field && !path.ends_with(&format!(".{field}")) => format!("{path}.{field}"),
        _ => path.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_that_is_wrong_is_named() {
        for (body, field) in [
            (r#"{"to": {"all": true}, "text": 1}"#, "text"),
            (r#"{"to": {"al": true}, "text": "x"}"#, "to.al"),
            (r#"{"to": {"clients": ["a", 5]}, "text": "x"}"#, "to.clients[1]"),
            (r#"{"to": {"clients": []}, "text": "x"}"#, "to.clients"),
            (r#"{"to": null, "text": "x"}"#, "to"),
            (r#"{"to": [true], "text": "x"}"#, "to"),
            (r#"{"to": {"all": true}, "text": null}"#, "text"),
            (r#"{"to": {"all": true}, "binary": "%"}"#, "binary"),
            (r#"{"text": "x"}"#, "to"),
            (r#"{"to": {"all": true}, "text": "x", "texts": "y"}"#, "texts"),
            (r#"{"to": {"all": true}, "text": "x", "text": "y"}"#, "text"),
        ] {
            let problem = parse::<SendRequest>(body.as_bytes()).expect_err(body);
            assert_eq!(problem, Problem::field(field, problem.detail()), "{body}");
        }
        for body in ["", "{", "[]", "3", "{} {}", "\u{feff}{}"] {
            let problem = parse::<GroupsRequest>(body.as_bytes()).expect_err(body);
            assert_eq!(problem, Problem::field("", problem.detail()), "{body}");
        }
        parse::<GroupsRequest>(b" {} ").expect("it is good");
    }

    #[test]
    fn a_number_is_whole_however_it_is_written() {
        for (code, read) in [
            ("4001", Some(4001)),
            ("4001.0", Some(4001)),
            ("4001.5", None),
            ("-1", None),
            ("1e99", None),
        ] {
            let body = format!(r#"{{"to": {{"all": true}}, "code": {code}}}"#);
            let close = parse::<CloseRequest>(body.as_bytes());
            assert_eq!(close.ok().and_then(|close| close.code), read, "{code}");
        }
    }
}
