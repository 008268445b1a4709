//! The load commands against small servers, some of which do it wrong.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

/// What a server does with the messages that it should echo.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Habit {
    Right,
    /// Keeps the tenth message of each connection for itself.
    Swallow,
    /// Answers the tenth message after the eleventh.
    Swap,
    /// Closes the connection at the tenth message.
    Close,
}

type Send = Box<dyn FnMut(&str) + std::marker::Send>;
type Room = Arc<Mutex<Vec<Arc<Mutex<Send>>>>>;

/// Joins, publishes, echoes; says whether the connection goes on.
struct Talk {
    room: Room,
    me: Arc<Mutex<Send>>,
    habit: Habit,
    count: usize,
    kept: Option<String>,
}

impl Talk {
    fn answer(&mut self, text: &str) -> bool {
        let to_me = |text: &str| (self.me.lock().unwrap())(text);
        match text.as_bytes().first() {
            Some(b'J') => self.room.lock().unwrap().push(Arc::clone(&self.me)),
            Some(b'P') => {
                for member in self.room.lock().unwrap().iter() {
                    (member.lock().unwrap())(text);
                }
            }
            _ => {
                self.count += 1;
                match self.habit {
                    Habit::Close if self.count == 10 => return false,
                    Habit::Swallow if self.count == 10 => {}
                    Habit::Swap if self.count == 10 => self.kept = Some(text.into()),
                    _ => {
                        to_me(text);
                        if let Some(kept) = self.kept.take() {
                            to_me(&kept);
                        }
                    }
                }
            }
        }
        true
    }
}

fn serve(protocol: &'static str, habit: Habit) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("{protocol}://{}", listener.local_addr().unwrap());
    let room = Room::default();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, room) = (stream.unwrap(), Arc::clone(&room));
            stream.set_nodelay(true).unwrap();
            thread::spawn(move || match protocol {
                "ws" => serve_ws(stream, room, habit),
                _ => serve_line(stream, room, habit),
            });
        }
    });
    url
}

fn serve_ws(stream: TcpStream, room: Room, habit: Habit) {
    let Ok(mut socket) = tungstenite::accept(stream.try_clone().unwrap()) else {
        return;
    };
    let mut writer = WebSocket::from_raw_socket(stream, Role::Server, None);
    writer.send(Message::Ping("are you there".into())).unwrap();
    let send: Send = Box::new(move |text| drop(writer.send(Message::text(text))));
    let mut talk = talk(room, habit, send);
    // Nothing is answered before the ping is.
    let mut early = Some(Vec::new());
    while let Ok(message) = socket.read() {
        let texts = match (message, &mut early) {
            (Message::Pong(_), early) => early.take().unwrap_or_default(),
            (Message::Text(text), Some(early)) => {
                early.push(text);
                continue;
            }
            (Message::Text(text), None) => vec![text],
            _ => continue,
        };
        if !texts.iter().all(|text| talk.answer(text)) {
            let _ = socket.close(None);
            let _ = socket.flush();
            return;
        }
    }
}

fn serve_line(mut stream: TcpStream, room: Room, habit: Habit) {
    let lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let send: Send = Box::new(move |text| drop(stream.write_all(format!("{text}\r\n").as_bytes())));
    let mut talk = talk(room, habit, send);
    for line in lines.map_while(Result::ok) {
        if !talk.answer(&line) {
            return;
        }
    }
}

fn talk(room: Room, habit: Habit, send: Send) -> Talk {
    Talk {
        room,
        me: Arc::new(Mutex::new(send)),
        habit,
        count: 0,
        kept: None,
    }
}

fn bench(arguments: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_meepo-bench"))
        .args(arguments.split_whitespace())
        .output()
        .unwrap()
}

#[track_caller]
fn report(arguments: &str, success: bool) -> Value {
    let output = bench(arguments);
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.success(), success, "{text}{errors}");
    assert_eq!(text.lines().count(), 1, "{text}{errors}");
    serde_json::from_str(&text).unwrap()
}

