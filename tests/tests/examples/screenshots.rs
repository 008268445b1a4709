//! Makes the pictures in the examples' READMEs, from real clients of real nodes in a real browser:
//!
//!     MEEPO_SCREENSHOTS=chat,chat_robot,logs,monitor,telnet,web cargo test -p meepo-tests --test examples screenshots
//!
//! Without the variable it makes none.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::env;
use std::fmt::Write;
use std::fs;
use std::io::Cursor;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use meepo_tests::binaries::{binary, workspace};
use meepo_tests::browser::{Driver, Window};
use meepo_tests::{Line, Node, web};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::task::JoinSet;

const SIZE: (u32, u32) = (1200, 750);

#[tokio::test]
async fn pictures_for_the_readmes() {
    let wanted = env::var("MEEPO_SCREENSHOTS").unwrap_or_default();
    for example in wanted.split(',').filter(|name| !name.is_empty()) {
        if example == "telnet" {
            telnet().await;
            continue;
        }
        let driver = Driver::start().await.expect("there is a browser");
        match example {
            "chat" => chat(&driver).await,
            "chat_robot" => chat_robot(&driver).await,
            "logs" => logs(&driver).await,
            "monitor" => monitor(&driver).await,
            "web" => talk(&driver).await,
            other => panic!("there is no picture of {other}"),
        }
    }
}

fn page(node: &Node) -> String {
    format!("http://{}/", node.host().ws())
}

async fn keep(window: &Window, example: &str) {
    let path = picture(example, "png");
    let picture = with_palette(&window.picture(SIZE.0, SIZE.1).await);
    println!("{}: {} bytes", path.display(), picture.len());
    fs::write(path, picture).expect("the example's folder is writable");
}

fn picture(example: &str, kind: &str) -> PathBuf {
    workspace()
        .join("examples")
        .join(example)
        .join(format!("screenshot.{kind}"))
}

/// Pages have few colours: a palette of the most frequent ones makes their pictures half as large.
fn with_palette(picture: &[u8]) -> Vec<u8> {
    let mut reader = png::Decoder::new(Cursor::new(picture)).read_info().expect("a PNG");
    let mut pixels = vec![0; reader.output_buffer_size().expect("a picture of a usual size")];
    let info = reader.next_frame(&mut pixels).expect("a PNG");
    let colour = |pixel: &[u8]| [pixel[0], pixel[1], pixel[2]];
    let pixels = pixels.chunks(info.color_type.samples()).map(colour);
    let mut counts = HashMap::<_, u32>::new();
    for pixel in pixels.clone() {
        *counts.entry(pixel).or_default() += 1;
    }
    let mut colours: Vec<_> = counts.into_iter().collect();
    colours.sort_unstable_by_key(|(colour, count)| (Reverse(*count), *colour));
    let palette: Vec<_> = colours.iter().take(256).map(|(colour, _)| *colour).collect();
    let distance = |a: [u8; 3], b: [u8; 3]| -> u16 { (0..3).map(|part| u16::from(a[part].abs_diff(b[part]))).sum() };
    let nearest = |colour| {
        (0..=255)
            .zip(&palette)
            .min_by_key(|(_, other)| distance(colour, **other))
            .map_or(0, |(index, _)| index)
    };
    let index: HashMap<_, u8> = colours.iter().map(|(colour, _)| (*colour, nearest(*colour))).collect();

    let mut small = Vec::new();
    let mut encoder = png::Encoder::new(&mut small, info.width, info.height);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_palette(palette.concat());
    encoder.set_compression(png::Compression::High);
    encoder.set_filter(png::Filter::NoFilter);
    let mut writer = encoder.write_header().expect("a vector is written");
    let indexed: Vec<u8> = pixels.map(|pixel| index[&pixel]).collect();
    writer.write_image_data(&indexed).expect("a vector is written");
    drop(writer);
    small
}

