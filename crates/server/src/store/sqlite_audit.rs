//! The audit log in a SQLite file.

use async_trait::async_trait;
use sqlx::{Row as _, query};

use super::audit::{
    AUDITED_TENANTS, AuditStore, BLOCKS, HEAD, HEADS, RECORDS, UNSEALED_TENANTS, block_in, head_in, named_head,
    record_in,
};
use super::sqlite::{SqliteStore, bounded, read_error, signed, unsigned};
use super::sqlite_jobs::{AuditJob, SealAuditJob};
use super::{LogMark, ReadError};
use crate::audit::{AuditBlock, AuditHead, AuditRecord, StoredAuditRecord};
use crate::tenant::TenantId;

#[async_trait]
impl AuditStore for SqliteStore {
    async fn audit(&self, records: Vec<AuditRecord>) -> Result<(), ReadError> {
        self.answer(|tell| Box::new(AuditJob::new(records, tell))).await.map_err(ReadError::from)
    }

    async fn audit_mark(&self, _: u64) -> Result<LogMark, ReadError> {
        const DURING: &str = "asking how far the audit log is";
        let row = bounded(DURING, query("SELECT max(position) FROM audit_log").fetch_one(&self.readers)).await?;
        let position: Option<i64> = row.try_get(0).map_err(|error| read_error(DURING, error))?;
        // Only one writes: what can be seen is whole.
        Ok(LogMark { position: position.map_or(0, unsigned), next_transaction: 0, oldest_transaction: 0 })
    }

    async fn unsealed_tenants(&self, through: u64) -> Result<Vec<String>, ReadError> {
        const DURING: &str = "looking for what is not sealed";
        let select = query(UNSEALED_TENANTS).bind(signed(through));
        let rows = bounded(DURING, select.fetch_all(&self.readers)).await?;
        rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(|error| read_error(DURING, error))
    }

    async fn audited_tenants(&self) -> Result<Vec<String>, ReadError> {
        const DURING: &str = "looking for audited tenants";
        let rows = bounded(DURING, query(AUDITED_TENANTS).fetch_all(&self.readers)).await?;
        rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(|error| read_error(DURING, error))
    }

    async fn audit_heads(&self) -> Result<Vec<(String, AuditHead)>, ReadError> {
        const DURING: &str = "reading the heads of audit chains";
        let rows = bounded(DURING, query(HEADS).fetch_all(&self.readers)).await?;
        rows.iter().map(|row| named_head!(row)).collect::<Result<_, _>>().map_err(|error| read_error(DURING, error))
    }

    async fn audit_head(&self, tenant: &TenantId) -> Result<Option<AuditHead>, ReadError> {
        const DURING: &str = "reading the head of an audit chain";
        let row = bounded(DURING, query(HEAD).bind(tenant.as_str()).fetch_optional(&self.readers)).await?;
        row.as_ref().map(|row| head_in!(row, tenant)).transpose().map_err(|error| read_error(DURING, error))
    }

    async fn audit_blocks(&self, tenant: &TenantId, after: u64, limit: u32) -> Result<Vec<AuditBlock>, ReadError> {
        const DURING: &str = "reading an audit chain";
        let select = query(BLOCKS).bind(tenant.as_str()).bind(signed(after)).bind(i64::from(limit));
        let rows = bounded(DURING, select.fetch_all(&self.readers)).await?;
        rows.iter()
            .map(|row| block_in!(row, tenant))
            .collect::<Result<_, _>>()
            .map_err(|error| read_error(DURING, error))
    }

    async fn audit_records(
        &self,
        tenant: &TenantId,
        after: u64,
        through: u64,
        limit: u32,
    ) -> Result<Vec<StoredAuditRecord>, ReadError> {
        const DURING: &str = "reading the audit log";
        let select =
            query(RECORDS).bind(tenant.as_str()).bind(signed(after)).bind(signed(through)).bind(i64::from(limit));
        let rows = bounded(DURING, select.fetch_all(&self.readers)).await?;
        rows.iter().map(|row| record_in!(row)).collect::<Result<_, _>>().map_err(|error| read_error(DURING, error))
    }

    async fn seal_audit(&self, block: &AuditBlock, head: &AuditHead) -> Result<bool, ReadError> {
        let (block, head) = (block.clone(), head.clone());
        self.answer(|tell| Box::new(SealAuditJob::new(block, head, tell))).await.map_err(ReadError::from)
    }
}
