//! Sessions in one SQLite file: the embedded default.
//!
//! One connection writes (see [`super::group_commit`]), a small pool reads. The file is in WAL
//! mode, so that readers never wait for the writer, with `synchronous=FULL`, because anything
//! less loses acknowledged commits when the power fails.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};
use tokio::sync::oneshot;

use super::group_commit::{GroupCommit, GroupCommitLimits, SubmitError};
use super::migrations::{AppliedMigration, Tables, embedded};
use super::service_keys::{COLUMNS, changes_statement, read_changes, read_key};
use super::sqlite_file::SqliteFile;
use super::sqlite_jobs::{
    AbandonJob, AddServiceKeyJob, BeginJob, ClaimDueJob, CommitJob, DeleteJob, DropAnswersJob, FinishJob,
    NoteServiceKeyUseJob, ProbeJob, RevokeServiceKeyJob, RewrapJob, key_of,
};
use super::sqlite_writer::{SqliteWriter, WriteJob};
use super::survey::{self, Argument, Dialect, Statement};
use super::{
    Append, CommitError, Deleted, Deletion, Due, ENDED, EndedBefore, Found, JournalRecord, OpenError, ROOT_KEYS,
    ReadError, Revocation, Rewrapped, Search, ServiceKeyChanges, ServiceKeyStore, SessionKey, SessionStore, StoreFault,
    Stored, StoredServiceKey, Summary, SummaryOf, SurveyError,
};
use crate::audit::AuditRecord;
use crate::encryption::WrappedKey;
use crate::idempotency::{Answer, Begin, IdempotencyError, IdempotencyKey, IdempotencyStore, KEPT, Ticket};
use crate::tenant::TenantId;

/// How long SQLite waits for a lock that some other process holds on the file.
pub(super) const BUSY_LIMIT: Duration = Duration::from_secs(2);

/// How long a read may wait for a connection, and then for its rows.
const ACQUIRE_LIMIT: Duration = Duration::from_secs(1);
const QUERY_LIMIT: Duration = Duration::from_secs(5);

/// What a refused caller is told to wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Which file, and how it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqliteSettings {
    /// The file; its folder is created when it is missing.
    pub file: PathBuf,
    /// Connections that read at the same time.
    pub readers: u32,
    /// Limits of the writing queue.
    pub group_commit: GroupCommitLimits,
    /// Whether the tables are brought up to date; otherwise outdated ones are refused.
    pub auto_migrate: bool,
}

/// A store in one SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    file: SqliteFile,
    writer: GroupCommit<Box<dyn WriteJob>>,
    pub(super) readers: SqlitePool,
    /// Reads what may take longer than what buyers wait for.
    surveyors: SqlitePool,
    /// The latest write failed, so whether writing works has to be found out before it is promised.
    write_failed: AtomicBool,
}

