//! Files that a `ws` listener serves beside its WebSocket: a folder, or the program's own page.

use std::convert::Infallible;
use std::io;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use tower_http::services::ServeDir;
use tower_service::Service as _;

/// What a response carries.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A file of the program: its path from the root, such as `/index.html`, and its content.
pub(crate) type Asset = (&'static str, &'static [u8]);

/// Where files come from.
#[derive(Debug, Clone, Default)]
pub(crate) enum Files {
    #[default]
    None,
    Dir(ServeDir),
    Assets(&'static [Asset]),
}

impl Files {
    /// The file that is asked for, or the request's answer 404.
    pub(crate) async fn serve(&self, request: Request<Incoming>) -> Response<Body> {
        let mut response = match self {
            Files::None => status(StatusCode::NOT_FOUND),
            Files::Dir(dir) => {
                let mut dir = dir.clone();
                let Ok(response) = dir.call(request.map(|_| Empty::<Bytes>::new())).await;
                response.map(|body| body.map_err(io::Error::other).boxed_unsync())
            }
            Files::Assets(assets) => asset(assets, &request),
        };
        harden(response.headers_mut());
        response
    }
}

/// What every answer of the gateway's own says to browsers.
pub(crate) fn harden(headers: &mut HeaderMap) {
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    }
}

fn asset(assets: &[Asset], request: &Request<Incoming>) -> Response<Body> {
    let path = match request.uri().path() {
        "/" => "/index.html",
        path => path,
    };
    let Some((path, content)) = assets.iter().find(|(name, _)| *name == path) else {
        return status(StatusCode::NOT_FOUND);
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return status(StatusCode::METHOD_NOT_ALLOWED);
    }
    let mime = mime_guess::from_path(path).first_or_octet_stream();
    let mut response = Response::new(full(Bytes::from_static(content)));
    if let Ok(value) = HeaderValue::from_str(mime.essence_str()) {
        response.headers_mut().insert(header::CONTENT_TYPE, value);
    }
    response
}

/// An answer that is its status alone, in words.
pub(crate) fn status(status: StatusCode) -> Response<Body> {
    text(status, status.canonical_reason().unwrap_or_default())
}

/// An answer in words.
pub(crate) fn text(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(full(Bytes::from(format!("{text}\n"))));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

fn full(content: Bytes) -> Body {
    Full::new(content)
        .map_err(|never: Infallible| match never {})
        .boxed_unsync()
}
