//! The gateway children that a worker child knows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meepo_proto::GatewayId;

use crate::link::Link;

/// The gateway children that this worker child knows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gateways {
    /// Gateways with a link that is up.
    pub(crate) up: BTreeMap<GatewayId, Arc<Link>>,
    /// Gateways that live, by what the registries say, and have no link now.
    pub(crate) away: BTreeSet<GatewayId>,
}
