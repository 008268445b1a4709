//! A program that runs a master: its name, its arguments, and its instances.

use std::ffi::OsString;
use std::fmt;
use std::path::Path;

use crate::observe::stats::InstanceTable;
use crate::process::instance::Instance;

/// A program: its instances, and the command line in front of the master that runs them.
///
/// The master forks, so a program must not start threads or a runtime before it calls [`Master::run`].
///
/// ```no_run
/// # fn gateway() -> impl meepo_node::Instance + 'static { Nothing }
/// # struct Nothing;
/// # impl meepo_node::Instance for Nothing {
/// #     fn name(&self) -> &'static str { "gateway" }
/// #     fn plan(&self, _: &meepo_node::Config) -> Result<meepo_node::Plan, meepo_node::ConfigError> { unimplemented!() }
/// # }
/// fn main() -> std::process::ExitCode {
///     meepo_node::Master::from_args().version(env!("CARGO_PKG_VERSION")).instance(gateway()).run()
/// }
/// ```
pub struct Master {
    pub(crate) name: String,
    pub(crate) args: Vec<OsString>,
    pub(crate) version: String,
    pub(crate) about: String,
    pub(crate) defaults: String,
    pub(crate) instances: Vec<Box<dyn Instance>>,
}

impl Master {
    /// A program that is named as its file, with the arguments of this process.
    pub fn from_args() -> Self {
        let mut args = std::env::args_os();
        let file = args.next().unwrap_or_default();
        let name = Path::new(&file)
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or("meepo");
        Self::with_args(name, args)
    }

    /// A program with a name and arguments. They are the last of the process's own arguments, such as those after a
    /// subcommand.
    pub fn with_args(name: impl Into<String>, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self {
            name: name.into(),
            args: args.into_iter().map(Into::into).collect(),
            version: env!("CARGO_PKG_VERSION").into(),
            about: String::new(),
            defaults: String::new(),
            instances: Vec::new(),
        }
    }

    /// The version that `--version` and `status` show. Default: the version of this crate.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// The program's purpose in one line, for `--help`. Default: empty.
    #[must_use]
    pub fn about(mut self, about: impl Into<String>) -> Self {
        self.about = about.into();
        self
    }

    /// The program's own defaults, as TOML. A configuration file and the environment are above them.
    #[must_use]
    pub fn defaults(mut self, toml: impl Into<String>) -> Self {
        self.defaults = toml.into();
        self
    }

    /// Adds an instance for the master to run.
    #[must_use]
    pub fn instance(mut self, instance: impl Instance + 'static) -> Self {
        self.instances.push(Box::new(instance));
        self
    }
}

impl Master {
    /// The tables of figures of all instances.
    ///
    /// # Panics
    ///
    /// If an instance has more figures than a child can have.
    pub(crate) fn tables(&self) -> Vec<InstanceTable> {
        let instances = self.instances.iter();
        instances
            .map(|instance| InstanceTable::new(instance.name(), instance.figures()))
            .collect()
    }
}

impl fmt::Debug for Master {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let instances: Vec<_> = self.instances.iter().map(|instance| instance.name()).collect();
        f.debug_struct("Master")
            .field("name", &self.name)
            .field("instances", &instances)
            .finish_non_exhaustive()
    }
}