impl SqliteStore {
    /// Opens the file, creating it and its tables where they are missing.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(settings: &SqliteSettings) -> Result<Self, OpenError> {
        let file = &settings.file;
        let failed = |source| OpenError::File { file: file.clone(), source };
        let mut connection = connect(file).await?;
        let tables = Tables::new(file.display(), migrations());
        if settings.auto_migrate {
            tables.migrate(&mut connection).await
        } else {
            tables.check(&mut connection).await
        }?;
        let (writing, reading) = connect_options(file);
        let pool = |connections| SqlitePoolOptions::new().max_connections(connections).acquire_timeout(ACQUIRE_LIMIT);
        let surveyors = pool(survey::AT_ONCE).connect_lazy_with(reading.clone());
        let readers = pool(settings.readers.max(1)).connect_with(reading).await.map_err(failed)?;
        let opened = SqliteFile::at(file).map_err(|error| failed(error.into()))?;
        let writer = SqliteWriter::new(opened.clone(), writing, connection);
        let writer = GroupCommit::start(writer, settings.group_commit);
        Ok(Self { file: opened, writer, readers, surveyors, write_failed: AtomicBool::new(false) })
    }

    /// Write jobs and transactions so far: fewer transactions than jobs means that commits
    /// were grouped.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        self.writer.counts()
    }

    /// The rows that answer a question about many sessions.
    async fn survey(&self, during: &'static str, statement: Statement) -> Result<Vec<SqliteRow>, SurveyError> {
        let surveyors = self.surveyors.clone();
        // In a task of its own: SQLite goes on with a question that nobody waits for any more, and its connection has to
        // count as taken until then.
        let asking = tokio::spawn(async move {
            let mut query = sqlx::query(sqlx::AssertSqlSafe(statement.text)).persistent(false);
            for argument in statement.arguments {
                query = match argument {
                    Argument::Text(text) => query.bind(text),
                    Argument::Number(number) => query.bind(number),
                    Argument::Bytes(bytes) => query.bind(bytes),
                };
            }
            query.fetch_all(&surveyors).await
        });
        match tokio::time::timeout(survey::LIMIT, asking).await {
            Ok(Ok(outcome)) => outcome.map_err(|error| read_error(during, error).into()),
            Ok(Err(lost)) => Err(ReadError::Unavailable { fault: StoreFault::new(during, lost) }.into()),
            Err(_) => Err(SurveyError::TooSlow),
        }
    }

    pub(super) async fn answer<T>(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<T, StoreFault>>) -> Box<dyn WriteJob>,
    ) -> Result<T, IdempotencyError> {
        let (tell, told) = oneshot::channel();
        self.writer.submit(make(tell)).map_err(|error| match error {
            SubmitError::Full => IdempotencyError::Overloaded { retry_after: RETRY_AFTER },
            SubmitError::Closed => IdempotencyError::Unavailable { fault: error.into_fault() },
        })?;
        match told.await {
            // It may have found nothing to write, which says nothing about whether that works.
            Ok(Ok(value)) => Ok(value),
            Ok(Err(fault)) => {
                self.write_failed.store(true, Ordering::SeqCst);
                Err(IdempotencyError::Unavailable { fault })
            }
            Err(lost) => Err(IdempotencyError::Unavailable { fault: writer_lost(lost) }),
        }
    }
}

#[async_trait]
impl SessionStore for SqliteStore {
    async fn commit(&self, change: Append) -> Result<(), CommitError> {
        change.check()?;
        let (tell, told) = oneshot::channel();
        self.writer.submit(Box::new(CommitJob::new(change, tell))).map_err(|error| match error {
            SubmitError::Full => CommitError::Overloaded { retry_after: RETRY_AFTER },
            SubmitError::Closed => CommitError::Unavailable { fault: error.into_fault() },
        })?;
        match told.await {
            Ok(outcome) => {
                match &outcome {
                    Ok(()) => self.write_failed.store(false, Ordering::SeqCst),
                    Err(CommitError::Unavailable { .. }) => self.write_failed.store(true, Ordering::SeqCst),
                    Err(_) => {}
                }
                outcome
            }
            Err(lost) => Err(CommitError::Unavailable { fault: writer_lost(lost) }),
        }
    }

    async fn load(&self, key: &SessionKey) -> Result<Option<Stored>, ReadError> {
        let query = sqlx::query(
            "SELECT version, state, root_key_id, data_key FROM sessions WHERE tenant = ?1 AND session_id = ?2",
        )
        .bind(key.tenant.as_str())
        .bind(&key.session_id)
        .fetch_optional(&self.readers);
        let Some(row) = bounded("loading a session", query).await? else { return Ok(None) };
        stored_of(&row, 0).map(Some).map_err(|error| read_error("loading a session", error))
    }

    async fn journal(&self, key: &SessionKey, after_version: u64, limit: u32) -> Result<Vec<JournalRecord>, ReadError> {
        const DURING: &str = "reading a journal";
        let query = sqlx::query(
            "SELECT version, blob FROM journal
             WHERE tenant = ?1 AND session_id = ?2 AND version > ?3 ORDER BY version LIMIT ?4",
        )
        .bind(key.tenant.as_str())
        .bind(&key.session_id)
        .bind(signed(after_version))
        .bind(i64::from(limit))
        .fetch_all(&self.readers);
        bounded(DURING, query)
            .await?
            .into_iter()
            .map(|row| Ok(JournalRecord { version: unsigned(row.try_get(0)?), blob: row.try_get(1)? }))
            .collect::<Result<_, sqlx::Error>>()
            .map_err(|error| read_error(DURING, error))
    }

    async fn versions(&self, keys: &[SessionKey]) -> Result<Vec<Option<u64>>, ReadError> {
        const DURING: &str = "reading versions";
        let mut versions = Vec::with_capacity(keys.len());
        for key in keys {
            let query = sqlx::query("SELECT version FROM sessions WHERE tenant = ?1 AND session_id = ?2")
                .bind(key.tenant.as_str())
                .bind(&key.session_id)
                .fetch_optional(&self.readers);
            let row = bounded(DURING, query).await?;
            let version = row.map(|row| row.try_get(0).map(unsigned)).transpose();
            versions.push(version.map_err(|error| read_error(DURING, error))?);
        }
        Ok(versions)
    }

