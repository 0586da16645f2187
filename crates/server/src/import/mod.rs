//! `throughline import`: sessions of the legacy systems, brought into the servers' database.
//!
//! [`entries`] reads what the legacy systems have, page by page; [`run`] brings each page in, many sessions at a time, and writes down
//! how far it has come ([`checkpoint`]) and what had to be decided ([`report`]).

pub(crate) mod checkpoint;
pub(crate) mod entries;
pub(crate) mod report;

use futures_util::{StreamExt as _, stream};
use throughline_core::legacy::{LegacySession, merge, read};

use self::checkpoint::{Checkpoint, CheckpointError};
use self::entries::{BesideRows, Entry, Page, Rows, RowsError};
use self::report::{Report, ReportError, Totals};
use crate::sessions::importing::{ImportError, ImportOutcome, SessionImporter};
use crate::store::SessionKey;

/// How many entries are read, and then brought in, at a time.
pub(crate) const PAGE: usize = 1_000;

/// How many sessions are on their way into the database at a time: as many as it takes in two transactions.
const AT_A_TIME: usize = 512;

/// Why an import ended early. It can go on where it was: everything before is in the database.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error(transparent)]
    Rows(#[from] RowsError),
    #[error("the session {id} could not be brought in")]
    Import {
        id: String,
        #[source]
        source: ImportError,
    },
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Report(#[from] ReportError),
}

/// An import that is under way.
pub(crate) struct Run<'a> {
    pub(crate) importer: &'a SessionImporter,
    pub(crate) rows: Rows,
    pub(crate) beside: BesideRows,
    pub(crate) report: Report,
    /// Missing where nothing is written.
    pub(crate) checkpoint: Option<Checkpoint>,
    pub(crate) totals: Totals,
}

impl Run<'_> {
    /// Brings in everything that is left, telling `progress` after each page how far it has come.
    pub(crate) async fn finish(
        mut self,
        now_ms: impl Fn() -> i64,
        mut progress: impl FnMut(&Totals),
    ) -> Result<Totals, RunError> {
        while let Some(Page { entries, position, bytes }) = self.rows.next_page().await? {
            let said = entries.into_iter().map(|entry| {
                let beside = entry.id().map(|id| self.beside.take(id)).unwrap_or_default();
                [vec![entry], beside].concat()
            });
            let said = said.collect();
            self.bring_in(said, now_ms()).await?;
            self.totals.bytes += bytes;
            // What the report says of a page is on the disk before the page counts as done.
            self.report.flush()?;
            if let Some(checkpoint) = &mut self.checkpoint {
                checkpoint.reach(position, &self.totals)?;
            }
            progress(&self.totals);
        }
        // Sessions that have no row: other systems alone knew of them.
        while let Some(page) = self.beside.next_page() {
            self.bring_in(page, now_ms()).await?;
            self.report.flush()?;
            progress(&self.totals);
        }
        if let Some(checkpoint) = self.checkpoint {
            checkpoint.remove()?;
        }
        Ok(self.totals)
    }

    /// Brings in sessions, each given by what all systems say of it.
    async fn bring_in(&mut self, said: Vec<Vec<Entry>>, now_ms: i64) -> Result<(), RunError> {
        let mut sessions = Vec::with_capacity(said.len());
        for entries in said {
            let mut readable = Vec::with_capacity(entries.len());
            for entry in entries {
                match entry
                    .content
                    .and_then(|content| read(entry.system, &entry.key, &content).map_err(|error| error.to_string()))
                {
                    Ok(session) => readable.push(session),
                    Err(why) => {
                        self.totals.unreadable += 1;
                        self.report.unreadable(&entry.place, entry.system, &why)?;
                    }
                }
            }
            sessions.extend(merge(readable));
        }
        let importer = self.importer;
        let keys: Vec<SessionKey> = sessions.iter().map(|session| importer.key(session)).collect();
        let known = importer.versions(&keys).await.map_err(|error| {
            let id = keys.first().map(|key| key.session_id.clone()).unwrap_or_default();
            RunError::Import { id, source: error.into() }
        })?;
        let mut imported = stream::iter(sessions.into_iter().zip(known))
            .map(|(session, version): (LegacySession, Option<u64>)| async move {
                let outcome = importer.import(&session, version.is_some(), now_ms).await;
                (session.id, outcome)
            })
            .buffer_unordered(AT_A_TIME);
        while let Some((id, outcome)) = imported.next().await {
            let imported = outcome.map_err(|source| RunError::Import { id: id.to_string(), source })?;
            match imported.outcome {
                ImportOutcome::Created => self.totals.created += 1,
                ImportOutcome::Updated => self.totals.updated += 1,
                ImportOutcome::Unchanged => self.totals.unchanged += 1,
            }
            self.totals.count(&imported.notes);
            if !imported.notes.is_empty() {
                self.report.decided(id.as_str(), imported.outcome, &imported.notes)?;
            }
        }
        Ok(())
    }
}
