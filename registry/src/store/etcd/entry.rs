//! A registration as etcd has it: its key, and the record that is its value.

use meepo_proto::etcd::KeyValue;
use meepo_proto::registry::{Node, NodeId, Record, State};
use prost::Message;

use super::client::Revision;
use super::keys::{Keys, RegistrationKey};

/// A registration in etcd.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    /// Where it is.
    pub(crate) key: RegistrationKey,
    /// The node.
    pub(crate) node: Node,
    /// Nodes that had the address before, oldest first.
    pub(crate) ousted: Vec<NodeId>,
    /// When it was last put.
    pub(crate) revision: Revision,
}

impl Entry {
    /// Reads a pair of etcd; `None` if it is no registration.
    pub(crate) fn read(keys: &Keys, pair: &KeyValue) -> Option<Self> {
        let key = keys.read(&pair.key)?;
        let Record { node, ousted } = Record::decode(pair.value.clone()).ok()?;
        let node = node?;
        // A gateway that has drained and gone is away from its address.
        let is_at_address = node.address == key.address || node.state() == State::Drained;
        (node.node_id() == key.node && is_at_address).then(|| Self {
            key,
            node,
            ousted: ousted.into_iter().map(NodeId).collect(),
            revision: Revision(pair.mod_revision),
        })
    }
}

/// The value of a registration's key.
pub(crate) fn record(node: &Node, ousted: &[NodeId]) -> bytes::Bytes {
    let record = Record {
        node: Some(node.clone()),
        ousted: ousted.iter().map(|node| node.0).collect(),
    };
    record.encode_to_vec().into()
}