    async fn claim_due(&self, now_ms: i64, lease_ms: i64, limit: u32) -> Result<Vec<Due>, ReadError> {
        let claim = self.answer(|tell| Box::new(ClaimDueJob::new(now_ms, lease_ms, limit, tell)));
        claim.await.map_err(ReadError::from)
    }

    async fn ended(&self, before: EndedBefore, now_ms: i64, limit: u32) -> Result<Vec<Deleted>, ReadError> {
        const DURING: &str = "looking for sessions that are over";
        let select = before.bounds().into_iter().fold(sqlx::query(ENDED), |select, bound| select.bind(bound));
        let rows = bounded(DURING, select.bind(now_ms).bind(i64::from(limit)).fetch_all(&self.readers)).await?;
        let read = |row: &SqliteRow| Ok(Deleted { key: key_of(row)?, version: unsigned(row.try_get(2)?) });
        rows.iter().map(read).collect::<Result<_, _>>().map_err(|error| read_error(DURING, error))
    }

    async fn delete(&self, deletions: Vec<Deletion>) -> Result<Vec<Deleted>, ReadError> {
        self.answer(|tell| Box::new(DeleteJob::new(deletions, tell))).await.map_err(ReadError::from)
    }

    async fn wrapped_by(
        &self,
        root_key_id: &str,
        after: Option<&SessionKey>,
        limit: u32,
    ) -> Result<Vec<(SessionKey, Stored)>, ReadError> {
        const DURING: &str = "looking for sessions under other keys";
        let (tenant, session_id) = after.map_or(("", ""), |after| (after.tenant.as_str(), after.session_id.as_str()));
        let query = sqlx::query(
            "SELECT tenant, session_id, version, state, root_key_id, data_key FROM sessions
             WHERE root_key_id = ?1 AND (tenant, session_id) > (?2, ?3) ORDER BY tenant, session_id LIMIT ?4",
        )
        .bind(root_key_id)
        .bind(tenant)
        .bind(session_id)
        .bind(i64::from(limit))
        .fetch_all(&self.readers);
        let rows = bounded(DURING, query).await?;
        let read = |row: &SqliteRow| Ok((key_of(row)?, stored_of(row, 2)?));
        rows.iter().map(read).collect::<Result<_, _>>().map_err(|error| read_error(DURING, error))
    }

    async fn rewrap(&self, rewrapped: &[Rewrapped]) -> Result<u64, ReadError> {
        let rewrapped = rewrapped.to_vec();
        self.answer(|tell| Box::new(RewrapJob::new(rewrapped, tell))).await.map_err(ReadError::from)
    }

    async fn root_keys(&self) -> Result<Vec<String>, ReadError> {
        const DURING: &str = "looking for the keys of sessions";
        let rows = bounded(DURING, sqlx::query(ROOT_KEYS).fetch_all(&self.readers)).await?;
        let read = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>();
        read.map_err(|error| read_error(DURING, error))
    }

    async fn sessions_by_root_key(&self) -> Result<Vec<(String, u64)>, ReadError> {
        const DURING: &str = "counting sessions by key";
        let query = sqlx::query("SELECT root_key_id, count(*) FROM sessions GROUP BY root_key_id ORDER BY root_key_id");
        let rows = bounded(DURING, query.fetch_all(&self.readers)).await?;
        let read = |row: &SqliteRow| Ok((row.try_get(0)?, unsigned(row.try_get(1)?)));
        rows.iter().map(read).collect::<Result<_, _>>().map_err(|error| read_error(DURING, error))
    }

    async fn search(&self, search: &Search) -> Result<Vec<Found>, SurveyError> {
        const DURING: &str = "searching sessions";
        let rows = self.survey(DURING, Statement::search(search, Dialect::Sqlite)).await?;
        survey::found!(rows).map_err(|error| read_error(DURING, error).into())
    }

    async fn summary(&self, of: &SummaryOf) -> Result<Summary, SurveyError> {
        const DURING: &str = "summing up sessions";
        let rows = self.survey(DURING, Statement::summary(of, Dialect::Sqlite)).await?;
        survey::summed!(rows).map_err(|error| read_error(DURING, error).into())
    }

