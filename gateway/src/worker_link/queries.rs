//! The queries of a worker, answered.

use std::sync::Arc;

use meepo_proto::id::{ClientNumber, QueryId};
use meepo_proto::link::send::To;
use meepo_proto::link::{
    Barrier, ClientInfo, Count, Filter, Groups, Query, Receipt, Select, Selected, Send, Uids, query, reply,
};
use tokio::sync::oneshot;

use crate::client::handle::{FlushBatch, Sent};
use crate::fanout::client_registry::Entry;
use crate::fanout::message::OutboundMessage;
use crate::router::LinkId;
use crate::worker_link::context::LinkContext;
use crate::worker_link::refusal::check_message;

/// Answers a query over the link that it came from. A message with a receipt is answered once it is written. False if the
/// query is unknown.
pub(crate) fn answer(context: &LinkContext, link: LinkId, query: Query, flush: &mut FlushBatch) -> bool {
    let id = QueryId(query.id);
    let Some(body) = query.body else { return false };
    let body = match body {
        query::Body::Select(select) => reply::Body::Selected(selected(context, select)),
        query::Body::Groups(_) => reply::Body::Groups(Groups {
            groups: context.dispatch.clients.registry().group_sizes(),
        }),
        query::Body::Count(filter) => reply::Body::Count(Count {
            count: context.dispatch.clients.registry().select(&filter).count() as u64,
        }),
        query::Body::Uids(filter) => reply::Body::Uids(Uids {
            uids: uids(context, &filter),
        }),
        query::Body::Barrier(_) => reply::Body::Barrier(Barrier {}),
        query::Body::Confirm(send) => match send_with_receipt(context, send, flush) {
            Ok(receipt) => {
                reply_on_receipt(context, link, id, receipt);
                return true;
            }
            Err(failed) => reply::Body::Receipt(failed.into()),
        },
    };
    context.dispatch.reply(link, id, body);
    true
}

fn selected(context: &LinkContext, select: Select) -> Selected {
    let registry = context.dispatch.clients.registry();
    let info = |entry: &Entry| ClientInfo {
        client: entry.client.number.0,
        uid: match &entry.uid {
            Some(uid) if select.uid => Some(uid.to_string()),
            _ => None,
        },
        groups: match select.groups {
            true => entry.groups.iter().map(ToString::to_string).collect(),
            false => Vec::new(),
        },
        session: match select.session {
            true => entry.client.profile.session.lock().clone(),
            false => Default::default(),
        },
    };
    let filter = select.filter.clone().unwrap_or_default();
    Selected {
        clients: registry.select(&filter).map(info).collect(),
    }
}

fn uids(context: &LinkContext, filter: &Filter) -> Vec<String> {
    let registry = context.dispatch.clients.registry();
    if *filter == Filter::default() {
        return registry.uids().map(ToOwned::to_owned).collect();
    }
    let mut uids: Vec<_> = registry
        .select(filter)
        .filter_map(|entry| entry.uid.as_deref())
        .collect();
    uids.sort_unstable();
    uids.dedup();
    uids.into_iter().map(ToOwned::to_owned).collect()
}

/// Sends a message to one client. The receipt is told when the client's system has it, or dropped when it never will.
fn send_with_receipt(
    context: &LinkContext,
    send: Send,
    flush: &mut FlushBatch,
) -> Result<oneshot::Receiver<()>, Receipt> {
    let number = match &send.to {
        Some(To::Client(number)) => Some(ClientNumber(*number)),
        Some(To::Target(target)) => target.clients.first().copied().map(ClientNumber),
        None => None,
    };
    let client = number.and_then(|number| context.dispatch.clients.get(number));
    let client = client.ok_or(Receipt::ClientGone)?;
    check_message(&send, context.limits.max_message).map_err(|_| Receipt::NotValid)?;
    let message = OutboundMessage::new(send.payload, send.binary);
    let (receipt, delivered) = oneshot::channel();
    match context.sender.send_one(&client, message, Some(receipt), flush) {
        Sent::Queued => Ok(delivered),
        Sent::Full => Err(Receipt::BufferFull),
        Sent::Gone => Err(Receipt::ClientGone),
    }
}

fn reply_on_receipt(context: &LinkContext, link: LinkId, query: QueryId, receipt: oneshot::Receiver<()>) {
    let dispatch = Arc::downgrade(&context.dispatch);
    tokio::spawn(async move {
        let outcome = match receipt.await {
            Ok(()) => Receipt::Delivered,
            Err(_) => Receipt::ClientGone,
        };
        if let Some(dispatch) = dispatch.upgrade() {
            dispatch.reply(link, query, reply::Body::Receipt(outcome.into()));
        }
    });
}
