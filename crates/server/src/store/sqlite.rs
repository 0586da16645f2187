//! Sessions in one SQLite file: the embedded default.
//!
//! One connection writes (see [`super::group_commit`]), a small pool reads. The file is in WAL
//! mode, so that readers never wait for the writer, with `synchronous=FULL`, because anything
//! less loses acknowledged commits when the power fails.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Row as _, SqlStr};
use tokio::sync::oneshot;

use super::group_commit::{GroupCommit, GroupCommitLimits, SubmitError};
use super::sqlite_jobs::{AbandonJob, BeginJob, CommitJob, DropAnswersJob, FinishJob, ProbeJob};
use super::sqlite_writer::{SqliteWriter, WriteJob};
use super::{Append, CommitError, Due, JournalRecord, ReadError, SessionKey, SessionStore, StoreFault, Stored};
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
}

/// Why a text is not the address of a SQLite file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseUrlError {
    /// Another database.
    #[error("the database address must begin with `sqlite:`, for example sqlite:data/throughline.db")]
    Scheme,
    /// No file.
    #[error("the database address names no file; write for example sqlite:data/throughline.db")]
    NoFile,
    /// A database that is lost when the process ends.
    #[error("`:memory:` would lose every session when the process ends; name a file")]
    Memory,
    /// Parameters.
    #[error("the database address has parameters after `?`; leave them out, the server sets its own")]
    Parameters,
}

/// Reads `sqlite:PATH` (or `sqlite://PATH`) into the file's path.
///
/// # Errors
/// See [`DatabaseUrlError`].
pub fn file_of_url(url: &str) -> Result<PathBuf, DatabaseUrlError> {
    let path = url.strip_prefix("sqlite:").ok_or(DatabaseUrlError::Scheme)?;
    let path = path.strip_prefix("//").unwrap_or(path);
    match path {
        "" => Err(DatabaseUrlError::NoFile),
        path if path.contains(":memory:") => Err(DatabaseUrlError::Memory),
        path if path.contains('?') => Err(DatabaseUrlError::Parameters),
        path => Ok(PathBuf::from(path)),
    }
}

/// Why the database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its folder cannot be made.
    #[error("the folder {folder:?} for the database cannot be created; check its owner and permissions")]
    Folder {
        /// Which folder.
        folder: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The file cannot be opened.
    #[error("the database {file:?} cannot be opened; check its owner and permissions, and that it is a SQLite file")]
    File {
        /// Which file.
        file: PathBuf,
        /// What SQLite said.
        #[source]
        source: sqlx::Error,
    },
    /// The tables cannot be brought up to date.
    #[error("the tables of {file:?} cannot be brought up to date; was it written by a newer version?")]
    Migration {
        /// Which file.
        file: PathBuf,
        /// What went wrong.
        #[source]
        source: sqlx::migrate::MigrateError,
    },
}

