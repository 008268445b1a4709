//! A client of the `line` protocol with deadlines.

use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::wait::in_time;

/// A connected client.
#[derive(Debug)]
pub struct Line {
    stream: BufReader<TcpStream>,
}

impl Line {
    /// Connects.
    ///
    /// # Panics
    ///
    /// When there is no connection.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = in_time("a connection", TcpStream::connect(address))
            .await
            .expect("a connection");
        let _ = stream.set_nodelay(true);
        Self {
            stream: BufReader::new(stream),
        }
    }

    /// Sends a line.
    pub async fn send(&mut self, line: &str) {
        self.write(format!("{line}\n").as_bytes()).await;
    }

    /// Sends bytes as they are.
    ///
    /// # Panics
    ///
    /// When the connection is broken.
    pub async fn write(&mut self, bytes: &[u8]) {
        self.try_write(bytes).await.expect("the connection stands");
    }

    /// Sends bytes as they are, if the connection stands.
    pub async fn try_write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        in_time("a send", self.stream.write_all(bytes)).await
    }

    /// The next line without its end; none at the end of the connection.
    pub async fn next(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = in_time("a line", self.stream.read_line(&mut line)).await;
        if !matches!(read, Ok(1..)) {
            return None;
        }
        Some(line.trim_end_matches(['\r', '\n']).into())
    }

    /// The next line without its end.
    ///
    /// # Panics
    ///
    /// When the connection ends.
    pub async fn text(&mut self) -> String {
        self.next().await.expect("the connection stands")
    }

    /// Reads lines until one holds this text, and gives that one.
    pub async fn until(&mut self, part: &str) -> String {
        loop {
            let line = self.text().await;
            if line.contains(part) {
                return line;
            }
        }
    }

    /// Sends a line and gives the next one that comes.
    pub async fn ask(&mut self, line: &str) -> String {
        self.send(line).await;
        self.text().await
    }

    /// Says that nothing more will come, and gives all that still comes.
    ///
    /// # Panics
    ///
    /// When the connection is broken.
    pub async fn finish(mut self) -> String {
        self.stream.shutdown().await.expect("the connection stands");
        self.rest().await
    }

    /// All that comes to the end of the connection.
    pub async fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        let _ = in_time("the end", self.stream.read_to_end(&mut rest)).await;
        String::from_utf8_lossy(&rest).into_owned()
    }
}
