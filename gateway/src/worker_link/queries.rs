//! The queries of a worker, answered.

use std::sync::Arc;

use meepo_proto::link::{Count, Delivery, Filter, Found, Groups, Query, Select, Selected, Send, Uids, query, reply};
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
        query::Body::Confirm(send) => match send_with_receipt(context, send, flush) {
            Ok(receipt) => {
                reply_on_receipt(context, link, query.id, receipt);
                return true;
            }
            Err(failed) => reply::Body::Delivery(failed.into()),
        },
    };
    context.dispatch.reply(link, query.id, body);
    true
}

fn selected(context: &LinkContext, select: Select) -> Selected {
    let registry = context.dispatch.clients.registry();
    let found = |entry: &Entry| Found {
        client: entry.client.number,
        uid: match &entry.uid {
            Some(uid) if select.uid => uid.to_string(),
            _ => String::new(),
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
        clients: registry.select(&filter).map(found).collect(),
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
) -> Result<oneshot::Receiver<()>, Delivery> {
    let number = match send.client {
        0 => send.to.as_ref().and_then(|to| to.clients.first()).copied(),
        number => Some(number),
    };
    let client = number.and_then(|number| context.dispatch.clients.get(number));
    let client = client.ok_or(Delivery::ClientGone)?;
    check_message(&send, context.limits.max_message).map_err(|_| Delivery::NotValid)?;
    let message = OutboundMessage::new(send.payload, send.binary);
    let (receipt, delivered) = oneshot::channel();
    match context.sender.send_one(&client, message, Some(receipt), flush) {
        Sent::Queued => Ok(delivered),
        Sent::Full => Err(Delivery::BufferFull),
        Sent::Gone => Err(Delivery::ClientGone),
    }
}

fn reply_on_receipt(context: &LinkContext, link: LinkId, query: u64, receipt: oneshot::Receiver<()>) {
    let dispatch = Arc::downgrade(&context.dispatch);
    tokio::spawn(async move {
        let delivery = match receipt.await {
            Ok(()) => Delivery::Delivered,
            Err(_) => Delivery::ClientGone,
        };
        if let Some(dispatch) = dispatch.upgrade() {
            dispatch.reply(link, query, reply::Body::Delivery(delivery.into()));
        }
    });
}
