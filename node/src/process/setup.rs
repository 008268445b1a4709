//! The whole configuration of a program, read and checked before anything is bound or forked.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::{Config, ConfigError, NodeSection};
use crate::observe::stats::{self, FigureInfo, InstanceTable};
use crate::process::instance::{Listen, Plan};
use crate::process::program::Master;

/// The options with which a master was started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Options {
    /// The configuration file.
    pub(crate) config: Option<PathBuf>,
    /// The working directory of the start: without a file, relative paths of the environment begin there.
    #[serde(default)]
    pub(crate) base: PathBuf,
    /// The instances to run; empty: all.
    pub(crate) only: Vec<String>,
    /// In the background.
    pub(crate) daemon: bool,
}

/// A configuration that was read and checked: what a master is to run.
pub(crate) struct Setup {
    pub(crate) config: Config,
    pub(crate) node: Arc<NodeSection>,
    /// The instances that are to run, in the program's order.
    pub(crate) plans: Vec<Planned>,
}

/// An instance that is to run.
pub(crate) struct Planned {
    pub(crate) name: &'static str,
    /// The figures of its children beside those that every child has.
    pub(crate) figures: &'static [FigureInfo],
    pub(crate) stop_order: u8,
    pub(crate) plan: Rc<Plan>,
}

impl Setup {
    /// Reads and checks everything.
    pub(crate) fn read(program: &Master, options: &Options) -> Result<Self, ConfigError> {
        Self::of(read_config(program, options)?, program, options)
    }

    /// Checks a configuration that was read.
    pub(crate) fn of(config: Config, program: &Master, options: &Options) -> Result<Self, ConfigError> {
        let mut node = config.node()?;
        if options.daemon && node.log_file.is_none() {
            node.log_file = Some(node.run_dir.join(format!("{}.log", node.name)));
        }
        let mut plans = Vec::new();
        for instance in &program.instances {
            // All instances are planned, so that a mistake shows on every machine that has the file.
            let plan = Rc::new(instance.plan(&config)?);
            let name = instance.name();
            if options.only.is_empty() || options.only.iter().any(|only| only == name) {
                plans.push(Planned {
                    name,
                    figures: instance.figures(),
                    stop_order: instance.stop_order(),
                    plan,
                });
            }
        }
        config.refuse_unknown_sections()?;
        let setup = Self {
            config,
            node: Arc::new(node),
            plans,
        };
        setup.check()?;
        Ok(setup)
    }

    /// The tables of figures of the instances, in their order.
    pub(crate) fn tables(&self) -> Vec<InstanceTable> {
        let table = |planned: &Planned| InstanceTable {
            name: planned.name,
            own: planned.figures,
        };
        self.plans.iter().map(table).collect()
    }

    fn check(&self) -> Result<(), ConfigError> {
        for Planned { name, plan, .. } in &self.plans {
            // While generations change there may be twice as many children, and more.
            if plan.children == 0 || plan.children > stats::ENTRIES / 4 {
                let why = format!("must be from 1 to {}", stats::ENTRIES / 4);
                return Err(self.config.invalid(&format!("{name}.children"), why));
            }
        }
        let metrics = self.metrics();
        let mut taken: HashMap<SocketAddr, &str> = HashMap::new();
        let shared = self.plans.iter().flat_map(|planned| &planned.plan.shared);
        for listen in shared.chain(&metrics).filter(|listen| listen.address.port() != 0) {
            if let Some(other) = taken.insert(listen.address, &listen.key) {
                let why = format!("{} is used by {other} already", listen.address);
                return Err(self.config.invalid(&listen.key, why));
            }
        }
        Ok(())
    }

    /// The listener for metrics, if there is to be one.
    pub(crate) fn metrics(&self) -> Option<Listen> {
        Some(Listen {
            label: "metrics".into(),
            address: self.node.metrics?,
            key: "node.metrics".into(),
            page: Some(("http", "/metrics".into())),
        })
    }

    /// The settings that are in force, as TOML, without secrets.
    pub(crate) fn effective(&self) -> String {
        let mut all = toml::Table::new();
        all.insert("node".into(), self.node.effective().into());
        for Planned { name, plan, .. } in &self.plans {
            all.insert((*name).into(), plan.effective.clone().into());
            all.extend(plan.further.clone());
        }
        mask(&mut all);
        toml::to_string(&all).expect("a table of settings is TOML")
    }
}

/// Reads the layers of the configuration, without looking into them.
pub(crate) fn read_config(program: &Master, options: &Options) -> Result<Config, ConfigError> {
    Config::read(
        &program.name,
        options.config.as_deref(),
        &program.defaults,
        std::env::vars_os(),
    )
    .map(|config| config.at(&options.base))
}

/// Reads only the settings with which a node is found, from a file that may have mistakes.
pub(crate) fn read_whereabouts(program: &Master, options: &Options) -> Result<Config, ConfigError> {
    let text = options
        .config
        .as_deref()
        .and_then(|file| std::fs::read_to_string(file).ok())
        .unwrap_or_default();
    Config::read_whereabouts(
        &program.name,
        options.config.as_deref(),
        &text,
        &program.defaults,
        std::env::vars_os(),
    )
    .map(|config| config.at(&options.base))
}

/// Hides the values of keys that are named as secrets are.
fn mask(table: &mut toml::Table) {
    for (key, value) in table.iter_mut() {
        let secret = ["secret", "password", "token"]
            .iter()
            .any(|word| key == word || key.ends_with(&format!("_{word}")));
        match value {
            toml::Value::Table(table) => mask(table),
            toml::Value::Array(items) => items.iter_mut().filter_map(toml::Value::as_table_mut).for_each(mask),
            toml::Value::String(text) if secret && !text.is_empty() => *text = "***".into(),
            _ => {}
        }
    }
}
