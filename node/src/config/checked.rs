//! Sections that become checked values once.

use std::fmt;
use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Config, ConfigError};

/// A section of `meepo.toml`: declared, documented and checked in one place.
///
/// The type has the settings as they are written, one documented field each, and their defaults. [`Section::check`] makes the
/// values of them that the rest of the program works with, so that nobody checks or converts a setting later.
///
/// ```
/// use bytesize::ByteSize;
/// use meepo_node::config::{self, Config, ConfigError, Section, SectionContext};
/// use serde::{Deserialize, Serialize};
///
/// /// The section `[echo]`.
/// #[derive(Debug, Clone, Serialize, Deserialize)]
/// #[serde(default, deny_unknown_fields)]
/// struct EchoSection {
///     /// Child processes, at least 1. Default: `2`.
///     children: usize,
///     /// The largest message. Default: `1MiB`.
///     max_message: ByteSize,
/// }
///
/// impl Default for EchoSection {
///     fn default() -> Self {
///         Self { children: 2, max_message: ByteSize::mib(1) }
///     }
/// }
///
/// /// The checked settings of `[echo]`.
/// struct EchoLimits {
///     children: usize,
///     max_message: usize,
/// }
///
/// impl Section for EchoSection {
///     const NAME: &'static str = "echo";
///     type Checked = EchoLimits;
///
///     fn check(self, context: &SectionContext<'_>) -> Result<EchoLimits, ConfigError> {
///         context.ensure(self.children > 0, "children", "must be at least 1")?;
///         Ok(EchoLimits { children: self.children, max_message: config::bytes(self.max_message) })
///     }
/// }
///
/// let limits = Config::parse("[echo]\nmax_message = '2KiB'")?.checked::<EchoSection>()?;
/// assert_eq!((limits.children, limits.max_message), (2, 2048));
/// let error = Config::parse("[echo]\nchildren = 0")?.checked::<EchoSection>().err().expect("no child");
/// assert_eq!(error.to_string(), "meepo.toml:2: echo.children: must be at least 1");
/// # Ok::<(), ConfigError>(())
/// ```
pub trait Section: DeserializeOwned + Serialize + Default {
    /// The section's name in the file.
    const NAME: &'static str;

    /// The values that the settings become.
    type Checked;

    /// Checks the settings, and reads the files that they name. An error names the setting that cannot be used.
    fn check(self, context: &SectionContext<'_>) -> Result<Self::Checked, ConfigError>;
}

/// A configuration, while one of its sections is checked.
#[derive(Debug, Clone, Copy)]
pub struct SectionContext<'a> {
    pub(super) config: &'a Config,
    pub(super) section: &'static str,
}

impl Config {
    /// Reads a section and checks it; a key that is missing has its default.
    pub fn checked<S: Section>(&self) -> Result<S::Checked, ConfigError> {
        let context = SectionContext {
            config: self,
            section: S::NAME,
        };
        self.section::<S>(S::NAME)?.check(&context)
    }
}

impl SectionContext<'_> {
    /// An error about a setting of the section. The key is relative to it, as in `listen[0].address`.
    pub fn invalid(&self, key: &str, why: impl fmt::Display) -> ConfigError {
        self.config.invalid(&format!("{}.{key}", self.section), why)
    }

    /// An error about a setting of the section if a condition does not hold.
    pub fn ensure(&self, holds: bool, key: &str, why: impl fmt::Display) -> Result<(), ConfigError> {
        match holds {
            true => Ok(()),
            false => Err(self.invalid(key, why)),
        }
    }

    /// A path of the section that does not depend on the working directory: relative paths begin at [`Config::base_dir`].
    pub fn absolute(&self, path: &Path) -> PathBuf {
        let whole = self.config.base_dir().join(path);
        std::path::absolute(&whole).unwrap_or(whole)
    }

    /// The text of a file that a setting names, without white space at its end. An error if the file cannot be read or has
    /// no text.
    pub fn read_file(&self, key: &str, path: &Path) -> Result<String, ConfigError> {
        let path = self.absolute(path);
        let text = std::fs::read_to_string(&path)
            .map_err(|error| self.invalid(key, format!("{}: {error}", path.display())))?;
        let text = text.trim_end();
        self.ensure(!text.is_empty(), key, format!("{} is empty", path.display()))?;
        Ok(text.into())
    }
}

/// A size as a number of bytes in memory; one that does not fit is the largest number.
pub fn bytes(size: ByteSize) -> usize {
    usize::try_from(size.as_u64()).unwrap_or(usize::MAX)
}
