//! What keeps the nodes and the leases of a registry: the trait [`Store`], and a folder for each implementation. The service
//! calls a store; a store knows nothing of gRPC calls and heartbeats.
//!
//! A further store is a folder here, a variant of `StoreKind` and `StoreSettings` in `settings.rs`, an arm in `child::serve`, and a
//! line in the end-to-end tests `stores`: the suite that every store passes.

pub(crate) mod changes;
pub mod etcd;
pub mod memory;

use std::time::Duration;

use futures_util::stream::BoxStream;
use meepo_node::BoxError;
use meepo_proto::registry::change::Change;
use meepo_proto::registry::{HolderId, Node, NodeId, Term};

/// The largest number of nodes; further ones are refused.
pub(crate) const MAX_NODES: usize = 65_536;
/// For each address, how many of the nodes that lost it are remembered, so that they do not get it back.
pub(crate) const MAX_OUSTED: usize = 16;

/// How long a granted lease lasts. Long enough that a holder which is slow for a second or two keeps it, and short enough
/// that it moves within seconds. Not a setting: a registry that starts waits for as long as an earlier one may have granted,
/// and could not know of a longer time.
pub const LEASE_TIME: Duration = Duration::from_secs(5);
/// The largest number of names that have a holder; further ones are refused.
pub(crate) const MAX_LEASES: usize = 1024;

/// One registration of a node. It ends with [`Store::leave`], or when another one takes its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registration {
    /// The node.
    pub node: NodeId,
    /// Tells apart the registrations of one node at one registry.
    pub number: u64,
}

/// A store has not done what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A later node has the address. The older one is refused for as long as the later one is there.
    #[error("a later node has announced itself at this address")]
    Superseded,
    /// The same node has registered again; this registration is the older one.
    #[error("the node has registered again")]
    Replaced,
    /// There are too many nodes, or too many names that have a holder.
    #[error("the registry is full")]
    Full,
    /// What the store keeps its data in cannot be reached; the same may succeed later.
    #[error("the store cannot be reached")]
    Unavailable(#[source] BoxError),
}

/// Keeps nodes and leases, and tells watchers what changes.
///
/// The registry that registers a node watches its heartbeats and ends its registration; a store that outlives a registry
/// has to end the registrations of one that died.
pub trait Store: Send + Sync + 'static {
    /// Whether all registries over this store grant the same leases, so that a holder needs the grant of one only.
    const SHARES_LEASES: bool;

    /// Adds a node. If another node has its address, the new one takes it for good: the older one, which may be frozen and
    /// wake up, is refused as long as the new one is there.
    fn join(&self, node: Node) -> impl Future<Output = Result<Registration, StoreError>> + Send;

    /// The node is alive, and may have changed. Its id is the registration's.
    fn renew(&self, registration: Registration, node: Node) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The node has gone. Nothing happens if another registration of it has replaced this one.
    ///
    /// A node that was last [`Drained`](meepo_proto::registry::State::Drained) is remembered for a while: watchers that come
    /// later find it in the snapshot, and are sent `Left` only when it is forgotten. It is in no list, and its address is
    /// free.
    fn leave(&self, registration: Registration) -> impl Future<Output = ()> + Send;

    /// All nodes, in the order of their ids.
    fn list(&self) -> impl Future<Output = Result<Vec<Node>, StoreError>> + Send;

    /// A snapshot, then each change. A watcher that falls behind is sent a snapshot again.
    fn watch(&self) -> impl Future<Output = Result<BoxStream<'static, Change>, StoreError>> + Send;

    /// Grants a holder the lease of a name for [`LEASE_TIME`], or extends it; `None` if another holder has it, or may have it.
    ///
    /// The time runs from a moment after the call, so a holder that counts from before the call never counts on more. A
    /// holder that has told its term gets that back; one that has none yet gets the smallest that it may take.
    fn hold(
        &self,
        name: &str,
        holder: HolderId,
        term: Option<Term>,
    ) -> impl Future<Output = Result<Option<Term>, StoreError>> + Send;

    /// Ends the holder's lease of a name, if it has it.
    fn release(&self, name: &str, holder: HolderId) -> impl Future<Output = Result<(), StoreError>> + Send;
}
