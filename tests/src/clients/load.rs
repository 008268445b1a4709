//! Clients that number what they send, and note what they get.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::ws::{Incoming, Ws};

/// How long a client waits for the last answers.
const PATIENCE: Duration = Duration::from_secs(60);

/// Clients under way. Each sends `token:1`, `token:2`, … and gets them back; one that loses its connection comes again
/// as a new client, with a new token.
#[derive(Debug)]
pub struct Load {
    stop: CancellationToken,
    clients: JoinSet<Vec<Life>>,
}

/// One connection of a client.
#[derive(Debug, Clone)]
pub struct Life {
    /// What its messages begin with; also the query of its request.
    pub token: String,
    /// The number of the last message that was sent.
    pub sent: u64,
    /// All that came, in its order.
    pub got: Vec<String>,
    /// The last message has come back.
    answered: bool,
    /// The close code, if the gateway ended it; 1006 without one. None if the client ended it, with everything answered.
    pub lost: Option<u16>,
}

impl Load {
    /// Starts so many clients, spread over the addresses. Each sends a message every 10 to 30 ms.
    pub fn start(addresses: &[SocketAddr], clients: usize) -> Self {
        let stop = CancellationToken::new();
        let mut set = JoinSet::new();
        for index in 0..clients {
            let address = addresses[index % addresses.len()];
            let stop = stop.clone();
            set.spawn(async move {
                let mut lives = Vec::new();
                for attempt in 0.. {
                    if stop.is_cancelled() {
                        break;
                    }
                    // A worker may have seen an attempt that failed here.
                    let token = format!("c{index}-{attempt}");
                    match Ws::try_connect(address, &format!("/?{token}")).await {
                        Ok(socket) => lives.push(live(socket, token, &stop).await),
                        // Nobody is there just now.
                        Err(_) => sleep(Duration::from_millis(50)).await,
                    }
                }
                lives
            });
        }
        Self { stop, clients: set }
    }

    /// Lets every client wait for what it has not got yet, and close. Gives all connections that there were, by token.
    pub async fn finish(mut self) -> BTreeMap<String, Life> {
        self.stop.cancel();
        let mut all = BTreeMap::new();
        while let Some(lives) = self.clients.join_next().await {
            let lives = lives.expect("no client failed");
            all.extend(lives.into_iter().map(|life| (life.token.clone(), life)));
        }
        all
    }
}

async fn live(mut socket: Ws, token: String, stop: &CancellationToken) -> Life {
    let mut life = Life::new(&token);
    while !stop.is_cancelled() {
        tokio::select! {
            () = stop.cancelled() => {}
            incoming = socket.next_ever() => {
                if life.take(incoming) {
                    return life;
                }
            }
            () = sleep(Duration::from_millis(fastrand::u64(10..30))) => {
                let text = format!("{}:{}", life.token, life.sent + 1);
                // An error is seen by reading as well, with its code.
                if socket.try_send(Message::text(text)).await.is_ok() {
                    life.sent += 1;
                    life.answered = false;
                } else {
                    while !life.take(socket.next().await) {}
                    return life;
                }
            }
        }
    }
    while !life.answered {
        // An answer that never comes is found by the checker.
        let Ok(incoming) = timeout(PATIENCE, socket.next_ever()).await else {
            break;
        };
        if life.take(incoming) {
            return life;
        }
    }
    let _ = socket.close(1000, "").await;
    life
}

impl Life {
    /// A connection as a client remembers it.
    pub fn new(token: &str) -> Self {
        Self {
            token: token.into(),
            sent: 0,
            got: Vec::new(),
            answered: true,
            lost: None,
        }
    }

    /// Notes what came. True if it was the end.
    fn take(&mut self, incoming: Incoming) -> bool {
        match incoming {
            Incoming::Text(text) => {
                self.answered |= text == format!("{}:{}", self.token, self.sent);
                self.got.push(text);
            }
            Incoming::Binary(bytes) => self.got.push(format!("{} bytes", bytes.len())),
            Incoming::Pong(_) => {}
            Incoming::Close(frame) => {
                self.lost = Some(frame.map_or(1005, |(code, _)| code));
                return true;
            }
            Incoming::End => {
                self.lost = Some(1006);
                return true;
            }
        }
        false
    }
}
