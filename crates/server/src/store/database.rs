//! Which database, and opening it.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::group_commit::GroupCommitLimits;
use super::migrations::{AppliedMigration, MigrationError};
use super::postgres::{self, PostgresSettings, PostgresStore};
use super::postgres_connect::PostgresAddress;
use super::sqlite::{self, SqliteSettings, SqliteStore};
use super::{Store, StoreFault};

/// What the database's address names. Printing it never shows a password.
#[derive(Debug, Clone)]
pub enum DatabaseUrl {
    /// A SQLite file.
    Sqlite(PathBuf),
    /// A PostgreSQL database.
    Postgres(PostgresAddress),
}

/// Why a text is not the address of a database. Holds no part of it: it may be a password in the wrong place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseUrlError {
    /// Another database.
    #[error(
        "the database address must begin with `sqlite:` or `postgres://`, for example sqlite:data/throughline.db or postgres://throughline@db.internal/throughline"
    )]
    Scheme,
    /// No file.
    #[error("the database address names no file; write for example sqlite:data/throughline.db")]
    NoFile,
    /// A database that is lost when the process ends.
    #[error("`:memory:` would lose every session when the process ends; name a file")]
    Memory,
    /// Parameters of a file.
    #[error("the database address has parameters after `?`; leave them out, the server sets its own")]
    Parameters,
    /// Not an address.
    #[error(
        "the database address is not of the form postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full; characters such as `@`, `/` and `%` in a password are written as %40, %2F and %25"
    )]
    Form,
    /// No database.
    #[error(
        "the database address names no database; write it after the host, as in postgres://db.internal/throughline"
    )]
    NoDatabase,
    /// A parameter that is not known.
    #[error("the database address has the parameter `{name}`; only {allowed} are known")]
    Parameter {
        /// Its name.
        name: String,
        /// What may be given.
        allowed: &'static str,
    },
    /// A parameter's value.
    #[error("a parameter of the database address is wrong: {why}")]
    ParameterValue {
        /// What is wrong with it.
        why: String,
    },
}

impl FromStr for DatabaseUrl {
    type Err = DatabaseUrlError;

    fn from_str(url: &str) -> Result<Self, DatabaseUrlError> {
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return url.parse().map(Self::Postgres);
        }
        let path = url.strip_prefix("sqlite:").ok_or(DatabaseUrlError::Scheme)?;
        let path = path.strip_prefix("//").unwrap_or(path);
        match path {
            "" => Err(DatabaseUrlError::NoFile),
            path if path.contains(":memory:") => Err(DatabaseUrlError::Memory),
            path if path.contains('?') => Err(DatabaseUrlError::Parameters),
            path => Ok(Self::Sqlite(PathBuf::from(path))),
        }
    }
}

/// Which database, and how it is used.
#[derive(Debug, Clone)]
pub struct DatabaseSettings {
    /// Which one.
    pub url: DatabaseUrl,
    /// Connections that read a SQLite file.
    pub read_connections: u32,
    /// Connections to PostgreSQL in all; [`writers`](Self::writers) of them write.
    pub connections: usize,
    /// Connections that write to PostgreSQL.
    pub writers: usize,
    /// How long PostgreSQL may take to answer.
    pub timeout: Duration,
    /// Limits of the writing queue.
    pub group_commit: GroupCommitLimits,
    /// Whether the tables are brought up to date; otherwise outdated ones are refused.
    pub auto_migrate: bool,
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
    /// PostgreSQL cannot be reached.
    #[error("{place} cannot be opened; check that it runs, its address, and the user's name, password and rights")]
    Postgres {
        /// Which database, without a password.
        place: String,
        /// What went wrong.
        #[source]
        source: StoreFault,
    },
    /// The tables cannot be used.
    #[error(transparent)]
    Tables(#[from] MigrationError),
}

/// Opens the database, and brings its tables up to date if that is wanted.
///
/// # Errors
/// See [`OpenError`].
pub async fn open(settings: &DatabaseSettings) -> Result<Arc<dyn Store>, OpenError> {
    let DatabaseSettings { read_connections: readers, group_commit, auto_migrate, .. } = *settings;
    Ok(match &settings.url {
        DatabaseUrl::Sqlite(file) => {
            let file = file.clone();
            Arc::new(SqliteStore::open(&SqliteSettings { file, readers, group_commit, auto_migrate }).await?)
        }
        DatabaseUrl::Postgres(address) => {
            let settings = PostgresSettings {
                address: address.clone(),
                connections: settings.connections,
                writers: settings.writers,
                timeout: settings.timeout,
                group_commit,
                auto_migrate,
            };
            Arc::new(PostgresStore::open(&settings).await?)
        }
    })
}

/// Brings the database's tables up to date, and says what was applied.
///
/// # Errors
/// See [`OpenError`].
pub async fn migrate(url: &DatabaseUrl) -> Result<Vec<AppliedMigration>, OpenError> {
    match url {
        DatabaseUrl::Sqlite(file) => sqlite::migrate(file).await,
        DatabaseUrl::Postgres(address) => postgres::migrate(address).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> DatabaseUrlError {
        url.parse::<DatabaseUrl>().unwrap_err()
    }

    #[test]
    fn a_sqlite_address_names_a_file() {
        for (url, file) in [("sqlite:data/t.db", "data/t.db"), ("sqlite:///var/t.db", "/var/t.db")] {
            assert!(matches!(url.parse(), Ok(DatabaseUrl::Sqlite(named)) if named.as_os_str() == file));
        }
        assert_eq!(refused("sqlite:"), DatabaseUrlError::NoFile);
        assert_eq!(refused("sqlite::memory:"), DatabaseUrlError::Memory);
        assert_eq!(refused("sqlite:t.db?mode=ro"), DatabaseUrlError::Parameters);
        assert_eq!(refused("mysql://db/t"), DatabaseUrlError::Scheme);
    }

    #[test]
    fn a_postgres_address_is_printed_without_its_password() {
        for url in [
            "postgres://ada:hunter2@db.internal:5433/shop",
            "postgresql://ada:hunter2@db.internal:5433/shop?sslmode=verify-full",
            "postgres://ada:hunter%32@db.internal:5433/shop?application_name=edge",
        ] {
            let parsed: DatabaseUrl = url.parse().unwrap();
            let printed = format!("{parsed:?}");
            assert!(printed.contains("ada@db.internal:5433/shop") && !printed.contains("hunter"), "{printed}");
        }
    }

    #[test]
    fn a_wrong_postgres_address_says_what_is_wrong_and_not_the_password() {
        for (url, why) in [
            ("postgres://ada:hunter2@db.internal:port/shop", "PASSWORD@HOST"),
            ("postgres://ada:hunter2@db.internal", "no database"),
            ("postgres://ada:hunter2@db.internal/shop?sslmode=maybe", "maybe"),
            ("postgres://ada:hunter2@db.internal/shop?pasword=hunter2", "`pasword`"),
            ("postgres://ada:hunter2@db.internal/shop?options=-c%20fsync%3Doff", "`options`"),
        ] {
            let error = refused(url).to_string();
            assert!(error.contains(why) && !error.contains("hunter2"), "{url}: {error}");
        }
    }
}
