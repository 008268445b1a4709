//! The pages of the examples in a real browser: the chat with two windows and one line client, the robot, and the logs.
//!
//! It needs Debian's packages `chromium` and `chromium-driver`. Where they are missing it is skipped, loudly, unless
//! `MEEPO_TEST_BROWSER=1` demands it.

use std::env;
use std::io::{self, Write};
use std::process::Stdio;
use std::time::Duration;

use fantoccini::elements::Element;
use fantoccini::key::Key;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use meepo_tests::processes::{self, MARK};
use meepo_tests::{Line, Node, in_time, wait_until};
use nix::sys::signal::Signal;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

const LIMIT: Duration = Duration::from_secs(30);

/// A running driver. When dropped, it and its browsers are killed.
struct Driver {
    url: String,
    folder: TempDir,
    _process: Child,
}

impl Driver {
    /// None where there is no browser and none is demanded.
    async fn start() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let process = Command::new("chromedriver")
            .arg("--port=0")
            .env(MARK, folder.path())
            .env("TMPDIR", folder.path())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mut process = match process {
            Ok(process) if chromium().is_some() => process,
            _ => {
                let needed = "the browser test needs Debian's packages chromium and chromium-driver";
                let demanded = env::var("MEEPO_TEST_BROWSER").is_ok_and(|value| value == "1");
                assert!(!demanded, "{needed}");
                // Not with `eprintln`, whose words nobody sees when a test passes.
                let _ = writeln!(io::stderr(), "SKIPPED: {needed}");
                return None;
            }
        };
        let stdout = process.stdout.take().expect("the driver's output is piped");
        let mut lines = BufReader::new(stdout).lines();
        let port = in_time("the driver's port", async {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some((_, port)) = line.rsplit_once("successfully on port ") {
                    return port.trim_end_matches('.').to_owned();
                }
            }
            panic!("the driver does not start");
        });
        Some(Self {
            url: format!("http://127.0.0.1:{}", port.await),
            folder,
            _process: process,
        })
    }

    /// A window with a profile of its own.
    async fn open(&self, page: &str) -> Window {
        let options = json!({
            "binary": chromium(),
            "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1100,800"],
        });
        let mut builder = ClientBuilder::new(HttpConnector::new());
        builder.capabilities([("goog:chromeOptions".to_owned(), options)].into_iter().collect());
        let client = in_time("a browser", builder.connect(&self.url))
            .await
            .expect("a browser");
        client.goto(page).await.expect("the page is served");
        Window { client }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        processes::kill_marked(&self.folder.path().display().to_string());
    }
}

fn chromium() -> Option<std::path::PathBuf> {
    let folders = env::var_os("PATH")?;
    env::split_paths(&folders)
        .map(|folder| folder.join("chromium"))
        .find(|path| path.is_file())
}

/// A person's window.
struct Window {
    client: Client,
}

impl Window {
    async fn find(&self, css: &str) -> Element {
        let found = self.client.wait().at_most(LIMIT).for_element(Locator::Css(css)).await;
        found.unwrap_or_else(|error| panic!("{css}: {error}"))
    }

    async fn fill(&self, css: &str, text: &str) {
        let field = self.find(css).await;
        field.clear().await.expect("the field is open");
        field.send_keys(text).await.expect("the field is open");
    }

    /// Writes into a field and sends it with the keyboard.
    async fn enter(&self, css: &str, text: &str) {
        self.fill(css, &format!("{text}{}", char::from(Key::Enter))).await;
    }

    async fn come_in(&self, name: &str) {
        self.enter("#entry-name", name).await;
        self.sees("#state", "Connected").await;
        self.sees("#me-name", name).await;
    }

    async fn say(&self, text: &str) {
        self.enter("#say", text).await;
    }

    /// Clicks the entry of a list that holds this text.
    async fn choose(&self, list: &str, text: &str) {
        let script = "for (const button of document.querySelectorAll(`${arguments[0]} button`))
            if (button.textContent.includes(arguments[1])) return button.click(), true;
            return false;";
        let done = self.client.execute(script, vec![json!(list), json!(text)]).await;
        assert_eq!(done.expect("a script runs"), json!(true), "{text:?} is not in {list}");
    }

