//! Checks of the fields of a call, whether it came over HTTP or gRPC.

use meepo_proto::push::{self as api, Filter};
use meepo_proto::{ClientId, codes};

use super::problem::Problem;
use crate::api::targets::{CLIENTS_AT_ONCE, MAX_CLOSE_REASON};
use crate::{Cluster, Message, Select, Target};

/// Most names in a list, so that a command stays below the gateway's limit.
const MAX_LIST: usize = CLIENTS_AT_ONCE;
/// The longest name of a group, and the longest uid, in bytes: the gateway's.
const MAX_NAME: usize = 255;

type Checked<T> = Result<T, Problem>;

pub(super) fn client(field: &str, text: &str) -> Checked<ClientId> {
    text.parse()
        .map_err(|error: meepo_proto::id::InvalidClientId| Problem::field(field, error.to_string()))
}

/// A list of clients that must not be empty.
pub(super) fn clients(field: &str, texts: &[String]) -> Checked<Vec<ClientId>> {
    if texts.is_empty() {
        return Err(Problem::field(field, "names nobody"));
    }
    some_clients(field, texts)
}

fn some_clients(field: &str, texts: &[String]) -> Checked<Vec<ClientId>> {
    short(field, texts)?;
    let ids = texts.iter().enumerate();
    ids.map(|(index, text)| client(&format!("{field}[{index}]"), text))
        .collect()
}

pub(super) fn name(field: &str, name: &str) -> Checked<()> {
    match name.len() {
        1..=MAX_NAME => Ok(()),
        0 => Err(Problem::field(field, "the name is empty")),
        _ => Err(Problem::field(field, "the name is longer than 255 bytes")),
    }
}

fn names(field: &str, list: &[String]) -> Checked<()> {
    short(field, list)?;
    let mut list = list.iter().enumerate();
    list.try_for_each(|(index, text)| name(&format!("{field}[{index}]"), text))
}

pub(super) fn short(field: &str, list: &[String]) -> Checked<()> {
    match list.len() > MAX_LIST {
        true => Err(Problem::field(field, format!("the list is longer than {MAX_LIST}"))),
        false => Ok(()),
    }
}

pub(super) fn target<'a>(cluster: &'a Cluster, to: Option<&api::Target>) -> Checked<Target<'a>> {
    let to = to.ok_or_else(|| Problem::field("to", "nobody is named"))?;
    let kinds = [
        to.all,
        !to.clients.is_empty(),
        !to.uids.is_empty(),
        !to.groups.is_empty(),
    ];
    if kinds.into_iter().filter(|kind| *kind).count() != 1 {
        let why = "there has to be exactly one of all, clients, uids and groups";
        return Err(Problem::field("to", why));
    }
    names("to.uids", &to.uids)?;
    names("to.groups", &to.groups)?;
    names("to.except_uids", &to.except_uids)?;
    let target = if to.all {
        cluster.all()
    } else if !to.uids.is_empty() {
        cluster.uids(&to.uids)
    } else if !to.groups.is_empty() {
        cluster.groups(&to.groups)
    } else {
        cluster.clients(clients("to.clients", &to.clients)?)
    };
    let except = some_clients("to.except", &to.except)?;
    let target = except.into_iter().fold(target, Target::except);
    Ok(to.except_uids.iter().fold(target, Target::except_uid))
}

pub(super) fn message(text: Option<String>, binary: Option<bytes::Bytes>) -> Checked<Message> {
    match (text, binary) {
        (Some(text), None) => Ok(text.into()),
        (None, Some(binary)) => Ok(binary.into()),
        (None, None) => Err(Problem::field("text", "there has to be text or binary")),
        (Some(_), Some(_)) => Err(Problem::field("binary", "there cannot be both text and binary")),
    }
}

pub(super) fn close(code: Option<u32>, reason: Option<String>) -> Checked<(u16, String)> {
    let code = code.unwrap_or(codes::NORMAL.code.into());
    let code = u16::try_from(code).ok().filter(|code| codes::may_be_sent(*code));
    let code = code.ok_or_else(|| Problem::field("code", "no application may send this close code"))?;
    let reason = reason.unwrap_or_default();
    if reason.len() > MAX_CLOSE_REASON {
        return Err(Problem::field("reason", "it is longer than 123 bytes"));
    }
    Ok((code, reason))
}

pub(super) fn select<'a>(cluster: &'a Cluster, filter: Option<Filter>) -> Checked<Select<'a>> {
    let filter = filter.unwrap_or_default();
    names("filter.uids", &filter.uids)?;
    names("filter.groups", &filter.groups)?;
    let ids = some_clients("filter.clients", &filter.clients)?;
    let select = ids.into_iter().fold(cluster.select(), Select::client);
    let select = filter.uids.into_iter().fold(select, Select::uid);
    let select = filter.groups.into_iter().fold(select, Select::group);
    let session = filter.session.into_iter();
    Ok(session.fold(select, |select, (key, value)| select.session(key, value)))
}
