//! A section of the layers as a type of its reader, and the error when it does not fit.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_path_to_error::{Deserializer, Track};
use toml::{Table, Value};

use super::environment::Override;
use super::error::{ConfigError, Origin, unknown};
use super::layers::{Layers, join};

/// Reads a section. A text from the environment is given the first meaning that fits the type.
pub(crate) fn read<T: DeserializeOwned + Serialize + Default>(
    name: &str,
    layers: &Layers,
    environment: &[Override],
) -> Result<T, ConfigError> {
    let written = match layers.table.get(name) {
        None => Table::new(),
        Some(Value::Table(table)) => table.clone(),
        Some(other) => {
            return Err(ConfigError {
                origin: layers.origin(name),
                key: name.into(),
                why: format!("must be a section, written as [{name}], and not {}", other.type_str()),
            });
        }
    };
    let defaults = Table::try_from(T::default()).unwrap_or_default();
    let overrides: Vec<&Override> = environment.iter().filter(|from| from.section == name).collect();
    let mut layers = layers.clone();
    for from in &overrides {
        layers.set_origin(&from.key(), Origin::Environment(from.variable.clone()));
    }
    let mut meanings = vec![0; overrides.len()];
    let mut first_errors: Vec<Option<ConfigError>> = vec![None; overrides.len()];
    loop {
        let mut table = written.clone();
        for (from, meaning) in overrides.iter().zip(&meanings) {
            from.apply(*meaning, &mut table, &defaults)?;
        }
        let error = match attempt::<T>(name, table, &defaults, &layers) {
            Ok(section) => return Ok(section),
            Err(error) => error,
        };
        let blamed = overrides.iter().position(
            |from| matches!(&error.origin, Some(Origin::Environment(variable)) if *variable == from.variable),
        );
        let Some(blamed) = blamed else {
            return Err(error);
        };
        let first = first_errors[blamed].get_or_insert(error).clone();
        meanings[blamed] += 1;
        if meanings[blamed] == overrides[blamed].meanings.len() {
            return Err(first);
        }
    }
}

fn attempt<T: DeserializeOwned>(name: &str, table: Table, defaults: &Table, layers: &Layers) -> Result<T, ConfigError> {
    let mut ignored: Vec<String> = Vec::new();
    let mut track = Track::new();
    let read = T::deserialize(serde_ignored::Deserializer::new(
        Deserializer::new(Value::Table(table), &mut track),
        &mut |path: serde_ignored::Path<'_>| ignored.push(path.to_string()),
    ));
    let at = |key: String, why: String| ConfigError {
        origin: layers.origin(&key),
        key,
        why,
    };
    match read {
        Err(error) => {
            let path = track.path().to_string();
            let path = if path == "." { String::new() } else { path };
            let key = if path.is_empty() {
                name.to_owned()
            } else {
                join(name, &path)
            };
            let (key, why) = explain(&key, error.message());
            Err(at(key, why))
        }
        Ok(section) => match ignored.first() {
            Some(path) => {
                let parts: Vec<&str> = path.split('.').filter(|part| *part != "?").collect();
                let key = parts
                    .iter()
                    .fold(name.to_owned(), |key, part| match part.parse::<usize>() {
                        Ok(index) => format!("{key}[{index}]"),
                        Err(_) => format!("{key}.{part}"),
                    });
                let (last, parents) = parts.split_last().expect("a path has at least one part");
                let siblings = parents
                    .iter()
                    .try_fold(defaults, |table, part| table.get(*part)?.as_table());
                let known = siblings.into_iter().flat_map(|table| table.keys()).map(String::as_str);
                let why = unknown(last, known);
                Err(at(key, why))
            }
            None => Ok(section),
        },
    }
}

/// Words "unknown field" as all other errors, and makes sure that the key ends with the field.
fn explain(key: &str, message: &str) -> (String, String) {
    let message = message.trim_end().replace('\n', ", ");
    let Some((field, expected)) = message
        .strip_prefix("unknown field `")
        .and_then(|rest| rest.split_once('`'))
    else {
        return (key.into(), message);
    };
    let known = expected.split('`').skip(1).step_by(2);
    let whole = if key.ends_with(&format!(".{field}")) {
        key.into()
    } else {
        join(key, field)
    };
    (whole, unknown(field, known))
}