    async fn ping(&self) -> Result<(), ReadError> {
        // Reads a page of the file: `SELECT 1` would succeed on a disk that is gone.
        let query = sqlx::query("SELECT count(*) FROM sqlite_schema").fetch_one(&self.readers);
        bounded("asking the database whether it is there", query).await?;
        self.file.check().map_err(|fault| ReadError::Unavailable { fault })?;
        if self.write_failed.load(Ordering::SeqCst) || self.file.has_little_room() {
            self.answer(|tell| Box::new(ProbeJob::new(tell))).await.map_err(ReadError::from)?;
            self.write_failed.store(false, Ordering::SeqCst);
        }
        Ok(())
    }

    async fn close(&self) {
        self.writer.close().await;
        self.readers.close().await;
        self.surveyors.close().await;
    }
}

#[async_trait]
impl IdempotencyStore for SqliteStore {
    async fn begin(&self, key: IdempotencyKey, body_sha256: [u8; 32], now_ms: i64) -> Result<Begin, IdempotencyError> {
        let mut attempt = [0_u8; 16];
        getrandom::fill(&mut attempt).map_err(|error| IdempotencyError::Unavailable {
            fault: StoreFault::new("drawing a random number", error),
        })?;
        let ticket = Ticket { key, attempt };
        self.answer(|tell| Box::new(BeginJob::new(ticket, body_sha256, now_ms, tell))).await
    }

    async fn finish(&self, ticket: Ticket, answer: Answer) -> Result<(), IdempotencyError> {
        self.answer(|tell| Box::new(FinishJob::new(ticket, answer, tell))).await
    }

    async fn abandon(&self, ticket: Ticket) -> Result<(), IdempotencyError> {
        self.answer(|tell| Box::new(AbandonJob::new(ticket, tell))).await
    }

    async fn sweep(&self, now_ms: i64) -> Result<u64, IdempotencyError> {
        let before_ms = now_ms.saturating_sub(crate::clock::millis(KEPT));
        self.answer(|tell| Box::new(DropAnswersJob::older_than(before_ms, tell))).await
    }
}

#[async_trait]
impl ServiceKeyStore for SqliteStore {
    async fn add_service_key(&self, key: &StoredServiceKey, audit: AuditRecord) -> Result<(), ReadError> {
        let key = key.clone();
        self.answer(|tell| Box::new(AddServiceKeyJob::new(key, audit, tell))).await.map_err(ReadError::from)
    }

    async fn revoke_service_key(
        &self,
        tenant: &TenantId,
        id: &str,
        now_ms: i64,
        audit: AuditRecord,
    ) -> Result<Revocation, ReadError> {
        let (tenant, id) = (tenant.clone(), id.to_owned());
        let revoke = self.answer(|tell| Box::new(RevokeServiceKeyJob::new(tenant, id, now_ms, audit, tell)));
        revoke.await.map_err(ReadError::from)
    }

    async fn service_keys(&self, tenant: Option<&TenantId>) -> Result<Vec<StoredServiceKey>, ReadError> {
        const DURING: &str = "listing service keys";
        let select =
            format!("SELECT {COLUMNS} FROM service_keys WHERE ?1 IS NULL OR tenant = ?1 ORDER BY created_at_ms, id");
        let query = sqlx::query(sqlx::AssertSqlSafe(select)).bind(tenant.map(TenantId::as_str));
        let rows = bounded(DURING, query.fetch_all(&self.readers)).await?;
        rows.iter().map(|row| read_key!(row)).collect::<Result<_, _>>().map_err(|error| read_error(DURING, error))
    }

    async fn service_key_changes(&self, since: u64) -> Result<ServiceKeyChanges, ReadError> {
        const DURING: &str = "looking for changes of service keys";
        let query = sqlx::query(sqlx::AssertSqlSafe(changes_statement())).bind(signed(since));
        let rows = bounded(DURING, query.fetch_all(&self.readers)).await?;
        read_changes!(rows, unsigned).map_err(|error| read_error(DURING, error))
    }

    async fn note_service_key_use(&self, id: &str, at_ms: i64) -> Result<bool, ReadError> {
        let id = id.to_owned();
        self.answer(|tell| Box::new(NoteServiceKeyUseJob::new(id, at_ms, tell))).await.map_err(ReadError::from)
    }
}

