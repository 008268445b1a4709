//! What keeps the nodes.

use std::time::Duration;

use futures_util::stream::BoxStream;
use meepo_node::BoxError;
use meepo_proto::registry::Node;
use meepo_proto::registry::change::Change;

pub(crate) mod changes;
pub mod etcd;
pub mod memory;

/// More nodes are refused.
pub(crate) const MAX_NODES: usize = 65_536;
/// Of so many nodes that lost their address to others it is remembered, for each address.
pub(crate) const MAX_OUSTED: usize = 16;

/// For how long a name is granted. Long enough that a holder which is slow for a second or two keeps it, and short enough
/// that it moves within seconds. Not a setting: a registry that starts waits for what an earlier one has granted, and could
/// not know that it was for longer.
pub const TIME: Duration = Duration::from_secs(5);
/// More names than this cannot be held at a time.
pub(crate) const MAX_NAMES: usize = 1024;

/// A registration. It ends with [`Store::leave`], or when another takes its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The node's id.
    pub node: u64,
    /// Tells apart the registrations of one node.
    pub number: u64,
}

/// A node is not kept.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The node must not try again as long as the other is there.
    #[error("another node has announced itself at this address, later")]
    Superseded,
    /// The same node came a second time; this registration is the older one.
    #[error("the node has registered again")]
    Replaced,
    /// A bound was reached.
    #[error("the registry is full")]
    Full,
    /// The store is away; the same may work later.
    #[error("the store does not answer")]
    Unavailable(#[source] BoxError),
}

/// An answer to a holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// It has the name.
    pub granted: bool,
    /// The least that its term may be, or its term.
    pub term: u64,
    /// All registries over this store say the same.
    pub shared: bool,
}

/// Keeps the nodes, and says what changes.
///
/// Whoever registers a node watches over its heartbeats and ends its lease; a store that outlives its registry has to end
/// the leases of a registry that died.
pub trait Store: Send + Sync + 'static {
    /// Adds a node. At an address that another node has, the new one takes its place for good: the older one, which may
    /// be frozen and wake up, is refused while the new one is there.
    fn join(&self, node: Node) -> impl Future<Output = Result<Lease, Refused>> + Send;

    /// The node is alive, and may have changed. The id is the lease's.
    fn renew(&self, lease: Lease, node: Node) -> impl Future<Output = Result<(), Refused>> + Send;

    /// The node has gone. A lease that another has replaced is left alone.
    ///
    /// One that was [`Done`](meepo_proto::registry::State::Drained) by its last word is remembered for a while: watchers that
    /// come later are told of it in the snapshot, and hear `Left` only when it is forgotten. It is in no list, and its
    /// address is free.
    fn leave(&self, lease: Lease) -> impl Future<Output = ()> + Send;

    /// All nodes, in the order of their ids.
    fn list(&self) -> impl Future<Output = Result<Vec<Node>, Refused>> + Send;

    /// A snapshot, then each change. A watcher that falls behind is sent a snapshot again.
    fn watch(&self) -> impl Future<Output = Result<BoxStream<'static, Change>, Refused>> + Send;

    /// Gives a name to a holder for [`TIME`], or keeps it, unless another has it. It counts from a moment after the call, so
    /// that a holder which counts from before it knows no longer time. The term is 0 at first, then the holder's own.
    fn hold(&self, name: &str, holder: u64, term: u64) -> impl Future<Output = Result<Grant, Refused>> + Send;

    /// The holder gives the name back, if it has it.
    fn release(&self, name: &str, holder: u64) -> impl Future<Output = Result<(), Refused>> + Send;
}