    /// The text of whatever matches, shown or not.
    async fn text(&self, css: &str) -> String {
        let script = "return [...document.querySelectorAll(arguments[0])].map(part => part.textContent).join('\\n');";
        let text = self
            .client
            .execute(script, vec![json!(css)])
            .await
            .expect("a script runs");
        text.as_str().unwrap_or_default().to_owned()
    }

    async fn sees(&self, css: &str, text: &str) {
        wait_until(&format!("{text:?} in {css}"), LIMIT, async || {
            self.text(css).await.contains(text)
        })
        .await;
    }

    async fn no_longer_sees(&self, css: &str, text: &str) {
        wait_until(&format!("no {text:?} in {css}"), LIMIT, async || {
            !self.text(css).await.contains(text)
        })
        .await;
    }
}

/// The conversation that is shown, and all of them.
const LOG: &str = ".log:not([hidden])";
const ALL_LOGS: &str = ".log";

const NASTY: &str = "<img src=x onerror=\"document.title='owned'\">";

#[tokio::test]
async fn two_windows_and_a_line_client_are_in_one_conversation() {
    let Some(driver) = Driver::start().await else { return };
    let mut node = Node::build("chat").start().await;
    let page = format!("http://{}/", node.host().ws());
    let (ada, bob) = (driver.open(&page).await, driver.open(&page).await);
    let mut tel = Line::connect(node.host().line()).await;
    tel.until("You are guest-").await;

    // Names, also one that looks like HTML, and one that is taken.
    ada.come_in("Ada").await;
    bob.enter("#entry-name", "ada").await;
    bob.sees("#entry-error", "taken").await;
    bob.come_in("<b>Bob</b>").await;
    tel.send("/name Tel").await;
    tel.until("You are Tel in lobby").await;
    for window in [&ada, &bob] {
        window.sees("#people", "Tel").await;
        window.sees(LOG, "is now Tel").await;
    }
    ada.sees("#people", "<b>Bob</b>").await;
    ada.sees(LOG, "<b>Bob</b> joined").await;
    bob.sees("#people", "Ada").await;

    // A message to the room, with HTML that stays text.
    ada.say(NASTY).await;
    bob.sees(LOG, NASTY).await;
    tel.until(&format!("Ada: {NASTY}")).await;
    tel.send("good morning").await;
    ada.sees(LOG, "good morning").await;
    bob.sees(LOG, "good morning").await;
    for window in [&ada, &bob] {
        let tags = window
            .client
            .find_all(Locator::Css(".log img, .log b, #people b"))
            .await;
        assert!(
            tags.expect("a look at the page").is_empty(),
            "HTML has become part of the page"
        );
        assert!(!window.client.title().await.expect("a title").contains("owned"));
    }

    // Private messages reach one person.
    ada.choose("#people", "<b>Bob</b>").await;
    ada.say("only for Bob").await;
    ada.sees(LOG, "only for Bob").await;
    bob.sees("#people .badge", "1").await;
    bob.choose("#people", "Ada").await;
    bob.sees(LOG, "only for Bob").await;
    tel.send("/to Ada only for Ada").await;
    ada.sees(ALL_LOGS, "only for Ada").await;
    ada.choose("#rooms", "lobby").await;
    ada.say("for all").await;
    loop {
        let line = tel.text().await;
        assert!(!line.contains("only for Bob"));
        if line.contains("for all") {
            break;
        }
    }
    bob.sees(ALL_LOGS, "for all").await;
    assert!(!bob.text(ALL_LOGS).await.contains("only for Ada"));
    bob.choose("#rooms", "lobby").await;

    // Another name.
    bob.find("#me").await.click().await.expect("the button is there");
    bob.enter("#rename-name", "TEL").await;
    bob.sees("#rename-error", "taken").await;
    bob.enter("#rename-name", "Robert").await;
    bob.sees("#me-name", "Robert").await;
    ada.sees("#people", "Robert").await;
    ada.no_longer_sees("#people", "<b>Bob</b>").await;
    tel.until("<b>Bob</b> is now Robert").await;

    // A new room: what is said there stays there.
    ada.enter("#room-name", "Games").await;
    ada.sees("#title", "games").await;
    bob.sees("#rooms", "games").await;
    bob.sees(LOG, "Ada went to games").await;
    tel.send("/join games").await;
    tel.until("You are Tel in games").await;
    ada.sees(LOG, "Tel joined").await;
    ada.say("who plays?").await;
    tel.until("Ada: who plays?").await;
    tel.send("/rooms").await;
    tel.until("games (2), lobby (1)").await;
    bob.say("quiet here").await;
    bob.sees(LOG, "quiet here").await;
    assert!(!bob.text(ALL_LOGS).await.contains("who plays?"));
    assert!(!ada.text(ALL_LOGS).await.contains("quiet here"));

    // Somebody leaves.
    drop(tel);
    ada.sees(LOG, "Tel left").await;
    bob.no_longer_sees("#people", "Tel").await;
    // He has written to Ada, so she still has the conversation.
    ada.sees("#people .away", "Tel").await;

    // The gateways die and are replaced: the windows come back, each with its name, in its room.
    for pid in node.pids("gateway").await {
        processes::signal(pid, Signal::SIGKILL);
    }
    for window in [&ada, &bob] {
        window.no_longer_sees("#state", "Connected").await;
    }
    for (window, name, title) in [(&ada, "Ada", "games"), (&bob, "Robert", "lobby")] {
        window.sees("#state", "Connected").await;
        window.sees("#me-name", name).await;
        window.sees("#title", title).await;
    }
    ada.sees("#people", "Robert").await;
    bob.choose("#rooms", "games").await;
    ada.sees(LOG, "Robert joined").await;
    bob.sees("#title", "games").await;
    bob.say("here I am").await;
    ada.sees(LOG, "here I am").await;

    // A reload of the page goes on where it was.
    ada.client.refresh().await.expect("the page is served");
    ada.sees("#me-name", "Ada").await;
    ada.sees("#title", "games").await;
    bob.say("welcome back").await;
    ada.sees(LOG, "welcome back").await;

    for window in [ada, bob] {
        window.client.close().await.expect("the browser ends");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_robot_answers_in_its_page() {
    let Some(driver) = Driver::start().await else { return };
    let mut node = Node::build("chat_robot").start().await;
    let ada = driver.open(&format!("http://{}/", node.host().ws())).await;
    ada.sees("#state", "Connected").await;
    ada.sees("#log .robot", "I am a robot").await;
    ada.say("I am tired of my work").await;
    ada.sees("#log .you", "I am tired of my work").await;
    ada.sees("#log .robot", "Since when are you tired of your work?").await;
    ada.say(NASTY).await;
    ada.sees("#log .you", NASTY).await;
    let tags = ada.client.find_all(Locator::Css("#log img")).await;
    assert!(
        tags.expect("a look at the page").is_empty(),
        "HTML has become part of the page"
    );

    // The gateways die and are replaced: the window comes back.
    for pid in node.pids("gateway").await {
        processes::signal(pid, Signal::SIGKILL);
    }
    ada.sees("#state", "Connection lost").await;
    ada.sees("#state", "Connected").await;
    ada.say("because it rains").await;
    ada.sees("#log .robot", "Is that the only reason?").await;
    ada.client.close().await.expect("the browser ends");
    node.stop().await;
}

#[tokio::test]
async fn log_lines_show_up_in_their_page() {
    let Some(driver) = Driver::start().await else { return };
    let mut node = Node::build("logs").start().await;
    let page = driver.open(&format!("http://{}/", node.host().ws())).await;
    page.sees("#state", "filter: *").await;
    let mut agent = Line::connect(node.host().line()).await;
    agent.until("* Send a text").await;
    let lines = |lines: &[&str]| {
        format!(
            "/lines {}",
            json!({"machine": "web-1", "file": "/a.log", "lines": lines})
        )
    };
    agent.send(&lines(&["fine", NASTY])).await;
    page.sees("#log li", "web-1 /a.log fine").await;
    page.sees("#log li", NASTY).await;
    let tags = page.client.find_all(Locator::Css("#log img")).await;
    assert!(
        tags.expect("a look at the page").is_empty(),
        "HTML has become part of the page"
    );

    page.enter("#filter", "error").await;
    page.sees("#state", "filter: error").await;
    page.no_longer_sees("#log", "fine").await;
    agent.send(&lines(&["fine", "an error"])).await;
    page.sees("#log li", "an error").await;
    assert!(!page.text("#log").await.contains("fine"));

    // The gateways die and are replaced: the window comes back, with its filter.
    for pid in node.pids("gateway").await {
        processes::signal(pid, Signal::SIGKILL);
    }
    page.sees("#state", "Connection lost").await;
    page.sees("#state", "filter: error").await;
    page.client.close().await.expect("the browser ends");
    node.stop().await;
}