/// An example whose page says all by itself.
async fn talk(driver: &Driver) {
    let node = web::start().await;
    let [ada, bob] = [driver.open(&page(&node)).await, driver.open(&page(&node)).await];
    for (window, name) in [(&ada, "Ada"), (&bob, "Bob")] {
        window.enter("#name", name).await;
        window.sees("#form", "Leave").await;
    }
    for (window, text) in [
        (
            &bob,
            "The new release is out: one port for the pages, the API and this WebSocket.",
        ),
        (&ada, "And the help pages have a host name of their own now."),
        (
            &bob,
            "What we say here goes over the API, and comes to everybody over the socket.",
        ),
        (&ada, "So curl can take part."),
        (&bob, "It can: who one is is a cookie. The README says how."),
        (&ada, "I have replaced the workers just now. Did anybody notice?"),
        (&bob, "No, not one request was lost."),
    ] {
        window.enter("#say", text).await;
        ada.sees("#log", text).await;
    }
    ada.sees("#state", "2 are here").await;
    keep(&ada, "web").await;
}

async fn chat(driver: &Driver) {
    let node = Node::build("chat").start().await;
    let mut tel = Vec::new();
    for (name, room) in [
        ("Cleo", "lobby"),
        ("Dmitri", "games"),
        ("Emi", "games"),
        ("Farid", "travel"),
    ] {
        let mut line = Line::connect(node.host().line()).await;
        line.until("You are guest-").await;
        for (ask, answer) in [(format!("/name {name}"), name), (format!("/join {room}"), room)] {
            line.send(&ask).await;
            line.until(answer).await;
        }
        tel.push(line);
    }
    // Ada comes last: what was before is not hers.
    let bob = driver.open(&page(&node)).await;
    bob.come_in("Bob").await;
    let ada = driver.open(&page(&node)).await;
    ada.come_in("Ada").await;
    ada.sees("#people", "Farid").await;
    let log = ".log:not([hidden])";
    for (who, text) in [
        (Some(&bob), "Good morning! Did the new release go out?"),
        (
            Some(&ada),
            "It did, at nine. All workers were replaced while everybody kept talking.",
        ),
        (None, "I am on telnet and have not noticed anything"),
        (Some(&bob), "Not one reconnect here either :-)"),
        (
            Some(&ada),
            "The gateways stay as they are, so the sockets do, too.\nNext week we add a third machine.",
        ),
        (None, "Nice. Who comes for lunch?"),
        (Some(&bob), "Me. Room 12, at noon?"),
        (Some(&ada), "See you there."),
    ] {
        let first = text.lines().next().unwrap_or_default();
        match who {
            Some(window) => window.say(&text.replace('\n', " ")).await,
            None => tel[0].send(text).await,
        }
        let shown = if who.is_some() {
            text.replace('\n', " ")
        } else {
            first.to_owned()
        };
        ada.sees(log, &shown).await;
    }
    tel[2].send("/to Ada one more round?").await;
    ada.sees("#people .badge", "1").await;
    keep(&ada, "chat").await;
}

async fn chat_robot(driver: &Driver) {
    let node = Node::build("chat_robot").start().await;
    let window = driver.open(&page(&node)).await;
    window.sees("#log .robot", "I am a robot").await;
    for (number, text) in [
        "I am tired of my work",
        "because my boss never listens to me",
        "I think that I want a long holiday",
        "can you help me",
        "perhaps I should look for something new",
    ]
    .into_iter()
    .enumerate()
    {
        window.say(text).await;
        let answers = format!("#log .robot:nth-of-type({})", 2 * number + 3);
        window.find(&answers).await;
    }
    keep(&window, "chat_robot").await;
}

