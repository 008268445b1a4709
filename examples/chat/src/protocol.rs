//! The messages between the chat and its users: JSON with a page, lines of text with a telnet user.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A request of a user. As JSON: `{"say":"hello"}`, `{"to":["Ada","hello"]}`, `"who"`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ask {
    /// To come in: a name, a room, and a key, which proves after a cut connection that the same user is back.
    Join(String, String, String),
    Name(String),
    Room(String),
    Say(String),
    To(String, String),
    Who,
    Rooms,
}

/// A message to a user. As JSON: `{"message":[{"name":"Ada","room":"lobby"},"hello"]}`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Event {
    You(Person),
    /// A person as before and as now: nobody before the person came, nobody after the person left.
    Presence(Option<Person>, Option<Person>),
    Message(Person, String),
    Private(Person, Person, String),
    People(Vec<Person>),
    Rooms(BTreeMap<String, u64>),
    Error(String),
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Person {
    pub(crate) name: String,
    pub(crate) room: String,
}

impl Ask {
    pub(crate) fn from_line(line: &str) -> Result<Self, String> {
        let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
        // In "/to", a name with spaces is in quotes.
        let quoted = rest.strip_prefix('"').and_then(|rest| rest.split_once('"'));
        match (command, quoted.or(rest.split_once(' '))) {
            ("/name", _) => Ok(Self::Name(rest.into())),
            ("/join", _) => Ok(Self::Room(rest.into())),
            ("/to", Some((name, text))) => Ok(Self::To(name.into(), text.into())),
            ("/who", _) => Ok(Self::Who),
            ("/rooms", _) => Ok(Self::Rooms),
            _ if !line.starts_with('/') => Ok(Self::Say(line.into())),
            _ => Err("There are /name NAME, /join ROOM, /rooms, /who, /to NAME TEXT and /help".into()),
        }
    }
}

impl Event {
    pub(crate) fn json(&self) -> String {
        serde_json::to_string(self).expect("people and texts can be written as JSON")
    }

    pub(crate) fn line(&self) -> String {
        let line = match self {
            Self::You(you) => format!("* You are {} in {}. Try /help", you.name, you.room),
            Self::Presence(None, Some(now)) => format!("* {} joined {}", now.name, now.room),
            Self::Presence(Some(was), Some(is)) if was.name == is.name => format!("* {} went to {}", is.name, is.room),
            Self::Presence(Some(was), Some(now)) => format!("* {} is now {}", was.name, now.name),
            Self::Presence(was, _) => format!("* {} left", was.as_ref().map_or("Somebody", |was| &was.name)),
            Self::Message(from, text) => format!("{}: {text}", from.name),
            Self::Private(from, to, text) => format!("{} to {}, privately: {text}", from.name, to.name),
            Self::People(people) => list(people.iter().map(|who| format!("{} in {}", who.name, who.room))),
            Self::Rooms(rooms) => list(rooms.iter().map(|(room, people)| format!("{room} ({people})"))),
            Self::Error(text) => format!("* {text}"),
        };
        // One event is one line, and no user can send control sequences to the terminal of another.
        line.replace(char::is_control, " ")
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("* {}", items.collect::<Vec<_>>().join(", "))
}
