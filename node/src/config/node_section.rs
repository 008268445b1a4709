//! The section `[node]`.

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::Uid;
use serde::{Deserialize, Serialize};

use super::layers::{Source, strings_of};
use super::log_level;
use super::{Config, ConfigError, Section, SectionContext};

/// The longest path of a socket, in bytes: the kernel has room for one more, a zero.
const LONGEST_SOCKET_PATH: usize = 107;
/// The settings with which a command finds a node that runs.
const WHEREABOUTS: [&str; 3] = ["name", "run_dir", "stop_timeout"];

/// The section `[node]`: settings that all instances of a master share.
#[derive(Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeSection {
    /// The node's name, in `status` and in the names of the pid file, the control socket and a daemon's log file. Two nodes
    /// that share a `run_dir` need different names. Default: the program's name.
    pub name: String,
    /// Addresses of the registries, host and port. Default: `["127.0.0.1:19911"]`.
    pub registry: Vec<String>,
    /// The shared secret of the cluster. Default: empty, which only loopback should have.
    pub secret: String,
    /// A file that holds the secret; white space at its end does not count. Not together with `secret`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
    /// How long children may take until they serve; when they take longer, a start fails and a reload is undone.
    /// Default: `30s`.
    #[serde(with = "humantime_serde")]
    pub start_timeout: Duration,
    /// How long a stop may take before the children that are left are ended by force. Default: `30s`.
    #[serde(with = "humantime_serde")]
    pub stop_timeout: Duration,
    /// Where the pid file and the control socket are. Default: `/run/meepo` for root, else `meepo` in `$XDG_STATE_HOME` or in
    /// `~/.local/state`, else, without a home, `/tmp/meepo-UID`.
    pub run_dir: PathBuf,
    /// The file that logs go to. Default: the terminal, or `NAME.log` in the `run_dir` for a daemon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_file: Option<PathBuf>,
    /// `text` or `json`. Default: `text`.
    pub log_format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,meepo_gateway=debug`. Default: `info`.
    pub log_level: String,
    /// Where `/metrics` and `/health` of the node are served, over plain HTTP. Default: nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<SocketAddr>,
}

/// How an event is written to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for NodeSection {
    fn default() -> Self {
        Self {
            name: String::new(),
            registry: vec!["127.0.0.1:19911".into()],
            secret: String::new(),
            secret_file: None,
            start_timeout: Duration::from_secs(30),
            stop_timeout: Duration::from_secs(30),
            run_dir: PathBuf::new(),
            log_file: None,
            log_format: LogFormat::Text,
            log_level: "info".into(),
            metrics: None,
        }
    }
}

impl fmt::Debug for NodeSection {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeSection")
            .field("name", &self.name)
            .field("registry", &self.registry)
            .field("secret", &if self.secret.is_empty() { "" } else { "***" })
            .field("run_dir", &self.run_dir)
            .finish_non_exhaustive()
    }
}

impl Section for NodeSection {
    const NAME: &'static str = "node";
    type Checked = Self;

    /// Fills in the name, the run directory, and the secret from its file; makes all paths absolute.
    fn check(mut self, context: &SectionContext<'_>) -> Result<Self, ConfigError> {
        if self.name.is_empty() {
            self.name.clone_from(&context.config.program);
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let is_name = !self.name.starts_with('.') && self.name.chars().all(plain);
        context.ensure(is_name, "name", "may have letters, digits, '-', '_' and '.' only")?;
        self.run_dir = match self.run_dir.as_os_str().is_empty() {
            true => default_run_dir(),
            false => context.absolute(&self.run_dir),
        };
        let socket = self.socket_path();
        let why = format!("{} is too long for the path of a socket", socket.display());
        context.ensure(socket.as_os_str().len() <= LONGEST_SOCKET_PATH, "run_dir", why)?;
        self.log_file = self.log_file.map(|file| context.absolute(&file));
        log_level::targets(&self.log_level).map_err(|error| context.invalid("log_level", error))?;
        for (index, address) in self.registry.iter().enumerate() {
            let why = format!("\"{address}\" is not a host and a port, such as \"registry:19911\"");
            context.ensure(is_address(address), &format!("registry[{index}]"), why)?;
        }
        if let Some(file) = &self.secret_file {
            context.ensure(
                self.secret.is_empty(),
                "secret_file",
                "cannot be set together with secret",
            )?;
            self.secret = context.read_file("secret_file", file)?;
            self.secret_file = Some(context.absolute(file));
        }
        Ok(self)
    }
}

impl Config {
    /// The section `[node]`, checked.
    pub fn node(&self) -> Result<NodeSection, ConfigError> {
        self.checked::<NodeSection>()
    }

    /// Reads nothing but the settings with which a command finds a node that runs, and passes over all mistakes elsewhere.
    pub(crate) fn read_whereabouts(
        program: &str,
        path: Option<&Path>,
        text: &str,
        defaults: &str,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let wanted = |key: &str| WHEREABOUTS.contains(&key);
        let variables = variables.into_iter().filter(|(name, _)| {
            let key = name.to_str().and_then(|name| name.strip_prefix("MEEPO_NODE__"));
            key.is_some_and(|key| wanted(&key.to_lowercase()))
        });
        let mut config = Self::read(program, None, defaults, variables)?;
        if let Some(folder) = path.and_then(Path::parent) {
            config.base = folder.into();
        }
        let node = strings_of(text, "node", wanted);
        config.layers.put(
            &toml::Table::from_iter([("node".into(), node.into())]).to_string(),
            Source::Program,
        )?;
        Ok(config)
    }
}

impl NodeSection {
    /// Whether another section has the same settings for logs.
    pub(crate) fn logs_as(&self, other: &Self) -> bool {
        (&self.log_file, self.log_format, &self.log_level) == (&other.log_file, other.log_format, &other.log_level)
    }

    /// The file whose lock says that the node runs.
    pub(crate) fn pid_path(&self) -> PathBuf {
        self.run_dir.join(format!("{}.pid", self.name))
    }

    /// The socket that answers `status`.
    pub(crate) fn socket_path(&self) -> PathBuf {
        self.run_dir.join(format!("{}.sock", self.name))
    }

    /// The settings as `check` prints them, without the secret of a file.
    pub(crate) fn effective(&self) -> toml::Table {
        let mut table = toml::Table::try_from(self).unwrap_or_default();
        if self.secret_file.is_some() {
            table.remove("secret");
        }
        table
    }
}

/// Whether a text is a host and a port.
fn is_address(text: &str) -> bool {
    text.rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0))
}

fn default_run_dir() -> PathBuf {
    let folder = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|dir| dir.is_absolute())
    };
    run_dir_of(nix::unistd::geteuid(), folder)
}

/// The default run directory of a user. Not below `$XDG_RUNTIME_DIR`: that is taken away at the logout, which a daemon outlives.
fn run_dir_of(user: Uid, folder: impl Fn(&str) -> Option<PathBuf>) -> PathBuf {
    if user.is_root() {
        return "/run/meepo".into();
    }
    let state = folder("XDG_STATE_HOME").or_else(|| Some(folder("HOME")?.join(".local/state")));
    state.map_or_else(|| format!("/tmp/meepo-{user}").into(), |state| state.join("meepo"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_run_directory_outlives_a_logout() {
        let of = |user, folders: &[(&str, &str)]| {
            let folder = |name: &str| {
                folders
                    .iter()
                    .find(|(key, _)| *key == name)
                    .map(|(_, path)| path.into())
            };
            run_dir_of(Uid::from_raw(user), folder)
        };
        let all = [
            ("XDG_RUNTIME_DIR", "/run/user/7"),
            ("XDG_STATE_HOME", "/s"),
            ("HOME", "/h"),
        ];
        assert_eq!(of(0, &all), Path::new("/run/meepo"));
        assert_eq!(of(7, &all), Path::new("/s/meepo"));
        assert_eq!(of(7, &all[2..]), Path::new("/h/.local/state/meepo"));
        assert_eq!(of(7, &all[..1]), Path::new("/tmp/meepo-7"));
    }
}