/// Brings the tables of the file up to date, creating it when it is missing.
pub(super) async fn migrate(file: &Path) -> Result<Vec<AppliedMigration>, OpenError> {
    let mut connection = connect(file).await?;
    let applied = Tables::new(file.display(), migrations()).migrate(&mut connection).await?;
    connection.close().await.map_err(|source| OpenError::File { file: file.to_owned(), source })?;
    Ok(applied)
}

async fn connect(file: &Path) -> Result<SqliteConnection, OpenError> {
    create_folder(file).await?;
    connect_options(file).0.connect().await.map_err(|source| OpenError::File { file: file.to_owned(), source })
}

/// How the file is opened: by the one that writes, and by those that read.
pub(super) fn connect_options(file: &Path) -> (SqliteConnectOptions, SqliteConnectOptions) {
    let base = SqliteConnectOptions::new()
        .filename(file)
        .busy_timeout(BUSY_LIMIT)
        .foreign_keys(true)
        // Statements hold no values, yet a log line for each would drown the rest.
        .disable_statement_logging();
    let writing = base
        .clone()
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        // Erased bytes are overwritten, not merely marked as free.
        .pragma("secure_delete", "ON");
    (writing, base.read_only(true))
}

/// The migrations, compiled in: the binary needs no files beside it.
pub(super) fn migrations() -> Migrator {
    embedded(&[
        (1, "sessions", include_str!("../../migrations/sqlite/0001_sessions.sql")),
        (2, "idempotency", include_str!("../../migrations/sqlite/0002_idempotency.sql")),
        (3, "answers of sessions", include_str!("../../migrations/sqlite/0003_answers_of_sessions.sql")),
        (4, "probe", include_str!("../../migrations/sqlite/0004_probe.sql")),
        (5, "operations", include_str!("../../migrations/sqlite/0005_operations.sql")),
        (6, "listing", include_str!("../../migrations/sqlite/0006_listing.sql")),
        (7, "order of creation", include_str!("../../migrations/sqlite/0007_order_of_creation.sql")),
        (8, "data keys", include_str!("../../migrations/sqlite/0008_data_keys.sql")),
        (9, "audit", include_str!("../../migrations/sqlite/0009_audit.sql")),
        (10, "service keys", include_str!("../../migrations/sqlite/0010_service_keys.sql")),
        (11, "holds", include_str!("../../migrations/sqlite/0011_holds.sql")),
        (12, "route migration", include_str!("../../migrations/sqlite/0012_route_migration.sql")),
        (13, "lifecycle events", include_str!("../../migrations/sqlite/0013_lifecycle_events.sql")),
        (14, "webhooks", include_str!("../../migrations/sqlite/0014_webhooks.sql")),
    ])
}

async fn create_folder(file: &Path) -> Result<(), OpenError> {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => tokio::fs::create_dir_all(folder)
            .await
            .map_err(|source| OpenError::Folder { folder: folder.to_owned(), source }),
        _ => Ok(()),
    }
}

pub(super) async fn bounded<T>(
    during: &'static str,
    query: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, ReadError> {
    match tokio::time::timeout(QUERY_LIMIT, query).await {
        Ok(outcome) => outcome.map_err(|error| read_error(during, error)),
        Err(elapsed) => Err(ReadError::Unavailable { fault: StoreFault::new(during, elapsed) }),
    }
}

pub(super) fn read_error(during: &'static str, error: sqlx::Error) -> ReadError {
    match error {
        sqlx::Error::PoolTimedOut => ReadError::Overloaded { retry_after: RETRY_AFTER },
        error => ReadError::Unavailable { fault: StoreFault::new(during, error) },
    }
}

/// A session out of its version, state, root key and data key, which stand from column `first` on.
fn stored_of(row: &SqliteRow, first: usize) -> Result<Stored, sqlx::Error> {
    let data_key = WrappedKey { root_key_id: row.try_get(first + 2)?, sealed: row.try_get(first + 3)? };
    Ok(Stored { version: unsigned(row.try_get(first)?), state: row.try_get(first + 1)?, data_key })
}

fn writer_lost(lost: oneshot::error::RecvError) -> StoreFault {
    StoreFault::new("waiting for the writer", lost)
}

/// SQLite counts in `i64`; `Append::check` keeps versions within it.
pub(super) fn signed(version: u64) -> i64 {
    i64::try_from(version).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(version: i64) -> u64 {
    u64::try_from(version).unwrap_or(0)
}

#[cfg(test)]
#[path = "sqlite_tests.rs"]
mod tests;