async fn logs(driver: &Driver) {
    let node = Node::build("logs").start().await;
    let window = driver.open(&page(&node)).await;
    window.sees("#state", "filter: *").await;
    let mut last = String::new();
    for number in 0..30 {
        let (id, time) = (fastrand::u32(10_000..99_999), fastrand::u32(2..60));
        let (machine, file, line) = match number * 7 % 13 {
            0 | 5 => ("web-1", "access.log", format!("GET /basket 200 {time} ms")),
            1 | 8 => (
                "web-2",
                "access.log",
                format!("GET /api/prices?item={id} 200 {time} ms"),
            ),
            2 | 10 => ("web-1", "access.log", format!("POST /api/orders 201 {time} ms")),
            3 => (
                "web-2",
                "app.log",
                format!("WARN payment of order {id} is slow, trying again"),
            ),
            4 => (
                "db-1",
                "postgresql.log",
                format!("checkpoint complete: wrote {id} buffers"),
            ),
            6 | 11 => ("web-2", "access.log", format!("GET /order/{id} 304 {time} ms")),
            7 => ("web-1", "app.log", format!("INFO order {id} is paid")),
            9 => (
                "db-1",
                "postgresql.log",
                format!("duration: 1,2{time:02} ms  SELECT * FROM orders WHERE …"),
            ),
            _ => ("web-1", "app.log", format!("ERROR no stock left for item {id}")),
        };
        let line = format!("10:41:{:02} {line}", 2 * number);
        let mut agent = Line::connect(node.host().line()).await;
        agent.until("* Send a text").await;
        let batch = json!({"machine": machine, "file": format!("/var/log/{file}"), "lines": [&line]});
        agent.send(&format!("/lines {batch}")).await;
        agent.until("ok").await;
        last = line;
    }
    window.sees("#log", &last).await;
    keep(&window, "logs").await;
}

async fn monitor(driver: &Driver) {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let database = folder.path().join("db").display().to_string();
    let node = Node::build("monitor").env("MONITOR_DATABASE", &database).start().await;
    let _agent = Command::new(binary("monitor"))
        .args([
            "agent",
            "--host",
            "this-host",
            "--every",
            "1s",
            "--to",
            &node.host().line().to_string(),
        ])
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("the program runs");
    let mut hosts = JoinSet::new();
    for (host, cpu, memory, total) in [
        ("build-1", 85.0, 12.1, 32.0),
        ("db-1", 34.0, 24.5, 32.0),
        ("db-2", 12.0, 23.8, 32.0),
        ("web-1", 47.0, 5.2, 8.0),
        ("web-2", 51.0, 5.9, 8.0),
    ] {
        let mut line = Line::connect(node.host().line()).await;
        let sample = move |at: f64| {
            let wave = (at / 17.0 + memory).sin() * 9.0 + (at / 5.3).sin() * 4.0;
            let cpu: f64 = cpu + wave + fastrand::f64() * 6.0;
            let used = (memory + (at / 90.0).sin() * 0.4 + fastrand::f64() * 0.05) * f64::from(1 << 30);
            let total = total * f64::from(1 << 30);
            json!([(at * 1000.0) as i64, cpu.clamp(0.0, 100.0), used as i64, total as i64])
        };
        // The five minutes that a page shows, and then each second; but one has fallen silent.
        let dead = host == "db-2";
        let mut ats: Vec<_> = (1..=300).rev().map(|ago| now() - f64::from(ago)).collect();
        if dead {
            ats.truncate(220);
        }
        for some in ats.chunks(100) {
            let samples: Vec<_> = some.iter().copied().map(sample).collect();
            send(&mut line, host, &samples).await;
        }
        if !dead {
            hosts.spawn(async move {
                loop {
                    send(&mut line, host, &[sample(now())]).await;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            });
        }
    }
    let window = driver.open(&page(&node)).await;
    window.sees("#count", "6, 1 silent").await;
    // So that something is to be seen of this host as well.
    tokio::time::sleep(Duration::from_secs(60)).await;
    window.sees("[data-host=this-host] .cpu .value", "%").await;
    keep(&window, "monitor").await;
}

async fn send(line: &mut Line, host: &str, samples: &[Value]) {
    line.send(&format!("/samples {}", json!({"host": host, "samples": samples})))
        .await;
    assert_eq!(line.text().await, "ok");
}

/// Seconds since 1970.
fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a clock").as_secs_f64()
}

