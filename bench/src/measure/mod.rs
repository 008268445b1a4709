//! What is measured: what a payload carries, the measured time window, and what the server's processes use.
//!
//! The loads feed it. It knows neither connections nor loads.

pub(crate) mod meter;
pub mod processes;
pub(crate) mod stamp;
