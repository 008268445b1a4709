//! From a listener to a connection: accepting, shared fairly among the children of a node.
//!
//! Called by `child`. It must not know what a client protocol does with a connection.

pub(crate) mod accept;
