//! Figures at one moment.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::figure::{Figure, MOST_FIGURES};
use super::table::InstanceTable;

/// The figures of a child, or of several together, at one moment, in the order in which they lie in memory.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading([u64; MOST_FIGURES]);

/// Figures by their names.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Figures(BTreeMap<String, u64>);

impl Reading {
    /// Reads figures as they are now.
    pub(super) fn of(figures: &[Figure; MOST_FIGURES]) -> Self {
        Self(std::array::from_fn(|index| figures[index].get()))
    }

    /// The figure at a place.
    pub(crate) fn at(&self, index: usize) -> u64 {
        self.0[index]
    }

    /// Adds other figures.
    pub(crate) fn add(&mut self, other: &Self) {
        for (figure, other) in self.0.iter_mut().zip(other.0) {
            *figure = figure.wrapping_add(other);
        }
    }

    /// The same figures by their names.
    pub(crate) fn named(&self, table: &InstanceTable) -> Figures {
        let named = table
            .figures()
            .map(|(index, info)| (info.name.to_owned(), self.at(index)));
        Figures(named.collect())
    }
}

impl Figures {
    /// The figure with a name. `None` if the instance does not count it.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.0.get(name).copied()
    }
}

impl<'a> FromIterator<(&'a str, u64)> for Figures {
    fn from_iter<T: IntoIterator<Item = (&'a str, u64)>>(figures: T) -> Self {
        Self(
            figures
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        )
    }
}
