//! The table of service keys. It is small: a shop has a handful of them.

use std::time::Duration;

use async_trait::async_trait;

use super::ReadError;
use crate::audit::AuditRecord;
use crate::scope::Scopes;
use crate::tenant::TenantId;

/// How long after a use that was written down the next one is.
pub const USES_APART: Duration = Duration::from_secs(60);

/// A service key, as the database has it. The key itself is nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredServiceKey {
    /// Its short public name.
    pub id: String,
    /// Whose sessions it reaches.
    pub tenant: TenantId,
    /// What people call it.
    pub name: String,
    /// The hash by which it is recognised.
    pub sha256: [u8; 32],
    /// What it may do.
    pub scopes: Scopes,
    /// When it was made, in milliseconds since 1970.
    pub created_at_ms: i64,
    /// Who made it.
    pub created_by: String,
    /// From when on it is refused; never where nothing is said.
    pub expires_at_ms: Option<i64>,
    /// When it was revoked, if it was.
    pub revoked_at_ms: Option<i64>,
    /// When it was last used, to the minute.
    pub last_used_at_ms: Option<i64>,
}

/// What has changed about service keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceKeyChanges {
    /// The number of the latest change. One that is smaller than a number seen before is of an older copy of the database.
    pub version: u64,
    /// The keys that were made or revoked since, as they are now.
    pub keys: Vec<StoredServiceKey>,
}

/// What became of revoking a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revocation {
    /// It is revoked from now on.
    Revoked,
    /// It was revoked before.
    WasRevoked,
    /// There is no such key, or it is another tenant's.
    Unknown,
}

/// A place that keeps service keys.
#[async_trait]
pub trait ServiceKeyStore: Send + Sync + std::fmt::Debug {
    /// Adds a key, and to the audit log in the same transaction what it is to say of it. The same key again changes nothing.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn add_service_key(&self, key: &StoredServiceKey, audit: AuditRecord) -> Result<(), ReadError>;

    /// Revokes a key of `tenant`. Where that changes something, the audit log says so from the same transaction on.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn revoke_service_key(
        &self,
        tenant: &TenantId,
        id: &str,
        now_ms: i64,
        audit: AuditRecord,
    ) -> Result<Revocation, ReadError>;

    /// All keys of `tenant`, or of all where none is given, in the order in which they were made.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn service_keys(&self, tenant: Option<&TenantId>) -> Result<Vec<StoredServiceKey>, ReadError>;

    /// What has changed after the change with the number `since`; 0 gives everything. Costs next to nothing where nothing has.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn service_key_changes(&self, since: u64) -> Result<ServiceKeyChanges, ReadError>;

    /// Writes down when a key was used, unless a use within [`USES_APART`] before is known. It counts as no change.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn note_service_key_use(&self, id: &str, at_ms: i64) -> Result<bool, ReadError>;
}

/// The columns of [`StoredServiceKey`], in the order in which [`read_key`] wants them.
pub(super) const COLUMNS: &str =
    "id, tenant, name, sha256, scopes, created_at_ms, created_by, expires_at_ms, revoked_at_ms, last_used_at_ms";

/// The version and what has changed, in one statement, so that both are of the same moment. Without a change it is one row of
/// NULLs beside the version.
pub(super) fn changes_statement() -> String {
    let columns = COLUMNS.split(", ").map(|column| format!("service_keys.{column}")).collect::<Vec<_>>().join(", ");
    format!(
        "SELECT {columns}, service_key_changes.version FROM service_key_changes
         LEFT JOIN service_keys ON service_keys.changed > $1"
    )
}

/// Reads a key out of a row of either database, from its first column on.
macro_rules! read_key {
    ($row:expr) => {{
        let row = $row;
        let decode = |error: Box<dyn std::error::Error + Send + Sync>| sqlx::Error::Decode(error);
        let read = || {
            let (tenant, sha256, scopes): (String, Vec<u8>, String) =
                (row.try_get(1)?, row.try_get(3)?, row.try_get(4)?);
            Ok::<_, sqlx::Error>($crate::store::StoredServiceKey {
                id: row.try_get(0)?,
                tenant: tenant.parse().map_err(|error: $crate::tenant::TenantIdError| decode(error.into()))?,
                name: row.try_get(2)?,
                sha256: sha256.try_into().map_err(|_| decode("a hash of a service key has 32 bytes".into()))?,
                scopes: scopes.parse().map_err(|error: $crate::scope::ScopeError| decode(error.into()))?,
                created_at_ms: row.try_get(5)?,
                created_by: row.try_get(6)?,
                expires_at_ms: row.try_get(7)?,
                revoked_at_ms: row.try_get(8)?,
                last_used_at_ms: row.try_get(9)?,
            })
        };
        read()
    }};
}
pub(super) use read_key;

/// Reads the answer to [`changes_statement`].
macro_rules! read_changes {
    ($rows:expr, $unsigned:expr) => {{
        let read = || {
            let mut changes = $crate::store::ServiceKeyChanges { version: 0, keys: Vec::new() };
            for row in &$rows {
                changes.version = $unsigned(row.try_get::<i64, _>(10)?);
                if row.try_get::<Option<String>, _>(0)?.is_some() {
                    changes.keys.push($crate::store::service_keys::read_key!(row)?);
                }
            }
            Ok::<_, sqlx::Error>(changes)
        };
        read()
    }};
}
pub(super) use read_changes;
