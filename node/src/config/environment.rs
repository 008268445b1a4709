//! Environment variables above the file: `MEEPO_SECTION__KEY`, `MEEPO_SECTION__LIST__0__KEY`.
//!
//! Names without a double underscore are left alone: container systems set such variables by themselves.

use std::ffi::OsString;

use toml::{Table, Value};

use super::error::{ConfigError, Origin};

/// A setting from the environment.
#[derive(Clone)]
pub(crate) struct Override {
    /// The variable's name.
    pub(crate) variable: String,
    /// The section, in lower case.
    pub(crate) section: String,
    /// The keys below the section, in lower case.
    pub(crate) path: Vec<String>,
    /// The meanings that the text may have, the likeliest first: the type that the section wants decides.
    pub(crate) meanings: Vec<Value>,
}

/// The settings among the variables.
pub(crate) fn overrides(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Vec<Override>, ConfigError> {
    let mut found = Vec::new();
    for (name, text) in variables {
        let Some(name) = name.to_str().filter(|name| name.starts_with("MEEPO_")) else {
            continue;
        };
        let lower = name["MEEPO_".len()..].to_lowercase();
        let Some((section, path)) = lower.split_once("__") else {
            continue;
        };
        let Some(text) = text.to_str() else {
            return Err(wrong(name, "is not UTF-8"));
        };
        if section.is_empty() || path.split("__").any(str::is_empty) {
            return Err(wrong(name, "must be written as MEEPO_SECTION__KEY"));
        }
        found.push(Override {
            variable: name.into(),
            section: section.into(),
            path: path.split("__").map(Into::into).collect(),
            meanings: meanings(text),
        });
    }
    found.sort_by(|a, b| (&a.path.len(), &a.variable).cmp(&(&b.path.len(), &b.variable)));
    Ok(found)
}

impl Override {
    /// The key as errors write it.
    pub(crate) fn key(&self) -> String {
        self.path
            .iter()
            .fold(self.section.clone(), |key, part| match part.parse::<usize>() {
                Ok(index) => format!("{key}[{index}]"),
                Err(_) => format!("{key}.{part}"),
            })
    }

    /// Puts one of the meanings into the section. A list that only the section's defaults have is copied from there first.
    pub(crate) fn apply(&self, meaning: usize, section: &mut Table, defaults: &Table) -> Result<(), ConfigError> {
        let (last, parents) = self.path.split_last().expect("a path has at least one part");
        let mut container = Container::Table(section);
        let mut default = Some(defaults);
        let mut default_list: Option<&Vec<Value>> = None;
        for (depth, part) in parents.iter().enumerate() {
            let next_is_index = self.path[depth + 1].parse::<usize>().is_ok();
            let below = default
                .and_then(|table| table.get(part))
                .or_else(|| default_list?.get(part.parse::<usize>().ok()?));
            default = below.and_then(Value::as_table);
            default_list = below.and_then(Value::as_array);
            let fresh = || match default_list {
                Some(list) if next_is_index => Value::Array(list.clone()),
                None if next_is_index => Value::Array(Vec::new()),
                _ => Value::Table(Table::new()),
            };
            let value = container
                .enter(part, fresh)
                .map_err(|why| wrong(&self.variable, &why))?;
            container = match value {
                Value::Table(table) => Container::Table(table),
                Value::Array(list) => Container::List(list),
                _ => return Err(wrong(&self.variable, &format!("{part} has no keys below it"))),
            };
        }
        let value = &self.meanings[meaning];
        *container
            .enter(last, || value.clone())
            .map_err(|why| wrong(&self.variable, &why))? = value.clone();
        Ok(())
    }
}

/// A table or list, while a path leads into it.
enum Container<'a> {
    Table(&'a mut Table),
    List(&'a mut Vec<Value>),
}

impl<'a> Container<'a> {
    /// The value at one part of the path; a new one if nothing is there.
    fn enter(self, part: &str, fresh: impl FnOnce() -> Value) -> Result<&'a mut Value, String> {
        match self {
            Self::Table(table) => Ok(table.entry(part).or_insert_with(fresh)),
            Self::List(list) => {
                let index: usize = part.parse().map_err(|_| format!("{part} is not a place in a list"))?;
                if index > list.len() {
                    return Err(format!("the list has only {} items", list.len()));
                }
                if index == list.len() {
                    list.push(fresh());
                }
                Ok(&mut list[index])
            }
        }
    }
}

fn meanings(text: &str) -> Vec<Value> {
    let mut all = Vec::new();
    if let Ok(mut table) = toml::from_str::<Table>(&format!("v = {text}"))
        && table.len() == 1
    {
        all.extend(table.remove("v"));
    }
    let words = |text: &str| text.split(',').map(|word| Value::String(word.trim().into())).collect();
    let list = if text.trim().is_empty() {
        Vec::new()
    } else {
        words(text)
    };
    for meaning in [Value::String(text.into()), Value::Array(list)] {
        if !all.contains(&meaning) {
            all.push(meaning);
        }
    }
    all
}

fn wrong(variable: &str, why: &str) -> ConfigError {
    ConfigError {
        origin: Some(Origin::Environment(variable.into())),
        key: String::new(),
        why: why.into(),
    }
}
