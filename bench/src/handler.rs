//! The business logic that loads are for.

use meepo_worker::{Client, Handler, Message, Result};

const ROOM: &str = "room";

/// `J…` joins the one room, `P…` goes to every member of the room as it is, the sender too; all else is echoed.
#[derive(Debug, Clone, Copy)]
pub struct Room;

impl Handler for Room {
    async fn on_message(&self, client: &Client, message: Message) -> Result<()> {
        match message.bytes().first() {
            Some(b'J') => client.join(ROOM),
            Some(b'P') => client.cluster().group(ROOM).send(message),
            _ => client.send(message),
        }
        Ok(())
    }
}
