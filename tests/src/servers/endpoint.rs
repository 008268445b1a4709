//! An HTTP endpoint that a test plays: what the webhook worker sends to.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::wait::wait_for;

/// An endpoint. It can go down, with all its connections, and come up again at the same address.
pub struct Endpoint {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: Option<JoinSet<()>>,
}

struct Shared {
    answer: Box<dyn Fn(&Post) -> Reply + Send + Sync>,
    posts: Mutex<Vec<Post>>,
    /// Connections that there were.
    connections: AtomicUsize,
}

/// What was sent.
#[derive(Debug, Clone)]
pub struct Post {
    /// The first line.
    pub line: String,
    /// Headers, by their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
}

/// An answer.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    status: u16,
    headers: String,
    body: Vec<u8>,
    gate: Option<Arc<Semaphore>>,
}

impl Reply {
    /// No commands.
    pub fn none() -> Self {
        Self::status(204, "")
    }

    /// A status with a text.
    pub fn status(status: u16, text: &str) -> Self {
        Self::bytes("text/plain; charset=utf-8", text).with_status(status)
    }

    /// Commands.
    pub fn commands(list: &Value) -> Self {
        Self::bytes("application/json", list.to_string())
    }

    /// A body of this type.
    pub fn bytes(content_type: &str, body: impl AsRef<[u8]>) -> Self {
        Self {
            status: 200,
            headers: format!("content-type: {content_type}\r\n"),
            body: body.as_ref().to_vec(),
            gate: None,
        }
    }

    /// The same with another status.
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// The same with one more header.
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    /// The same, once the gate lets it pass.
    pub fn behind(mut self, gate: &Arc<Semaphore>) -> Self {
        self.gate = Some(gate.clone());
        self
    }
}

impl Post {
    /// A header, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The kind of the event: `opened`, `message` or `closed`.
    pub fn kind(&self) -> &str {
        self.header("ce-type").rsplit('.').next().unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Whether it may have been sent before.
    pub fn redelivered(&self) -> bool {
        self.header("ce-meeporedelivered") == "true"
    }
}

impl Endpoint {
    /// Serves at an address, with what answers each POST.
    pub async fn start(address: SocketAddr, answer: impl Fn(&Post) -> Reply + Send + Sync + 'static) -> Self {
        let mut endpoint = Self {
            address,
            shared: Arc::new(Shared {
                answer: Box::new(answer),
                posts: Mutex::default(),
                connections: AtomicUsize::new(0),
            }),
            serving: None,
        };
        endpoint.up().await;
        endpoint
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}/hook?key=1", self.address)
    }

    /// Ends, with all connections.
    pub async fn down(&mut self) {
        if let Some(mut serving) = self.serving.take() {
            serving.shutdown().await;
        }
    }

    /// Serves again.
    ///
    /// # Panics
    ///
    /// When its address does not become free.
    pub async fn up(&mut self) {
        let listener = wait_for("the address is free", async || {
            TcpListener::bind(self.address).await.ok()
        })
        .await;
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, self.shared.clone()));
        self.serving = Some(serving);
    }

    /// All that came so far, in its order.
    pub fn posts(&self) -> Vec<Post> {
        self.shared.posts().clone()
    }

    /// What came so far of one kind.
    pub fn of(&self, kind: &str) -> Vec<Post> {
        let mut posts = self.posts();
        posts.retain(|post| post.kind() == kind);
        posts
    }

    /// Waits until so many of one kind came, and gives them.
    pub async fn when(&self, kind: &str, many: usize) -> Vec<Post> {
        wait_for("the events come", async || {
            Some(self.of(kind)).filter(|posts| posts.len() >= many)
        })
        .await
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn posts(&self) -> MutexGuard<'_, Vec<Post>> {
        self.posts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        shared.connections.fetch_add(1, Ordering::Relaxed);
        let shared = shared.clone();
        connections.spawn(async move {
            let _ = serve(stream, &shared).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    while let Some(post) = read(&mut stream).await? {
        shared.posts().push(post.clone());
        let reply = (shared.answer)(&post);
        if let Some(gate) = &reply.gate
            && let Ok(permit) = gate.acquire().await
        {
            permit.forget();
        }
        let (status, headers, length) = (reply.status, &reply.headers, reply.body.len());
        let length = match status {
            204 => String::new(),
            _ => format!("content-length: {length}\r\n"),
        };
        let mut answer = format!("HTTP/1.1 {status} Status\r\n{headers}{length}\r\n").into_bytes();
        answer.extend(&reply.body);
        stream.write_all(&answer).await?;
    }
    Ok(())
}

async fn read(stream: &mut BufReader<TcpStream>) -> io::Result<Option<Post>> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let mut headers = BTreeMap::new();
    loop {
        let mut header = String::new();
        stream.read_line(&mut header).await?;
        let Some((name, value)) = header.trim_end().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok());
    let mut body = vec![0; length.ok_or_else(|| io::Error::other("no length"))?];
    stream.read_exact(&mut body).await?;
    Ok(Some(Post {
        line: line.trim_end().to_owned(),
        headers,
        body,
    }))
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}
