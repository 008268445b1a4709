//! The handler: agents come over `line`, pages over WebSocket.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use meepo_worker::{Client, CloseReason, Cluster, Handler, Hello, Message, Reject, Result};
use serde_json::json;

use crate::sample::{LATER, OK, PREFIX, REFUSED, Samples, now};
use crate::store::{KEPT, Store};

/// The environment variable with the path of the database.
const DATABASE: &str = "MONITOR_DATABASE";
/// The group of all pages.
const PAGES: &str = "pages";

#[derive(Debug, Default)]
pub(crate) struct Board {
    store: OnceLock<Store>,
}

impl Handler for Board {
    async fn on_start(&self, _cluster: &Cluster) -> Result<()> {
        let path = database()?;
        let store = tokio::task::spawn_blocking(move || Store::open(&path)).await??;
        let _ = self.store.set(store);
        Ok(())
    }

    async fn on_connect(&self, client: &Client, hello: &Hello) -> Result<(), Reject> {
        // The page joins before it asks for the history: a sample in between comes twice, and is not missed.
        if hello.protocol() == "ws" {
            client.join(PAGES);
        }
        Ok(())
    }

    async fn on_message(&self, client: &Client, message: Message) -> Result<()> {
        let text = message.text().ok_or("only text is understood")?;
        match client.hello().protocol() {
            "ws" => self.show(client, text).await,
            _ => self.take(client, text).await,
        }
    }

    async fn on_close(&self, client: &Client, _reason: &CloseReason) {
        // The next sample of an agent that comes again shows its host as live.
        if let Some(host) = client.get("host") {
            client
                .cluster()
                .group(PAGES)
                .send(json!({ "silent": host }).to_string());
        }
    }
}

impl Board {
    fn store(&self) -> Result<&Store> {
        Ok(self.store.get().ok_or("on_start has opened the database")?)
    }

    /// Takes the samples of an agent: writes them into the database, sends them to the pages, and answers the agent.
    async fn take(&self, client: &Client, line: &str) -> Result<()> {
        let now = now();
        let read = match line.strip_prefix(PREFIX) {
            Some(json) => Samples::read(json, now, now - i64::try_from(KEPT.as_millis())?),
            None => Err(format!("a line begins with {PREFIX}")),
        };
        let samples = match read {
            Ok(samples) => samples,
            Err(why) => {
                client.send(format!("{REFUSED}{why}"));
                return Ok(());
            }
        };
        if let Err(error) = self.store()?.write(samples.clone()).await {
            client.send(format!("{LATER}{}", error.to_string().replace(char::is_control, " ")));
            return Err(error.into());
        }
        if client.get("host").as_deref() != Some(&samples.host) {
            client.set("host", &samples.host);
        }
        client
            .cluster()
            .group(PAGES)
            .send(json!({ "live": samples }).to_string());
        client.send(OK);
        Ok(())
    }

    /// Sends a page the history that it asks for, of a number of seconds.
    async fn show(&self, client: &Client, text: &str) -> Result<()> {
        let span = text.strip_prefix("history ").and_then(|seconds| seconds.parse().ok());
        let Some(span) = span
            .map(Duration::from_secs)
            .filter(|span| !span.is_zero() && *span <= KEPT)
        else {
            let error = format!("There is `history SECONDS`, of up to {} seconds", KEPT.as_secs());
            client.send(json!({ "error": error }).to_string());
            return Ok(());
        };
        match self.store()?.history(span).await {
            Ok(history) => {
                // One message for each host, so that each message is small.
                for host in &history {
                    client.send(json!({ "past": host }).to_string());
                }
                client.send(json!({ "now": now(), "hosts": history.len() }).to_string());
                Ok(())
            }
            Err(error) => {
                client.send(json!({ "error": "The history cannot be read" }).to_string());
                Err(error.into())
            }
        }
    }
}

/// The path of the database. It must be absolute, since a daemon has another working directory than the shell that started it.
fn database() -> Result<PathBuf> {
    let path = match std::env::var_os(DATABASE) {
        Some(path) => PathBuf::from(path),
        None => match std::env::var_os("HOME") {
            Some(home) => PathBuf::from(home).join("meepo-monitor.sqlite"),
            None => return Err(format!("{DATABASE} is not set, and HOME is not either").into()),
        },
    };
    match path.is_absolute() {
        true => Ok(path),
        false => Err(format!("{DATABASE}={} has to be an absolute path", path.display()).into()),
    }
}
