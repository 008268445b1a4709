//! Files that a `ws` listener serves beside its WebSocket: a folder, or the program's own page.

use std::io;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use tower_http::services::ServeDir;
use tower_service::Service as _;

use crate::protocol::http::answer::{Body, full, harden, status};

/// A file of the program: its path from the root, such as `/index.html`, and its content.
pub(crate) type Asset = (&'static str, &'static [u8]);

/// Where files come from.
#[derive(Debug, Clone, Default)]
pub(crate) enum Files {
    /// There are none.
    #[default]
    None,
    /// A folder.
    Dir(ServeDir),
    /// The program's own.
    Assets(&'static [Asset]),
}

impl Files {
    /// The file that the request is for, or 404.
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
