//! The sites of a `ws` listener: which host name gets which files, and the pages that go with errors.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use tower_http::services::ServeFile;
use tower_service::Service as _;

use crate::config::listen::name_of;
use crate::protocol::http::answer::{Body, harden};
use crate::protocol::http::files::Files;

/// The sites of a listener.
#[derive(Debug, Default)]
pub(crate) struct Sites {
    /// By host name, as [`name_of`] gives it.
    pub(crate) named: HashMap<String, Arc<Site>>,
    /// For all other hosts.
    pub(crate) other: Arc<Site>,
}

/// The files of some hosts, and pages for errors.
#[derive(Debug, Default)]
pub(crate) struct Site {
    pub(crate) files: Files,
    /// The page for what is not there.
    pub(crate) not_found: Option<PathBuf>,
    /// The page for what the gateway cannot answer now.
    pub(crate) error: Option<PathBuf>,
}

impl Sites {
    /// The site that a request is for. `None` if all sites are for other hosts.
    pub(crate) fn of(&self, uri: &Uri, headers: &HeaderMap) -> Option<&Arc<Site>> {
        let site = host_of(uri, headers).and_then(|host| self.named.get(&host));
        let only_named = !self.named.is_empty() && matches!(self.other.files, Files::None);
        site.or((!only_named).then_some(&self.other))
    }
}

impl Site {
    /// Puts the site's page into a response of the gateway's own, if that is an error that has one. Its status stays.
    pub(crate) async fn dress(&self, answer: Response<Body>, method: &Method) -> Response<Body> {
        let status = answer.status();
        let page = match status {
            StatusCode::NOT_FOUND => &self.not_found,
            _ if status.is_server_error() => &self.error,
            _ => &None,
        };
        let Some(page) = page else { return answer };
        let mut asked = Request::new(Empty::<Bytes>::new());
        if method == Method::HEAD {
            *asked.method_mut() = Method::HEAD;
        }
        let Ok(page) = ServeFile::new(page).call(asked).await;
        // A page that has gone since the start leaves the response as it was.
        if page.status() != StatusCode::OK {
            return answer;
        }
        let (page, body) = page.into_parts();
        let (mut head, _) = answer.into_parts();
        for name in [header::CONTENT_TYPE, header::CONTENT_LENGTH] {
            match page.headers.get(&name) {
                Some(value) => head.headers.insert(name, value.clone()),
                None => head.headers.remove(name),
            };
        }
        harden(&mut head.headers);
        Response::from_parts(head, body.map_err(io::Error::other).boxed_unsync())
    }
}

fn host_of(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    match uri.authority() {
        Some(authority) => name_of(authority.as_str()),
        None => name_of(headers.get(header::HOST)?.to_str().ok()?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sites(other: Files) -> Sites {
        let site = || {
            Arc::new(Site {
                files: Files::None,
                ..Site::default()
            })
        };
        Sites {
            named: [("www.example.org".to_owned(), site()), ("[::1]".to_owned(), site())].into(),
            other: Arc::new(Site {
                files: other,
                ..Site::default()
            }),
        }
    }

    fn is_named(sites: &Sites, uri: &str, host: Option<&str>) -> Option<bool> {
        let mut headers = HeaderMap::new();
        if let Some(host) = host {
            headers.insert(header::HOST, host.parse().unwrap());
        }
        let site = sites.of(&uri.parse().unwrap(), &headers)?;
        Some(sites.named.values().any(|named| Arc::ptr_eq(named, site)))
    }

    #[test]
    fn a_host_is_found_in_any_case_and_with_any_port() {
        const PAGE: &[crate::protocol::http::files::Asset] = &[("/index.html", b"")];
        for (uri, host, named) in [
            ("/", Some("www.example.org"), true),
            ("/", Some("WWW.Example.ORG:8080"), true),
            ("/", Some("www.example.org."), true),
            ("/", Some("[::1]:80"), true),
            ("/", Some("example.org"), false),
            ("/", Some("www.example.org.evil.test"), false),
            ("/", Some("a b"), false),
            ("/", Some(""), false),
            ("/", None, false),
            // The host of the request line counts, not the header (RFC 9112, 3.2.2).
            ("http://www.example.org/", Some("example.org"), true),
            ("http://example.org/", Some("www.example.org"), false),
        ] {
            assert_eq!(
                is_named(&sites(Files::Assets(PAGE)), uri, host),
                Some(named),
                "{uri} {host:?}"
            );
            let only_named = is_named(&sites(Files::None), uri, host);
            assert_eq!(only_named, named.then_some(true), "{uri} {host:?}");
        }
        let none = Sites::default();
        assert_eq!(is_named(&none, "/", Some("example.org")), Some(false));
    }
}
