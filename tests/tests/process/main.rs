//! One node as an operator sees it: commands, configuration, reloads, crashes, logs, metrics.

mod commands;
mod configuration;
mod crashes;
mod logs;
mod metrics;
mod reload;
