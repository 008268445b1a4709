//! A worker in Python beside one in Rust: both serve one chat room in one cluster.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::process::Stdio;

use meepo_tests::processes::MARK;
use meepo_tests::{DEADLINE, Host, Http, Incoming, Node, Ws, binaries, in_time, processes, wait_until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::timeout;

const SPEAKERS: usize = 8;
const MESSAGES: usize = 150;

/// Python with what the example needs: the one of the system, for which Debian has packages.
const PYTHON: &str = "/usr/bin/python3";

/// Answers with its pid and whether the event was handled before. Over HTTP it does what the path says.
const SLOW: &str = r#"
import asyncio, os, meepo

class Slow(meepo.App):
    async def on_message(self, client, message):
        await asyncio.sleep(0.03)
        client.send(f"{os.getpid()} {client.redelivered} {message.data}")

    async def on_last_words(self, client, reload):
        client.send("back in a moment" if reload else "the service is stopping")

    async def on_request(self, request):
        what = request.hello.path.removeprefix("/api/")
        if what == "fail":
            raise ValueError("a secret")
        if what == "big":
            return meepo.Response(200, b"x" * (2 << 20))
        if what == "wrong":
            return meepo.Response(101)
        if what == "hang" and not request.redelivered:
            await asyncio.sleep(3600)
        if what == "nothing":
            return await super().on_request(request)
        text = f"{request.method} {request.hello.query} {len(request.body)} {request.redelivered} {os.getpid()}"
        return meepo.Response(201, text, [("x-test", "yes")])

meepo.run(Slow())
"#;

/// Pauses for a moment, sends more than there is room for, and tells of both.
const TOLD: &str = r#"
import asyncio, meepo

class Told(meepo.App):
    async def on_message(self, client, message):
        if message.data == "burst":
            for _ in range(120):
                client.send("x" * 100_000)
        elif message.data == "pause":
            client.pause()
            client.send("paused")
            asyncio.get_running_loop().call_later(0.5, client.resume)
        else:
            client.send(f"{client.paused} {message.data}")

    async def on_buffer_full(self, client):
        client.set("news", "full")

    async def on_buffer_empty(self, client):
        client.send(client.get("news", "") + ", empty")

meepo.run(Told())
"#;

/// The example's code that is generated, in a folder of a test's own.
struct Example {
    folder: TempDir,
    mark: String,
}

/// A worker in Python.
struct Worker {
    process: Child,
    log: std::path::PathBuf,
}

impl Example {
    /// None where Python has no gRPC and none is demanded.
    async fn generate() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let made = Command::new("sh")
            .arg(binaries::workspace().join("examples/python/generate"))
            .arg(folder.path())
            .output()
            .await
            .expect("there is a shell");
        let imports = Command::new(PYTHON)
            .args(["-c", "import grpc, google.protobuf"])
            .output()
            .await;
        if !made.status.success() || !imports.is_ok_and(|imports| imports.status.success()) {
            let needed =
                "the Python test needs Debian's packages python3-grpcio, python3-protobuf and protobuf-compiler";
            let demanded = env::var("MEEPO_TEST_PYTHON").is_ok_and(|value| value == "1");
            assert!(!demanded, "{needed}: {}", String::from_utf8_lossy(&made.stderr));
            // Not with `eprintln`, whose words nobody sees when a test passes.
            let _ = writeln!(io::stderr(), "SKIPPED: {needed}");
            return None;
        }
        Some(Self {
            mark: folder.path().display().to_string(),
            folder,
        })
    }

    /// Starts the chat in Python and waits until it has a link to each gateway child.
    async fn start(&self, registry: &Host, gateways: usize) -> Worker {
        let chat = binaries::workspace().join("examples/python/chat.py");
        self.start_program(&chat, registry, gateways).await
    }

    /// The same with a worker that takes its time and says who answers.
    async fn start_slow(&self, registry: &Host, gateways: usize) -> Worker {
        self.start_text(SLOW, registry, gateways).await
    }

    async fn start_text(&self, text: &str, registry: &Host, gateways: usize) -> Worker {
        let program = self.folder.path().join("app.py");
        fs::write(&program, text).expect("the folder is writable");
        self.start_program(&program, registry, gateways).await
    }

    async fn start_program(&self, program: &Path, registry: &Host, gateways: usize) -> Worker {
        let log = self.folder.path().join(format!("log-{}", fastrand::u32(..)));
        let output = File::create(&log).expect("the folder is writable");
        let path = env::join_paths([self.folder.path(), &binaries::workspace().join("examples/python")]);
        let path = path.expect("the folders have no colon");
        let process = Command::new(PYTHON)
            .arg(program)
            .args(["--registry", &registry.registry().to_string(), "--log", "DEBUG"])
            .env("PYTHONPATH", path)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env(MARK, &self.mark)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .expect("Python starts");
        let worker = Worker { process, log };
        wait_until("its links are up", DEADLINE, async || {
            worker.log().matches("link is up").count() >= gateways
        })
        .await;
        worker
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        processes::kill_marked(&self.mark);
    }
}

