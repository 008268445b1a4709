//! What an agent sends, and a page gets: lines of one file.

use serde::{Deserialize, Serialize};

/// What a line of an agent begins with.
pub(crate) const PREFIX: &str = "/lines ";
/// What an agent is answered when its lines have been passed on.
pub(crate) const OK: &str = "ok";
/// What it is answered when they cannot be.
pub(crate) const REFUSED: &str = "refused: ";

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Batch {
    pub(crate) machine: String,
    pub(crate) file: String,
    pub(crate) lines: Vec<String>,
}

impl Batch {
    pub(crate) fn json(&self) -> String {
        serde_json::to_string(self).expect("texts can be written as JSON")
    }

    /// The lines that have this text, which is in small letters, in them or in the name of their machine or file.
    pub(crate) fn matching(&self, filter: &str) -> Self {
        let Self { machine, file, lines } = self;
        let has = |text: &str| text.to_lowercase().contains(filter);
        let all = has(machine) || has(file);
        Self {
            machine: machine.clone(),
            file: file.clone(),
            lines: lines.iter().filter(|line| all || has(line)).cloned().collect(),
        }
    }
}
