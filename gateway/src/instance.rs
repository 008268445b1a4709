//! What the master runs.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use bytesize::ByteSize;
use meepo_node::{Config, ConfigError, Instance, Listen, Plan};
use tower_http::services::ServeDir;

use crate::accept::Service;
use crate::assets::{Asset, Files};
use crate::child;
use crate::http::Site;
use crate::settings::{GatewaySettings, ListenSettings, Protocol};

/// The gateway, for a master to run.
#[derive(Debug, Clone, Default)]
pub struct GatewayInstance {
    assets: &'static [Asset],
}

/// The gateway, for a master to run.
pub fn instance() -> GatewayInstance {
    GatewayInstance::default()
}

impl GatewayInstance {
    /// A page of the program's own: paths from the root, such as `/index.html`, and their content. The `ws` listeners
    /// that have no `static_dir` serve it.
    pub fn assets(mut self, assets: &'static [Asset]) -> Self {
        self.assets = assets;
        self
    }

    fn service(&self, listen: &ListenSettings, base: &Path) -> Service {
        match listen.protocol {
            Protocol::Line => Service::Line,
            Protocol::Ws => {
                let files = match &listen.static_dir {
                    Some(dir) => Files::Dir(ServeDir::new(base.join(dir))),
                    None if self.assets.is_empty() => Files::None,
                    None => Files::Assets(self.assets),
                };
                Service::Ws(Arc::new(Site {
                    paths: listen.paths.clone().unwrap_or_default(),
                    files,
                }))
            }
        }
    }
}

impl Instance for GatewayInstance {
    fn name(&self) -> &'static str {
        "gateway"
    }

    fn plan(&self, config: &Config) -> Result<Plan, ConfigError> {
        let settings = config.section::<GatewaySettings>("gateway")?.resolve();
        check(&settings, config)?;
        let listen = |(index, listen): (usize, &ListenSettings)| Listen {
            label: listen.protocol.name().into(),
            address: listen.address,
            key: format!("gateway.listen[{index}].address"),
            page: match listen.protocol {
                Protocol::Ws if listen.static_dir.is_some() || !self.assets.is_empty() => Some(("http", "/".into())),
                _ => None,
            },
        };
        let services: Rc<[Service]> = settings
            .listen
            .iter()
            .map(|listen| self.service(listen, config.base_dir()))
            .collect();
        Ok(Plan {
            children: settings.children,
            threads: settings.threads,
            shared: settings.listen.iter().enumerate().map(listen).collect(),
            own: Some(Listen {
                label: "inner".into(),
                address: settings.inner,
                key: "gateway.inner".into(),
                page: None,
            }),
            effective: toml::Table::try_from(&settings).map_err(|error| config.invalid("gateway", error))?,
            further: toml::Table::new(),
            serve: Rc::new(move |child| Box::pin(child::serve(child, settings.clone(), services.to_vec()))),
        })
    }
}

fn check(settings: &GatewaySettings, config: &Config) -> Result<(), ConfigError> {
    let at_least_one = [
        ("children", settings.children),
        ("threads", settings.threads),
        ("client_in_flight", settings.client_in_flight),
        ("listen", settings.listen.len()),
    ];
    for (key, number) in at_least_one {
        if number == 0 {
            return Err(config.invalid(&format!("gateway.{key}"), "there must be at least one"));
        }
    }
    if settings.max_message == ByteSize(0) || settings.max_message > MAX_MAX_MESSAGE {
        let why = format!("must be from 1 B to {MAX_MAX_MESSAGE}");
        return Err(config.invalid("gateway.max_message", why));
    }
    if settings.heartbeat_timeout <= settings.ping_interval {
        return Err(config.invalid("gateway.heartbeat_timeout", "must be longer than `ping_interval`"));
    }
    for (index, listen) in settings.listen.iter().enumerate() {
        let key = |name: &str| format!("gateway.listen[{index}].{name}");
        if listen.protocol == Protocol::Line && listen.static_dir.is_some() {
            return Err(config.invalid(&key("static_dir"), "only a `ws` listener serves files"));
        }
        if listen.protocol == Protocol::Line && listen.paths.is_some() {
            return Err(config.invalid(&key("paths"), "only a `ws` listener has paths"));
        }
        if let Some(path) = listen.paths.iter().flatten().find(|path| !path.starts_with('/')) {
            return Err(config.invalid(&key("paths"), format!("`{path}` must begin with a slash")));
        }
        if let Some(dir) = &listen.static_dir {
            let dir = config.base_dir().join(dir);
            if !dir.is_dir() {
                return Err(config.invalid(&key("static_dir"), format!("`{}` is not a folder", dir.display())));
            }
        }
    }
    Ok(())
}

/// What a link can carry in one message, with room for what is around it.
const MAX_MAX_MESSAGE: ByteSize = ByteSize::mib(64);
