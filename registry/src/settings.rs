//! The section `[registry]`: its keys, their defaults and limits, and the checked settings that a child works with.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How many children there may be: each has a lease and a watch at etcd.
const CHILDREN: RangeInclusive<usize> = 1..=64;
/// How long the time between two heartbeats may be.
const HEARTBEAT: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);

/// The section `[registry]`, as the configuration has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistrySection {
    /// Where nodes reach the registry. Default: `127.0.0.1:19911`.
    pub address: SocketAddr,
    /// Child processes, at most 64. Default: 1, and the store `memory` allows no other number, since children share no
    /// memory.
    pub children: usize,
    /// Where nodes and leases are kept. Default: `memory`.
    pub store: StoreKind,
    /// How often a node says that it is alive, from 100 ms to 60 s. Default: `2s`.
    #[serde(with = "humantime_serde")]
    pub heartbeat: Duration,
    /// A node that has sent nothing for this long counts as gone; at least two heartbeats. A node whose process ends is gone
    /// at once, so this is for hosts that crash and networks that break. Default: `8s`.
    #[serde(with = "humantime_serde")]
    pub expiry: Duration,
    /// Where etcd is, for the store `etcd`.
    pub etcd: EtcdSection,
}

/// The section `[registry.etcd]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EtcdSection {
    /// The members of etcd, host and port each. Default: `127.0.0.1:2379`.
    pub endpoints: Vec<String>,
    /// What all keys begin with: clusters that share an etcd need different ones. Default: `/meepo`.
    pub prefix: String,
}

/// Where nodes and leases are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// The memory of the registry's one child.
    Memory,
    /// etcd, which several registries share.
    Etcd,
}

/// What a child works with: values of a [`RegistrySection`] that was checked.
#[derive(Debug, Clone)]
pub(crate) struct RegistrySettings {
    /// How often nodes send a heartbeat.
    pub(crate) heartbeat: Duration,
    /// How long a node may be silent.
    pub(crate) expiry: Duration,
    /// Where nodes and leases are kept.
    pub(crate) store: StoreSettings,
}

/// The store of a registry, with the settings that it alone has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StoreSettings {
    Memory,
    Etcd(EtcdSection),
}

/// A value of the section that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InvalidSetting {
    /// The whole key.
    pub(crate) key: &'static str,
    /// What the value has to be.
    pub(crate) reason: &'static str,
}

impl Default for RegistrySection {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 19911)),
            children: 1,
            store: StoreKind::Memory,
            heartbeat: Duration::from_secs(2),
            expiry: Duration::from_secs(8),
            etcd: EtcdSection::default(),
        }
    }
}

impl Default for EtcdSection {
    fn default() -> Self {
        Self {
            endpoints: vec!["127.0.0.1:2379".into()],
            prefix: "/meepo".into(),
        }
    }
}

impl RegistrySection {
    /// Checks each value against its limits.
    pub(crate) fn check(&self) -> Result<RegistrySettings, InvalidSetting> {
        let invalid = |key, reason| Err(InvalidSetting { key, reason });
        if !CHILDREN.contains(&self.children) {
            return invalid("registry.children", "must be from 1 to 64");
        }
        if self.children != 1 && self.store == StoreKind::Memory {
            return invalid("registry.children", "the store `memory` needs exactly 1 child");
        }
        if !HEARTBEAT.contains(&self.heartbeat) {
            return invalid("registry.heartbeat", "must be from 100ms to 60s");
        }
        if self.expiry < self.heartbeat * 2 {
            return invalid("registry.expiry", "must be at least two heartbeats");
        }
        // Also where it is not used, so that a mistake shows before the store is changed.
        let etcd = self.etcd.check()?;
        Ok(RegistrySettings {
            heartbeat: self.heartbeat,
            expiry: self.expiry,
            store: match self.store {
                StoreKind::Memory => StoreSettings::Memory,
                StoreKind::Etcd => StoreSettings::Etcd(etcd.clone()),
            },
        })
    }
}

impl EtcdSection {
    fn check(&self) -> Result<&Self, InvalidSetting> {
        let invalid = |key, reason| Err(InvalidSetting { key, reason });
        if self.endpoints.is_empty() {
            return invalid("registry.etcd.endpoints", "names no member of etcd");
        }
        if self.endpoints.iter().any(|endpoint| !is_host_and_port(endpoint)) {
            return invalid(
                "registry.etcd.endpoints",
                "must be host and port each, as in `10.0.0.1:2379`",
            );
        }
        if self.prefix.trim_matches('/').is_empty() {
            return invalid("registry.etcd.prefix", "must not be empty");
        }
        Ok(self)
    }
}

/// Whether a text is host and port, and nothing else.
fn is_host_and_port(text: &str) -> bool {
    let is_of_host = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && host.chars().all(is_of_host) && port.parse::<u16>().is_ok_and(|port| port != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key for which a section is refused.
    fn refused(text: &str) -> Option<&'static str> {
        let section: RegistrySection = toml::from_str(text).unwrap();
        section.check().err().map(|invalid| invalid.key)
    }

    #[test]
    fn limits_are_checked() {
        assert_eq!(refused(""), None);
        assert_eq!(refused("heartbeat = '100ms'\nexpiry = '200ms'"), None);
        assert_eq!(refused("children = 0"), Some("registry.children"));
        assert_eq!(refused("children = 2"), Some("registry.children"));
        assert_eq!(refused("heartbeat = '99ms'"), Some("registry.heartbeat"));
        assert_eq!(refused("heartbeat = '61s'\nexpiry = '1h'"), Some("registry.heartbeat"));
        assert_eq!(refused("expiry = '3999ms'"), Some("registry.expiry"));
        assert_eq!(refused("store = 'etcd'\nchildren = 2"), None);
        assert_eq!(refused("store = 'etcd'\nchildren = 0"), Some("registry.children"));
        assert_eq!(refused("[etcd]\nprefix = '/'"), Some("registry.etcd.prefix"));
        assert_eq!(refused("[etcd]\nendpoints = []"), Some("registry.etcd.endpoints"));
        assert_eq!(refused("[etcd]\nendpoints = ['a:1', '10.0.0.1:2', '[::1]:3']"), None);
        for endpoint in ["a", ":1", "a:0", "a:b", "http://a:1", "a/b:1"] {
            let text = format!("[etcd]\nendpoints = ['{endpoint}']");
            assert_eq!(refused(&text), Some("registry.etcd.endpoints"), "{endpoint}");
        }
    }

    #[test]
    fn the_defaults_round_trip() {
        let text = toml::to_string(&RegistrySection::default()).unwrap();
        assert!(
            text.contains("store = \"memory\"") && text.contains("expiry = \"8s\""),
            "{text}"
        );
        assert_eq!(refused(&text), None);
    }

    #[test]
    fn unknown_stores_and_keys_are_errors() {
        assert!(toml::from_str::<RegistrySection>("store = 'paper'").is_err());
        assert!(toml::from_str::<RegistrySection>("heart = '2s'").is_err());
    }
}
