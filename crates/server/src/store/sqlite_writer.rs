//! The one connection that writes to the SQLite file.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};

use super::StoreFault;
use super::group_commit::{self, BatchWriter};
use super::sqlite::BUSY_LIMIT;
use super::sqlite_file::SqliteFile;

/// A batch that takes longer is given up, and its connection with it.
const BATCH_LIMIT: Duration = Duration::from_secs(10);

/// How long to wait before trying again to empty the write-ahead log.
const CHECKPOINT_PAUSE: Duration = Duration::from_millis(500);

/// Whether what a job wrote is to stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Keep,
    Undo,
}

/// One caller's share of a transaction.
#[async_trait]
pub(super) trait WriteJob: Send + std::fmt::Debug {
    /// Writes. An error or `Undo` takes back what this job wrote, and nothing else.
    async fn apply(&mut self, connection: &mut SqliteConnection) -> Result<Verdict, sqlx::Error>;

    /// The transaction is on the disk: tell the caller.
    fn done(self: Box<Self>);

    /// The job or its whole transaction failed: tell the caller.
    fn failed(self: Box<Self>, fault: StoreFault);

    /// Whether it only finds out whether writing works: who asked is told, and nobody else has to know.
    fn is_probe(&self) -> bool {
        false
    }

    /// Whether bytes were meant to disappear, so that the write-ahead log must be emptied too.
    fn erases(&self) -> bool {
        false
    }
}

/// Writes batches of jobs. After a failed batch the connection is replaced, because neither
/// its transaction nor the file behind it can be trusted to be what they were.
#[derive(Debug)]
pub(super) struct SqliteWriter {
    file: SqliteFile,
    options: SqliteConnectOptions,
    connection: Option<SqliteConnection>,
    erased_bytes_in_log: bool,
}

impl SqliteWriter {
    pub(super) fn new(file: SqliteFile, options: SqliteConnectOptions, connection: SqliteConnection) -> Self {
        Self { file, options, connection: Some(connection), erased_bytes_in_log: false }
    }

    async fn connection(&mut self) -> Result<&mut SqliteConnection, StoreFault> {
        if self.connection.is_none() {
            let opened = tokio::time::timeout(BATCH_LIMIT, self.options.connect()).await;
            let connection = match opened {
                Ok(Ok(connection)) => connection,
                Ok(Err(error)) => return Err(StoreFault::new("opening the database again", error)),
                Err(late) => return Err(StoreFault::new("opening the database again", late)),
            };
            self.connection = Some(connection);
        }
        self.connection.as_mut().ok_or_else(|| StoreFault::new("opening the database again", "there is no connection"))
    }

    async fn transaction(&mut self, batch: &mut [Box<dyn WriteJob>]) -> Result<Vec<Option<StoreFault>>, StoreFault> {
        // Before it is opened again, too, which would make a new one.
        self.file.check()?;
        let connection = self.connection().await?;
        let run = run_transaction(connection, batch);
        match tokio::time::timeout(BATCH_LIMIT, run).await {
            Ok(outcome) => outcome.map_err(|error| StoreFault::new("writing a batch", error)),
            Err(late) => Err(StoreFault::new("writing a batch", late)),
        }
    }

    /// Empties the write-ahead log, which may still hold what was erased from the file.
    async fn checkpoint(&mut self) -> Result<bool, StoreFault> {
        let connection = self.connection().await?;
        // Readers may hold an older snapshot: do not make every commit wait for them.
        let run = async {
            execute(connection, "PRAGMA busy_timeout = 20").await?;
            let row = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&mut *connection).await?;
            let busy: i64 = row.try_get(0)?;
            let restore = format!("PRAGMA busy_timeout = {}", BUSY_LIMIT.as_millis());
            sqlx::query(sqlx::AssertSqlSafe(restore)).execute(&mut *connection).await?;
            Ok::<bool, sqlx::Error>(busy == 0)
        };
        match tokio::time::timeout(BATCH_LIMIT, run).await {
            Ok(outcome) => outcome.map_err(|error| StoreFault::new("emptying the write-ahead log", error)),
            Err(late) => Err(StoreFault::new("emptying the write-ahead log", late)),
        }
    }

    async fn checkpoint_or_reconnect(&mut self) -> bool {
        match self.checkpoint().await {
            Ok(emptied) => emptied,
            Err(fault) => {
                tracing::warn!(error = %crate::problem::chain(&fault), "erased bytes stay in the write-ahead log for now");
                self.connection = None;
                false
            }
        }
    }
}

#[async_trait]
impl BatchWriter for SqliteWriter {
    type Job = Box<dyn WriteJob>;

    async fn write(&mut self, mut batch: Vec<Self::Job>) -> u64 {
        match self.transaction(&mut batch).await {
            Ok(faults) => {
                for (job, fault) in batch.into_iter().zip(faults) {
                    match fault {
                        None => {
                            self.erased_bytes_in_log |= job.erases();
                            job.done();
                        }
                        Some(fault) => job.failed(fault),
                    }
                }
            }
            Err(fault) => {
                let probes_only = batch.iter().all(|job| job.is_probe());
                group_commit::log_failure(&fault, batch.len(), probes_only);
                metrics::counter!("throughline_store_failed_batches_total").increment(1);
                // Dropping the connection rolls its transaction back.
                self.connection = None;
                for job in batch {
                    job.failed(fault.clone());
                }
            }
        }
        1
    }

    async fn between(&mut self) -> Option<Duration> {
        if self.erased_bytes_in_log && self.checkpoint_or_reconnect().await {
            self.erased_bytes_in_log = false;
        }
        self.erased_bytes_in_log.then_some(CHECKPOINT_PAUSE)
    }

    async fn finish(&mut self) {
        // Leaves one complete file behind, easy to copy.
        self.checkpoint_or_reconnect().await;
        if let Some(connection) = self.connection.take()
            && let Err(error) = connection.close().await
        {
            tracing::warn!(%error, "the database did not close cleanly; nothing committed is lost");
        }
    }
}

/// Runs all jobs and commits. An error means that none of them is known to be committed.
async fn run_transaction(
    connection: &mut SqliteConnection,
    batch: &mut [Box<dyn WriteJob>],
) -> Result<Vec<Option<StoreFault>>, sqlx::Error> {
    // IMMEDIATE takes the write lock now, instead of failing halfway through.
    execute(connection, "BEGIN IMMEDIATE").await?;
    let mut faults = Vec::with_capacity(batch.len());
    for job in batch {
        execute(connection, "SAVEPOINT job").await?;
        let fault = match job.apply(connection).await {
            Ok(Verdict::Keep) => None,
            Ok(Verdict::Undo) => {
                execute(connection, "ROLLBACK TO job").await?;
                None
            }
            Err(error) => {
                // After a full disk SQLite has rolled back everything by itself; then this
                // fails, and so does the batch.
                execute(connection, "ROLLBACK TO job").await?;
                Some(StoreFault::new("writing a change", error))
            }
        };
        execute(connection, "RELEASE job").await?;
        faults.push(fault);
    }
    execute(connection, "COMMIT").await?;
    Ok(faults)
}

async fn execute(connection: &mut SqliteConnection, sql: &'static str) -> Result<(), sqlx::Error> {
    sqlx::query(sql).execute(connection).await.map(drop)
}
