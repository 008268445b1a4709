//! Checks of what callers send: it is refused here if other nodes could not use it.

use meepo_proto::registry::{Announce, HolderId, Kind, Node, Term};
use tonic::Status;

/// The longest text of a node, in bytes.
const MAX_TEXT: usize = 512;
/// The longest name of a lease, in bytes.
const MAX_NAME: usize = 128;

/// The node of an announcement.
pub(crate) fn node(announce: Announce) -> Result<Node, Status> {
    let mut node = announce.node.ok_or_else(|| invalid("the announcement has no node"))?;
    if node.id == 0 {
        return Err(invalid("a node's id must not be 0"));
    }
    // Some libraries set a text that is empty.
    node.address = node.address.filter(|address| !address.is_empty());
    match node.kind() {
        Kind::Gateway if node.address.is_none() => return Err(invalid("a gateway needs an address")),
        Kind::Gateway | Kind::Worker => {}
        Kind::Unspecified => return Err(invalid("the kind of the node is unknown")),
    }
    if [node.address(), &node.name, &node.version]
        .iter()
        .any(|text| text.len() > MAX_TEXT)
    {
        return Err(invalid("a text of the node has more than 512 bytes"));
    }
    Ok(node)
}

/// The holder that asks for the lease of a name, or gives it back.
pub(crate) fn lease(name: &str, holder: u64) -> Result<HolderId, Status> {
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(invalid("a name must have from 1 to 128 bytes"));
    }
    if holder == 0 {
        return Err(invalid("a holder's id must not be 0"));
    }
    Ok(HolderId(holder))
}

/// The term that a holder tells, if it has one.
pub(crate) fn term(term: Option<u64>) -> Result<Option<Term>, Status> {
    // Databases keep terms in signed columns.
    match term {
        Some(term) if i64::try_from(term).is_err() => Err(invalid("the term is too large")),
        term => Ok(term.map(Term)),
    }
}

fn invalid(reason: &'static str) -> Status {
    Status::invalid_argument(reason)
}
