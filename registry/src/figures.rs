//! The figures of a registry child: what they are called, and how operators see them.

use meepo_node::stats::FigureInfo;

meepo_node::figures! {
    /// The figures of a registry child.
    pub(crate) struct RegistryFigures {
        /// Nodes that are registered.
        connections: FigureInfo::gauge("meepo_connections", "Nodes that are registered.").column("conns"),
        /// Nodes that registered since the child started.
        connections_total: FigureInfo::counter("meepo_connections_opened_total", "Nodes that registered.")
            .column("in all"),
    }
}
