//! A WebSocket client that writes frames by hand, and so can break the protocol.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::wait::in_time;

/// Opcode of a continuation.
pub const CONTINUATION: u8 = 0;
/// Opcode of text.
pub const TEXT: u8 = 1;
/// Opcode of a close.
pub const CLOSE: u8 = 8;
/// Opcode of a ping.
pub const PING: u8 = 9;
/// Opcode of a pong.
pub const PONG: u8 = 10;
/// The bit of the last frame of a message.
pub const FIN: u8 = 0x80;
/// The first reserved bit.
pub const RSV1: u8 = 0x40;

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A client after its handshake.
#[derive(Debug)]
pub struct Raw {
    stream: TcpStream,
}

/// A frame that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Bits and opcode.
    pub head: u8,
    /// The payload.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The code of a close frame, none if it is empty.
    pub fn close_code(&self) -> Option<u16> {
        assert_eq!(self.head, FIN | CLOSE, "not a close frame: {self:?}");
        Some(u16::from_be_bytes([*self.payload.first()?, *self.payload.get(1)?]))
    }
}

impl Raw {
    /// Connects to the path `/`.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::connect_with(address, "", None).await.0
    }

    /// Connects with more headers (each with its line end) and, if given, a receive buffer of this size; also gives the
    /// answer's head.
    ///
    /// # Panics
    ///
    /// When the handshake fails.
    pub async fn connect_with(address: SocketAddr, headers: &str, buffer: Option<u32>) -> (Self, String) {
        let socket = TcpSocket::new_v4().expect("a descriptor is free");
        if let Some(size) = buffer {
            socket.set_recv_buffer_size(size).expect("a small buffer is allowed");
        }
        let stream = in_time("a connection", socket.connect(address))
            .await
            .expect("a connection");
        let _ = stream.set_nodelay(true);
        let mut client = Self { stream };
        client
            .write(
                format!(
                    "GET / HTTP/1.1\r\nhost: {address}\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
                     sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
                )
                .as_bytes(),
            )
            .await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 101 "), "the handshake failed: {head}");
        (client, head)
    }

    /// Reads the head of an answer.
    async fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let byte = in_time("an answer", self.stream.read_u8()).await;
            head.push(byte.unwrap_or_else(|error| panic!("{error} after {:?}", String::from_utf8_lossy(&head))));
        }
        String::from_utf8_lossy(&head).into_owned()
    }

    /// Writes bytes as they are.
    ///
    /// # Panics
    ///
    /// When the connection is broken.
    pub async fn write(&mut self, bytes: &[u8]) {
        self.try_write(bytes).await.expect("the connection stands");
    }

    /// Writes bytes as they are, if the connection stands.
    pub async fn try_write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        in_time("a send", self.stream.write_all(bytes)).await
    }

    /// Writes a frame; `head` has its bits and opcode.
    pub async fn frame(&mut self, head: u8, payload: &[u8]) {
        self.write(&frame(head, payload)).await;
    }

    /// The next frame; none at the end of the connection.
    pub async fn next(&mut self) -> Option<Frame> {
        in_time("a frame", self.read()).await
    }

    /// The next frame that closes, after which the connection ends. Gives its code.
    ///
    /// # Panics
    ///
    /// When the connection ends without one.
    pub async fn closed(&mut self) -> Option<u16> {
        loop {
            let frame = self.next().await.expect("a close frame comes before the end");
            if frame.head == FIN | CLOSE {
                // The answer that the protocol asks for.
                let _ = self.try_write(&self::frame(FIN | CLOSE, &frame.payload)).await;
                assert!(
                    self.ends(Duration::from_secs(10)).await,
                    "the server ends the connection"
                );
                return frame.close_code();
            }
        }
    }

    /// Whether the server ends the connection within this time.
    pub async fn ends(&mut self, limit: Duration) -> bool {
        timeout(limit, async { while self.read().await.is_some() {} })
            .await
            .is_ok()
    }

    /// Ends the connection in good order: what has come is read, or the end would be a reset.
    pub fn end(self) {
        let mut bytes = [0; 4096];
        while self.stream.try_read(&mut bytes).is_ok_and(|read| read > 0) {}
    }

    /// Breaks the connection with a reset.
    pub fn reset(self) {
        self.stream.set_zero_linger().expect("a socket can linger");
    }

    async fn read(&mut self) -> Option<Frame> {
        let head = self.stream.read_u8().await.ok()?;
        let length = match self.stream.read_u8().await.ok()? {
            126 => u64::from(self.stream.read_u16().await.ok()?),
            127 => self.stream.read_u64().await.ok()?,
            length => u64::from(length),
        };
        let mut payload = vec![0; usize::try_from(length).ok()?];
        self.stream.read_exact(&mut payload).await.ok()?;
        Some(Frame { head, payload })
    }
}

/// The bytes of a masked frame.
pub fn frame(head: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header(head, payload.len() as u64);
    bytes.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

/// The header of a masked frame that declares a length.
pub fn header(head: u8, length: u64) -> Vec<u8> {
    let mut bytes = vec![head];
    match length {
        0..126 => bytes.push(0x80 | length as u8),
        126..0x1_0000 => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes.extend(KEY);
    bytes
}
