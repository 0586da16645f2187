//! What had to be decided, for people to read and for programs to count: one JSON object in each line.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use throughline_core::legacy::{LegacySystem, Note};

use crate::sessions::importing::ImportOutcome;

/// How many sessions came in, and what was decided how often.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Totals {
    /// Sessions that began here.
    pub(crate) created: u64,
    /// Sessions that were here and took over what they did not have.
    pub(crate) updated: u64,
    /// Sessions that were so already.
    pub(crate) unchanged: u64,
    /// Entries that can't be sessions.
    pub(crate) unreadable: u64,
    /// Sessions about which a person has to do something.
    pub(crate) for_people: u64,
    /// How often each kind of decision was made.
    pub(crate) decisions: BTreeMap<String, u64>,
    /// How much of the file is read.
    pub(crate) bytes: u64,
}

impl Totals {
    /// How many entries were looked at.
    pub(crate) fn seen(&self) -> u64 {
        self.created + self.updated + self.unchanged + self.unreadable
    }

    pub(crate) fn count(&mut self, notes: &[Note]) {
        self.for_people += u64::from(notes.iter().any(|note| note.kind.needs_a_person()));
        for note in notes {
            *self.decisions.entry(note.kind.code().to_owned()).or_default() += 1;
        }
    }
}

/// The report can't be written.
#[derive(Debug, thiserror::Error)]
#[error("the report {file} can't be written; name another one with --report")]
pub(crate) struct ReportError {
    file: PathBuf,
    #[source]
    source: std::io::Error,
}

/// The file that is written into.
#[derive(Debug)]
pub(crate) struct Report {
    path: PathBuf,
    out: BufWriter<File>,
}

/// A session about which something was decided.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Decided<'a> {
    session: &'a str,
    outcome: &'static str,
    decisions: Vec<Decision<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Decision<'a> {
    field: &'a str,
    code: &'static str,
    message: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    needs_a_person: bool,
}

/// An entry that can't be a session.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UnreadableEntry<'a> {
    unreadable: &'a str,
    system: &'static str,
    message: &'a str,
}

impl Report {
    /// Opens the file; what was in it stays if `goes_on`.
    pub(crate) fn open(path: &Path, goes_on: bool) -> Result<Self, ReportError> {
        let mut options = OpenOptions::new();
        options.create(true).write(true).append(goes_on).truncate(!goes_on);
        let file = options.open(path).map_err(|source| ReportError { file: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), out: BufWriter::new(file) })
    }

    pub(crate) fn decided(&mut self, session: &str, outcome: ImportOutcome, notes: &[Note]) -> Result<(), ReportError> {
        let outcome = match outcome {
            ImportOutcome::Created => "created",
            ImportOutcome::Updated => "updated",
            ImportOutcome::Unchanged => "unchanged",
        };
        let decisions = notes.iter().map(|note| Decision {
            field: &note.field,
            code: note.kind.code(),
            message: note.to_string(),
            needs_a_person: note.kind.needs_a_person(),
        });
        self.write(&Decided { session, outcome, decisions: decisions.collect() })
    }

    pub(crate) fn unreadable(&mut self, place: &str, system: LegacySystem, message: &str) -> Result<(), ReportError> {
        self.write(&UnreadableEntry { unreadable: place, system: system.as_str(), message })
    }

    fn write(&mut self, line: &impl Serialize) -> Result<(), ReportError> {
        let written = serde_json::to_writer(&mut self.out, line).map_err(std::io::Error::from);
        written
            .and_then(|()| self.out.write_all(b"\n"))
            .map_err(|source| ReportError { file: self.path.clone(), source })
    }

    /// Brings everything to the disk.
    pub(crate) fn flush(&mut self) -> Result<(), ReportError> {
        let flushed = self.out.flush().and_then(|()| self.out.get_ref().sync_data());
        flushed.map_err(|source| ReportError { file: self.path.clone(), source })
    }
}
