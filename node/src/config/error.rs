//! The error of a wrong setting, and where the setting stands.

use std::fmt;
use std::path::PathBuf;

/// A setting is wrong: which one, why, and where it was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    pub(crate) origin: Option<Origin>,
    pub(crate) key: String,
    pub(crate) why: String,
}

/// Where a setting was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// In the file, at this line.
    File(PathBuf, usize),
    /// In an environment variable.
    Environment(String),
    /// In the program's own defaults.
    Program,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Some(Origin::File(path, 0)) => write!(f, "{}: ", path.display())?,
            Some(Origin::File(path, line)) => write!(f, "{}:{line}: ", path.display())?,
            Some(Origin::Environment(name)) => write!(f, "{name}: ")?,
            Some(Origin::Program) => f.write_str("the program's own defaults: ")?,
            None => {}
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.why)
    }
}

/// The known name that is most like the written name, if any is.
pub(crate) fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(written, name), name))
        .filter(|(likeness, _)| *likeness > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// The error text of an unknown key.
pub(crate) fn unknown<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    match nearest(written, known) {
        Some(name) => format!("unknown key, did you mean \"{name}\"?"),
        None => "unknown key".into(),
    }
}
