//! The handler that answers the loads.

use meepo_worker::{Client, Handler, Message, Result};

const ROOM: &str = "room";
/// Length of a group's name, in bytes.
const NAME: usize = 8;

/// `J` joins the one room, `P…` goes to every member of the room as it is, the sender too, `O…` to every other one; `J` with a
/// name joins the group of that name, `G` with a name of 8 bytes and more goes to all of that group; all else is echoed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room;

impl Handler for Room {
    async fn on_message(&self, client: &Client, message: Message) -> Result<()> {
        let bytes = message.bytes();
        match &bytes[..] {
            [b'J'] => client.join(ROOM),
            [b'J', name @ ..] => client.join(String::from_utf8_lossy(name)),
            [b'P', ..] => client.cluster().group(ROOM).send(message),
            [b'O', ..] => client.cluster().group(ROOM).except(client.id()).send(message),
            [b'G', rest @ ..] => {
                let name = String::from_utf8_lossy(rest.get(..NAME).unwrap_or_default()).into_owned();
                client.cluster().group(name).send(message);
            }
            _ => client.send(message),
        }
        Ok(())
    }
}
