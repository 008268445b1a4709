//! The commands in an answer: a list in JSON.
//!
//! The handler reads an answer with it. The whole list is read and checked before any command is carried out. It knows the
//! API, and nothing of HTTP.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use meepo_proto::link as wire;
use meepo_proto::{ClientId, codes};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::api::targets::MAX_CLOSE_REASON;
use crate::{Client, ClientTarget, Cluster, Message, Target};

/// Most bytes of the name of a group or a user, as gateways have it.
const MAX_NAME: usize = 255;
/// All commands there are.
const VERBS: &str = "send, close, destroy, join, leave, bind, unbind, session, dissolve";

/// A command that can be carried out.
#[derive(Debug)]
pub(crate) enum Command {
    Send(Recipients, Message),
    Close(Recipients, u16, String),
    Destroy(Recipients),
    Join(Who, String),
    Leave(Who, String),
    Bind(Who, String),
    Unbind(Who),
    Session(Who, Change),
    Dissolve(String),
}

/// One client. None: the client whose event was answered.
type Who = Option<ClientId>;

/// Clients.
#[derive(Debug)]
pub(crate) enum Recipients {
    /// The client whose event was answered.
    Own,
    These {
        names: Names,
        except: Vec<ClientId>,
        except_uids: Vec<String>,
    },
}

#[derive(Debug)]
pub(crate) enum Names {
    Clients(Vec<ClientId>),
    Uids(Vec<String>),
    Groups(Vec<String>),
    All,
}

/// A change of a session.
#[derive(Debug)]
pub(crate) struct Change {
    replace: bool,
    set: BTreeMap<String, String>,
    remove: Vec<String>,
}

/// A command that is wrong, and its place in the list.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {why}")]
pub(crate) struct WrongCommand {
    place: String,
    why: String,
}

/// A field of a command that is wrong, and why.
struct Wrong(String, String);

fn wrong(field: impl Into<String>, why: impl ToString) -> Wrong {
    Wrong(field.into(), why.to_string())
}

