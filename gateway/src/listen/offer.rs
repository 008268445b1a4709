//! What listeners offer: checked as it is configured, and made ready.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use meepo_node::{Config, ConfigError};
use tower_http::services::ServeDir;

use crate::config::settings::{ListenSettings, Protocol};
use crate::listen::accept::Service;
use crate::protocol::http::files::{Asset, Files};
use crate::protocol::http::serve::Offer;
use crate::protocol::http::sites::{Site, Sites, name_of};

/// Whether a browser finds a page at its root.
pub(crate) fn has_page(listen: &ListenSettings, assets: &[Asset]) -> bool {
    let has_files = listen.static_dir.is_some() || !listen.site.is_empty() || !assets.is_empty();
    listen.protocol == Protocol::Ws && has_files
}

/// What a listener offers; `assets` where it has no folder of its own.
pub(crate) fn service(listen: &ListenSettings, assets: &'static [Asset], base: &Path) -> Service {
    if listen.protocol == Protocol::Line {
        return Service::Line;
    }
    let site = |dir: &Path, not_found: &Option<PathBuf>, error: &Option<PathBuf>| {
        let dir = base.join(dir);
        let page = |page: &Option<PathBuf>| page.as_ref().map(|page| dir.join(page));
        Arc::new(Site {
            not_found: page(not_found),
            error: page(error),
            files: Files::Dir(ServeDir::new(dir)),
        })
    };
    let other = match &listen.static_dir {
        Some(dir) => site(dir, &listen.not_found, &listen.error),
        None if assets.is_empty() => Arc::default(),
        None => Arc::new(Site {
            files: Files::Assets(assets),
            ..Site::default()
        }),
    };
    let mut sites = Sites {
        other,
        ..Sites::default()
    };
    for settings in &listen.site {
        let site = site(&settings.dir, &settings.not_found, &settings.error);
        let names = settings.hosts.iter().filter_map(|host| name_of(host));
        sites.named.extend(names.map(|name| (name, Arc::clone(&site))));
    }
    Service::Ws(Arc::new(Offer {
        paths: listen.paths.clone().unwrap_or_default(),
        requests: listen.requests.clone().unwrap_or_default(),
        sites,
    }))
}

/// Whether a listener can offer what it is to.
pub(crate) fn check(index: usize, listen: &ListenSettings, config: &Config) -> Result<(), ConfigError> {
    let key = |name: &str| format!("gateway.listen[{index}].{name}");
    if listen.protocol == Protocol::Line {
        let only_ws = [
            ("paths", listen.paths.is_some(), "has paths"),
            ("requests", listen.requests.is_some(), "takes requests"),
            ("static_dir", listen.static_dir.is_some(), "serves files"),
            ("not_found", listen.not_found.is_some(), "serves files"),
            ("error", listen.error.is_some(), "serves files"),
            ("site", !listen.site.is_empty(), "has sites"),
        ];
        return match only_ws.into_iter().find(|(_, is_there, _)| *is_there) {
            Some((name, _, what)) => Err(config.invalid(&key(name), format!("only a `ws` listener {what}"))),
            None => Ok(()),
        };
    }
    for (name, paths) in [("paths", &listen.paths), ("requests", &listen.requests)] {
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
    match &listen.static_dir {
        Some(dir) => check_files(config, &key, "static_dir", dir, &listen.not_found, &listen.error)?,
        None if listen.not_found.is_some() => {
            return Err(config.invalid(&key("not_found"), "it is a file in `static_dir`, which is not there"));
        }
        None if listen.error.is_some() => {
            return Err(config.invalid(&key("error"), "it is a file in `static_dir`, which is not there"));
        }
        None => {}
    }
    let mut names = HashSet::new();
    for (number, site) in listen.site.iter().enumerate() {
        let key = |name: &str| key(&format!("site[{number}].{name}"));
        check_files(config, &key, "dir", &site.dir, &site.not_found, &site.error)?;
        if site.hosts.is_empty() {
            return Err(config.invalid(&key("hosts"), "there must be at least one"));
        }
        for host in &site.hosts {
            let Some(name) = name_of(host).filter(|name| is_name(host, name)) else {
                let why = format!("`{host}` is not the name of a host: no port, no `*`, in ASCII (`xn--…` otherwise)");
                return Err(config.invalid(&key("hosts"), why));
            };
            if !names.insert(name) {
                return Err(config.invalid(&key("hosts"), format!("`{host}` is there twice")));
            }
        }
    }
    Ok(())
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
