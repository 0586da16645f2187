//! Where the audit log is kept.

use async_trait::async_trait;

use super::{LogMark, ReadError};
use crate::audit::{AuditBlock, AuditHead, AuditRecord, SealedHash, StoredAuditRecord};
use crate::tenant::TenantId;

/// A place that keeps the audit log. Records of changes come with [`Append`](super::Append).
#[async_trait]
pub trait AuditStore: Send + Sync + std::fmt::Debug {
    /// Writes records that tell of no change of a session. After an error they may be there all the same.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn audit(&self, records: Vec<AuditRecord>) -> Result<(), ReadError>;

    /// How far the log is; see [`LogMark`]. `settled`: up to where it is known to be whole already; where there is nothing
    /// new since, the mark costs next to nothing.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn audit_mark(&self, settled: u64) -> Result<LogMark, ReadError>;

    /// The names of the tenants that have records after their heads and up to this position. Names, because somebody may have
    /// put in what is none of a tenant.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn unsealed_tenants(&self, through: u64) -> Result<Vec<String>, ReadError>;

    /// The heads of all chains, by their tenants' names.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn audit_heads(&self) -> Result<Vec<(String, AuditHead)>, ReadError>;

    /// The names of all tenants of whom the log, its blocks or its heads tell.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn audited_tenants(&self) -> Result<Vec<String>, ReadError>;

    /// A tenant's latest block, as its head says.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn audit_head(&self, tenant: &TenantId) -> Result<Option<AuditHead>, ReadError>;

    /// At most `limit` blocks of a tenant after the one with this number, in their order.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn audit_blocks(&self, tenant: &TenantId, after: u64, limit: u32) -> Result<Vec<AuditBlock>, ReadError>;

    /// At most `limit` records of a tenant after one position and up to another, in their order.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn audit_records(
        &self,
        tenant: &TenantId,
        after: u64,
        through: u64,
        limit: u32,
    ) -> Result<Vec<StoredAuditRecord>, ReadError>;

    /// Writes a block, and the head that names it, unless somebody else has written one with its number; whether it did.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn seal_audit(&self, block: &AuditBlock, head: &AuditHead) -> Result<bool, ReadError>;
}

/// Asks for all tenants. It goes from each one to the next one in an index, instead of looking at all rows.
pub(super) const AUDITED_TENANTS: &str = "WITH RECURSIVE logged (tenant) AS (
        SELECT min(tenant) FROM audit_log
        UNION ALL
        SELECT (SELECT min(tenant) FROM audit_log WHERE tenant > logged.tenant) FROM logged WHERE logged.tenant IS NOT NULL),
     sealed (tenant) AS (
        SELECT min(tenant) FROM audit_blocks
        UNION ALL
        SELECT (SELECT min(tenant) FROM audit_blocks WHERE tenant > sealed.tenant) FROM sealed WHERE sealed.tenant IS NOT NULL)
     SELECT tenant FROM logged WHERE tenant IS NOT NULL
     UNION SELECT tenant FROM sealed WHERE tenant IS NOT NULL
     UNION SELECT tenant FROM audit_heads
     ORDER BY tenant";

/// Asks for the tenants that have something to be sealed.
pub(super) const UNSEALED_TENANTS: &str = "WITH RECURSIVE logged (tenant) AS (
        SELECT min(tenant) FROM audit_log
        UNION ALL
        SELECT (SELECT min(tenant) FROM audit_log WHERE tenant > logged.tenant) FROM logged WHERE logged.tenant IS NOT NULL)
     SELECT logged.tenant FROM logged LEFT JOIN audit_heads AS head ON head.tenant = logged.tenant
     WHERE logged.tenant IS NOT NULL AND EXISTS (
        SELECT 1 FROM audit_log AS new WHERE new.tenant = logged.tenant
            AND new.position > coalesce(head.through_position, 0) AND new.position <= $1)";

