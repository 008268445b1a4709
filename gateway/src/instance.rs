//! What the master runs.

use std::rc::Rc;

use bytesize::ByteSize;
use meepo_node::{Config, ConfigError, Instance, Listen, Plan};

use crate::config::settings::{GatewaySettings, ListenSettings};
use crate::listen::accept::Service;
use crate::protocol::http::files::Asset;
use crate::{child, listen::offer};

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
        check(&settings, config)?;
        let listen = |(index, listen): (usize, &ListenSettings)| Listen {
            label: listen.protocol.name().into(),
            address: listen.address,
            key: format!("gateway.listen[{index}].address"),
            page: offer::has_page(listen, self.assets).then(|| ("http", "/".into())),
        };
        let services: Rc<[Service]> = settings
            .listen
            .iter()
            .map(|listen| offer::service(listen, self.assets, config.base_dir()))
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
        ("max_requests", settings.max_requests),
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
    if settings.request_memory < settings.max_message {
        return Err(config.invalid("gateway.request_memory", "must be at least `max_message`"));
    }
    settings
        .listen
        .iter()
        .enumerate()
        .try_for_each(|(index, listen)| offer::check(index, listen, config))
}

/// What a link can carry in one message, with room for what is around it.
const MAX_MAX_MESSAGE: ByteSize = ByteSize::mib(64);
