//! The database: survives everything.

use throughline_core::sync::Commit;
use throughline_core::{Record, State};

use crate::plants::Plant;

/// The session's journal and state.
#[derive(Default)]
pub(crate) struct Database {
    pub(crate) journal: Vec<Record>,
    pub(crate) state: Option<State>,
}

impl Database {
    pub(crate) fn version(&self) -> u64 {
        self.journal.len() as u64
    }

    /// `false` where it has another version than expected.
    pub(crate) fn commit(&mut self, commit: &Commit, plant: Plant) -> bool {
        if commit.expected_version != self.version() {
            if plant != Plant::WriteWithoutComparing {
                return false;
            }
            self.journal.truncate(commit.expected_version as usize);
        }
        self.journal.extend(commit.records.iter().cloned());
        self.state = Some((*commit.state).clone());
        true
    }
}
