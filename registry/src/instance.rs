//! What the master has to know of a registry.

use std::rc::Rc;

use meepo_node::{Config, ConfigError, Instance, Listen, Plan};

use crate::serve;
use crate::settings::RegistrySection;

/// The registry, for a master to run.
#[derive(Debug, Clone, Copy, Default)]
pub struct RegistryInstance(());

/// The registry, for a master to run.
pub fn instance() -> RegistryInstance {
    RegistryInstance(())
}

impl Instance for RegistryInstance {
    fn name(&self) -> &'static str {
        "registry"
    }

    fn plan(&self, config: &Config) -> Result<Plan, ConfigError> {
        let settings = RegistrySection::read(config)?;
        let effective = toml::Table::try_from(&settings).map_err(|error| config.invalid("registry", error))?;
        Ok(Plan {
            children: settings.children,
            threads: 1,
            shared: vec![Listen {
                label: "registry".into(),
                address: settings.address,
                key: "registry.address".into(),
                page: None,
            }],
            own: None,
            effective,
            serve: Rc::new(move |child| Box::pin(serve::child(child, settings.clone()))),
        })
    }
}
