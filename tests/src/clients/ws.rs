//! A WebSocket client with deadlines.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::wait::in_time;

/// A connected client.
#[derive(Debug)]
pub struct Ws {
    stream: WebSocketStream<TcpStream>,
}

/// What a client can get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
    /// The answer to a ping.
    Pong(Vec<u8>),
    /// A close frame, with its code and reason if it has them.
    Close(Option<(u16, String)>),
    /// The end of the connection, clean or not.
    End,
}

impl Ws {
    /// Connects to the path `/` of a gateway.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::connect_to(address, "/").await
    }

    /// Connects to a path, which may have a query.
    ///
    /// # Panics
    ///
    /// When the handshake fails.
    pub async fn connect_to(address: SocketAddr, path: &str) -> Self {
        match Self::try_connect(address, path).await {
            Ok(client) => client,
            Err(status) => panic!("the handshake at {address}{path} failed with status {status}"),
        }
    }

    /// Connects, or gives the status of the refusal; 0 if there was no answer.
    pub async fn try_connect(address: SocketAddr, path: &str) -> Result<Self, u16> {
        let Ok(socket) = in_time("a connection", TcpStream::connect(address)).await else {
            return Err(0);
        };
        Self::over(socket, address, path).await
    }

    /// Connects with a receive buffer that is as small as can be.
    pub async fn connect_narrow(address: SocketAddr, path: &str) -> Self {
        Self::connect_with_buffer(address, path, 4096).await
    }

    /// Connects with a receive buffer of this size.
    ///
    /// # Panics
    ///
    /// When the handshake fails.
    pub async fn connect_with_buffer(address: SocketAddr, path: &str, size: u32) -> Self {
        let socket = TcpSocket::new_v4().expect("a descriptor is free");
        socket.set_recv_buffer_size(size).expect("a small buffer is allowed");
        let socket = in_time("a connection", socket.connect(address))
            .await
            .expect("a connection");
        Self::over(socket, address, path).await.expect("a handshake")
    }

    async fn over(socket: TcpStream, address: SocketAddr, path: &str) -> Result<Self, u16> {
        let _ = socket.set_nodelay(true);
        let config = WebSocketConfig::default().read_buffer_size(4096);
        let handshake = client_async_with_config(format!("ws://{address}{path}"), socket, Some(config));
        match in_time("a handshake", handshake).await {
            Ok((stream, _)) => Ok(Self { stream }),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(_) => Err(0),
        }
    }

    /// Sends a text message.
    ///
    /// # Panics
    ///
    /// When the connection is broken.
    pub async fn send(&mut self, text: &str) {
        self.try_send(Message::text(text)).await.expect("the connection stands");
    }

    /// Sends a binary message.
    ///
    /// # Panics
    ///
    /// When the connection is broken.
    pub async fn send_binary(&mut self, bytes: Vec<u8>) {
        self.try_send(Message::binary(bytes))
            .await
            .expect("the connection stands");
    }

    /// Sends a ping.
    ///
    /// # Panics
    ///
    /// When the connection is broken.
    pub async fn ping(&mut self, payload: &[u8]) {
        let ping = Message::Ping(payload.to_vec().into());
        self.try_send(ping).await.expect("the connection stands");
    }

    /// Sends a message if the connection stands.
    pub async fn try_send(&mut self, message: Message) -> Result<(), Error> {
        in_time("a send", self.stream.send(message)).await
    }

    /// What comes next. Pings are answered and not shown.
    pub async fn next(&mut self) -> Incoming {
        in_time("a message", self.next_ever()).await
    }

    /// What comes next, however long it takes.
    pub async fn next_ever(&mut self) -> Incoming {
        loop {
            return match self.stream.next().await {
                Some(Ok(Message::Text(text))) => Incoming::Text(text.as_str().into()),
                Some(Ok(Message::Binary(bytes))) => Incoming::Binary(bytes.to_vec()),
                Some(Ok(Message::Pong(payload))) => Incoming::Pong(payload.to_vec()),
                Some(Ok(Message::Close(frame))) => {
                    Incoming::Close(frame.map(|frame| (frame.code.into(), frame.reason.as_str().into())))
                }
                Some(Ok(Message::Ping(_) | Message::Frame(_))) => continue,
                Some(Err(_)) | None => Incoming::End,
            };
        }
    }

    /// The next message, which must be text.
    ///
    /// # Panics
    ///
    /// When it is anything else.
    pub async fn text(&mut self) -> String {
        match self.next().await {
            Incoming::Text(text) => text,
            other => panic!("not a text message: {other:?}"),
        }
    }

    /// Sends a text and gives the next one that comes.
    pub async fn ask(&mut self, text: &str) -> String {
        self.send(text).await;
        self.text().await
    }

    /// Reads to the close frame, then to the end of the connection, and gives code and reason (1005 if there are none).
    ///
    /// # Panics
    ///
    /// When the connection ends without a close frame.
    pub async fn closed(&mut self) -> (u16, String) {
        let frame = loop {
            match self.next().await {
                Incoming::Close(frame) => break frame,
                Incoming::End => panic!("the connection ended without a close frame"),
                _ => {}
            }
        };
        assert_eq!(self.next().await, Incoming::End, "nothing comes after a close");
        let _ = self.stream.get_mut().shutdown().await;
        frame.unwrap_or((1005, String::new()))
    }

    /// Closes with a code and reason, and waits for the end.
    pub async fn close(mut self, code: u16, reason: &str) -> Option<(u16, String)> {
        let frame = CloseFrame {
            code: CloseCode::from(code),
            reason: reason.into(),
        };
        let _ = in_time("a close", self.stream.close(Some(frame))).await;
        loop {
            match self.next().await {
                Incoming::Close(frame) => return frame,
                Incoming::End => return None,
                _ => {}
            }
        }
    }

    /// The TCP connection below, with what was not read from it yet lost.
    pub fn into_socket(self) -> TcpStream {
        self.stream.into_inner()
    }

    /// Breaks the connection with a reset.
    pub fn reset(self) {
        let socket = self.into_socket();
        socket.set_zero_linger().expect("a socket can linger");
    }
}
