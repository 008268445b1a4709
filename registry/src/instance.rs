//! What the master is told of a registry: its listener, its children and their settings.

use std::rc::Rc;

use meepo_node::stats::FigureInfo;
use meepo_node::{Config, ConfigError, Instance, Listen, Plan};

use crate::child;
use crate::figures::RegistryFigures;
use crate::settings::RegistrySection;

/// The node type `registry`, for a [`Master`](meepo_node::Master) to run.
#[derive(Debug, Clone, Copy, Default)]
pub struct RegistryInstance(());

/// The node type `registry`, for a [`Master`](meepo_node::Master) to run.
pub fn instance() -> RegistryInstance {
    RegistryInstance(())
}

impl Instance for RegistryInstance {
    fn name(&self) -> &'static str {
        "registry"
    }

    fn figures(&self) -> &'static [FigureInfo] {
        RegistryFigures::TABLE
    }

    fn stop_order(&self) -> u8 {
        // Until they have drained, gateways and workers find each other here.
        2
    }

    fn plan(&self, config: &Config) -> Result<Plan, ConfigError> {
        let section: RegistrySection = config.section("registry")?;
        let settings = section
            .check()
            .map_err(|invalid| config.invalid(invalid.key, invalid.reason))?;
        let effective = toml::Table::try_from(&section).map_err(|error| config.invalid("registry", error))?;
        Ok(Plan {
            children: section.children,
            threads: 1,
            shared: vec![Listen {
                label: "registry".into(),
                address: section.address,
                key: "registry.address".into(),
                page: None,
            }],
            own: None,
            effective,
            further: toml::Table::new(),
            serve: Rc::new(move |child| Box::pin(child::run(child, settings.clone()))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_one_child_on_loopback() {
        let plan = instance().plan(&Config::load(None).unwrap()).unwrap();
        assert_eq!((plan.children, plan.threads, plan.shared.len()), (1, 1, 1));
        assert_eq!(plan.shared[0].address, "127.0.0.1:19911".parse().unwrap());
        assert_eq!(plan.effective["heartbeat"].as_str(), Some("2s"));
        assert!(plan.own.is_none());
    }
}
