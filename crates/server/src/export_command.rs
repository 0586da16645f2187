//! `throughline export`: sessions as rows of the legacy table, for the way back and for whoever reads that table.

use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use indicatif::HumanCount;
use serde::Serialize;
use throughline_core::legacy::write_row;
use throughline_core::{Role, Timestamp};

use crate::audit::{AuditEntry, AuditRecord, UnwritableEntry};
use crate::clock::{Clock as _, SystemClock};
use crate::config::{self, ConfigError};
use crate::export::{RowsOut, RowsOutError, TableOut, Written};
use crate::keys::KeyRing;
use crate::keys_command::{KeysError, Ring};
use crate::progress::Progress;
use crate::sessions::exporting::{ExportError, SessionExporter};
use crate::store::{self, DatabaseSettings, DatabaseUrl, DatabaseUrlError, OpenError, ReadError, Store, TimeRange};
use crate::tenant::TenantId;

/// Shown under the options.
pub const EXAMPLES: &str = "\
Servers may run meanwhile. A row that the old shop has changed later than the session changed here stays as it is there, so the command
may be run as often as you like. What a session has no place for stays in its row. No payment is taken out of the table: a row that is paid
there and not here, or by another transaction, is left alone and named; bring it in first, with `throughline import`.

The rows hold what the sessions hold, in the clear: names, addresses, the gateway's references. Keep them as you keep that table. Sessions
that were erased have nothing to export; their ids are told (--json), because the old table may still have their rows.

That it was done is in the audit log.

Examples:
  throughline export --to postgres://writer@old-db.internal/shop --dry-run --config throughline.toml
  throughline export --to postgres://writer@old-db.internal/shop --changed-since 2026-11-20T00:00:00Z --config throughline.toml
  throughline export --to-jsonl rows.jsonl --config throughline.toml
  throughline export --to-jsonl - --database-url sqlite:sessions.db --keys-file keys | jq .status | sort | uniq -c";

/// The variable with the address of the legacy database.
pub(crate) const TO: &str = "THROUGHLINE_EXPORT_TO";

/// What is to be written, and where.
#[derive(Debug, Args)]
pub struct ExportCommand {
    /// The PostgreSQL database of the legacy sessions [env: THROUGHLINE_EXPORT_TO, unless there is --to-jsonl]
    // clap would take the variable for the option, and refuse a file beside it.
    #[arg(long, value_name = "URL", conflicts_with = "to_jsonl")]
    to: Option<String>,
    /// The table in it, also with its schema
    #[arg(long, value_name = "NAME", default_value = "funnel_sessions")]
    table: String,
    /// A file that gets one row of that table as JSON in each line, instead of the database; - is standard output
    #[arg(long, value_name = "FILE")]
    to_jsonl: Option<PathBuf>,
    /// Only sessions that have changed since then, such as 2026-11-20T00:00:00Z
    #[arg(long, value_name = "TIME")]
    changed_since: Option<Timestamp>,
    /// Say what would be written to the database, and write nothing
    #[arg(long, conflicts_with = "to_jsonl")]
    dry_run: bool,
    /// Whose sessions
    #[arg(long, default_value = "default", value_name = "NAME")]
    tenant: TenantId,
    #[command(flatten)]
    ring: Ring,
}

