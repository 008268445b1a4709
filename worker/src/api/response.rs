//! The response to a forwarded request.

use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use meepo_proto::RequestNumber;
use meepo_proto::link as wire;
use serde::Serialize;

/// The response to a [`Request`](crate::Request).
///
/// ```
/// use meepo_worker::Response;
/// use serde::Serialize;
///
/// #[derive(Serialize)]
/// struct Dish {
///     name: &'static str,
/// }
///
/// let created = Response::json(&Dish { name: "soup" }).with_status(201).with_header("location", "/api/dishes/1");
/// assert_eq!(created.status(), 201);
/// assert_eq!(Response::text("hello").body(), "hello");
/// let moved = Response::new(303).with_header("location", "/");
/// # assert_eq!(created.headers()["content-type"], "application/json");
/// # assert_eq!(moved.headers()["location"], "/");
/// ```
///
/// A status outside 200 to 599, a header that is not valid or a value that cannot be JSON is logged when the response is
/// sent, and the client gets 500. Headers about the connection, such as `content-length`, are the gateway's: it leaves out
/// those that are set here.
#[derive(Clone)]
pub struct Response {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
    /// The first fault: the response is not sent.
    fault: Option<Fault>,
}

/// Why a response cannot be sent.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Fault {
    #[error("status {0} is not one of 200 to 599")]
    Status(u16),
    #[error("`{}` is not the name of a header", .0.escape_debug())]
    Name(String),
    #[error("header `{0}` has a value that is not valid")]
    Value(String),
    #[error("there are too many headers")]
    TooMany,
    #[error("the value cannot be JSON: {0}")]
    Json(String),
    #[error("the response is larger than the gateway's `max_message`")]
    TooBig,
}

impl Response {
    /// A response without headers and body.
    pub fn new(status: u16) -> Self {
        Self {
            status: 200,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            fault: None,
        }
        .with_status(status)
    }

    /// 200, with text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::typed("text/plain; charset=utf-8", text.into())
    }

    /// 200, with a page.
    pub fn html(page: impl Into<String>) -> Self {
        Self::typed("text/html; charset=utf-8", page.into())
    }

    /// 200, with a value as JSON.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self::typed("application/json", body),
            Err(error) => Self::new(500).faulty(Fault::Json(error.to_string())),
        }
    }

    fn typed(mime: &'static str, body: impl Into<Bytes>) -> Self {
        let mut response = Self::new(200).with_body(body);
        response
            .headers
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(mime));
        response
    }

    /// The same with another status, of 200 to 599.
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        match status {
            200..600 => self,
            _ => self.faulty(Fault::Status(status)),
        }
    }

    /// The same with a header. `set-cookie` is added to those that are there; any other takes the place of an earlier one
    /// of its name.
    pub fn with_header(mut self, name: impl AsRef<str>, value: impl AsRef<[u8]>) -> Self {
        let name = name.as_ref();
        let Ok(key) = name.parse::<HeaderName>() else {
            return self.faulty(Fault::Name(name.to_owned()));
        };
        let Ok(value) = HeaderValue::from_bytes(value.as_ref()) else {
            return self.faulty(Fault::Value(name.to_owned()));
        };
        let put = match key {
            header::SET_COOKIE => self.headers.try_append(key, value).map(drop),
            _ => self.headers.try_insert(key, value).map(drop),
        };
        match put {
            Ok(()) => self,
            Err(_) => self.faulty(Fault::TooMany),
        }
    }

    /// The same with a body.
    pub fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The body.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    fn faulty(mut self, fault: Fault) -> Self {
        self.fault.get_or_insert(fault);
        self
    }

    pub(crate) fn into_wire(self, request: RequestNumber) -> Result<wire::Respond, Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let headers = self.headers.iter().map(|(name, value)| wire::Header {
            name: name.as_str().to_owned(),
            value: Bytes::copy_from_slice(value.as_bytes()),
        });
        Ok(wire::Respond {
            request_number: request.0,
            status: self.status.into(),
            headers: headers.collect(),
            body: self.body,
        })
    }
}

/// Headers carry cookies and tokens: only their names are shown.
impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("headers", &self.headers.keys().collect::<Vec<_>>())
            .field("body", &self.body.len())
            .field("fault", &self.fault)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn what_is_set_wrongly_is_told_and_the_first_fault_counts() {
        let keys: BTreeMap<(u8, u8), u8> = [((1, 2), 3)].into();
        for (response, told) in [
            (Response::new(101), "status 101"),
            (Response::text("a").with_status(600), "status 600"),
            (
                Response::new(200).with_header("a b", "c").with_header("x", "\n"),
                "`a b`",
            ),
            (
                Response::new(200).with_header("x-name", "a\r\nset-cookie: b"),
                "`x-name`",
            ),
            (Response::new(200).with_header("", "a"), "``"),
            (Response::json(&keys), "JSON"),
        ] {
            let fault = response
                .into_wire(RequestNumber(1))
                .expect_err("it is refused")
                .to_string();
            assert!(fault.contains(told), "{fault}");
        }
    }

    #[test]
    fn a_header_takes_the_place_of_another_except_cookies() {
        let response = Response::text("a")
            .with_header("Content-Type", "text/csv")
            .with_header("set-cookie", "a=1")
            .with_header("Set-Cookie", "b=2");
        let sent = response.into_wire(RequestNumber(7)).expect("it is valid");
        let headers: Vec<_> = sent
            .headers
            .iter()
            .map(|header| (&*header.name, &*header.value))
            .collect();
        assert_eq!(
            headers,
            [
                ("content-type", &b"text/csv"[..]),
                ("set-cookie", b"a=1"),
                ("set-cookie", b"b=2")
            ]
        );
        assert_eq!((sent.request_number, sent.status), (7, 200));
    }
}