// === as it is written ===

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Send {
    #[serde(default)]
    to: To,
    text: Option<String>,
    base64: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Close {
    #[serde(default)]
    to: To,
    code: Option<u16>,
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Destroy {
    #[serde(default)]
    to: To,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Membership {
    client: Option<String>,
    group: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Bind {
    client: Option<String>,
    uid: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unbind {
    client: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Session {
    client: Option<String>,
    #[serde(default)]
    replace: bool,
    #[serde(default)]
    set: BTreeMap<String, String>,
    #[serde(default)]
    remove: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Dissolve {
    group: String,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct To {
    client: Option<String>,
    clients: Option<Vec<String>>,
    uid: Option<String>,
    uids: Option<Vec<String>>,
    group: Option<String>,
    groups: Option<Vec<String>>,
    all: Option<bool>,
    except: Vec<String>,
    except_uids: Vec<String>,
}

// === from text to commands ===

/// Reads and checks a list of commands, whose messages may have up to `max_message` bytes each.
pub(crate) fn read(body: &[u8], max_message: u64) -> Result<Vec<Command>, WrongCommand> {
    let whole = |why: String| WrongCommand {
        place: "the answer".into(),
        why,
    };
    let list: Value = serde_json::from_slice(body).map_err(|error| whole(format!("it is not JSON: {error}")))?;
    let Value::Array(list) = list else {
        return Err(whole("it is not a list of commands".into()));
    };
    let commands = list.into_iter().enumerate().map(|(index, command)| {
        let read = match command {
            Value::Object(fields) => command_of(fields).and_then(|command| command.fits(max_message)),
            _ => Err(wrong("", "it is not an object")),
        };
        read.map_err(|Wrong(field, why)| {
            let dot = if field.is_empty() { "" } else { "." };
            let place = format!("commands[{index}]{dot}{field}");
            WrongCommand { place, why }
        })
    });
    commands.collect()
}

fn command_of(mut fields: Map<String, Value>) -> Result<Command, Wrong> {
    let verb = match fields.remove("do") {
        Some(Value::String(verb)) => verb,
        Some(_) => return Err(wrong("do", "it is not text")),
        None => return Err(wrong("do", format!("it is missing: one of {VERBS}"))),
    };
    Ok(match verb.as_str() {
        "send" => {
            let Send { to, text, base64 } = fields_of(fields)?;
            Command::Send(to.recipients()?, message(text, base64)?)
        }
        "close" => {
            let Close { to, code, reason } = fields_of(fields)?;
            let code = code.unwrap_or(codes::NORMAL.code);
            if !codes::may_be_sent(code) {
                return Err(wrong("code", format!("no application may send {code}")));
            }
            if reason.len() > MAX_CLOSE_REASON {
                return Err(wrong("reason", format!("it is longer than {MAX_CLOSE_REASON} bytes")));
            }
            Command::Close(to.recipients()?, code, reason)
        }
        "destroy" => Command::Destroy(fields_of::<Destroy>(fields)?.to.recipients()?),
        "join" | "leave" => {
            let Membership { client, group } = fields_of(fields)?;
            let (client, group) = (who(client)?, name("group", group)?);
            match verb.as_str() {
                "join" => Command::Join(client, group),
                _ => Command::Leave(client, group),
            }
        }
        "bind" => {
            let Bind { client, uid } = fields_of(fields)?;
            Command::Bind(who(client)?, name("uid", uid)?)
        }
        "unbind" => Command::Unbind(who(fields_of::<Unbind>(fields)?.client)?),
        "session" => {
            let session: Session = fields_of(fields)?;
            let (replace, set, remove) = (session.replace, session.set, session.remove);
            if replace && !remove.is_empty() {
                return Err(wrong("remove", "it has no meaning beside replace"));
            }
            Command::Session(who(session.client)?, Change { replace, set, remove })
        }
        "dissolve" => Command::Dissolve(name("group", fields_of::<Dissolve>(fields)?.group)?),
        _ => return Err(wrong("do", format!("\"{verb}\" is none of {VERBS}"))),
    })
}

fn fields_of<T: DeserializeOwned>(fields: Map<String, Value>) -> Result<T, Wrong> {
    serde_path_to_error::deserialize(Value::Object(fields)).map_err(|error| {
        let path = error.path().to_string();
        wrong(if path == "." { "" } else { &path }, error.into_inner())
    })
}

impl To {
    fn recipients(self) -> Result<Recipients, Wrong> {
        let exceptions = !self.except.is_empty() || !self.except_uids.is_empty();
        let mut named = Vec::new();
        if let Some(client) = self.client {
            named.push(Names::Clients(vec![id("to.client", &client)?]));
        }
        if let Some(clients) = self.clients {
            named.push(Names::Clients(ids("to.clients", &clients)?));
        }
        if let Some(uid) = self.uid {
            named.push(Names::Uids(vec![name("to.uid", uid)?]));
        }
        if let Some(uids) = self.uids {
            named.push(Names::Uids(names("to.uids", uids)?));
        }
        if let Some(group) = self.group {
            named.push(Names::Groups(vec![name("to.group", group)?]));
        }
        if let Some(groups) = self.groups {
            named.push(Names::Groups(names("to.groups", groups)?));
        }
        match self.all {
            Some(true) => named.push(Names::All),
            Some(false) => return Err(wrong("to.all", "it can only be true")),
            None => {}
        }
        let except = ids("to.except", &self.except)?;
        let except_uids = names("to.except_uids", self.except_uids)?;
        match (named.pop(), named.is_empty()) {
            (Some(names), true) => Ok(Recipients::These {
                names,
                except,
                except_uids,
            }),
            (Some(_), false) => Err(wrong("to", "it names clients in more than one way")),
            (None, _) if exceptions => Err(wrong("to", "it has exceptions and nobody from whom to except them")),
            (None, _) => Ok(Recipients::Own),
        }
    }
}

fn message(text: Option<String>, base64: Option<String>) -> Result<Message, Wrong> {
    match (text, base64) {
        (Some(text), None) => Ok(text.into()),
        (None, Some(base64)) => match BASE64.decode(base64.as_bytes()) {
            Ok(bytes) => Ok(bytes.into()),
            Err(error) => Err(wrong("base64", error)),
        },
        (None, None) => Err(wrong("", "there is neither text nor base64")),
        (Some(_), Some(_)) => Err(wrong("", "there are both text and base64")),
    }
}

fn who(client: Option<String>) -> Result<Who, Wrong> {
    client.map(|client| id("client", &client)).transpose()
}

fn id(field: &str, text: &str) -> Result<ClientId, Wrong> {
    text.parse().map_err(|error| wrong(field, error))
}

fn ids(field: &str, texts: &[String]) -> Result<Vec<ClientId>, Wrong> {
    let ids = texts.iter().enumerate();
    ids.map(|(index, text)| id(&format!("{field}[{index}]"), text))
        .collect()
}

fn name(field: &str, name: String) -> Result<String, Wrong> {
    match name.len() {
        1..=MAX_NAME => Ok(name),
        length => Err(wrong(
            field,
            format!("it has {length} bytes, and may have 1 to {MAX_NAME}"),
        )),
    }
}

fn names(field: &str, all: Vec<String>) -> Result<Vec<String>, Wrong> {
    let names = all.into_iter().enumerate();
    names
        .map(|(index, each)| name(&format!("{field}[{index}]"), each))
        .collect()
}

/// Why a gateway would not take a message.
pub(crate) fn too_long(bytes: usize, max_message: u64) -> String {
    format!("the message has {bytes} bytes, over the gateways' limit of {max_message}")
}

// === from commands to clients ===

impl Command {
    fn fits(self, max_message: u64) -> Result<Self, Wrong> {
        match &self {
            Self::Send(_, message) if message.bytes().len() as u64 > max_message => {
                let (field, bytes) = (if message.is_text() { "text" } else { "base64" }, message.bytes().len());
                Err(wrong(field, too_long(bytes, max_message)))
            }
            _ => Ok(self),
        }
    }

    /// Carries the command out for the client whose event was answered.
    pub(crate) fn carry_out(self, client: &Client) {
        let cluster = client.cluster();
        match self {
            Self::Send(Recipients::Own, message) => client.send(message),
            Self::Send(
                Recipients::These {
                    names,
                    except,
                    except_uids,
                },
                message,
            ) => {
                names.target(cluster, except, except_uids).send(message);
            }
            Self::Close(Recipients::Own, code, reason) => client.close(code, reason),
            Self::Close(
                Recipients::These {
                    names,
                    except,
                    except_uids,
                },
                code,
                reason,
            ) => {
                names.target(cluster, except, except_uids).close(code, reason);
            }
            Self::Destroy(Recipients::Own) => client.destroy(),
            Self::Destroy(Recipients::These {
                names,
                except,
                except_uids,
            }) => {
                names.target(cluster, except, except_uids).destroy();
            }
            Self::Join(who, group) => one(client, who).join(group),
            Self::Leave(who, group) => one(client, who).leave(group),
            Self::Bind(who, uid) => one(client, who).bind(uid),
            Self::Unbind(who) => one(client, who).unbind(),
            Self::Session(who, change) => change.carry_out(&one(client, who)),
            Self::Dissolve(group) => cluster.dissolve(group),
        }
    }
}

/// A client by its id, or the one whose event was answered.
fn one(client: &Client, who: Who) -> ClientTarget<'_> {
    match who {
        Some(id) if id != client.id() => client.cluster().client(id),
        _ => ClientTarget::clone(client),
    }
}

impl Names {
    fn target(self, cluster: &Cluster, except: Vec<ClientId>, except_uids: Vec<String>) -> Target<'_> {
        let target = match self {
            Self::Clients(ids) => cluster.clients(ids),
            Self::Uids(uids) => cluster.uids(uids),
            Self::Groups(groups) => cluster.groups(groups),
            Self::All => cluster.all(),
        };
        let target = except.into_iter().fold(target, Target::except);
        except_uids.into_iter().fold(target, Target::except_uid)
    }
}

impl Change {
    fn carry_out(self, target: &ClientTarget<'_>) {
        let Self { replace, set, remove } = self;
        target.change_session(wire::SessionChanged {
            set,
            remove,
            clear: replace,
        });
    }
}

#[cfg(test)]
mod tests;