/// Why not everything was written.
#[derive(Debug, thiserror::Error)]
pub enum ExportCommandError {
    /// Nowhere to write to.
    #[error(
        "name where the sessions are to be written: --to with the address of the legacy database, or --to-jsonl with a file"
    )]
    NoDestination,
    /// The legacy database's address is wrong.
    #[error("--to")]
    To(#[source] DatabaseUrlError),
    /// Another kind of database.
    #[error(
        "the legacy database is a PostgreSQL one: --to postgres://user@host/database. For anything else, write a file with --to-jsonl"
    )]
    NotPostgres,
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The key ring can't be read.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The database can't be opened.
    #[error(transparent)]
    Database(#[from] OpenError),
    /// The database can't be asked.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Its sessions can't be read with this ring.
    #[error(
        "the key ring is not the one that the servers of this database have: there are sessions under the key {key}, which is not in it. Give the servers' ring; nothing was exported"
    )]
    OtherRing {
        /// The public name of the key.
        key: String,
    },
    /// That it was done can't be written down.
    #[error("the audit log can't be written to; nothing was exported")]
    Audit(#[source] ReadError),
    /// The same.
    #[error("the audit log can't be written to; nothing was exported")]
    AuditEntry(#[source] UnwritableEntry),
    /// It ended early.
    #[error(transparent)]
    Run(Box<dyn std::error::Error + Send + Sync>),
    /// The operating system.
    #[error("the operating system did not let the command run")]
    System(#[source] io::Error),
    /// The outcome can't be written.
    #[error("standard error cannot be written to")]
    Output(#[source] io::Error),
    /// The outcome can't be written as JSON.
    #[error("the outcome cannot be written as JSON")]
    Json(#[from] serde_json::Error),
}

impl From<RowsOutError> for ExportCommandError {
    fn from(error: RowsOutError) -> Self {
        Self::Run(Box::new(error))
    }
}

impl From<ExportError> for ExportCommandError {
    fn from(error: ExportError) -> Self {
        Self::Run(Box::new(error))
    }
}

/// What was done.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    /// Whether nothing was written.
    dry_run: bool,
    /// Rows that were written.
    written: u64,
    /// Rows that are the same there, or that the old shop has changed later.
    left_as_they_are: u64,
    /// Those that are paid there and not here, or by another transaction.
    paid_there: Vec<String>,
    /// Sessions that were erased.
    erased: Vec<String>,
    seconds: f64,
}

impl ExportCommand {
    /// Does it; what was done is told on standard error where the rows go to standard output, else on `out`.
    ///
    /// # Errors
    /// See [`ExportCommandError`].
    pub fn run(&self, out: &mut impl Write) -> Result<ExitCode, ExportCommandError> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(ExportCommandError::System)?;
        let summary = runtime.block_on(self.export())?;
        let text = if self.ring.json() { serde_json::to_string_pretty(&summary)? + "\n" } else { summary.text() };
        let told = if self.to_jsonl.as_deref().is_some_and(|file| file.as_os_str() == "-") {
            io::stderr().write_all(text.as_bytes())
        } else {
            out.write_all(text.as_bytes())
        };
        told.map_err(ExportCommandError::Output)?;
        Ok(ExitCode::SUCCESS)
    }

    async fn export(&self) -> Result<Summary, ExportCommandError> {
        let started = Instant::now();
        let given = self.to.clone().or_else(|| env::var(TO).ok().filter(|_| self.to_jsonl.is_none()));
        let to = match given.as_deref().map(str::parse).transpose().map_err(ExportCommandError::To)? {
            Some(DatabaseUrl::Sqlite(_)) => return Err(ExportCommandError::NotPostgres),
            Some(DatabaseUrl::Postgres(address)) => Some(address),
            None if self.to_jsonl.is_none() => return Err(ExportCommandError::NoDestination),
            None => None,
        };
        let settings = config::database_settings(self.ring.options()?)?;
        let keys = self.ring.key_ring()?;
        let store = store::open(&DatabaseSettings { auto_migrate: false, ..settings }).await?;
        if let Some(key) = store.root_keys().await?.into_iter().find(|id| keys.reads(id).is_none()) {
            return Err(ExportCommandError::OtherRing { key });
        }
        // Not before it is clear that there is something to write.
        let mut rows = match (to, &self.to_jsonl) {
            (Some(address), None) => {
                RowsOut::Table(Box::new(TableOut::open(&address, &self.table, self.dry_run).await?))
            }
            (_, file) => RowsOut::lines(file.as_deref().unwrap_or(Path::new("-")))?,
        };
        if !self.dry_run {
            self.write_down(&*store, &keys).await?;
        }
        let updated = TimeRange { from_ms: self.changed_since.map(Timestamp::as_millis), before_ms: None };
        let exporter = SessionExporter { store: store.clone(), keys, tenant: self.tenant.clone(), updated };
        let mut summary = Summary { dry_run: self.dry_run, ..Summary::default() };
        let mut progress = Progress::counting(started);
        let mut after = None;
        loop {
            let (states, next) = exporter.page(after).await?;
            let (erased, there): (Vec<_>, Vec<_>) = states.into_iter().partition(|state| state.erased_at.is_some());
            summary.erased.extend(erased.into_iter().map(|state| state.session.id.to_string()));
            let page: Vec<_> = there.iter().map(|state| write_row(&state.session)).collect();
            let count = page.len() as u64;
            let Written { rows: written, paid_there } = rows.write(page).await?;
            summary.written += written;
            summary.left_as_they_are += count.saturating_sub(written).saturating_sub(paid_there.len() as u64);
            summary.paid_there.extend(paid_there);
            progress.reach(summary.seen(), summary.seen());
            after = next;
            if after.is_none() {
                break;
            }
        }
        rows.finish()?;
        progress.end();
        store.close().await;
        summary.seconds = started.elapsed().as_secs_f64();
        Ok(summary)
    }
}

impl ExportCommand {
    /// In the audit log, before anything leaves.
    async fn write_down(&self, store: &dyn Store, keys: &KeyRing) -> Result<(), ExportCommandError> {
        let now_ms = SystemClock.now_ms();
        let entry =
            AuditEntry::done(self.tenant.clone(), "exported", now_ms).by(Role::Operator.as_str(), Default::default());
        let record = AuditRecord::new(&entry, keys, now_ms).map_err(ExportCommandError::AuditEntry)?;
        store.audit(vec![record]).await.map_err(ExportCommandError::Audit)
    }
}

impl Summary {
    fn seen(&self) -> u64 {
        self.written + self.left_as_they_are + (self.paid_there.len() + self.erased.len()) as u64
    }

    fn text(&self) -> String {
        let Self { dry_run, written, left_as_they_are, paid_there, erased, seconds } = self;
        let done = if *dry_run { "would be written" } else { "written" };
        let mut text = format!(
            "{written} rows {done}, {left_as_they_are} are the same or newer there, {} sessions were erased ({} s)\n",
            erased.len(),
            HumanCount(seconds.round() as u64)
        );
        if let (count @ 1.., Some(first)) = (paid_there.len(), paid_there.first()) {
            text.push_str(&format!(
                "{count} are paid there and not here, or by another transaction, and were left alone: bring them in first (throughline import); {first} is one, --json names all\n"
            ));
        }
        text
    }
}
