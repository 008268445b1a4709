//! What a `ws` listener offers: paths for WebSockets, paths for workers, and sites.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tower_http::services::ServeDir;

use crate::config::listen::{ListenSettings, name_of};
use crate::protocol::http::files::{Asset, Files};
use crate::protocol::http::sites::{Site, Sites};

/// What a `ws` listener offers.
#[derive(Debug, Default)]
pub(crate) struct Offer {
    /// The paths on which a WebSocket may be opened.
    pub(crate) paths: Vec<String>,
    /// The paths whose requests workers answer; one that ends in a slash stands for all that begin with it.
    pub(crate) forwarded: Vec<String>,
    /// The files for everything else.
    pub(crate) sites: Sites,
}

impl Offer {
    /// What a listener offers that is configured so; `assets` where it has no folder of its own.
    pub(crate) fn new(listen: &ListenSettings, assets: &'static [Asset], base: &Path) -> Self {
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
        Self {
            paths: listen.paths.clone().unwrap_or_default(),
            forwarded: listen.requests.clone().unwrap_or_default(),
            sites,
        }
    }

    /// Whether a WebSocket may be opened on a path.
    pub(crate) fn is_websocket(&self, path: &str) -> bool {
        self.paths.iter().any(|named| named == path)
    }

    /// Whether workers answer the requests of a path.
    pub(crate) fn is_forwarded(&self, path: &str) -> bool {
        self.forwarded.iter().any(|named| match named.ends_with('/') {
            true => path.starts_with(named),
            false => path == named,
        })
    }
}
