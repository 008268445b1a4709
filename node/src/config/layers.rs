//! Settings in layers, the later ones above the earlier, each with the place where it was written.

use std::collections::BTreeMap;
use std::path::Path;

use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::error::{ConfigError, Origin};

/// Settings and where they came from.
#[derive(Clone, Default)]
pub(crate) struct Layers {
    pub(crate) table: Table,
    origins: BTreeMap<String, Origin>,
}

impl Layers {
    /// Puts the settings of a TOML text above those that are there.
    pub(crate) fn put(&mut self, text: &str, source: Source<'_>) -> Result<(), ConfigError> {
        let syntax = |error: toml::de::Error| ConfigError {
            origin: Some(source.at(error.span().map_or(0, |span| line(text, span.start)))),
            key: String::new(),
            why: error.message().replace('\n', ", "),
        };
        let spans = DeTable::parse(text).map_err(syntax)?;
        let table: Table = toml::from_str(text).map_err(syntax)?;
        merge(&mut self.table, table, "", &mut |path| forget(&mut self.origins, path));
        note(spans.get_ref(), "", &mut |path, at| {
            self.origins.insert(path, source.at(line(text, at)));
        });
        Ok(())
    }

    /// Where a key was written, or the nearest table around it.
    pub(crate) fn origin(&self, key: &str) -> Option<Origin> {
        let mut key = key;
        loop {
            if let Some(origin) = self.origins.get(key) {
                return Some(origin.clone());
            }
            key = &key[..key.rfind(['.', '['])?];
        }
    }

    /// Notes that a key is set by something else now.
    pub(crate) fn set_origin(&mut self, key: &str, origin: Origin) {
        forget(&mut self.origins, key);
        self.origins.insert(key.into(), origin);
    }
}

/// The texts of a section, as far as they can be read.
pub(crate) fn strings_of(text: &str, section: &str, wanted: impl Fn(&str) -> bool) -> Table {
    let (table, _) = DeTable::parse_recoverable(text);
    let mut found = Table::new();
    for (_, value) in table.get_ref().iter().filter(|(name, _)| name.get_ref() == section) {
        let DeValue::Table(keys) = value.get_ref() else {
            continue;
        };
        for (key, value) in keys.iter().filter(|(key, _)| wanted(key.get_ref())) {
            if let DeValue::String(value) = value.get_ref() {
                found.insert(key.get_ref().to_string(), Value::String(value.to_string()));
            }
        }
    }
    found
}

/// Where a text of settings is from.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    File(&'a Path),
    Program,
}

impl Source<'_> {
    fn at(self, line: usize) -> Origin {
        match self {
            Self::File(path) => Origin::File(path.into(), line),
            Self::Program => Origin::Program,
        }
    }
}

/// A key under a path, as errors write it.
pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.into()
    } else {
        format!("{path}.{key}")
    }
}

fn line(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count()
        + 1
}

/// Tables are merged, all else is replaced whole.
fn merge(below: &mut Table, above: Table, path: &str, replaced: &mut impl FnMut(&str)) {
    for (key, value) in above {
        let path = join(path, &key);
        match (below.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => merge(below, above, &path, replaced),
            (_, value) => {
                replaced(&path);
                below.insert(key, value);
            }
        }
    }
}

fn forget(origins: &mut BTreeMap<String, Origin>, path: &str) {
    origins.retain(|key, _| {
        key.strip_prefix(path)
            .is_none_or(|rest| !(rest.is_empty() || rest.starts_with(['.', '['])))
    });
}

fn note(table: &DeTable<'_>, path: &str, found: &mut impl FnMut(String, usize)) {
    for (key, value) in table {
        let path = join(path, key.get_ref());
        found(path.clone(), key.span().start);
        note_value(value, &path, found);
    }
}

fn note_value(value: &Spanned<DeValue<'_>>, path: &str, found: &mut impl FnMut(String, usize)) {
    match value.get_ref() {
        DeValue::Table(table) => note(table, path, found),
        DeValue::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let path = format!("{path}[{index}]");
                found(path.clone(), item.span().start);
                note_value(item, &path, found);
            }
        }
        _ => {}
    }
}