/// A head out of a row of either database; its tenant is known.
macro_rules! head_in {
    ($row:expr, $tenant:expr) => {
        Ok::<_, sqlx::Error>(crate::audit::AuditHead {
            tenant: $tenant.clone(),
            sequence: unsigned(sqlx::Row::try_get($row, 0)?),
            through: unsigned(sqlx::Row::try_get($row, 1)?),
            hash: crate::store::audit::hash_of(sqlx::Row::try_get($row, 2)?)?,
            mac: crate::store::audit::hash_of(sqlx::Row::try_get($row, 3)?)?,
            key_id: sqlx::Row::try_get($row, 4)?,
        })
    };
}

/// A head with the name of its tenant, which stands in the sixth column. Where that is none of a tenant, neither is the head's.
macro_rules! named_head {
    ($row:expr) => {{
        let name: String = sqlx::Row::try_get($row, 5)?;
        let tenant =
            crate::tenant::TenantId::try_from(name.clone()).unwrap_or_else(|_| crate::tenant::TenantId::single());
        let head = head_in!($row, tenant)?;
        Ok::<_, sqlx::Error>((name, head))
    }};
}

/// A block out of a row of either database; its tenant is known.
macro_rules! block_in {
    ($row:expr, $tenant:expr) => {
        Ok::<_, sqlx::Error>(crate::audit::AuditBlock {
            tenant: $tenant.clone(),
            sequence: unsigned(sqlx::Row::try_get($row, 0)?),
            through: unsigned(sqlx::Row::try_get($row, 1)?),
            records: unsigned(sqlx::Row::try_get($row, 2)?),
            foreign: unsigned(sqlx::Row::try_get($row, 3)?),
            sealed_at_ms: sqlx::Row::try_get($row, 4)?,
            previous: crate::store::audit::hash_of(sqlx::Row::try_get($row, 5)?)?,
            digest: crate::store::audit::hash_of(sqlx::Row::try_get($row, 6)?)?,
            hash: crate::store::audit::hash_of(sqlx::Row::try_get($row, 7)?)?,
        })
    };
}

/// A record out of a row of either database.
macro_rules! record_in {
    ($row:expr) => {
        Ok::<_, sqlx::Error>(crate::audit::StoredAuditRecord {
            position: unsigned(sqlx::Row::try_get($row, 0)?),
            body: sqlx::Row::try_get($row, 1)?,
            mac: sqlx::Row::try_get($row, 2)?,
            key_id: sqlx::Row::try_get($row, 3)?,
        })
    };
}

pub(super) use {block_in, head_in, named_head, record_in};

/// A hash as it is stored. One of another length is none that was ever written, so it fits nothing.
pub(super) fn hash_of(bytes: Vec<u8>) -> Result<SealedHash, sqlx::Error> {
    let mut hash = [0; 32];
    let length = bytes.len().min(32);
    hash[..length].copy_from_slice(&bytes[..length]);
    if bytes.len() != 32 {
        hash[31] ^= 1;
    }
    Ok(hash)
}

/// Heads with their tenants, in the order of a head's columns and the tenant after them.
pub(super) const HEADS: &str =
    "SELECT sequence, through_position, hash, mac, key_id, tenant FROM audit_heads ORDER BY tenant";

pub(super) const HEAD: &str = "SELECT sequence, through_position, hash, mac, key_id FROM audit_heads WHERE tenant = $1";

pub(super) const BLOCKS: &str =
    "SELECT sequence, through_position, records, foreign_records, sealed_at_ms, previous_hash, records_digest,
        hash FROM audit_blocks WHERE tenant = $1 AND sequence > $2 ORDER BY sequence LIMIT $3";

pub(super) const RECORDS: &str = "SELECT position, body, mac, key_id FROM audit_log
     WHERE tenant = $1 AND position > $2 AND position <= $3 ORDER BY position LIMIT $4";