impl Worker {
    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn pid(&self) -> u32 {
        self.process.id().expect("it was not waited for")
    }

    fn signal(&self, signal: Signal) {
        processes::signal(self.pid(), signal);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the worker in Python:\n{}", self.log());
        }
    }
}

/// Reads messages until one has this name, and gives what belongs to it.
async fn next(page: &mut Ws, name: &str) -> Value {
    loop {
        let message: Value = serde_json::from_str(&page.text().await).expect("JSON comes from the server");
        if let Some(what) = message.get(name) {
            return what.clone();
        }
    }
}

async fn join(front: &Node, name: &str) -> Ws {
    let mut page = Ws::connect_to(front.host().ws(), "/ws").await;
    page.send(&json!({"join": [name, "lobby", format!("{name}'s key")]}).to_string())
        .await;
    assert_eq!(next(&mut page, "you").await, json!({"name": name, "room": "lobby"}));
    page
}

/// Clients that the worker in Rust serves.
async fn served(worker: &Node) -> u64 {
    worker.status().await.instance("worker").sum(|child| child.connections)
}

async fn gateway(registry: &Node, children: usize) -> Node {
    let gateway = Node::build("meepo-gateway")
        .registry(registry.host())
        .set_listen("ws", "requests = [\"/api/\"]");
    gateway.set("gateway", &format!("children = {children}")).start().await
}

/// Registry and gateway, and a worker in Rust.
async fn cluster() -> (Node, Node, Node) {
    let registry = Node::build("meepo-registry").start().await;
    // One child: a worker that ends says `done` on one link, and may not have sent all over another.
    let front = gateway(&registry, 1).await;
    let rust = Node::build("chat")
        .registry(registry.host())
        .only("worker")
        .set("worker", "children = 1")
        .start()
        .await;
    (registry, front, rust)
}

/// Has all speakers say their numbers and counts what the listener hears of each, in the order of the first time.
///
/// `halfway` is done once a part was heard.
async fn conversation(
    speakers: &mut [Ws],
    listener: &mut Ws,
    halfway: impl FnOnce(),
) -> BTreeMap<String, Vec<(usize, usize)>> {
    let mut heard: BTreeMap<String, Vec<(usize, usize)>> = BTreeMap::new();
    let all = speakers.len() * MESSAGES;
    let say = async {
        for number in 0..MESSAGES {
            for speaker in speakers.iter_mut() {
                speaker.send(&json!({"say": number.to_string()}).to_string()).await;
                // What they are told has to be read, and is of no interest.
                while let Ok(what) = timeout(std::time::Duration::ZERO, speaker.next_ever()).await {
                    assert!(matches!(what, Incoming::Text(_)), "{what:?}");
                }
            }
        }
    };
    let listen = async {
        let mut halfway = Some(halfway);
        let mut different = 0;
        while different < all {
            let what = next(listener, "message").await;
            let (name, number) = (what[0]["name"].as_str(), what[1].as_str());
            let number: usize = number.and_then(|text| text.parse().ok()).expect("a number was said");
            let of = heard.entry(name.expect("somebody said it").to_owned()).or_default();
            match of.iter_mut().find(|(other, _)| *other == number) {
                Some((_, times)) => *times += 1,
                None => {
                    of.push((number, 1));
                    different += 1;
                }
            }
            if different == all / 4
                && let Some(halfway) = halfway.take()
            {
                halfway();
            }
        }
    };
    tokio::join!(say, listen);
    heard
}

/// Nothing is missing, and each speaker's messages came in their order.
fn in_order(heard: &BTreeMap<String, Vec<(usize, usize)>>) {
    for (name, numbers) in heard {
        let numbers: Vec<_> = numbers.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, (0..MESSAGES).collect::<Vec<_>>(), "{name}");
    }
}

fn repeated(heard: &BTreeMap<String, Vec<(usize, usize)>>) -> usize {
    heard.values().flatten().map(|(_, times)| times - 1).sum()
}

