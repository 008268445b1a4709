//! A batch, which an agent sends and a page gets: lines of one file.

use serde::{Deserialize, Serialize};

/// The beginning of each line that an agent sends.
pub(crate) const PREFIX: &str = "/lines ";
/// The answer to an agent whose lines have been passed on.
pub(crate) const OK: &str = "ok";
/// The beginning of the answer to an agent whose lines cannot be passed on.
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

    /// The lines that contain this text, which is in small letters, or whose machine or file has it in its name.
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
