//! `meepo.toml`, environment variables, and errors that say where a wrong setting stands.
//!
//! Settings come in layers: a section's own defaults, the program's, the file, the environment. `process` reads them before
//! anything is bound, instances ask for their sections. It must not know what a section's settings are for; `[node]` is its own.

mod checked;
mod environment;
mod error;
mod layers;
mod log_level;
mod node_section;
mod section;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use checked::{Section, SectionContext, bytes};
pub use error::ConfigError;
pub(crate) use error::Origin;
use layers::{Layers, Source};
pub(crate) use log_level::targets as log_targets;
pub use node_section::{LogFormat, NodeSection};

/// Sections that any program may find in its file: one file serves all programs, also those that do not run an instance.
const SECTIONS: [&str; 5] = ["node", "registry", "gateway", "worker", "webhook"];

/// A configuration that was read: defaults, file, environment.
#[derive(Clone)]
pub struct Config {
    file: Option<PathBuf>,
    /// Where relative paths begin.
    base: PathBuf,
    /// The text of the file.
    text: Option<String>,
    layers: Layers,
    environment: Vec<environment::Override>,
    /// The sections that were asked for.
    read: Arc<Mutex<BTreeSet<String>>>,
    /// The program's name.
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

    /// Reads all layers, with a text in place of the file's.
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

    /// The same configuration, whose relative paths begin at a folder if there is no file: a daemon leaves its working directory.
    pub(crate) fn at(mut self, folder: &Path) -> Self {
        self.base = folder.join(&self.base);
        self
    }

    /// Reads a section; a key that is missing has its default.
    ///
    /// [`Config::checked`] checks it as well. For the section `[node]` see [`Config::node`].
    pub fn section<T: DeserializeOwned + Serialize + Default>(&self, name: &str) -> Result<T, ConfigError> {
        self.read
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.into());
        section::read(name, &self.layers, &self.environment)
    }

    /// An error about a setting that was read but cannot be used. The key begins with the section, as in
    /// `echo.listen[0].address`.
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

    /// The text of the file.
    pub(crate) fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// Refuses sections that neither this program nor any other has. To be called when all sections have been read.
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
