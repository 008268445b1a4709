//! Plain requests: one, or several over one connection.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::wait::in_time;

/// An answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The head, as it came.
    pub head: String,
    /// The body.
    pub body: String,
}

impl Response {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// Asks for a path.
pub async fn get(address: SocketAddr, path: &str) -> Response {
    request(
        address,
        &format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"),
    )
    .await
    .unwrap_or_else(|| panic!("no answer to GET {path}"))
}

/// Sends JSON to a path, with a bearer token if it is not empty.
pub async fn post(address: SocketAddr, path: &str, token: &str, body: &str) -> Response {
    let authorization = match token {
        "" => String::new(),
        token => format!("authorization: Bearer {token}\r\n"),
    };
    let length = body.len();
    request(
        address,
        &format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{authorization}\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        ),
    )
    .await
    .unwrap_or_else(|| panic!("no answer to POST {path}"))
}

/// Sends bytes and reads the answer to the end of the connection; none if there is no proper answer.
pub async fn request(address: SocketAddr, request: &str) -> Option<Response> {
    in_time("an answer", async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Response {
            status,
            head: head.into(),
            body: body.into(),
        })
    })
    .await
}

/// A connection over which one request follows the other.
#[derive(Debug)]
pub struct Http {
    stream: BufReader<TcpStream>,
    host: String,
}

impl Http {
    /// Connects.
    ///
    /// # Panics
    ///
    /// When nobody listens there.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = in_time("a connection", TcpStream::connect(address)).await;
        Self {
            stream: BufReader::new(stream.expect("somebody listens")),
            host: address.to_string(),
        }
    }

    /// Sends bytes as they are. What the other end does not take any more is not sent.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = in_time("room for a request", self.stream.write_all(bytes.as_ref())).await;
    }

    /// Sends a request.
    pub async fn request(&mut self, method: &str, target: &str, body: &str) {
        let host = &self.host;
        let length = body.len();
        let text = format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\n\r\n{body}");
        self.send(text).await;
    }

    /// Sends a request and reads its answer.
    pub async fn ask(&mut self, method: &str, target: &str, body: &str) -> Response {
        self.request(method, target, body).await;
        let answer = match method {
            "HEAD" => self.head().await,
            _ => self.answer().await,
        };
        answer.unwrap_or_else(|| panic!("no answer to {method} {target}"))
    }

    /// Reads the head of an answer, such as one that has no body. None if the connection has ended.
    pub async fn head(&mut self) -> Option<Response> {
        let mut head = String::new();
        in_time("the head of an answer", async {
            while !head.ends_with("\r\n\r\n") {
                if self.stream.read_line(&mut head).await.ok()? == 0 {
                    return None;
                }
            }
            Some(())
        })
        .await?;
        Some(Response {
            status: head.split(' ').nth(1)?.parse().ok()?,
            head: head.trim_end().into(),
            body: String::new(),
        })
    }

    /// Reads an answer. None if the connection has ended.
    pub async fn answer(&mut self) -> Option<Response> {
        let response = self.head().await?;
        let length = response.header("content-length").and_then(|length| length.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        in_time("the body of an answer", self.stream.read_exact(&mut body))
            .await
            .ok()?;
        Some(Response {
            body: String::from_utf8_lossy(&body).into_owned(),
            ..response
        })
    }

    /// Reads so many bytes, or as many as come before the connection ends, and gives how many.
    pub async fn rest_of(&mut self, length: u64) -> u64 {
        let mut rest = (&mut self.stream).take(length);
        let mut some = vec![0; 64 << 10];
        in_time("the rest of an answer", async {
            while rest.read(&mut some).await.is_ok_and(|read| read > 0) {}
        })
        .await;
        length - rest.limit()
    }

    /// Waits until the other end has closed the connection, and gives what came before. An error if it was reset.
    pub async fn rest(&mut self) -> io::Result<String> {
        let mut rest = Vec::new();
        in_time("the end of the connection", self.stream.read_to_end(&mut rest)).await?;
        Ok(String::from_utf8_lossy(&rest).into_owned())
    }
}
