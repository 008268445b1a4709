//! Why a command is not carried out, and the checks that every command has in common.

use meepo_proto::id::ClientNumber;
use meepo_proto::link::send::To;
use meepo_proto::link::{RefusedWhy, Send, Target};

use crate::fanout::client_registry::Gone;

/// Why a command was not carried out.
#[derive(Debug)]
pub(crate) struct Refusal(pub(crate) RefusedWhy, pub(crate) &'static str);

/// The client of a command is not there.
pub(crate) const GONE: Refusal = Refusal(RefusedWhy::Gone, "the client is gone");

/// The longest name of a group, and the longest uid, in bytes.
const MAX_NAME: usize = 255;

impl From<Gone> for Refusal {
    fn from(Gone: Gone) -> Self {
        GONE
    }
}

/// Whether clients can be sent a message.
pub(crate) fn check_message(send: &Send, max_message: usize) -> Result<(), Refusal> {
    if send.payload.len() > max_message {
        return Err(Refusal(RefusedWhy::OverLimit, "the message is over `max_message`"));
    }
    if !send.binary && std::str::from_utf8(&send.payload).is_err() {
        return Err(Refusal(RefusedWhy::Invalid, "the text is not UTF-8"));
    }
    Ok(())
}

/// The client of a message, if it names a single one.
pub(crate) fn only_client(send: &Send) -> Option<ClientNumber> {
    match &send.to {
        Some(To::Client(number)) => Some(ClientNumber(*number)),
        Some(To::Target(target)) => match target.clients[..] {
            [number] => Some(ClientNumber(number)),
            _ => None,
        },
        None => None,
    }
}

/// Whether the names in a target are valid.
pub(crate) fn check_target(target: &Target) -> Result<(), Refusal> {
    let mut names = target.groups.iter().chain(&target.uids).chain(&target.except_uids);
    names.try_for_each(|name| check_name(name))
}

/// Whether a group or a uid can be called so.
pub(crate) fn check_name(name: &str) -> Result<(), Refusal> {
    match name.len() {
        0 => Err(Refusal(RefusedWhy::Invalid, "the name is empty")),
        1..=MAX_NAME => Ok(()),
        _ => Err(Refusal(RefusedWhy::OverLimit, "the name is longer than 255 bytes")),
    }
}
