//! A forwarded request: HTTP that a gateway hands to workers.

use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use meepo_proto::link as wire;
use serde::de::DeserializeOwned;

use crate::api::cluster::Cluster;
use crate::api::event::hello::{Hello, value_of};

/// A request over HTTP to a path that the gateway's listener has in `requests`.
///
/// ```
/// # use meepo_worker::Request;
/// # use serde::Deserialize;
/// #[derive(Deserialize)]
/// struct Order {
///     dish: String,
/// }
///
/// fn what(request: &Request) -> String {
///     match (request.method(), request.path()) {
///         ("GET", "/api/menu") => format!("the menu in {}", request.query_value("lang").unwrap_or_default()),
///         ("POST", "/api/orders") => match request.json::<Order>() {
///             Ok(order) => format!("{} for {:?}", order.dish, request.cookie("guest")),
///             Err(error) => format!("not an order: {error}"),
///         },
///         _ => "nothing".into(),
///     }
/// }
/// # let menu = Request::new("GET", "/api/menu?lang=de");
/// # assert_eq!(what(&menu), "the menu in de");
/// # let order = Request::new("POST", "/api/orders").with_header("cookie", "a=b; guest=7")?.with_body(r#"{"dish": "soup"}"#);
/// # assert_eq!(what(&order), "soup for Some(\"7\")");
/// # assert!(what(&Request::new("POST", "/api/orders").with_body("soup")).starts_with("not an order"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Request {
    method: String,
    hello: Hello,
    headers: HeaderMap,
    body: Bytes,
    redelivered: bool,
    cluster: Cluster,
}

impl Request {
    /// A request for tests of a handler's own parts: a method, and a path with or without a query. Its cluster has no
    /// gateways.
    pub fn new(method: impl Into<String>, target: &str) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Self {
            method: method.into(),
            hello: Hello::new("127.0.0.1:1", "http").with_path(path).with_query(query),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            redelivered: false,
            cluster: Cluster::without_gateways(),
        }
    }

    /// The same with one header more.
    ///
    /// # Errors
    ///
    /// When the name or the value is not valid in a header, or there are too many headers.
    pub fn with_header(mut self, name: impl AsRef<str>, value: impl AsRef<[u8]>) -> Result<Self, http::Error> {
        let name: HeaderName = name.as_ref().parse()?;
        let value = HeaderValue::from_bytes(value.as_ref())?;
        self.headers.try_append(name, value)?;
        Ok(self)
    }

    /// The same with a body.
    pub fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) fn from_wire(request: wire::Request, redelivered: bool, cluster: Cluster) -> Self {
        let mut handshake = request.handshake.unwrap_or_default();
        let mut headers = HeaderMap::new();
        for wire::Header { name, value } in std::mem::take(&mut handshake.headers) {
            // The gateway's HTTP library has checked them, and bounded their number.
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_maybe_shared(value)) {
                let _ = headers.try_append(name, value);
            }
        }
        Self {
            method: request.method,
            hello: handshake.into(),
            headers,
            body: request.body,
            redelivered,
            cluster,
        }
    }

    /// The method, as it was sent: `GET`, `POST`, … A `HEAD` comes as such; answer it like a `GET`, the gateway leaves the
    /// body out.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// The path as it was sent, with its percent signs.
    pub fn path(&self) -> &str {
        self.hello.path()
    }

    /// The query: what follows the `?` in the address, as it was sent.
    pub fn query(&self) -> &str {
        self.hello.query()
    }

    /// The first value of a key in the query, decoded. A key without `=` has the empty value.
    pub fn query_value(&self, key: &str) -> Option<String> {
        self.hello.query_value(key)
    }

    /// The first value of a header that is text. Upper and lower case of the name are the same.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        values.find_map(|value| std::str::from_utf8(value.as_bytes()).ok())
    }

    /// All headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The value of a cookie.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        let values = self.headers.get_all(http::header::COOKIE).iter();
        let pairs = values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(';'));
        let mut pairs = pairs.filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// The body, whole. It has at most as many bytes as the gateway's setting `max_message`.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The body, if it is text (UTF-8).
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.body).ok()
    }

    /// The body as a value in JSON.
    ///
    /// # Errors
    ///
    /// When the body is not JSON, or not JSON of this type.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }

    /// The first value of a key in a form that a page has sent with `POST` (`application/x-www-form-urlencoded`), decoded.
    pub fn form_value(&self, key: &str) -> Option<String> {
        value_of(self.text()?, key)
    }

    /// The address and port from which the request came.
    pub fn peer(&self) -> &str {
        self.hello.peer()
    }

    /// Whether another worker was given the request before, and ended before it was done: the request may have been handled
    /// then. Only for methods that may be repeated: `GET`, `HEAD`, `OPTIONS`, `TRACE`, `PUT`, `DELETE`.
    pub fn redelivered(&self) -> bool {
        self.redelivered
    }

    /// All gateways and their clients. A request that was made with [`Request::new`] has a cluster without gateways: nobody
    /// is online there, and what is sent to a client fails.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }
}

/// Headers carry cookies and tokens, and so does a query: only names are shown.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("path", &self.path())
            .field("peer", &self.peer())
            .field("headers", &self.headers.keys().collect::<Vec<_>>())
            .field("body", &self.body.len())
            .field("redelivered", &self.redelivered)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_made_for_a_test_has_a_cluster_where_nobody_is_online() {
        let request = Request::new("GET", "/");
        request.cluster().all().send("to nobody");
        let online = request.cluster().count().await;
        assert_eq!((online.value, online.is_complete()), (0, true));
    }

    #[test]
    fn headers_and_cookies_are_found_and_not_shown() {
        let request = Request::new("GET", "/api?token=secret")
            .with_header("Cookie", "a=1; session=x=y")
            .and_then(|request| request.with_header("cookie", "b=2;c"))
            .expect("they are valid")
            .with_body(&b"\xff"[..]);
        for (name, value) in [
            ("a", Some("1")),
            ("session", Some("x=y")),
            ("b", Some("2")),
            ("c", None),
            ("A", None),
        ] {
            assert_eq!(request.cookie(name), value, "{name}");
        }
        assert_eq!(request.header("COOKIE"), Some("a=1; session=x=y"));
        assert_eq!(request.header("not a name"), None);
        assert_eq!(
            (request.text(), request.path(), request.query()),
            (None, "/api", "token=secret")
        );
        let form = Request::new("POST", "/").with_body("a=1&name=J%C3%BCrgen+M");
        assert_eq!(form.form_value("name").as_deref(), Some("Jürgen M"));
        assert_eq!((form.form_value("b"), request.form_value("a")), (None, None));
        for (name, value) in [("a b", "c"), ("", "c"), ("a", "b\r\nc: d")] {
            assert!(request.clone().with_header(name, value).is_err(), "{name:?}");
        }
        let shown = format!("{request:?}");
        assert!(!shown.contains("x=y") && !shown.contains("secret"), "{shown}");
    }
}
