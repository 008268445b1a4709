//! The rooms behind `meepo-worker` in Python and PHP, which check signatures with their own means, and an endpoint over TLS.

use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use meepo_tests::processes::MARK;
use meepo_tests::{
    DEADLINE, Endpoint, Host, Post, Reply, WebhookCluster, Ws, binaries, http, processes, wait_for, wait_until,
};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Command;

/// An application in another language, until it is dropped.
struct Application {
    mark: String,
    folder: TempDir,
}

impl Application {
    /// Runs a command, until it takes connections.
    async fn start(host: &Host, command: &mut Command) -> Self {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let application = Self {
            mark: folder.path().display().to_string(),
            folder,
        };
        let output = std::fs::File::create(application.log()).expect("the folder is writable");
        let _running = command
            .env(MARK, &application.mark)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a descriptor is free"))
            .stderr(output)
            .spawn()
            .expect("it starts");
        let address = host.endpoint();
        wait_for("the application serves", async || {
            TcpStream::connect(address).await.ok()
        })
        .await;
        application
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        processes::kill_marked(&self.mark);
        if std::thread::panicking() {
            eprintln!(
                "the application:\n{}",
                std::fs::read_to_string(self.log()).unwrap_or_default()
            );
        }
    }
}

/// Whether a program is there, which may be demanded.
async fn has(program: &str, argument: &str, demand: &str) -> bool {
    let run = Command::new(program).arg(argument).stdout(Stdio::null()).status().await;
    let there = run.is_ok_and(|status| status.success());
    if !there {
        assert!(env::var(demand).is_err(), "{program} is needed");
        // Not with `eprintln`, whose words nobody sees when a test passes.
        let _ = writeln!(io::stderr(), "SKIPPED: the test needs {program}");
    }
    there
}

fn example(file: &str) -> PathBuf {
    binaries::workspace().join("examples/webhook").join(file)
}

fn python(host: &Host, secret: &str) -> Command {
    let mut command = Command::new("python3");
    let address = host.endpoint();
    command.arg(example("python/room.py")).args(["--secret", secret]);
    command.args([
        "--host",
        &address.ip().to_string(),
        "--port",
        &address.port().to_string(),
    ]);
    command
}

fn php(host: &Host, secret: &str) -> Command {
    let mut command = Command::new("php");
    command
        .args(["-S", &host.endpoint().to_string()])
        .arg(example("php/room.php"));
    command.env("MEEPO_SECRET", secret).env("PHP_CLI_SERVER_WORKERS", "4");
    command
}

/// Two talk in a room.
async fn talk(cluster: &WebhookCluster) {
    let address = cluster.front.host().ws();
    assert_eq!(
        Ws::try_connect(address, "/").await.err(),
        Some(400),
        "who has no name is turned away"
    );
    let mut ann = cluster.client("/?name=Ann").await;
    assert_eq!(ann.text().await, "hello Ann");
    let mut bob = cluster.client("/?name=B%C3%B6b%20%22").await;
    assert_eq!(bob.text().await, "hello Böb \"");
    assert_eq!(ann.text().await, "Böb \" is here");
    bob.send("grüß dich").await;
    assert_eq!(ann.text().await, "Böb \": grüß dich");
    assert_eq!(ann.ask("/name Anna").await, "Ann is Anna now");
    assert_eq!(bob.text().await, "Ann is Anna now");
    for number in 0..20 {
        ann.send(&number.to_string()).await;
    }
    for number in 0..20 {
        assert_eq!(bob.text().await, format!("Anna: {number}"));
    }
    bob.send_binary(vec![0, 200]).await;
    assert_eq!(bob.text().await, "text only, please");
    bob.send("/quit").await;
    assert_eq!(bob.closed().await, (4000, "goodbye Böb \"".into()));
    assert_eq!(ann.text().await, "Böb \" has left");
    cluster.failed(0).await;
}

/// Posts of a worker with a key: an `opened` and a message.
async fn recorded(host: &Host, cluster: &WebhookCluster) -> [Post; 2] {
    let mut endpoint = Endpoint::start(host.endpoint(), |_| Reply::none()).await;
    let mut client = cluster.client("/?name=Eve").await;
    client.send("once").await;
    let message = endpoint.when("message", 1).await.remove(0);
    let opened = endpoint.of("opened").remove(0);
    drop(client);
    endpoint.when("closed", 1).await;
    endpoint.down().await;
    [opened, message]
}

/// Sends a post again, with other headers, and gives the status of the answer.
async fn replay(host: &Host, post: &Post, changes: &[(&str, &str)]) -> u16 {
    let mut headers = post.headers.clone();
    for (name, value) in changes {
        headers.insert((*name).into(), (*value).into());
    }
    headers.insert("connection".into(), "close".into());
    let head = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
    let request = format!("{}\r\n{}\r\n{}", post.line, head.collect::<String>(), post.text());
    let answer = http::request(host.endpoint(), &request).await;
    answer.expect("there is an answer").status
}

