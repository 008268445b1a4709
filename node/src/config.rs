//! `meepo.toml`, environment variables, and errors that say where.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The section `[node]`: what all instances of a master share.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeSection {
    /// Addresses of the registries, host and port. Default: `["127.0.0.1:19911"]`.
    pub registry: Vec<String>,
    /// The shared secret of the cluster. Default: empty, which only loopback should have.
    pub secret: String,
    /// How long a stop may take before what is left is ended by force. Default: `30s`.
    #[serde(with = "humantime_serde")]
    pub stop_timeout: Duration,
    /// Where the pid file and the control socket are.
    pub run_dir: PathBuf,
}

impl Default for NodeSection {
    fn default() -> Self {
        Self {
            registry: vec!["127.0.0.1:19911".into()],
            secret: String::new(),
            stop_timeout: Duration::from_secs(30),
            run_dir: PathBuf::new(),
        }
    }
}

/// A configuration that was read: file, environment, defaults.
#[derive(Debug, Clone)]
pub struct Config {}

/// A setting is wrong. It says which, and where it came from.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl Config {
    /// Reads a file, or only the environment if there is none.
    pub fn load(_path: Option<&Path>) -> Result<Self, ConfigError> {
        Ok(Self {})
    }

    /// Reads a section; a key that is missing has its default.
    pub fn section<T: DeserializeOwned + Serialize + Default>(&self, _name: &str) -> Result<T, ConfigError> {
        Ok(T::default())
    }

    /// An error about a setting that was read but cannot be used. The key is as in `gateway.listen[0].address`.
    pub fn invalid(&self, key: &str, why: impl std::fmt::Display) -> ConfigError {
        ConfigError(format!("{key}: {why}"))
    }

    /// Where relative paths of the configuration begin: the file's folder, or the working directory.
    pub fn base_dir(&self) -> &Path {
        Path::new(".")
    }
}
