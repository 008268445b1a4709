//! All gateways and their clients.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use meepo_node::stats::Slot;
use meepo_proto::link as wire;
use meepo_proto::link::command::Body;
use meepo_proto::{ClientId, GatewayId};

use crate::Message;
use crate::client::Known;
use crate::link::Link;
use crate::room::Room;

/// All gateways of the cluster and their clients.
///
/// It is cheap to clone, and works outside of a handler too: in a timer, in a task that waits for a database.
///
/// Sends do not wait: they are queued, and carried out by each gateway in the order in which this worker child made
/// them. What cannot reach its client, because the client or its gateway has gone, is counted as a failed send.
/// Questions are async, ask all gateways at once, and say which did not [answer](crate::Answer).
///
/// ```
/// use std::time::Duration;
/// use meepo_worker::{Client, Cluster, Handler, Message, Result};
///
/// struct Clock;
///
/// impl Handler for Clock {
///     async fn on_start(&self, cluster: &Cluster) -> Result<()> {
///         let cluster = cluster.clone();
///         tokio::spawn(async move {
///             loop {
///                 tokio::time::sleep(Duration::from_secs(1)).await;
///                 cluster.all().send("tick");
///             }
///         });
///         Ok(())
///     }
///
///     async fn on_message(&self, client: &Client, _message: Message) -> Result<()> {
///         let online = client.cluster().count().await;
///         client.send(format!("{} are here", online.value));
///         Ok(())
///     }
/// }
/// ```
#[derive(Clone)]
pub struct Cluster {
    shared: Arc<Shared>,
}

struct Shared {
    gateways: RwLock<Gateways>,
    stats: &'static Slot,
    query_timeout: Duration,
    /// The room of all links together.
    room: Arc<Room>,
    served: OnceLock<Box<Served>>,
}

/// Finds what this worker child knows of a client that it serves.
type Served = dyn Fn(ClientId) -> Option<Arc<Known>> + Send + Sync;

/// The gateway children that this worker child knows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gateways {
    /// Those with a link that is up.
    pub(crate) up: BTreeMap<GatewayId, Arc<Link>>,
    /// Those that live, by what the registry says, and have no link now.
    pub(crate) away: BTreeSet<GatewayId>,
}

impl Cluster {
    pub(crate) fn new(stats: &'static Slot, query_timeout: Duration, room: Arc<Room>) -> Self {
        Self {
            shared: Arc::new(Shared {
                gateways: RwLock::default(),
                stats,
                query_timeout,
                room,
                served: OnceLock::new(),
            }),
        }
    }

    /// Tells how to find a client that this worker child serves. It is told once.
    pub(crate) fn serves(&self, served: impl Fn(ClientId) -> Option<Arc<Known>> + Send + Sync + 'static) {
        let _ = self.shared.served.set(Box::new(served));
    }

    /// Takes all clients out of a group.
    pub fn dissolve(&self, group: impl Into<String>) {
        let group = group.into();
        let gateways = self.gateways();
        for link in gateways.up.values() {
            let ungroup = wire::Ungroup { group: group.clone() };
            if link.send(Body::Ungroup(ungroup)).is_err() {
                self.shared.stats.failed_sends.add(1);
            }
        }
    }

    pub(crate) fn gateways(&self) -> RwLockReadGuard<'_, Gateways> {
        self.shared.gateways.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn change_gateways(&self, change: impl FnOnce(&mut Gateways)) {
        let mut gateways = self.shared.gateways.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut gateways);
        self.shared.stats.links.set(gateways.up.len() as u64);
    }

    pub(crate) fn stats(&self) -> &'static Slot {
        self.shared.stats
    }

    pub(crate) fn query_timeout(&self) -> Duration {
        self.shared.query_timeout
    }

    pub(crate) fn room(&self) -> &Arc<Room> {
        &self.shared.room
    }

    /// What this worker child knows of a client, if it serves it.
    pub(crate) fn served(&self, id: ClientId) -> Option<Arc<Known>> {
        self.shared.served.get().and_then(|served| served(id))
    }

    pub(crate) fn count_sent(&self, message: &Message) {
        self.shared.stats.messages_out.add(1);
        self.shared.stats.bytes_out.add(message.bytes().len() as u64);
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gateways = self.gateways();
        f.debug_struct("Cluster")
            .field("up", &gateways.up.keys())
            .field("away", &gateways.away)
            .finish()
    }
}
