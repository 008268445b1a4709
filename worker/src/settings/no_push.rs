//! The section `[worker.push]` of a program that was built without the feature `push`: it cannot hold anything.

use std::fmt;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// The section `[worker.push]`, which has to be empty: this program was built without the feature `push`.
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct PushSection {}

impl PushSection {
    pub(super) fn is_left_out(&self) -> bool {
        true
    }
}

impl<'de> Deserialize<'de> for PushSection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Empty)
    }
}

/// Takes a section without keys.
struct Empty;

impl<'de> Visitor<'de> for Empty {
    type Value = PushSection;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an empty section")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut keys: A) -> Result<PushSection, A::Error> {
        match keys.next_key::<String>()? {
            None => Ok(PushSection::default()),
            Some(key) => Err(A::Error::custom(format!(
                "`{key}` cannot be set: this program was built without the feature push"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use meepo_node::Config;

    use crate::settings::WorkerSettings;

    fn read(push: &str) -> Result<WorkerSettings, String> {
        let config = Config::parse(&format!("[worker]\nchildren = 1\n[worker.push]\n{push}")).expect("it is TOML");
        WorkerSettings::read(&config).map_err(|error| error.to_string())
    }

    #[test]
    fn a_key_in_the_section_is_refused_with_the_reason() {
        let error = read("address = '127.0.0.1:1'").expect_err("it is refused");
        assert!(error.starts_with("meepo.toml:"), "{error}");
        assert!(error.contains("worker.push"), "{error}");
        assert!(
            error.contains("`address` cannot be set: this program was built without the feature push"),
            "{error}"
        );
        let settings = read("# address = '127.0.0.1:1'").expect("nothing is set");
        assert!(!settings.effective.contains_key("push"));
    }
}
