//! `meepo.toml`, environment variables, and errors that say where.
//!
//! Settings come in layers: a type's own defaults, the program's ([`crate::Master::defaults`]), the file, the environment.

mod environment;
mod error;
mod layers;
mod node_section;
mod section;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use error::ConfigError;
pub(crate) use error::Origin;
use layers::{Layers, Source};
pub use node_section::{LogFormat, NodeSection};

/// Sections that any program may find in its file, as one file serves all programs.
const SECTIONS: [&str; 5] = ["node", "registry", "gateway", "worker", "webhook"];

/// A configuration that was read: file, environment, defaults.
#[derive(Clone)]
pub struct Config {
    file: Option<PathBuf>,
    base: PathBuf,
    /// What the file says.
    text: Option<String>,
    layers: Layers,
    environment: Vec<environment::Override>,
    read: Arc<Mutex<BTreeSet<String>>>,
    program: String,
}

impl Config {
    /// Reads a file, or only the environment if there is none.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        Self::read("meepo", path, "", std::env::vars_os())
    }

    /// Reads a text as if it were a file, without the environment.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut config = Self::read("meepo", None, "", [])?;
        let file = PathBuf::from("meepo.toml");
        config.layers.put(text, Source::File(&file))?;
        config.file = Some(file);
        Ok(config)
    }

    /// Reads all layers for a program of this name.
    pub(crate) fn read(
        program: &str,
        path: Option<&Path>,
        defaults: &str,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let read = |path: &Path| {
            std::fs::read_to_string(path).map_err(|error| ConfigError {
                origin: Some(Origin::File(path.into(), 0)),
                key: String::new(),
                why: format!("cannot be read: {error}"),
            })
        };
        Self::over(program, path, path.map(read).transpose()?, defaults, variables)
    }

    /// Reads all layers, where the text of the file is known.
    pub(crate) fn over(
        program: &str,
        path: Option<&Path>,
        text: Option<String>,
        defaults: &str,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let mut layers = Layers::default();
        layers.put(defaults, Source::Program)?;
        if let (Some(path), Some(text)) = (path, &text) {
            layers.put(text, Source::File(path))?;
        }
        let folder = path
            .and_then(Path::parent)
            .filter(|folder| !folder.as_os_str().is_empty());
        Ok(Self {
            file: path.map(Into::into),
            base: folder.unwrap_or(Path::new(".")).into(),
            text,
            layers,
            environment: environment::overrides(variables)?,
            read: Arc::default(),
            program: program.into(),
        })
    }

    /// Where relative paths begin if there is no file: a daemon leaves the working directory that it was started in.
    pub(crate) fn at(mut self, folder: &Path) -> Self {
        self.base = folder.join(&self.base);
        self
    }

    /// Reads nothing but the name, the run directory and the time for a stop, and passes over all mistakes elsewhere.
    pub(crate) fn read_whereabouts(
        program: &str,
        path: Option<&Path>,
        text: &str,
        defaults: &str,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let wanted = |key: &str| ["name", "run_dir", "stop_timeout"].contains(&key);
        let variables = variables.into_iter().filter(|(name, _)| {
            let key = name.to_str().and_then(|name| name.strip_prefix("MEEPO_NODE__"));
            key.is_some_and(|key| wanted(&key.to_lowercase()))
        });
        let mut config = Self::read(program, None, defaults, variables)?;
        if let Some(folder) = path.and_then(Path::parent) {
            config.base = folder.into();
        }
        let node = layers::strings_of(text, "node", wanted);
        config.layers.put(
            &toml::Table::from_iter([("node".into(), node.into())]).to_string(),
            Source::Program,
        )?;
        Ok(config)
    }

    /// Reads a section; a key that is missing has its default.
    ///
    /// For the section `[node]` see [`Config::node`].
    pub fn section<T: DeserializeOwned + Serialize + Default>(&self, name: &str) -> Result<T, ConfigError> {
        self.read
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.into());
        section::read(name, &self.layers, &self.environment)
    }

    /// The section `[node]`, with what follows from it: the run directory, the name, the secret from its file.
    pub fn node(&self) -> Result<NodeSection, ConfigError> {
        self.section::<NodeSection>("node")?.resolve(self)
    }

    /// An error about a setting that was read but cannot be used. The key is as in `gateway.listen[0].address`.
    pub fn invalid(&self, key: &str, why: impl fmt::Display) -> ConfigError {
        let set_by = |from: &environment::Override| {
            let set = from.key();
            key.strip_prefix(set.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        let variable = self.environment.iter().rfind(|from| set_by(from));
        let exact = variable.map(|from| Origin::Environment(from.variable.clone()));
        ConfigError {
            origin: exact.or_else(|| self.layers.origin(key)),
            key: key.into(),
            why: why.to_string(),
        }
    }

    /// Where relative paths of the configuration begin: the file's folder, or the working directory.
    pub fn base_dir(&self) -> &Path {
        &self.base
    }

    /// What the file says.
    pub(crate) fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// Refuses sections that neither this program nor any other knows. To be called when all sections have been read.
    pub(crate) fn refuse_unknown_sections(&self) -> Result<(), ConfigError> {
        let mut known: BTreeSet<String> = self.read.lock().unwrap_or_else(PoisonError::into_inner).clone();
        known.extend(SECTIONS.map(Into::into));
        let written = self.layers.table.keys();
        let variables = self.environment.iter().map(|from| &from.section);
        match written.chain(variables).find(|name| !known.contains(*name)) {
            Some(name) => {
                let why = error::unknown(name, known.iter().map(String::as_str));
                let variable = self.environment.iter().find(|from| from.section == *name);
                let mut wrong = self.invalid(name, why.replace("key", "section"));
                if wrong.origin.is_none() {
                    wrong.origin = variable.map(|from| Origin::Environment(from.variable.clone()));
                }
                Err(wrong)
            }
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Config {
    /// Without the settings: there are secrets among them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("file", &self.file)
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
