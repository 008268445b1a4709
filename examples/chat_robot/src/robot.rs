//! The robot, which talks with each person alone.
//!
//! What the robot remembers of a person is in the client's session, so any worker can give the next answer.

use meepo_worker::{Client, Handler, Hello, Message, Reject, Result};

use crate::rules;

const MAX_TEXT: usize = 1000;

pub(crate) struct Robot;

impl Handler for Robot {
    async fn on_connect(&self, client: &Client, _hello: &Hello) -> Result<(), Reject> {
        client.send("Hello. I am a robot with a few rules. What is on your mind?");
        Ok(())
    }

    async fn on_message(&self, client: &Client, message: Message) -> Result<()> {
        let text = message.text().unwrap_or_default().trim();
        if !(1..=MAX_TEXT).contains(&text.chars().count()) {
            client.send(format!("I read texts of 1 to {MAX_TEXT} characters."));
            return Ok(());
        }
        let turn = client.get("turn").and_then(|turn| turn.parse().ok()).unwrap_or(0);
        let topic = client.get("topic");
        client.send(rules::answer(text, topic.as_deref(), turn));
        client.set("turn", usize::wrapping_add(turn, 1).to_string());
        if let Some(topic) = rules::topic(text) {
            client.set("topic", topic);
        }
        Ok(())
    }
}
