//! Bringing a database's tables up to date, or finding out that they are not.

use std::collections::HashMap;
use std::fmt::Display;

use sqlx::SqlStr;
use sqlx::migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator};

/// Where sqlx notes down what was applied.
const TABLE: &str = "_sqlx_migrations";

/// A migration that was just applied.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct AppliedMigration {
    /// Its number.
    pub version: i64,
    /// What it is about.
    pub description: String,
}

/// Why the tables of a database cannot be used. `place` names the database, never with a password.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// They are older than this program.
    #[error(
        "the tables of {place} are older than this version needs; run `throughline migrate` with the same database address, or leave out --auto-migrate=false"
    )]
    Outdated {
        /// Which database.
        place: String,
    },
    /// They are newer than this program.
    #[error(
        "{place} was brought up to date by a newer version of throughline (its migration {version} is not known to this one); run that version"
    )]
    Newer {
        /// Which database.
        place: String,
        /// The first migration that is not known here.
        version: i64,
    },
    /// What was applied under a number is not what this program has under it.
    #[error(
        "migration {version} of {place} is not the one that this version knows; it was written by another program or by a development version"
    )]
    Changed {
        /// Which database.
        place: String,
        /// Its number.
        version: i64,
    },
    /// The database refused.
    #[error("the tables of {place} cannot be brought up to date; check that its user may create tables")]
    Refused {
        /// Which database.
        place: String,
        /// What it said.
        #[source]
        source: MigrateError,
    },
}

/// The migrations compiled into the program.
pub(super) fn embedded(migrations: &[(i64, &'static str, &'static str)]) -> Migrator {
    let migration = |&(version, description, sql): &(i64, &'static str, &'static str)| {
        let sql = SqlStr::from_static(sql);
        Migration::new(version, description.into(), MigrationType::Simple, sql, false)
    };
    Migrator::with_migrations(migrations.iter().map(migration).collect())
}

/// The tables of one database, and what they should be.
pub(super) struct Tables {
    place: String,
    wanted: Migrator,
}

impl Tables {
    pub(super) fn new(place: impl Display, wanted: Migrator) -> Self {
        Self { place: place.to_string(), wanted }
    }

    /// Applies what is missing, and says what that was. Servers that start together do it one after the other.
    pub(super) async fn migrate(&self, connection: &mut impl Migrate) -> Result<Vec<AppliedMigration>, MigrationError> {
        let refused = |source| MigrationError::Refused { place: self.place.clone(), source };
        // An error leaves the lock behind; it ends with the connection, which the caller then drops.
        connection.lock().await.map_err(refused)?;
        connection.ensure_migrations_table(TABLE).await.map_err(refused)?;
        let mut applied = Vec::new();
        for missing in self.missing(connection).await? {
            connection.apply(TABLE, missing).await.map_err(refused)?;
            let description = missing.description.clone().into_owned();
            applied.push(AppliedMigration { version: missing.version, description });
        }
        connection.unlock().await.map_err(refused)?;
        Ok(applied)
    }

    /// Changes nothing, and refuses tables that are not up to date.
    pub(super) async fn check(&self, connection: &mut impl Migrate) -> Result<Vec<AppliedMigration>, MigrationError> {
        match self.missing(connection).await {
            Ok(missing) if missing.is_empty() => Ok(Vec::new()),
            // Where nothing was ever applied, the table of what was applied is missing as well.
            Err(MigrationError::Refused { source, .. }) if !is_missing_table(&source) => {
                Err(MigrationError::Refused { place: self.place.clone(), source })
            }
            Ok(_) | Err(MigrationError::Refused { .. }) => Err(MigrationError::Outdated { place: self.place.clone() }),
            Err(error) => Err(error),
        }
    }

    /// What is to be applied, in order.
    async fn missing(&self, connection: &mut impl Migrate) -> Result<Vec<&Migration>, MigrationError> {
        let applied = connection.list_applied_migrations(TABLE).await;
        let applied = applied.map_err(|source| MigrationError::Refused { place: self.place.clone(), source })?;
        let mut checksums: HashMap<i64, _> = applied.into_iter().map(|one| (one.version, one.checksum)).collect();
        let mut missing = Vec::new();
        for wanted in self.wanted.iter() {
            match checksums.remove(&wanted.version) {
                None => missing.push(wanted),
                Some(checksum) if checksum == wanted.checksum => {}
                Some(_) => {
                    return Err(MigrationError::Changed { place: self.place.clone(), version: wanted.version });
                }
            }
        }
        match checksums.into_keys().min() {
            Some(version) => Err(MigrationError::Newer { place: self.place.clone(), version }),
            None => Ok(missing),
        }
    }
}

fn is_missing_table(error: &MigrateError) -> bool {
    let MigrateError::Execute(sqlx::Error::Database(error)) = error else { return false };
    // PostgreSQL has a code for it, SQLite only words.
    error.code().is_some_and(|code| code == "42P01") || error.message().starts_with("no such table")
}
