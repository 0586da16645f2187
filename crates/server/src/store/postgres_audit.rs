//! The audit log in PostgreSQL.

use async_trait::async_trait;
use sqlx::{Row as _, query};

use super::audit::{
    AUDITED_TENANTS, AuditStore, BLOCKS, HEAD, HEADS, RECORDS, UNSEALED_TENANTS, block_in, head_in, named_head,
    record_in,
};
use super::postgres::{PostgresStore, unreadable};
use super::postgres_batch::{Work, signed, unsigned};
use super::{LogMark, ReadError};
use crate::audit::{AuditBlock, AuditHead, AuditRecord, StoredAuditRecord};
use crate::idempotency::IdempotencyError;
use crate::tenant::TenantId;

#[async_trait]
impl AuditStore for PostgresStore {
    async fn audit(&self, records: Vec<AuditRecord>) -> Result<(), ReadError> {
        // Any writer will do: records that tell of no session wait for nobody.
        let written = self.write(&0, Work::Audit(records)).await;
        written.map(drop).map_err(|error| IdempotencyError::from(error).into())
    }

    async fn audit_mark(&self, settled: u64) -> Result<LogMark, ReadError> {
        const POSITION: &str = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM audit_positions";
        self.log_mark("asking how far the audit log is", POSITION, settled).await
    }

    async fn unsealed_tenants(&self, through: u64) -> Result<Vec<String>, ReadError> {
        const DURING: &str = "looking for what is not sealed";
        let rows = self.pool.rows(DURING, || query(UNSEALED_TENANTS).bind(signed(through))).await?;
        rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(unreadable(DURING))
    }

    async fn audited_tenants(&self) -> Result<Vec<String>, ReadError> {
        const DURING: &str = "looking for audited tenants";
        let rows = self.pool.rows(DURING, || query(AUDITED_TENANTS)).await?;
        rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(unreadable(DURING))
    }

    async fn audit_heads(&self) -> Result<Vec<(String, AuditHead)>, ReadError> {
        const DURING: &str = "reading the heads of audit chains";
        let rows = self.pool.rows(DURING, || query(HEADS)).await?;
        rows.iter().map(|row| named_head!(row)).collect::<Result<_, _>>().map_err(unreadable(DURING))
    }

    async fn audit_head(&self, tenant: &TenantId) -> Result<Option<AuditHead>, ReadError> {
        const DURING: &str = "reading the head of an audit chain";
        let rows = self.pool.rows(DURING, || query(HEAD).bind(tenant.as_str())).await?;
        rows.first().map(|row| head_in!(row, tenant)).transpose().map_err(unreadable(DURING))
    }

    async fn audit_blocks(&self, tenant: &TenantId, after: u64, limit: u32) -> Result<Vec<AuditBlock>, ReadError> {
        const DURING: &str = "reading an audit chain";
        let select = || query(BLOCKS).bind(tenant.as_str()).bind(signed(after)).bind(i64::from(limit));
        let rows = self.pool.rows(DURING, select).await?;
        rows.iter().map(|row| block_in!(row, tenant)).collect::<Result<_, _>>().map_err(unreadable(DURING))
    }

    async fn audit_records(
        &self,
        tenant: &TenantId,
        after: u64,
        through: u64,
        limit: u32,
    ) -> Result<Vec<StoredAuditRecord>, ReadError> {
        const DURING: &str = "reading the audit log";
        let select = || {
            let select = query(RECORDS).bind(tenant.as_str()).bind(signed(after));
            select.bind(signed(through)).bind(i64::from(limit))
        };
        let rows = self.pool.rows(DURING, select).await?;
        rows.iter().map(|row| record_in!(row)).collect::<Result<_, _>>().map_err(unreadable(DURING))
    }

    async fn seal_audit(&self, block: &AuditBlock, head: &AuditHead) -> Result<bool, ReadError> {
        // Of two that seal at once, the second one finds the first one's block.
        const SEAL: &str = "WITH sealed AS (
                INSERT INTO audit_blocks (tenant, sequence, through_position, records, foreign_records, sealed_at_ms,
                    previous_hash, records_digest, hash)
                SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9
                WHERE coalesce((SELECT sequence FROM audit_heads WHERE tenant = $1), 0) = $2 - 1
                ON CONFLICT DO NOTHING
                RETURNING tenant, sequence, through_position, hash)
             INSERT INTO audit_heads (tenant, sequence, through_position, hash, mac, key_id)
             SELECT tenant, sequence, through_position, hash, $10, $11 FROM sealed
             ON CONFLICT (tenant) DO UPDATE SET sequence = excluded.sequence, hash = excluded.hash, mac = excluded.mac,
                through_position = excluded.through_position, key_id = excluded.key_id
             RETURNING 1";
        let seal = || {
            query(SEAL)
                .bind(block.tenant.as_str())
                .bind(signed(block.sequence))
                .bind(signed(block.through))
                .bind(signed(block.records))
                .bind(signed(block.foreign))
                .bind(block.sealed_at_ms)
                .bind(block.previous.as_slice())
                .bind(block.digest.as_slice())
                .bind(block.hash.as_slice())
                .bind(head.mac.as_slice())
                .bind(&head.key_id)
        };
        Ok(!self.pool.rows("sealing the audit log", seal).await?.is_empty())
    }
}
