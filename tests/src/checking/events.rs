//! What the test worker wrote down.

use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::wait::wait_for;

/// Something that happened in a handler of the test worker. The file has one a line, in the order of writing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// `start`, `connect`, `connected` (the connect handler ends), `message`, `handled` (the message handler ends),
    /// `full` and `empty` (the send buffer), `error`, `request`, `answered` (the request handler ends), `farewell`, `close`,
    /// `stop`, or `result` of something that a handler did.
    pub event: String,
    /// The worker's process.
    pub pid: u32,
    /// The client's id.
    #[serde(skip_serializing_if = "is_default")]
    pub client: String,
    /// The path that the client asked for.
    #[serde(skip_serializing_if = "is_default")]
    pub path: String,
    /// The query that the client asked for.
    #[serde(skip_serializing_if = "is_default")]
    pub query: String,
    /// The client's address.
    #[serde(skip_serializing_if = "is_default")]
    pub peer: String,
    /// `ws` or `line`.
    #[serde(skip_serializing_if = "is_default")]
    pub protocol: String,
    /// The message, the reason of a close, or a result.
    #[serde(skip_serializing_if = "is_default")]
    pub text: String,
    /// Whether the message was binary. Its text is then its length.
    #[serde(skip_serializing_if = "is_default")]
    pub binary: bool,
    /// Whether the event may have been seen before.
    #[serde(skip_serializing_if = "is_default")]
    pub redelivered: bool,
    /// Whether the client was paused.
    #[serde(skip_serializing_if = "is_default")]
    pub paused: bool,
    /// Why the client went.
    #[serde(skip_serializing_if = "is_default")]
    pub cause: String,
    /// The close code.
    #[serde(skip_serializing_if = "is_default")]
    pub code: Option<u16>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The file that the test worker writes to.
#[derive(Debug, Clone)]
pub struct Events {
    path: PathBuf,
}

impl Events {
    /// The events in this file.
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// All events so far.
    pub fn all(&self) -> Vec<Record> {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        complete
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in the event {line:?}")))
            .collect()
    }

    /// The events of this kind.
    pub fn of(&self, event: &str) -> Vec<Record> {
        let mut all = self.all();
        all.retain(|record| record.event == event);
        all
    }

    /// How many events of this kind there are, without holding up what runs beside: after minutes of load they are many.
    pub async fn count(&self, event: &str) -> usize {
        let path = self.path.clone();
        // As each line begins.
        let begin = format!("{{\"event\":\"{event}\"");
        let count = move || fs::read_to_string(path).unwrap_or_default().matches(&begin).count();
        tokio::task::spawn_blocking(count)
            .await
            .expect("counting does not fail")
    }

    /// The texts of all messages.
    pub fn messages(&self) -> Vec<String> {
        self.of("message").into_iter().map(|record| record.text).collect()
    }

    /// Waits for an event that is as asked, and returns the first.
    pub async fn wait(&self, what: &str, mut right: impl FnMut(&Record) -> bool) -> Record {
        wait_for(what, async || self.all().into_iter().find(|record| right(record))).await
    }

    /// Waits until there are so many events of this kind, and returns them.
    pub async fn wait_count(&self, event: &str, count: usize) -> Vec<Record> {
        wait_for(&format!("{count} × {event}"), async || {
            Some(self.of(event)).filter(|records| records.len() >= count)
        })
        .await
    }
}