/// What is signed is taken, and not with other headers.
async fn replayed(host: &Host, [opened, message]: &[Post; 2]) {
    assert_eq!(
        (replay(host, opened, &[]).await, replay(host, message, &[]).await),
        (200, 200)
    );
    let subject = opened.header("ce-subject");
    let first = if subject.starts_with('A') { 'B' } else { 'A' };
    let stranger = format!("{first}{}", &subject[1..]);
    let (other, number) = (
        format!("{stranger}:opened"),
        format!("{}:77", opened.header("ce-subject")),
    );
    for (post, changes) in [
        (opened, &[("ce-type", "meepo.client.closed")][..]),
        (opened, &[("ce-type", "meepo.client.message")]),
        (message, &[("ce-type", "meepo.client.opened")]),
        (message, &[("ce-id", &number)]),
        (message, &[("ce-subject", &stranger)]),
        (message, &[("ce-subject", "")]),
        (opened, &[("ce-subject", &stranger), ("ce-id", &other)]),
        (
            opened,
            &[("webhook-id", &other), ("ce-subject", &stranger), ("ce-id", &other)],
        ),
        (message, &[("webhook-signature", "v1,\u{e4}")]),
        (message, &[("webhook-timestamp", "\u{b2}")]),
        (message, &[("webhook-timestamp", "1")]),
    ] {
        assert_eq!(replay(host, post, changes).await, 401, "{changes:?}");
    }
}

/// Nobody gets in while the keys differ.
async fn strangers(cluster: &WebhookCluster) {
    let refused = Ws::try_connect(cluster.front.host().ws(), "/?name=Ann").await;
    assert_eq!(refused.err(), Some(401));
}

#[tokio::test]
async fn the_room_in_python() {
    if !has("python3", "--version", "MEEPO_TEST_PYTHON").await {
        return;
    }
    let host = Host::new();
    // Both keys sign: one is new, the other the application still has.
    let cluster = WebhookCluster::start(&host, "secret = \"new hush\"\nsession = [\"name\"]").await;
    let posts = recorded(&host, &cluster).await;
    let right = Application::start(&host, &mut python(&host, "hush")).await;
    talk(&cluster).await;
    // What it cannot read makes it fail, and not only break off.
    assert_eq!(replay(&host, &posts[1], &[("ce-meeposession", "{")]).await, 500);
    replayed(&host, &posts).await;
    drop(right);
    let _wrong = Application::start(&host, &mut python(&host, "hush!")).await;
    strangers(&cluster).await;
}

#[tokio::test]
async fn the_room_in_php() {
    if !has("php", "--version", "MEEPO_TEST_PHP").await {
        return;
    }
    let host = Host::new();
    let key = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let cluster = WebhookCluster::start(&host, &format!("secret = \"{key}\"\nsession = [\"name\"]")).await;
    let posts = recorded(&host, &cluster).await;
    let right = Application::start(&host, &mut php(&host, key)).await;
    talk(&cluster).await;
    replayed(&host, &posts).await;
    // It cannot answer in JSON, and fails: that is said with a status.
    let failed = Ws::try_connect(host.ws(), "/?name=%FF").await;
    assert_eq!(failed.err(), Some(500));
    cluster.failed(1).await;
    drop(right);
    let _wrong = Application::start(&host, &mut php(&host, "hush")).await;
    strangers(&cluster).await;
}

/// Answers each message with itself, over TLS.
const SECURE: &str = r#"
import http.server, ssl, sys

class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        body = body if self.headers["ce-type"].endswith("message") else b""
        self.send_response(200)
        self.send_header("content-type", "text/plain")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

address, port, cert, key = sys.argv[1:]
server = http.server.ThreadingHTTPServer((address, int(port)), Echo)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(cert, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"#;

/// Makes an authority and a certificate for an address.
async fn certificates(folder: &Path, address: &str) {
    let name = format!("subjectAltName=IP:{address}");
    let new = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ];
    let authority = ["-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority"];
    let leaf = [
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-keyout",
        "leaf.key",
        "-out",
        "leaf.pem",
        "-subj",
        "/CN=leaf",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
        "-addext",
        &name,
    ];
    for arguments in [&authority[..], &leaf] {
        let made = Command::new("openssl")
            .args(new)
            .args(arguments)
            .current_dir(folder)
            .output()
            .await;
        let made = made.expect("openssl runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
}

#[tokio::test]
async fn an_endpoint_over_tls_needs_a_certificate_that_is_known() {
    if !has("python3", "--version", "MEEPO_TEST_PYTHON").await || !has("openssl", "version", "MEEPO_TEST_PYTHON").await
    {
        return;
    }
    let host = Host::new();
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let (address, port) = (host.ip().to_string(), host.endpoint().port().to_string());
    certificates(folder.path(), &address).await;
    let file = |name: &str| folder.path().join(name);
    let mut secure = Command::new("python3");
    secure
        .args(["-c", SECURE, &address, &port])
        .args([file("leaf.pem"), file("leaf.key")]);
    let _secure = Application::start(&host, &mut secure).await;
    let url = format!("https://{address}:{port}/");

    let known = format!("ca_file = \"{}\"", file("ca.pem").display());
    let cluster = WebhookCluster::start_at(&host, &url, &known).await;
    let mut client = cluster.client("/").await;
    assert_eq!(client.ask("safe").await, "safe");
    drop((client, cluster));

    let cluster = WebhookCluster::start_at(&host, &url, "").await;
    let stranger = tokio::spawn(Ws::try_connect(host.ws(), "/"));
    wait_until("the certificate is refused", DEADLINE, async || {
        cluster.worker.output().contains("UnknownIssuer")
    })
    .await;
    stranger.abort();
}
