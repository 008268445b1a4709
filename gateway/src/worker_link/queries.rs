//! What workers want to know.

use meepo_proto::link::{Count, Delivery, Filter, Found, Groups, Query, Select, Selected, Send, Uids, query, reply};
use tokio::sync::oneshot;

use crate::client::handle::{FlushBatch, Sent};
use crate::fanout::client_registry::Entry;
use crate::fanout::encode::OutboundMessage;
use crate::hub::Hub;
use crate::router::LinkId;
use crate::worker_link::commands::check_message;

/// Answers a query over the link that it came from; a message that is to be confirmed is answered once it is out. False
/// if it is not known.
pub(crate) fn answer(hub: &Hub, link: LinkId, query: Query, flush: &mut FlushBatch) -> bool {
    let Some(body) = query.body else { return false };
    let body = match body {
        query::Body::Select(select) => reply::Body::Selected(selected(hub, select)),
        query::Body::Groups(_) => reply::Body::Groups(Groups {
            groups: hub.registry().group_sizes(),
        }),
        query::Body::Count(filter) => reply::Body::Count(Count {
            count: hub.registry().select(&filter).count() as u64,
        }),
        query::Body::Uids(filter) => reply::Body::Uids(Uids {
            uids: uids(hub, &filter),
        }),
        query::Body::Confirm(send) => match send_noted(hub, send, flush) {
            Ok(receipt) => {
                wait_for(hub, link, query.id, receipt);
                return true;
            }
            Err(failed) => reply::Body::Delivery(failed.into()),
        },
    };
    hub.reply(link, query.id, body);
    true
}

fn selected(hub: &Hub, select: Select) -> Selected {
    let registry = hub.registry();
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

fn uids(hub: &Hub, filter: &Filter) -> Vec<String> {
    let registry = hub.registry();
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

/// Sends a message to one client. What is given hears when the client's system has it, or is dropped.
fn send_noted(hub: &Hub, send: Send, flush: &mut FlushBatch) -> Result<oneshot::Receiver<()>, Delivery> {
    let number = match send.client {
        0 => send.to.as_ref().and_then(|to| to.clients.first()).copied(),
        number => Some(number),
    };
    let client = number.and_then(|number| hub.registry().get(number).cloned());
    let client = client.ok_or(Delivery::ClientGone)?;
    check_message(hub, &send).map_err(|_| Delivery::NotValid)?;
    let message = OutboundMessage::new(send.payload, send.binary);
    let (receipt, noted) = oneshot::channel();
    match hub.send_one(&client, message, Some(receipt), flush) {
        Sent::Queued => Ok(noted),
        Sent::Full => Err(Delivery::BufferFull),
        Sent::Gone => Err(Delivery::ClientGone),
    }
}

fn wait_for(hub: &Hub, link: LinkId, query: u64, receipt: oneshot::Receiver<()>) {
    let hub = hub.handle();
    tokio::spawn(async move {
        let delivery = match receipt.await {
            Ok(()) => Delivery::Delivered,
            Err(_) => Delivery::ClientGone,
        };
        if let Some(hub) = hub.upgrade() {
            hub.reply(link, query, reply::Body::Delivery(delivery.into()));
        }
    });
}
