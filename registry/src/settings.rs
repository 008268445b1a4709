//! The section `[registry]`.

use std::net::SocketAddr;
use std::time::Duration;

use meepo_node::{Config, ConfigError};
use serde::{Deserialize, Serialize};

/// Each has a lease and a watch at etcd.
const MAX_CHILDREN: usize = 64;

/// The section `[registry]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistrySection {
    /// Where nodes reach the registry. Default: `127.0.0.1:19911`.
    pub address: SocketAddr,
    /// Child processes, at most 64. Default: 1, and the store `memory` allows no other number, since children share no
    /// memory.
    pub children: usize,
    /// What keeps the nodes. Default: `memory`.
    pub store: StoreKind,
    /// How often a node says that it is alive, from 100 ms to 60 s. Default: `2s`.
    #[serde(with = "humantime_serde")]
    pub heartbeat: Duration,
    /// A node that was not heard of for this long has gone; at least two heartbeats. A node whose process ends is gone
    /// at once, so this is for hosts that crash and networks that break. Default: `8s`.
    #[serde(with = "humantime_serde")]
    pub expiry: Duration,
    /// Where etcd is, for the store `etcd`.
    pub etcd: EtcdSection,
}

/// The section `[registry.etcd]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EtcdSection {
    /// The members of etcd, host and port. Default: `127.0.0.1:2379`.
    pub endpoints: Vec<String>,
    /// What all keys begin with: clusters that share an etcd need different ones. Default: `/meepo`.
    pub prefix: String,
}

impl Default for EtcdSection {
    fn default() -> Self {
        Self {
            endpoints: vec!["127.0.0.1:2379".into()],
            prefix: "/meepo".into(),
        }
    }
}

/// What keeps the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// The memory of the registry's one child.
    Memory,
    /// etcd, which several registries share.
    Etcd,
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

impl RegistrySection {
    /// Reads and checks the section.
    pub fn read(config: &Config) -> Result<Self, ConfigError> {
        let section: Self = config.section("registry")?;
        match section.problem() {
            Some((key, why)) => Err(config.invalid(key, why)),
            None => Ok(section),
        }
    }

    /// The setting that cannot be used, and why.
    fn problem(&self) -> Option<(&'static str, &'static str)> {
        if !(1..=MAX_CHILDREN).contains(&self.children) {
            return Some(("registry.children", "must be from 1 to 64"));
        }
        if self.children != 1 && self.store == StoreKind::Memory {
            return Some(("registry.children", "the store `memory` needs exactly 1 child"));
        }
        if !(Duration::from_millis(100)..=Duration::from_secs(60)).contains(&self.heartbeat) {
            return Some(("registry.heartbeat", "must be from 100ms to 60s"));
        }
        if self.expiry < self.heartbeat * 2 {
            return Some(("registry.expiry", "must be at least two heartbeats"));
        }
        if self.etcd.endpoints.is_empty() {
            return Some(("registry.etcd.endpoints", "names no member of etcd"));
        }
        if self.etcd.endpoints.iter().any(|endpoint| !is_endpoint(endpoint)) {
            return Some((
                "registry.etcd.endpoints",
                "must be host and port each, as in `10.0.0.1:2379`",
            ));
        }
        if self.etcd.prefix.trim_matches('/').is_empty() {
            return Some(("registry.etcd.prefix", "must not be empty"));
        }
        None
    }
}

/// Host and port, and nothing else.
fn is_endpoint(text: &str) -> bool {
    let is_host = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && host.chars().all(is_host) && port.parse::<u16>().is_ok_and(|port| port != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key that a section's text is refused for.
    fn refused(text: &str) -> Option<&'static str> {
        toml::from_str::<RegistrySection>(text)
            .unwrap()
            .problem()
            .map(|(key, _)| key)
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
