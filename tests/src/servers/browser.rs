//! A real browser, driven by WebDriver.
//!
//! It needs Debian's packages `chromium` and `chromium-driver`.

use std::env;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use fantoccini::elements::Element;
use fantoccini::key::Key;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::machine::processes::{self, MARK};
use crate::wait::{in_time, wait_until};

const LIMIT: Duration = Duration::from_secs(30);

/// A running driver. When dropped, it and its browsers are killed.
#[derive(Debug)]
pub struct Driver {
    url: String,
    folder: TempDir,
    _process: Child,
}

impl Driver {
    /// None where there is no browser and none is demanded.
    pub async fn start() -> Option<Self> {
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
    pub async fn open(&self, page: &str) -> Window {
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

fn chromium() -> Option<PathBuf> {
    let folders = env::var_os("PATH")?;
    env::split_paths(&folders)
        .map(|folder| folder.join("chromium"))
        .find(|path| path.is_file())
}

/// A person's window.
#[derive(Debug)]
pub struct Window {
    client: Client,
}

impl Window {
    /// The browser behind it.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Ends the browser.
    ///
    /// # Panics
    ///
    /// When it does not end.
    pub async fn close(self) {
        self.client.close().await.expect("the browser ends");
    }

    /// Makes the page as large as this, and gives a picture of it as PNG.
    ///
    /// # Panics
    ///
    /// When the browser does not.
    pub async fn picture(&self, width: u32, height: u32) -> Vec<u8> {
        let script = "return [outerWidth - innerWidth, outerHeight - innerHeight];";
        let frame = self.client.execute(script, vec![]).await.expect("a script runs");
        let [wide, high] = [0, 1].map(|part| u32::try_from(frame[part].as_u64().unwrap_or(0)).unwrap_or(0));
        let sized = self.client.set_window_size(width + wide, height + high).await;
        sized.expect("a window has a size");
        // What is drawn anew at another size has the time for that.
        let settled = "const done = arguments[0]; setTimeout(() => requestAnimationFrame(() => done(true)), 1200);";
        self.client.execute_async(settled, vec![]).await.expect("a script runs");
        self.client.screenshot().await.expect("a picture")
    }

    /// The element, once it is there.
    pub async fn find(&self, css: &str) -> Element {
        let found = self.client.wait().at_most(LIMIT).for_element(Locator::Css(css)).await;
        found.unwrap_or_else(|error| panic!("{css}: {error}"))
    }

    /// Writes into a field.
    pub async fn fill(&self, css: &str, text: &str) {
        let field = self.find(css).await;
        field.clear().await.expect("the field is open");
        field.send_keys(text).await.expect("the field is open");
    }

    /// Writes into a field and sends it with the keyboard.
    pub async fn enter(&self, css: &str, text: &str) {
        self.fill(css, &format!("{text}{}", char::from(Key::Enter))).await;
    }

    /// Comes into the chat.
    pub async fn come_in(&self, name: &str) {
        self.enter("#entry-name", name).await;
        self.sees("#state", "Connected").await;
        self.sees("#me-name", name).await;
    }

    /// Says something in the chat.
    pub async fn say(&self, text: &str) {
        self.enter("#say", text).await;
    }

    /// Clicks the entry of a list that holds this text.
    pub async fn choose(&self, list: &str, text: &str) {
        let script = "for (const button of document.querySelectorAll(`${arguments[0]} button`))
            if (button.textContent.includes(arguments[1])) return button.click(), true;
            return false;";
        let done = self.client.execute(script, vec![json!(list), json!(text)]).await;
        assert_eq!(done.expect("a script runs"), json!(true), "{text:?} is not in {list}");
    }

    /// The text of whatever matches, shown or not.
    pub async fn text(&self, css: &str) -> String {
        let script = "return [...document.querySelectorAll(arguments[0])].map(part => part.textContent).join('\\n');";
        let text = self
            .client
            .execute(script, vec![json!(css)])
            .await
            .expect("a script runs");
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until a text is in what matches.
    pub async fn sees(&self, css: &str, text: &str) {
        wait_until(&format!("{text:?} in {css}"), LIMIT, async || {
            self.text(css).await.contains(text)
        })
        .await;
    }

    /// Notes all that the element holds from now on, for [`Self::has_seen`].
    ///
    /// # Panics
    ///
    /// When there is no such element.
    pub async fn watch(&self, css: &str) {
        let script = "const part = document.querySelector(arguments[0]);
            window.seen = [];
            new MutationObserver(() => window.seen.push(part.textContent))
                .observe(part, {childList: true, characterData: true, subtree: true});";
        self.client
            .execute(script, vec![json!(css)])
            .await
            .expect("a script runs");
    }

    /// Waits until what is watched has held a text, be it for a moment.
    pub async fn has_seen(&self, text: &str) {
        let script = "return window.seen.some(seen => seen.includes(arguments[0]));";
        wait_until(&format!("{text:?} for a moment"), LIMIT, async || {
            let seen = self.client.execute(script, vec![json!(text)]).await;
            seen.is_ok_and(|seen| seen == json!(true))
        })
        .await;
    }

    /// Waits until a text is no longer in what matches.
    pub async fn no_longer_sees(&self, css: &str, text: &str) {
        wait_until(&format!("no {text:?} in {css}"), LIMIT, async || {
            !self.text(css).await.contains(text)
        })
        .await;
    }
}
