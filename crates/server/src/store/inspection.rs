//! How a database is set up: what its operator has decided, and whether it can be used like that.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sqlx::{ConnectOptions as _, Connection as _, Executor as _, Row as _, query};

use super::migrations::{MigrationError, Tables};
use super::postgres_connect::{Connector, PostgresAddress};
use super::{ROOT_KEYS, StoreFault, postgres, sqlite};
use crate::clock::{Clock as _, SystemClock};

/// How often it is asked, to tell how long it takes to answer.
const QUESTIONS: usize = 5;

/// A PostgreSQL server, as it says itself.
#[derive(Debug)]
pub struct PostgresInspection {
    /// Its version as a number, such as 150004.
    pub version_number: i32,
    /// Its version in words.
    pub version: String,
    /// Whether it only follows another server.
    pub is_standby: bool,
    /// Whether somebody on the way could read or change what is sent.
    pub is_exposed: bool,
    /// `fsync`.
    pub fsync: String,
    /// `full_page_writes`.
    pub full_page_writes: String,
    /// `synchronous_commit`, for our user and database.
    pub synchronous_commit: String,
    /// `default_transaction_isolation`, for our user and database.
    pub isolation: String,
    /// `default_transaction_read_only`, for our user and database.
    pub read_only: String,
    /// Connections that it allows, without those that are reserved.
    pub connections_allowed: i32,
    /// Connections that it has just now, with ours.
    pub connections_used: i32,
    /// By how much its clock is ahead of ours, in milliseconds.
    pub clock_ahead_ms: i64,
    /// How long it takes to answer.
    pub latency: Duration,
    /// Whether the tables are those that this program needs.
    pub tables: Result<(), MigrationError>,
    /// Whether our user may write to them; only known where they are up to date.
    pub writable: Option<Result<(), StoreFault>>,
    /// The root keys that sessions are under; empty where the tables are not up to date.
    pub root_keys: Vec<String>,
}

/// A SQLite file.
#[derive(Debug)]
pub struct SqliteInspection {
    /// How it is written, as `PRAGMA journal_mode` says.
    pub journal_mode: String,
    /// Whether a commit waits for the disk, as `PRAGMA synchronous` says: 2 is FULL.
    pub synchronous: i64,
    /// Whether the tables are those that this program needs.
    pub tables: Result<(), MigrationError>,
    /// The root keys that sessions are under; empty where the tables are not up to date.
    pub root_keys: Vec<String>,
}

/// Asks PostgreSQL how it is set up. Changes nothing.
///
/// # Errors
/// When it cannot be reached, or does not say.
pub async fn inspect_postgres(address: &PostgresAddress, limit: Duration) -> Result<PostgresInspection, StoreFault> {
    const SETTINGS: &str = "SELECT current_setting('server_version_num')::int4, current_setting('server_version'),
            pg_is_in_recovery(), current_setting('fsync'), current_setting('full_page_writes'),
            current_setting('synchronous_commit'), current_setting('default_transaction_isolation'),
            current_setting('default_transaction_read_only'),
            current_setting('max_connections')::int4 - current_setting('superuser_reserved_connections')::int4,
            (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')::int4";
    let failed = |error| StoreFault::new("asking PostgreSQL how it is set up", error);
    let mut connection = Connector::without_limit(address, limit).connect(None).await?;
    let row = connection.fetch_one(query(SETTINGS)).await.map_err(failed)?;
    let (latency, clock_ahead_ms) = ask_for_time(&mut connection).await.map_err(failed)?;
    let tables = Tables::new(address, postgres::migrations()).check(&mut connection).await.map(drop);
    let writable = match tables {
        Ok(()) => Some(try_writing(&mut connection).await),
        Err(_) => None,
    };
    let root_keys = match tables {
        Ok(()) => connection.fetch_all(query(ROOT_KEYS)).await.map_err(failed)?,
        Err(_) => Vec::new(),
    };
    let read = || {
        Ok::<_, sqlx::Error>(PostgresInspection {
            version_number: row.try_get(0)?,
            version: row.try_get(1)?,
            is_standby: row.try_get(2)?,
            is_exposed: address.is_exposed(),
            fsync: row.try_get(3)?,
            full_page_writes: row.try_get(4)?,
            synchronous_commit: row.try_get(5)?,
            isolation: row.try_get(6)?,
            read_only: row.try_get(7)?,
            connections_allowed: row.try_get(8)?,
            connections_used: row.try_get(9)?,
            clock_ahead_ms,
            latency,
            tables,
            writable,
            root_keys: root_keys.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?,
        })
    };
    read().map_err(failed)
}

/// The quickest answer says most about the way there, and least about what else goes on.
async fn ask_for_time(connection: &mut sqlx::PgConnection) -> Result<(Duration, i64), sqlx::Error> {
    let mut best = (Duration::MAX, 0);
    for _ in 0..QUESTIONS {
        let (asked_ms, asked) = (SystemClock.now_ms(), Instant::now());
        let row = connection.fetch_one(query("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::int8")).await?;
        let took = asked.elapsed();
        if took < best.0 {
            let there_ms: i64 = row.try_get(0)?;
            best = (took, there_ms - asked_ms - crate::clock::millis(took / 2));
        }
    }
    Ok(best)
}

/// Writes what a server writes to find out whether writing works, and takes it back.
async fn try_writing(connection: &mut sqlx::PgConnection) -> Result<(), StoreFault> {
    let writing = async {
        let mut transaction = connection.begin().await?;
        let statement =
            "INSERT INTO probe (id, rounds) VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET rounds = probe.rounds + 1";
        transaction.execute(query(statement)).await?;
        // Whoever may write to one of the tables may not be the owner of the others.
        transaction.execute(query("UPDATE sessions SET version = version WHERE false")).await?;
        transaction.execute(query("INSERT INTO journal SELECT * FROM journal WHERE false")).await?;
        transaction.rollback().await
    };
    writing.await.map_err(|error| StoreFault::new("writing", error))
}

/// Looks at a SQLite file that is there already.
///
/// # Errors
/// When it cannot be opened, or is not one.
pub async fn inspect_sqlite(file: &Path) -> Result<SqliteInspection, StoreFault> {
    let failed = |error| StoreFault::new("opening the file", error);
    let options = sqlite::connect_options(file).0.create_if_missing(false);
    let mut connection = options.connect().await.map_err(failed)?;
    let journal_mode = connection.fetch_one(query("PRAGMA journal_mode")).await.map_err(failed)?;
    let synchronous = connection.fetch_one(query("PRAGMA synchronous")).await.map_err(failed)?;
    let tables = Tables::new(file.display(), sqlite::migrations()).check(&mut connection).await.map(drop);
    let root_keys = match tables {
        Ok(()) => connection.fetch_all(query(ROOT_KEYS)).await.map_err(failed)?,
        Err(_) => Vec::new(),
    };
    let read = || {
        let (journal_mode, synchronous) = (journal_mode.try_get(0)?, synchronous.try_get(0)?);
        let root_keys = root_keys.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        Ok::<_, sqlx::Error>(SqliteInspection { journal_mode, synchronous, tables, root_keys })
    };
    read().map_err(failed)
}

/// The folder that a SQLite file is or will be in.
#[must_use]
pub fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}
