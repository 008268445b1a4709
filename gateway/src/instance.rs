//! The gateway as an instance that a master runs.

use std::rc::Rc;

use meepo_node::{Config, ConfigError, Instance, Listen, Plan};

use crate::child;
use crate::config::listen::ListenSettings;
use crate::config::settings::GatewaySettings;
use crate::protocol::http::files::Asset;
use crate::protocol::service::Service;

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
}

impl Instance for GatewayInstance {
    fn name(&self) -> &'static str {
        "gateway"
    }

    fn plan(&self, config: &Config) -> Result<Plan, ConfigError> {
        let settings = config.section::<GatewaySettings>("gateway")?.resolve();
        let limits = settings.check(config)?;
        let listen = |(index, listen): (usize, &ListenSettings)| Listen {
            label: listen.protocol.name().into(),
            address: listen.address,
            key: format!("gateway.listen[{index}].address"),
            page: listen.has_page(!self.assets.is_empty()).then(|| ("http", "/".into())),
        };
        let services: Rc<[Service]> = settings
            .listen
            .iter()
            .map(|listen| Service::new(listen, self.assets, config.base_dir()))
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
            serve: Rc::new(move |child| {
                Box::pin(child::serve(child, settings.clone(), limits.clone(), services.to_vec()))
            }),
        })
    }
}