#[tokio::test]
async fn python_and_rust_serve_one_room_and_a_worker_that_goes_loses_nothing() {
    let Some(example) = Example::generate().await else {
        return;
    };
    let (registry, front, rust) = cluster().await;
    let mut python = example.start(registry.host(), 1).await;

    let mut listener = join(&front, "Listener").await;
    let mut speakers = Vec::new();
    for number in 0..SPEAKERS {
        speakers.push(join(&front, &format!("S{number}")).await);
    }
    let by_rust = served(&rust).await;
    assert!(0 < by_rust && by_rust < SPEAKERS as u64 + 1, "both serve: {by_rust}");

    // Everyone is found by those whom the other worker serves.
    for speaker in &mut speakers {
        speaker.send(r#""who""#).await;
        let people = next(speaker, "people").await;
        assert_eq!(people.as_array().map(Vec::len), Some(SPEAKERS + 1), "{people}");
        speaker.send(r#""rooms""#).await;
        assert_eq!(next(speaker, "rooms").await, json!({"lobby": SPEAKERS + 1}));
        speaker.send(r#"{"to":["listener","psst"]}"#).await;
        assert_eq!(next(&mut listener, "private").await[2], "psst");
        speaker.send(r#"{"name":"Listener"}"#).await;
        assert_eq!(next(speaker, "error").await, "The name Listener is taken");
    }

    // It drains: everything is said once.
    let heard = conversation(&mut speakers, &mut listener, || python.signal(Signal::SIGTERM)).await;
    in_order(&heard);
    assert_eq!(repeated(&heard), 0, "{heard:?}");
    let ended = in_time("its end", python.process.wait())
        .await
        .expect("it can be waited for");
    assert!(ended.success(), "{ended}:\n{}", python.log());
    wait_until("the other serves all", DEADLINE, async || {
        served(&rust).await == SPEAKERS as u64 + 1
    })
    .await;

    // Another comes, with clients of its own, and is killed.
    let python = example.start(registry.host(), 1).await;
    for number in SPEAKERS..3 * SPEAKERS {
        speakers.push(join(&front, &format!("S{number}")).await);
    }
    let by_rust = served(&rust).await;
    assert!(by_rust < 3 * SPEAKERS as u64 + 1, "both serve: {by_rust}");
    let heard = conversation(&mut speakers, &mut listener, || python.signal(Signal::SIGKILL)).await;
    in_order(&heard);
    // What it had in flight was delivered again, and no more than that can have been handled twice.
    let repeated = repeated(&heard);
    assert!(
        repeated <= 3 * SPEAKERS * 64,
        "{repeated} repeated: more than can be in flight"
    );
    wait_until("the other serves all", DEADLINE, async || {
        served(&rust).await == 3 * SPEAKERS as u64 + 1
    })
    .await;
}

#[tokio::test]
async fn python_alone_knows_the_rules_and_tells_of_a_gateway_that_died() {
    let Some(example) = Example::generate().await else {
        return;
    };
    let registry = Node::build("meepo-registry").start().await;
    let (front, other) = (gateway(&registry, 2).await, gateway(&registry, 2).await);
    let _python = example.start(registry.host(), 4).await;

    let mut page = Ws::connect_to(front.host().ws(), "/ws").await;
    for nonsense in [
        "",
        "hello",
        "{}",
        "[1]",
        r#""\ud800""#,
        r#"{"say":"before joining"}"#,
        r#"{"sing":"la"}"#,
        r#"{"join":["x"]}"#,
        r#"{"join":["x","lobby",1]}"#,
    ] {
        page.send(nonsense).await;
        next(&mut page, "error").await;
    }
    page.send_binary(vec![0, 1, 2]).await;
    next(&mut page, "error").await;
    page.send(r#"{"join":["  Ada ","Lobby","key"]}"#).await;
    assert_eq!(next(&mut page, "you").await, json!({"name": "Ada", "room": "lobby"}));
    page.send(&json!({"say": "ä".repeat(2001)}).to_string()).await;
    next(&mut page, "error").await;
    page.send(&json!({"say": "ä".repeat(2000)}).to_string()).await;
    next(&mut page, "message").await;

    // Who comes back with the same key, at another gateway, has not left.
    let mut back = Ws::connect_to(other.host().ws(), "/ws").await;
    back.send(r#"{"join":["Ada","lobby","key"]}"#).await;
    next(&mut back, "you").await;
    assert_eq!(page.closed().await.0, 4001);
    let mut bob = join(&front, "Bob").await;
    assert_eq!(next(&mut back, "presence").await[1]["name"], "Ada");
    assert_eq!(next(&mut back, "presence").await[1]["name"], "Bob");

    for pid in front.processes() {
        processes::signal(pid, Signal::SIGKILL);
    }
    let left = json!([{"name": "Bob", "room": "lobby"}, null]);
    assert_eq!(next(&mut back, "presence").await, left);
    while bob.next().await != Incoming::End {}
}

#[tokio::test]
async fn what_is_in_flight_is_finished_at_a_stop_and_marked_after_a_death() {
    const MESSAGES: usize = 40;
    let Some(example) = Example::generate().await else {
        return;
    };
    let registry = Node::build("meepo-registry").start().await;
    let mut front = gateway(&registry, 2).await;
    let mut first = example.start_slow(registry.host(), 2).await;
    let mut client = Ws::connect(front.host().ws()).await;
    let pid = first.pid();
    let answer = |worker: u32, redelivered, number| format!("{worker} {redelivered} {number}");
    let asked = async |client: &mut Ws| {
        for number in 0..MESSAGES {
            client.send(&number.to_string()).await;
        }
        client.text().await
    };
    let in_flight = async || {
        wait_until("all are in flight", DEADLINE, async || {
            let status = front.status().await;
            status.instance("gateway").sum(|child| child.events_waiting) == 0
        })
        .await;
    };

    // All that it has is finished by itself, though another is there.
    let second = example.start_slow(registry.host(), 2).await;
    assert_eq!(asked(&mut client).await, answer(pid, "False", 0));
    in_flight().await;
    first.signal(Signal::SIGTERM);
    for number in 1..MESSAGES {
        assert_eq!(client.text().await, answer(pid, "False", number));
    }
    let ended = in_time("its end", first.process.wait())
        .await
        .expect("it can be waited for");
    assert!(ended.success(), "{ended}:\n{}", first.log());

    // Of one that dies, another gets what it had not finished, in order, and is told.
    let third = example.start_slow(registry.host(), 2).await;
    assert_eq!(asked(&mut client).await, answer(second.pid(), "False", 0));
    in_flight().await;
    second.signal(Signal::SIGKILL);
    let mut number = 1;
    let mut marked = 0;
    while number < MESSAGES {
        let text = client.text().await;
        if text == answer(third.pid(), "True", number) {
            marked += 1;
        } else if text == answer(third.pid(), "True", number - 1) {
            // Its answer was out, and its `done` was not.
            continue;
        } else {
            assert_eq!(text, answer(second.pid(), "False", number));
            assert_eq!(marked, 0, "what was in flight is marked");
        }
        number += 1;
    }
    assert!(marked > 0, "it was killed while it had something");
    assert_eq!(client.ask("end").await, format!("{} False end", third.pid()));

    // Its last word comes before the gateway closes the client.
    tokio::join!(front.stop(), async {
        assert_eq!(client.text().await, "the service is stopping");
        assert_eq!(client.closed().await.0, 1001);
    });
}

#[tokio::test]
async fn a_send_buffer_and_a_pause_are_told_in_python() {
    let Some(example) = Example::generate().await else {
        return;
    };
    let registry = Node::build("meepo-registry").start().await;
    let settings = "children = 1\nsend_buffer = \"64KiB\"\nslow_client = \"drop\"";
    let front = Node::build("meepo-gateway").registry(registry.host());
    let front = front.set("gateway", settings).start().await;
    let _worker = example.start_text(TOLD, registry.host(), 1).await;
    let mut client = Ws::connect_with_buffer(front.host().ws(), "/", 64 << 10).await;
    client.send("burst").await;
    front
        .status_when("there is no room for all", |status| {
            status.instance("gateway").sum(|child| child.dropped_sends) > 0
        })
        .await;
    while client.text().await != "full, empty" {}

    assert_eq!(client.ask("pause").await, "paused");
    // It is not read before it is resumed.
    assert_eq!(client.ask("one").await, "False one");
}

#[tokio::test]
async fn it_answers_requests_and_another_does_when_it_dies() {
    let Some(example) = Example::generate().await else {
        return;
    };
    let registry = Node::build("meepo-registry").start().await;
    let front = gateway(&registry, 1).await;
    let first = example.start_slow(registry.host(), 1).await;
    let mut http = Http::connect(front.host().ws()).await;
    let answer = http.ask("POST", "/api/x?a=1", "four").await;
    let text = format!("POST a=1 4 False {}", first.pid());
    assert_eq!((answer.status, answer.body), (201, text));
    assert_eq!(http.ask("GET", "/api/x", "").await.header("x-test"), Some("yes"));
    for (path, status) in [("nothing", 404), ("fail", 500), ("big", 500), ("wrong", 502)] {
        let answer = http.ask("GET", &format!("/api/{path}"), "").await;
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        assert!(!answer.body.contains("secret"), "{answer:?}");
    }
    http.request("GET", "/api/hang", "").await;
    front
        .status_when("it has the request", |status| {
            status.instance("gateway").sum(|child| child.events_in_flight) == 1
        })
        .await;
    let second = example.start_slow(registry.host(), 1).await;
    first.signal(Signal::SIGKILL);
    let answer = http.answer().await.expect("an answer");
    assert_eq!(answer.body, format!("GET  0 True {}", second.pid()));
}
