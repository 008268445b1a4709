//! The handler: passes lines on to the viewers whose filter they meet.
//!
//! Viewers with the same filter are a group. So a worker learns from the gateways which filters there are, and keeps
//! no list itself.

use meepo_worker::{Client, Handler, Hello, Message, Reject, Result};
use serde_json::json;

use crate::batch::{Batch, OK, PREFIX, REFUSED};

/// The longest filter, in characters: the name of its group, in UTF-8, stays below the limit of 255 bytes.
const MAX_FILTER: usize = 60;
/// The filter that all lines meet.
const ALL: &str = "*";

pub(crate) struct Viewers;

impl Handler for Viewers {
    async fn on_connect(&self, client: &Client, hello: &Hello) -> Result<(), Reject> {
        if hello.protocol() == "line" {
            client.send(format!("* Send a text to see the lines that have it, {ALL} to see all"));
        }
        Ok(())
    }

    async fn on_message(&self, client: &Client, message: Message) -> Result<()> {
        let text = message.text().ok_or("only text is understood")?;
        let line = client.hello().protocol() == "line";
        match text.strip_prefix(PREFIX).filter(|_| line) {
            Some(batch) => match serde_json::from_str(batch) {
                Ok(batch) => {
                    pass_on(client, &batch).await;
                    client.send(OK);
                }
                Err(error) => client.send(format!("{REFUSED}{error}")),
            },
            None => view(client, text),
        }
        Ok(())
    }
}

/// Takes the client from the group of its old filter to that of a new one.
fn view(client: &Client, filter: &str) {
    let filter = filter.trim();
    let protocol = client.hello().protocol();
    let line = protocol == "line";
    if !(1..=MAX_FILTER).contains(&filter.chars().count()) {
        let error = format!("A filter has 1 to {MAX_FILTER} characters");
        let answer = json!({ "error": error }).to_string();
        return client.send(if line { format!("* {error}") } else { answer });
    }
    if let Some(old) = client.get("filter") {
        client.leave(group(protocol, &old));
    }
    client.set("filter", filter);
    client.join(group(protocol, filter));
    let answer = json!({ "filter": filter }).to_string();
    client.send(if line { format!("* You see {filter}") } else { answer });
}

async fn pass_on(client: &Client, batch: &Batch) {
    let cluster = client.cluster();
    // Viewers at a gateway that does not reply miss these lines, as if the viewers had come a moment later.
    for group in cluster.group_sizes().await.value.into_keys() {
        let Some((protocol, filter)) = group.split_once(':') else {
            continue;
        };
        let batch = batch.matching(if filter == ALL { "" } else { filter });
        if batch.lines.is_empty() {
            continue;
        }
        let message = if protocol == "line" {
            plain(&batch)
        } else {
            batch.json()
        };
        cluster.group(&group).send(message);
    }
}

fn group(protocol: &str, filter: &str) -> String {
    // A capital letter can become two small ones.
    let small = filter.to_lowercase().chars().take(MAX_FILTER).collect::<String>();
    format!("{protocol}:{small}")
}

/// Lines for a terminal, without the control sequences that a log may have.
fn plain(batch: &Batch) -> String {
    let line = |line: &String| format!("{} {}: {line}", batch.machine, batch.file).replace(char::is_control, " ");
    batch.lines.iter().map(line).collect::<Vec<_>>().join("\n")
}