/// A store in one SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    writer: GroupCommit<Box<dyn WriteJob>>,
    readers: SqlitePool,
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
        create_folder(file).await?;
        let failed = |source| OpenError::File { file: file.clone(), source };
        let (writing, reading) = connect_options(file);
        let mut connection = writing.connect().await.map_err(failed)?;
        migrations()
            .run_direct(None, &mut connection, false)
            .await
            .map_err(|source| OpenError::Migration { file: file.clone(), source })?;
        let readers = SqlitePoolOptions::new()
            .max_connections(settings.readers.max(1))
            .acquire_timeout(ACQUIRE_LIMIT)
            .connect_with(reading)
            .await
            .map_err(failed)?;
        let writer = GroupCommit::start(SqliteWriter::new(writing, connection), settings.group_commit);
        Ok(Self { writer, readers, write_failed: AtomicBool::new(false) })
    }

    /// Write jobs and transactions so far: fewer transactions than jobs means that commits
    /// were grouped.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        self.writer.counts()
    }

    async fn answer<T>(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<T, StoreFault>>) -> Box<dyn WriteJob>,
    ) -> Result<T, IdempotencyError> {
        let (tell, told) = oneshot::channel();
        self.writer.submit(make(tell)).map_err(|error| match error {
            SubmitError::Full => IdempotencyError::Overloaded { retry_after: RETRY_AFTER },
            SubmitError::Closed => IdempotencyError::Unavailable { fault: error.into_fault() },
        })?;
        match told.await {
            Ok(Ok(value)) => {
                self.write_failed.store(false, Ordering::SeqCst);
                Ok(value)
            }
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
                let failed = matches!(outcome, Err(CommitError::Unavailable { .. }));
                self.write_failed.store(failed, Ordering::SeqCst);
                outcome
            }
            Err(lost) => Err(CommitError::Unavailable { fault: writer_lost(lost) }),
        }
    }

    async fn load(&self, key: &SessionKey) -> Result<Option<Stored>, ReadError> {
        let query = sqlx::query("SELECT version, state FROM sessions WHERE tenant = ?1 AND session_id = ?2")
            .bind(key.tenant.as_str())
            .bind(&key.session_id)
            .fetch_optional(&self.readers);
        let Some(row) = bounded("loading a session", query).await? else { return Ok(None) };
        let read = || Ok(Stored { version: unsigned(row.try_get(0)?), state: row.try_get(1)? });
        read().map(Some).map_err(|error| read_error("loading a session", error))
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

    async fn due(&self, now_ms: i64, limit: u32) -> Result<Vec<Due>, ReadError> {
        const DURING: &str = "looking for due sessions";
        let query = sqlx::query(
            "SELECT tenant, session_id, deadline_at_ms FROM sessions
             WHERE deadline_at_ms <= ?1 ORDER BY deadline_at_ms LIMIT ?2",
        )
        .bind(now_ms)
        .bind(i64::from(limit))
        .fetch_all(&self.readers);
        bounded(DURING, query)
            .await?
            .into_iter()
            .map(|row| {
                let tenant = TenantId::try_from(row.try_get::<String, _>(0)?)
                    .map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
                let key = SessionKey { tenant, session_id: row.try_get(1)? };
                Ok(Due { key, deadline_at_ms: row.try_get(2)? })
            })
            .collect::<Result<_, sqlx::Error>>()
            .map_err(|error| read_error(DURING, error))
    }

    async fn ping(&self) -> Result<(), ReadError> {
        // Reads a page of the file: `SELECT 1` would succeed on a disk that is gone.
        let query = sqlx::query("SELECT count(*) FROM sqlite_schema").fetch_one(&self.readers);
        bounded("asking the database whether it is there", query).await?;
        if self.write_failed.load(Ordering::SeqCst) {
            self.answer(|tell| Box::new(ProbeJob::new(tell))).await.map_err(|error| match error {
                IdempotencyError::Unavailable { fault } => ReadError::Unavailable { fault },
                IdempotencyError::Overloaded { retry_after } => ReadError::Overloaded { retry_after },
            })?;
        }
        Ok(())
    }

    async fn close(&self) {
        self.writer.close().await;
        self.readers.close().await;
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

/// How the file is opened: by the one that writes, and by those that read.
fn connect_options(file: &Path) -> (SqliteConnectOptions, SqliteConnectOptions) {
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
fn migrations() -> Migrator {
    let migration = |version, description: &'static str, sql: &'static str| {
        let sql = SqlStr::from_static(sql);
        Migration::new(version, description.into(), MigrationType::Simple, sql, false)
    };
    Migrator::with_migrations(vec![
        migration(1, "sessions", include_str!("../../migrations/sqlite/0001_sessions.sql")),
        migration(2, "idempotency", include_str!("../../migrations/sqlite/0002_idempotency.sql")),
        migration(3, "answers of sessions", include_str!("../../migrations/sqlite/0003_answers_of_sessions.sql")),
        migration(4, "probe", include_str!("../../migrations/sqlite/0004_probe.sql")),
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

async fn bounded<T>(during: &'static str, query: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, ReadError> {
    match tokio::time::timeout(QUERY_LIMIT, query).await {
        Ok(outcome) => outcome.map_err(|error| read_error(during, error)),
        Err(elapsed) => Err(ReadError::Unavailable { fault: StoreFault::new(during, elapsed) }),
    }
}

fn read_error(during: &'static str, error: sqlx::Error) -> ReadError {
    match error {
        sqlx::Error::PoolTimedOut => ReadError::Overloaded { retry_after: RETRY_AFTER },
        error => ReadError::Unavailable { fault: StoreFault::new(during, error) },
    }
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
