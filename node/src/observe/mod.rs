//! What an operator sees of a node: log lines, figures, problems, `status` and metrics.
//!
//! All code may log and count; `process` asks for the status and serves the metrics. It must not know what is counted where.

pub(crate) mod exporter;
pub(crate) mod logs;
pub(crate) mod metrics;
pub(crate) mod problems;
pub mod quota;
pub mod stats;
pub mod status;
pub(crate) mod usage;