#[track_caller]
fn refused(arguments: &str) -> String {
    let output = bench(arguments);
    assert!(!output.status.success());
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

#[track_caller]
fn number(report: &Value, field: &str) -> f64 {
    report[field].as_f64().unwrap_or_else(|| panic!("{field} in {report}"))
}

/// The latencies are there, in order; nothing went wrong.
#[track_caller]
fn check(report: &Value) {
    let latencies = ["p50_ms", "p90_ms", "p99_ms", "max_ms"].map(|field| number(report, field));
    assert!(latencies[0] > 0.0 && latencies.is_sorted(), "{report}");
    for field in ["errors", "lost", "reordered", "corrupt", "ended"] {
        assert_eq!(number(report, field), 0.0, "{field} in {report}");
    }
    let rate = number(report, "messages") / number(report, "secs");
    assert!(
        (number(report, "rate") / rate - 1.0).abs() < 0.01 && rate > 0.0,
        "{report}"
    );
    assert!(number(report, "client_cores") > 0.0, "{report}");
}

/// A process that is always busy.
struct Busy(Child);

impl Busy {
    /// The loop runs in a child of the process that is told.
    fn start() -> Self {
        let mut child = Command::new("sh")
            .args(["-c", "(echo up; while :; do :; done); :"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        Self(child)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let children = format!("/proc/{0}/task/{0}/children", self.0.id());
        for pid in std::fs::read_to_string(children).unwrap_or_default().split_whitespace() {
            let _ = Command::new("kill").args(["-9", pid]).status();
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn echo_in_a_closed_loop() {
    for protocol in ["ws", "line"] {
        let url = serve(protocol, Habit::Right);
        let report = report(
            &format!("echo --url {url} --conns 8 --inflight 3 --size 100 --secs 0.4 --warmup 0.1"),
            true,
        );
        check(&report);
        assert_eq!(
            report["load"],
            serde_json::json!({"size": 100, "inflight": 3, "rate": null})
        );
        assert!(report["server_cores"].is_null(), "{report}");
    }
}

#[test]
fn echo_at_a_rate_sends_that_many() {
    let urls = format!("{} {}", serve("ws", Habit::Right), serve("line", Habit::Right));
    let report = report(
        &format!("echo --url {urls} --conns 4 --rate 500 --secs 1 --warmup 0.2"),
        true,
    );
    check(&report);
    // A machine that does other things as well shifts some into the window or out of it.
    assert!((250.0..750.0).contains(&number(&report, "messages")), "{report}");
}

#[test]
fn what_is_done_meanwhile_is_told_apart() {
    let url = serve("ws", Habit::Right);
    let quiet = format!("echo --url {url} --conns 2 --rate 500 --secs 3 --warmup 0.1");
    let report = report(&format!("{quiet} --halfway true"), true);
    check(&report);
    for field in ["quiet_max_ms", "disturbed_p50_ms", "disturbed_p99_times"] {
        assert!(number(&report, field) > 0.0, "{field} in {report}");
    }
    let refusal = refused(&format!("{quiet} --halfway false"));
    assert!(refusal.contains("`false`") && refusal.contains('1'), "{refusal}");
}

#[test]
fn large_messages_come_in_pieces() {
    let url = serve("ws", Habit::Right);
    let report = report(
        &format!("echo --url {url} --conns 2 --size 1000000 --secs 0.3 --warmup 0"),
        true,
    );
    check(&report);
}

#[test]
fn fanout_reaches_every_member() {
    for protocol in ["ws", "line"] {
        let url = serve(protocol, Habit::Right);
        let closed = report(
            &format!("fanout --url {url} --conns 10 --inflight 2 --secs 0.4 --warmup 0.1"),
            true,
        );
        check(&closed);
        let per_publish = number(&closed, "messages") / number(&closed, "publishes");
        assert!((per_publish - 10.0).abs() < 1.0, "{closed}");
    }
}

#[test]
fn fanout_at_a_rate_delivers_that_many() {
    let url = serve("ws", Habit::Right);
    let report = report(
        &format!("fanout --url {url} --conns 5 --rate 100 --secs 1 --warmup 0.1"),
        true,
    );
    check(&report);
    // A machine that does other things as well shifts some into the window or out of it.
    assert!((250.0..750.0).contains(&number(&report, "messages")), "{report}");
}

#[test]
fn idle_connections_are_opened_and_held() {
    let url = serve("ws", Habit::Right);
    let pid = std::process::id();
    let report = report(
        &format!("idle --url {url} --conns 50 --secs 0.2 --size 64 --pid {pid}"),
        true,
    );
    check(&report);
    assert_eq!(number(&report, "messages"), 50.0);
    assert_eq!(number(&report, "connections_per_s"), number(&report, "rate"));
    assert!(number(&report, "held_secs") >= 0.2, "{report}");
    assert!(number(&report, "server_bytes_per_connection") > 100.0, "{report}");
    // It is that of this process, which runs other tests as well.
    assert!(report["server_cores_idle"].is_f64(), "{report}");
}

#[test]
fn a_busy_server_costs_time() {
    let (url, busy) = (serve("line", Habit::Right), Busy::start());
    let pid = busy.0.id();
    let report = report(
        &format!("echo --url {url} --conns 1 --rate 100 --secs 1 --warmup 0 --pid {pid}"),
        true,
    );
    check(&report);
    assert!(number(&report, "server_cores") > 0.05, "{report}");
    let us = number(&report, "server_cores") * 1e6 / number(&report, "rate");
    assert!(
        (number(&report, "server_cpu_us_per_message") / us - 1.0).abs() < 0.05,
        "{report}"
    );
}

#[test]
fn lost_and_reordered_answers_are_counted() {
    for (protocol, habit, lost, reordered) in [
        ("ws", Habit::Swallow, 3.0, 3.0),
        ("line", Habit::Swap, 0.0, 6.0),
        ("line", Habit::Swallow, 3.0, 3.0),
    ] {
        let url = serve(protocol, habit);
        let run = format!("echo --url {url} --conns 3 --inflight 2 --secs 0.5 --warmup 0 --drain 0.1");
        let report = report(&run, false);
        assert_eq!(number(&report, "lost"), lost, "{habit:?} {report}");
        assert_eq!(number(&report, "reordered"), reordered, "{habit:?} {report}");
        assert_eq!(number(&report, "errors"), lost + reordered, "{report}");
    }
}

#[test]
fn connections_that_end_are_counted() {
    for protocol in ["ws", "line"] {
        let url = serve(protocol, Habit::Close);
        let report = report(
            &format!("echo --url {url} --conns 3 --secs 0.3 --warmup 0 --drain 0.1"),
            false,
        );
        assert_eq!(number(&report, "ended"), 3.0, "{report}");
        assert_eq!(number(&report, "lost"), 3.0, "{report}");
        let why = report["first_failure"].as_str().unwrap();
        assert!(
            why.contains("closed by the server") || why.contains("ended the connection"),
            "{why}"
        );
    }
}

#[test]
fn what_cannot_be_run_says_why() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = refused(&format!("echo --url ws://{nobody}/ --conns 2"));
    assert!(
        error.contains(&format!("connection 1 to ws://{nobody}/: Connection refused")),
        "{error}"
    );

    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let error = refused(&format!("idle --url ws://{address} --conns 1 --connect-timeout 0.1"));
    assert!(error.contains("not open in time"), "{error}");
    let error = refused(&format!(
        "fanout --url line://{address} --conns 2 --connect-timeout 0.1"
    ));
    assert!(
        error.contains("2 of 2 connections got no answer after they had joined"),
        "{error}"
    );

    let url = serve("line", Habit::Right).replace("line", "ws");
    let error = refused(&format!("echo --url {url}"));
    assert!(
        error.contains("the WebSocket handshake was answered with: GET / HTTP/1.1"),
        "{error}"
    );

    let url = serve("ws", Habit::Right);
    assert!(refused(&format!("echo --url {url} --pid 4294967295")).contains("process 4294967295 is not running"));
    assert!(refused(&format!("echo --url {url} --size 28")).contains("a payload has 29 to"));
    assert!(refused(&format!("echo --url {url} --rate 0")).contains("not a number above 0"));
    assert!(refused(&format!("echo --url {url} --rate 1 --inflight 2")).contains("cannot be used with"));
    assert!(refused("idle").contains("--url"));
}
