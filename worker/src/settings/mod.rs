//! The sections `[worker]` and `[worker.push]`: declared, documented and checked here, and turned into limits once.
//!
//! The instances read them. Nothing here knows what the settings are for.

#[cfg_attr(not(feature = "push"), path = "no_push.rs")]
mod push;

use std::time::Duration;

use bytesize::ByteSize;
use meepo_node::config::bytes;
use meepo_node::{Config, ConfigError};
use serde::{Deserialize, Serialize};

pub use self::push::PushSection;
#[cfg(feature = "push")]
pub(crate) use self::push::PushSettings;

/// The section `[worker]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkerSection {
    /// How many children run handlers. Default: `2`.
    pub children: usize,
    /// Threads of each child. With more than one, handlers of several clients run at the same instant. Default: `1`.
    pub threads: usize,
    /// How long a handler may take. A handler that takes longer is cut off where it waits, and its event is delivered again,
    /// marked; after three times the event is given up and its client closed with 1011. Default: `60s`.
    #[serde(with = "humantime_serde")]
    pub handler_timeout: Duration,
    /// How long a query to all gateways may take; gateways that have not answered by then are named in the answer.
    /// Default: `5s`.
    #[serde(with = "humantime_serde")]
    pub query_timeout: Duration,
    /// Bytes that may wait to be sent to a gateway child before the events of its clients wait as well; four times as many
    /// may wait in a whole worker child. A handler that runs is never held up: what it sends is added. Default: `8MiB`.
    pub send_queue: ByteSize,
    /// Pushing from outside, over HTTP and gRPC. It needs the feature `push`.
    #[serde(skip_serializing_if = "PushSection::is_left_out")]
    pub push: PushSection,
}

/// The settings of a worker, checked.
#[derive(Debug, Clone)]
pub(crate) struct WorkerSettings {
    pub(crate) children: usize,
    pub(crate) threads: usize,
    pub(crate) limits: Limits,
    #[cfg(feature = "push")]
    pub(crate) push: Option<PushSettings>,
    /// The section as it is in force, to be shown.
    pub(crate) effective: toml::Table,
}

/// The limits of a worker child.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// How long a handler may take.
    pub(crate) handler_timeout: Duration,
    /// How long a query to all gateways may take.
    pub(crate) query_timeout: Duration,
    /// Bytes that may wait to be sent to a gateway child before the events of its clients wait.
    pub(crate) send_queue: usize,
}

impl Default for WorkerSection {
    fn default() -> Self {
        Self {
            children: 2,
            threads: 1,
            handler_timeout: Duration::from_secs(60),
            query_timeout: Duration::from_secs(5),
            send_queue: ByteSize::mib(8),
            push: PushSection::default(),
        }
    }
}

impl WorkerSection {
    /// The limits that the section sets.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            handler_timeout: self.handler_timeout,
            query_timeout: self.query_timeout,
            send_queue: bytes(self.send_queue),
        }
    }

    fn check(&self, config: &Config) -> Result<(), ConfigError> {
        let wrong = [
            ("worker.children", self.children == 0),
            ("worker.threads", self.threads == 0),
            ("worker.handler_timeout", self.handler_timeout.is_zero()),
            ("worker.query_timeout", self.query_timeout.is_zero()),
            ("worker.send_queue", self.send_queue.as_u64() == 0),
        ];
        match wrong.into_iter().find(|(_, wrong)| *wrong) {
            Some((key, _)) => Err(config.invalid(key, "it must be more than 0")),
            None => Ok(()),
        }
    }
}

impl WorkerSettings {
    /// Reads the section, checks it, and reads the files that it names.
    pub(crate) fn read(config: &Config) -> Result<Self, ConfigError> {
        let section: WorkerSection = config.section("worker")?;
        section.check(config)?;
        Ok(Self {
            children: section.children,
            threads: section.threads,
            limits: section.limits(),
            #[cfg(feature = "push")]
            push: section.push.resolve(config)?,
            effective: toml::Table::try_from(&section).map_err(|error| config.invalid("worker", error))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<WorkerSettings, String> {
        let config = Config::parse(text).map_err(|error| error.to_string())?;
        WorkerSettings::read(&config).map_err(|error| error.to_string())
    }

    #[test]
    fn settings_have_defaults_and_are_checked() {
        let settings = read("").expect("the defaults are good");
        assert_eq!((settings.children, settings.threads), (2, 1));
        assert_eq!(settings.limits.send_queue, 8 << 20);
        let settings = read("[worker]\nchildren = 3\nsend_queue = \"1MiB\"").expect("these are good");
        assert_eq!((settings.children, settings.limits.send_queue), (3, 1 << 20));
        for (text, key) in [
            ("[worker]\nchildren = 0", "worker.children"),
            ("[worker]\nhandler_timeout = \"0s\"", "worker.handler_timeout"),
            ("[worker]\nquery_timeout = \"0s\"", "worker.query_timeout"),
            ("[worker]\nsend_queue = 0", "worker.send_queue"),
            ("[worker]\nthread = 1", "threads"),
        ] {
            let error = read(text).expect_err("it is refused");
            assert!(error.contains(key), "{error}");
        }
    }
}
