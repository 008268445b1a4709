//! Listeners of the section `[gateway]`: where clients come in, and what they find there.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use http::uri::Authority;
use meepo_node::{Config, ConfigError};
use serde::{Deserialize, Serialize};

/// A listener for clients.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenSettings {
    /// `ws` or `line`.
    pub protocol: Protocol,
    /// Address and port; port 0 is any free one.
    pub address: SocketAddr,
    /// `ws`: the paths on which a WebSocket may be opened. Default: `["/", "/ws"]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<Vec<String>>,
    /// `ws`: the paths whose requests workers answer. One that ends in `/` stands for all that begin with it. Default:
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<Vec<String>>,
    /// `ws`: a folder whose files are served beside the WebSocket. Default: none, or the program's own page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub static_dir: Option<PathBuf>,
    /// The page for what is not in `static_dir`, a file in it. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_found: Option<PathBuf>,
    /// The page for what the gateway cannot answer now (5xx), a file in `static_dir`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<PathBuf>,
    /// `ws`: sites for host names of their own. Other hosts get `static_dir`, or the program's own page. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub site: Vec<SiteSettings>,
}

/// A folder of files for some host names.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteSettings {
    /// The names, without a port; upper and lower case are the same.
    pub hosts: Vec<String>,
    /// The folder.
    pub dir: PathBuf,
    /// The page for what is not in the folder, a file in it. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_found: Option<PathBuf>,
    /// The page for what the gateway cannot answer now (5xx), a file in the folder. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<PathBuf>,
}

/// What clients speak on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// WebSocket, over HTTP.
    Ws,
    /// Lines of text.
    Line,
}

impl Protocol {
    /// The name in configuration, `status` and on the link.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Ws => "ws",
            Protocol::Line => "line",
        }
    }

    /// Whether its connections begin with HTTP: only then are there paths, requests, files and sites.
    pub(crate) fn is_http(self) -> bool {
        match self {
            Protocol::Ws => true,
            Protocol::Line => false,
        }
    }
}

impl ListenSettings {
    /// A listener with nothing but a protocol and an address.
    pub(crate) fn new(protocol: Protocol, address: SocketAddr) -> Self {
        Self {
            protocol,
            address,
            paths: None,
            requests: None,
            static_dir: None,
            not_found: None,
            error: None,
            site: Vec::new(),
        }
    }

    /// Fills in what a listener has by its protocol.
    pub(crate) fn resolve(&mut self) {
        if self.protocol.is_http() {
            self.paths.get_or_insert_with(|| vec!["/".into(), "/ws".into()]);
        }
    }

    /// Whether a browser finds a page at the listener's root; `has_assets` if the program has a page of its own.
    pub(crate) fn has_page(&self, has_assets: bool) -> bool {
        self.protocol.is_http() && (self.static_dir.is_some() || !self.site.is_empty() || has_assets)
    }

    /// Checks the listener with this index in the section.
    pub(crate) fn check(&self, index: usize, config: &Config) -> Result<(), ConfigError> {
        let key = |name: &str| format!("gateway.listen[{index}].{name}");
        if !self.protocol.is_http() {
            let only_ws = [
                ("paths", self.paths.is_some(), "has paths"),
                ("requests", self.requests.is_some(), "takes requests"),
                ("static_dir", self.static_dir.is_some(), "serves files"),
                ("not_found", self.not_found.is_some(), "serves files"),
                ("error", self.error.is_some(), "serves files"),
                ("site", !self.site.is_empty(), "has sites"),
            ];
            return match only_ws.into_iter().find(|(_, is_there, _)| *is_there) {
                Some((name, _, what)) => Err(config.invalid(&key(name), format!("only a `ws` listener {what}"))),
                None => Ok(()),
            };
        }
        for (name, paths) in [("paths", &self.paths), ("requests", &self.requests)] {
            for path in paths.iter().flatten() {
                if !path.starts_with('/') {
                    return Err(config.invalid(&key(name), format!("`{path}` must begin with a slash")));
                }
                if name == "requests" && path.contains(['?', '#', '*', ' ']) {
                    let why = format!("`{path}` is not a path; one that ends in a slash stands for all below it");
                    return Err(config.invalid(&key(name), why));
                }
            }
        }
        match &self.static_dir {
            Some(dir) => check_files(config, &key, "static_dir", dir, &self.not_found, &self.error)?,
            None if self.not_found.is_some() => {
                return Err(config.invalid(&key("not_found"), "it is a file in `static_dir`, which is not there"));
            }
            None if self.error.is_some() => {
                return Err(config.invalid(&key("error"), "it is a file in `static_dir`, which is not there"));
            }
            None => {}
        }
        let mut names = HashSet::new();
        for (number, site) in self.site.iter().enumerate() {
            let key = |name: &str| key(&format!("site[{number}].{name}"));
            check_files(config, &key, "dir", &site.dir, &site.not_found, &site.error)?;
            if site.hosts.is_empty() {
                return Err(config.invalid(&key("hosts"), "there must be at least one"));
            }
            for host in &site.hosts {
                let Some(name) = name_of(host).filter(|name| is_name(host, name)) else {
                    let why =
                        format!("`{host}` is not the name of a host: no port, no `*`, in ASCII (`xn--…` otherwise)");
                    return Err(config.invalid(&key("hosts"), why));
                };
                if !names.insert(name) {
                    return Err(config.invalid(&key("hosts"), format!("`{host}` is there twice")));
                }
            }
        }
        Ok(())
    }
}

/// The name of a host as sites are looked up by it: in lower case, without a port. `None` if `host` is no name.
pub(crate) fn name_of(host: &str) -> Option<String> {
    let host: Authority = host.trim().parse().ok()?;
    let name = host.host();
    let name = name.strip_suffix('.').unwrap_or(name);
    (!name.is_empty()).then(|| name.to_ascii_lowercase())
}

/// Whether a host is its name and nothing else, such as a port.
fn is_name(host: &str, name: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let valid = |char: char| char.is_ascii_alphanumeric() || "-_.[]:".contains(char);
    host.eq_ignore_ascii_case(name) && name.chars().all(valid)
}

fn check_files(
    config: &Config,
    key: &impl Fn(&str) -> String,
    name: &str,
    dir: &Path,
    not_found: &Option<PathBuf>,
    error: &Option<PathBuf>,
) -> Result<(), ConfigError> {
    let dir = config.base_dir().join(dir);
    if !dir.is_dir() {
        return Err(config.invalid(&key(name), format!("`{}` is not a folder", dir.display())));
    }
    for (name, page) in [("not_found", not_found), ("error", error)] {
        let Some(page) = page else { continue };
        let page = dir.join(page);
        if !page.is_file() {
            return Err(config.invalid(&key(name), format!("`{}` is not a file", page.display())));
        }
    }
    Ok(())
}