/// A real session, drawn as a terminal shows it.
async fn telnet() {
    let node = Node::build("telnet").start().await;
    let mut others = Vec::new();
    for nick in ["Bob", "Cleo"] {
        let mut line = Line::connect(node.host().line()).await;
        line.until("You talk in lobby").await;
        line.send(&format!("/nick {nick}")).await;
        line.until(&format!("You are {nick}")).await;
        others.push(line);
    }
    let mut ada = Session::start(&node).await;
    ada.hears("You talk in lobby").await;
    ada.types("/nick Ada").await;
    ada.hears("* You are Ada").await;
    ada.types("/who").await;
    ada.hears("* 3 here").await;
    ada.types("good morning").await;
    others[0].until("good morning").await;
    others[0].send("Hello Ada! Are you coming to the rust group?").await;
    ada.hears("Hello Ada!").await;
    others[0].send("/join rust").await;
    others[0].until("You talk in rust").await;
    ada.types("/join rust").await;
    ada.hears("* You talk in rust").await;
    others[1].until("[lobby] Bob: Hello").await;
    others[1].send("/tell Ada lunch at twelve?").await;
    ada.hears("lunch at twelve?").await;
    ada.types("/tell Cleo yes!").await;
    others[1].until("yes!").await;
    others[1].send("/quit").await;
    ada.hears("* Cleo left").await;
    let mut node = node;
    let rest = tokio::join!(node.stop(), ada.line.rest()).1;
    ada.lines.extend(rest.lines().map(|line| (false, line.to_owned())));
    ada.lines.push((false, "Connection closed by foreign host.".into()));
    fs::write(picture("telnet", "svg"), ada.svg()).expect("the example's folder is writable");
}

/// What one sees who uses telnet: what was typed, and what came.
struct Session {
    line: Line,
    lines: Vec<(bool, String)>,
}

impl Session {
    async fn start(node: &Node) -> Self {
        Self {
            line: Line::connect(node.host().line()).await,
            lines: vec![(true, "$ telnet 127.0.0.1 19909".into())],
        }
    }

    async fn types(&mut self, text: &str) {
        self.line.send(text).await;
        self.lines.push((true, text.into()));
    }

    async fn hears(&mut self, part: &str) {
        loop {
            let line = self.line.text().await;
            self.lines.push((false, line));
            if self.lines.last().is_some_and(|(_, line)| line.contains(part)) {
                return;
            }
        }
    }

    fn svg(&self) -> String {
        const COLUMNS: usize = 96;
        const HEIGHT: usize = 19;
        let mut rows = Vec::new();
        for (typed, line) in &self.lines {
            let colour = match (typed, line.starts_with('*') || line.starts_with("closed")) {
                (true, _) => "#2dd4bf",
                (false, true) => "#93a1b0",
                (false, false) => "#e6ebf0",
            };
            let chars: Vec<char> = line.chars().collect();
            rows.extend(
                chars
                    .chunks(COLUMNS)
                    .map(|part| (colour, part.iter().collect::<String>())),
            );
        }
        let height = rows.len() * HEIGHT + 64;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 800 {height}\" width=\"800\" height=\"{height}\">\n\
             <rect width=\"800\" height=\"{height}\" rx=\"10\" fill=\"#1a212a\"/>\n\
             <g fill=\"#54616f\"><circle cx=\"20\" cy=\"19\" r=\"5\"/><circle cx=\"38\" cy=\"19\" r=\"5\"/><circle cx=\"56\" cy=\"19\" r=\"5\"/></g>\n\
             <g font-family=\"ui-monospace, DejaVu Sans Mono, Menlo, Consolas, monospace\" font-size=\"13\" xml:space=\"preserve\">\n"
        );
        for (number, (colour, row)) in rows.iter().enumerate() {
            let row = row.replace('&', "&amp;").replace('<', "&lt;");
            let _ = writeln!(
                svg,
                "<text x=\"18\" y=\"{}\" fill=\"{colour}\">{row}</text>",
                56 + number * HEIGHT
            );
        }
        svg + "</g>\n</svg>\n"
    }
}
