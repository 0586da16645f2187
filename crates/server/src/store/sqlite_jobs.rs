//! What is written to the SQLite file, one job per caller.

use async_trait::async_trait;
use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;
use tokio::sync::oneshot;

use super::sqlite::{signed, unsigned};
use super::sqlite_lifecycle::write_events;
use super::sqlite_writer::{Verdict, WriteJob};
use super::{
    Append, CommitError, Deleted, Deletion, Due, Revocation, Rewrapped, SessionKey, StoreFault, StoredServiceKey,
    USES_APART,
};
use crate::audit::{AuditBlock, AuditHead, AuditRecord};
use crate::clock::millis;
use crate::idempotency::{Answer, Begin, Entry, Ticket};
use crate::tenant::TenantId;

pub(super) type Tell<T> = oneshot::Sender<Result<T, StoreFault>>;

/// Commits a change of one session.
#[derive(Debug)]
pub(super) struct CommitJob {
    change: Append,
    outcome: Result<(), CommitError>,
    tell: oneshot::Sender<Result<(), CommitError>>,
}

impl CommitJob {
    pub(super) fn new(change: Append, tell: oneshot::Sender<Result<(), CommitError>>) -> Self {
        Self { change, outcome: Ok(()), tell }
    }

    async fn write(&self, connection: &mut SqliteConnection) -> Result<Result<(), CommitError>, sqlx::Error> {
        let change = &self.change;
        if !write_state(connection, change).await? {
            let current_version = version(connection, &change.key).await?;
            return Ok(Err(CommitError::Conflict { current_version }));
        }
        if change.purge_history {
            sqlx::query("UPDATE journal SET blob = x'' WHERE tenant = ?1 AND session_id = ?2")
                .bind(change.key.tenant.as_str())
                .bind(&change.key.session_id)
                .execute(&mut *connection)
                .await?;
            sqlx::query("DELETE FROM idempotency WHERE tenant = ?1 AND session_id = ?2")
                .bind(change.key.tenant.as_str())
                .bind(&change.key.session_id)
                .execute(&mut *connection)
                .await?;
        }
        for record in &change.records {
            sqlx::query("INSERT INTO journal (tenant, session_id, version, blob) VALUES (?1, ?2, ?3, ?4)")
                .bind(change.key.tenant.as_str())
                .bind(&change.key.session_id)
                .bind(signed(record.version))
                .bind(&record.blob)
                .execute(&mut *connection)
                .await?;
        }
        write_audit(connection, &change.audit).await?;
        write_events(connection, &change.key, &change.events).await?;
        Ok(Ok(()))
    }
}

#[async_trait]
impl WriteJob for CommitJob {
    async fn apply(&mut self, connection: &mut SqliteConnection) -> Result<Verdict, sqlx::Error> {
        self.outcome = self.write(connection).await?;
        Ok(if self.outcome.is_ok() { Verdict::Keep } else { Verdict::Undo })
    }

    // A caller that went away does not want to know; the change stays committed.
    fn done(self: Box<Self>) {
        let _ = self.tell.send(self.outcome);
    }

    fn failed(self: Box<Self>, fault: StoreFault) {
        let _ = self.tell.send(Err(CommitError::Unavailable { fault }));
    }

    fn erases(&self) -> bool {
        self.change.purge_history
    }
}

/// Adds to the audit log.
pub(super) async fn write_audit(connection: &mut SqliteConnection, records: &[AuditRecord]) -> Result<(), sqlx::Error> {
    for record in records {
        sqlx::query("INSERT INTO audit_log (tenant, body, mac, key_id) VALUES (?1, ?2, ?3, ?4)")
            .bind(record.tenant.as_str())
            .bind(&record.body)
            .bind(record.mac.as_slice())
            .bind(&record.key_id)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Adds to the audit log what tells of no session's change.
#[derive(Debug)]
pub(super) struct AuditJob {
    records: Vec<AuditRecord>,
    tell: Tell<()>,
}

impl AuditJob {
    pub(super) fn new(records: Vec<AuditRecord>, tell: Tell<()>) -> Self {
        Self { records, tell }
    }
}

#[async_trait]
impl WriteJob for AuditJob {
    async fn apply(&mut self, connection: &mut SqliteConnection) -> Result<Verdict, sqlx::Error> {
        write_audit(connection, &self.records).await?;
        Ok(Verdict::Keep)
    }

    fn done(self: Box<Self>) {
        let _ = self.tell.send(Ok(()));
    }

    fn failed(self: Box<Self>, fault: StoreFault) {
        let _ = self.tell.send(Err(fault));
    }
}

/// Writes a block of the audit log and the head that names it.
#[derive(Debug)]
pub(super) struct SealAuditJob {
    block: AuditBlock,
    head: AuditHead,
    is_written: bool,
    tell: Tell<bool>,
}

impl SealAuditJob {
    pub(super) fn new(block: AuditBlock, head: AuditHead, tell: Tell<bool>) -> Self {
        Self { block, head, is_written: false, tell }
    }
}

#[async_trait]
impl WriteJob for SealAuditJob {
    async fn apply(&mut self, connection: &mut SqliteConnection) -> Result<Verdict, sqlx::Error> {
        let Self { block, head, .. } = self;
        let write = sqlx::query(
            "INSERT INTO audit_heads (tenant, sequence, through_position, hash, mac, key_id)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (tenant) DO UPDATE SET sequence = excluded.sequence, hash = excluded.hash, mac = excluded.mac,
                through_position = excluded.through_position, key_id = excluded.key_id
             WHERE audit_heads.sequence = excluded.sequence - 1",
        )
        .bind(head.tenant.as_str())
        .bind(signed(head.sequence))
        .bind(signed(head.through))
        .bind(head.hash.as_slice())
        .bind(head.mac.as_slice())
        .bind(&head.key_id);
        self.is_written = write.execute(&mut *connection).await?.rows_affected() == 1;
        if !self.is_written {
            return Ok(Verdict::Keep);
        }
        let write = sqlx::query(
            "INSERT INTO audit_blocks (tenant, sequence, through_position, records, foreign_records, sealed_at_ms,
                previous_hash, records_digest, hash)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
             ON CONFLICT DO NOTHING",
        )
        .bind(block.tenant.as_str())
        .bind(signed(block.sequence))
        .bind(signed(block.through))
        .bind(signed(block.records))
        .bind(signed(block.foreign))
        .bind(block.sealed_at_ms)
        .bind(block.previous.as_slice())
        .bind(block.digest.as_slice())
        .bind(block.hash.as_slice())
        .execute(connection)
        .await?;
        // Somebody has put in a block where none can be: the head stays.
        self.is_written = write.rows_affected() == 1;
        Ok(if self.is_written { Verdict::Keep } else { Verdict::Undo })
    }

    fn done(self: Box<Self>) {
        let _ = self.tell.send(Ok(self.is_written));
    }

    fn failed(self: Box<Self>, fault: StoreFault) {
        let _ = self.tell.send(Err(fault));
    }
}

/// Writes the new state if the session is at the expected version; says whether it was.
async fn write_state(connection: &mut SqliteConnection, change: &Append) -> Result<bool, sqlx::Error> {
    const INSERT: &str = "INSERT INTO sessions (version, state, status, step, funnel_id, funnel_version,
            created_at_ms, updated_at_ms, expires_at_ms, deadline_at_ms, erased, currency,
            amount_minor, completed_at_ms, ended_at_ms, email_digest, tenant, session_id, root_key_id, data_key,
            held_until_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21)
         ON CONFLICT DO NOTHING";
    const UPDATE: &str = "UPDATE sessions SET version = ?1, state = ?2, status = ?3, step = ?4, funnel_id = ?5,
            funnel_version = ?6, created_at_ms = ?7, updated_at_ms = ?8, expires_at_ms = ?9,
            deadline_at_ms = ?10, erased = ?11, currency = ?12, amount_minor = ?13,
            completed_at_ms = ?14, ended_at_ms = ?15, email_digest = ?16, claimed_until_ms = NULL,
            root_key_id = ?19, data_key = ?20, held_until_ms = ?21
         WHERE tenant = ?17 AND session_id = ?18 AND version = ?22";
    let columns = &change.columns;
    let creates = change.expected_version == 0;
    let mut query = sqlx::query(if creates { INSERT } else { UPDATE })
        .bind(signed(change.new_version()))
        .bind(&change.state)
        .bind(&columns.status)
        .bind(&columns.step)
        .bind(&columns.funnel_id)
        .bind(&columns.funnel_version)
        .bind(columns.created_at_ms)
        .bind(columns.updated_at_ms)
        .bind(columns.expires_at_ms)
        .bind(columns.deadline_at_ms)
        .bind(columns.erased)
        .bind(&columns.currency)
        .bind(columns.amount_minor)
        .bind(columns.completed_at_ms)
        .bind(columns.ended_at_ms)
        .bind(&columns.email_digest)
        .bind(change.key.tenant.as_str())
        .bind(&change.key.session_id)
        .bind(&change.data_key.root_key_id)
        .bind(&change.data_key.sealed)
        .bind(columns.held_until_ms);
    if !creates {
        query = query.bind(signed(change.expected_version));
    }
    Ok(query.execute(connection).await?.rows_affected() == 1)
}

async fn version(connection: &mut SqliteConnection, key: &SessionKey) -> Result<u64, sqlx::Error> {
    let row = sqlx::query("SELECT version FROM sessions WHERE tenant = ?1 AND session_id = ?2")
        .bind(key.tenant.as_str())
        .bind(&key.session_id)
        .fetch_optional(connection)
        .await?;
    row.map_or(Ok(0), |row| row.try_get(0).map(unsigned))
}

/// Claims an idempotent request.
#[derive(Debug)]
pub(super) struct BeginJob {
    ticket: Ticket,
    body_sha256: [u8; 32],
    now_ms: i64,
    outcome: Begin,
    tell: Tell<Begin>,
}

impl BeginJob {
    pub(super) fn new(ticket: Ticket, body_sha256: [u8; 32], now_ms: i64, tell: Tell<Begin>) -> Self {
        Self { ticket, body_sha256, now_ms, outcome: Begin::InProgress, tell }
    }
}

#[async_trait]
impl WriteJob for BeginJob {
    async fn apply(&mut self, connection: &mut SqliteConnection) -> Result<Verdict, sqlx::Error> {
        let Ticket { key, attempt } = &self.ticket;
        let row = sqlx::query(
            "SELECT body_sha256, started_at_ms, status, headers, body, session_id FROM idempotency
             WHERE tenant = ?1 AND scope = ?2 AND key = ?3",
        )
        .bind(key.tenant.as_str())
        .bind(&key.scope)
        .bind(&key.key)
        .fetch_optional(&mut *connection)
        .await?;
        if let Some(row) = row {
            let entry =
                Entry { body_sha256: row.try_get(0)?, started_at_ms: row.try_get(1)?, answer: answer_of(&row)? };
            if let Some(known) = entry.judge(&self.body_sha256, self.now_ms) {
                self.outcome = known;
                return Ok(Verdict::Keep);
            }
        }
        sqlx::query(
            "INSERT OR REPLACE INTO idempotency
                (tenant, scope, key, body_sha256, attempt, started_at_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )
        .bind(key.tenant.as_str())
        .bind(&key.scope)
        .bind(&key.key)
        .bind(self.body_sha256.as_slice())
        .bind(attempt.as_slice())
        .bind(self.now_ms)
        .execute(connection)
        .await?;
        self.outcome = Begin::Started(self.ticket.clone());
        Ok(Verdict::Keep)
    }

    fn done(self: Box<Self>) {
        let _ = self.tell.send(Ok(self.outcome));
    }

    fn failed(self: Box<Self>, fault: StoreFault) {
        let _ = self.tell.send(Err(fault));
    }
}

/// Keeps an answer.
#[derive(Debug)]
pub(super) struct FinishJob {
    ticket: Ticket,
    answer: Answer,
    tell: Tell<()>,
}

impl FinishJob {
    pub(super) fn new(ticket: Ticket, answer: Answer, tell: Tell<()>) -> Self {
        Self { ticket, answer, tell }
    }
}

#[async_trait]
impl WriteJob for FinishJob {
    async fn apply(&mut self, connection: &mut SqliteConnection) -> Result<Verdict, sqlx::Error> {
        write_answer(connection, &self.ticket, &self.answer).await?;
        Ok(Verdict::Keep)
    }

    fn done(self: Box<Self>) {
        let _ = self.tell.send(Ok(()));
    }

    fn failed(self: Box<Self>, fault: StoreFault) {
        let _ = self.tell.send(Err(fault));
    }
}

/// Gives a key back.
#[derive(Debug)]
pub(super) struct AbandonJob {
    ticket: Ticket,
    tell: Tell<()>,
}

impl AbandonJob {
    pub(super) fn new(ticket: Ticket, tell: Tell<()>) -> Self {
        Self { ticket, tell }
    }
}

#[async_trait]
impl WriteJob for AbandonJob {
    async fn apply(&mut self, connection: &mut SqliteConnection) -> Result<Verdict, sqlx::Error> {
        let Ticket { key, attempt } = &self.ticket;
        sqlx::query(
            "DELETE FROM idempotency
             WHERE tenant = ?1 AND scope = ?2 AND key = ?3 AND attempt = ?4 AND status IS NULL",
        )
        .bind(key.tenant.as_str())
        .bind(&key.scope)
        .bind(&key.key)
        .bind(attempt.as_slice())
        .execute(connection)
        .await?;
        Ok(Verdict::Keep)
    }

    fn done(self: Box<Self>) {
        let _ = self.tell.send(Ok(()));
    }

    fn failed(self: Box<Self>, fault: StoreFault) {
        let _ = self.tell.send(Err(fault));
    }
}

/// Drops answers that are old.
#[derive(Debug)]
pub(super) struct DropAnswersJob {
    before_ms: i64,
    dropped: u64,
    tell: Tell<u64>,
}

impl DropAnswersJob {
    pub(super) fn older_than(before_ms: i64, tell: Tell<u64>) -> Self {
        Self { before_ms, dropped: 0, tell }
    }
}

#[async_trait]
impl WriteJob for DropAnswersJob {
    async fn apply(&mut self, connection: &mut SqliteConnection) -> Result<Verdict, sqlx::Error> {
        let query = sqlx::query("DELETE FROM idempotency WHERE started_at_ms <= ?1").bind(self.before_ms);
        self.dropped = query.execute(connection).await?.rows_affected();
        Ok(Verdict::Keep)
    }

    fn done(self: Box<Self>) {
        let _ = self.tell.send(Ok(self.dropped));
    }

    fn failed(self: Box<Self>, fault: StoreFault) {
        let _ = self.tell.send(Err(fault));
    }

    fn erases(&self) -> bool {
        self.dropped > 0
    }
}

/// Takes on what is due about sessions.
#[derive(Debug)]
pub(super) struct ClaimDueJob {
    now_ms: i64,
    until_ms: i64,
    limit: u32,
    claimed: Vec<Due>,
    tell: Tell<Vec<Due>>,
}

impl ClaimDueJob {
    pub(super) fn new(now_ms: i64, lease_ms: i64, limit: u32, tell: Tell<Vec<Due>>) -> Self {
        Self { now_ms, until_ms: now_ms.saturating_add(lease_ms), limit, claimed: Vec::new(), tell }
    }
}

#[async_trait]
impl WriteJob for ClaimDueJob {
    async fn apply(&mut self, connection: &mut SqliteConnection) -> Result<Verdict, sqlx::Error> {
        let rows = sqlx::query(
            "UPDATE sessions SET claimed_until_ms = ?2 WHERE (tenant, session_id) IN
                (SELECT tenant, session_id FROM sessions
                 WHERE deadline_at_ms <= ?1 AND (claimed_until_ms IS NULL OR claimed_until_ms <= ?1)
                 ORDER BY deadline_at_ms LIMIT ?3)
             RETURNING tenant, session_id, deadline_at_ms",
        )
        .bind(self.now_ms)
        .bind(self.until_ms)
        .bind(i64::from(self.limit))
        .fetch_all(connection)
        .await?;
        self.claimed = rows.iter().map(due_of).collect::<Result<_, _>>()?;
        self.claimed.sort_by_key(|due| due.deadline_at_ms);
        Ok(Verdict::Keep)
    }

    fn done(self: Box<Self>) {
        let _ = self.tell.send(Ok(self.claimed));
    }

    fn failed(self: Box<Self>, fault: StoreFault) {
        let _ = self.tell.send(Err(fault));
    }
}

/// A session about which something is due, out of its tenant, id and deadline.
fn due_of(row: &sqlx::sqlite::SqliteRow) -> Result<Due, sqlx::Error> {
    Ok(Due { key: key_of(row)?, deadline_at_ms: row.try_get(2)? })
}

/// The key of a session, out of the first two columns.
pub(super) fn key_of(row: &sqlx::sqlite::SqliteRow) -> Result<SessionKey, sqlx::Error> {
    let tenant = TenantId::try_from(row.try_get::<String, _>(0)?);
    let tenant = tenant.map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    Ok(SessionKey { tenant, session_id: row.try_get(1)? })
}

/// Replaces data keys by the same ones, wrapped anew.
#[derive(Debug)]
pub(super) struct RewrapJob {
    rewrapped: Vec<Rewrapped>,
    written: u64,
    tell: Tell<u64>,
}

impl RewrapJob {
    pub(super) fn new(rewrapped: Vec<Rewrapped>, tell: Tell<u64>) -> Self {
        Self { rewrapped, written: 0, tell }
    }
}

#[async_trait]
impl WriteJob for RewrapJob {
    async fn apply(&mut self, connection: &mut SqliteConnection) -> Result<Verdict, sqlx::Error> {
        // A batch that is tried again begins anew.
        self.written = 0;
        for Rewrapped { key, version, old, new, email_digest } in &self.rewrapped {
            let query = sqlx::query(
                "UPDATE sessions SET root_key_id = ?1, data_key = ?2, email_digest = ?3
                 WHERE tenant = ?4 AND session_id = ?5 AND version = ?6 AND data_key = ?7",
            );
            let query = query.bind(&new.root_key_id).bind(&new.sealed).bind(email_digest);
            let query = query.bind(key.tenant.as_str()).bind(&key.session_id).bind(signed(*version)).bind(&old.sealed);
            self.written += query.execute(&mut *connection).await?.rows_affected();
        }
        Ok(Verdict::Keep)
    }

    fn done(self: Box<Self>) {
        let _ = self.tell.send(Ok(self.written));
    }

    fn failed(self: Box<Self>, fault: StoreFault) {
        let _ = self.tell.send(Err(fault));
    }

    // The old wrapping must not be found in the file any more.
    fn erases(&self) -> bool {
        self.written > 0
    }
}

/// Deletes sessions that nobody has changed meanwhile.
#[derive(Debug)]
pub(super) struct DeleteJob {
    deletions: Vec<Deletion>,
    deleted: Vec<Deleted>,
    tell: Tell<Vec<Deleted>>,
}

impl DeleteJob {
    pub(super) fn new(deletions: Vec<Deletion>, tell: Tell<Vec<Deleted>>) -> Self {
        Self { deletions, deleted: Vec::new(), tell }
    }
}

#[async_trait]
impl WriteJob for DeleteJob {
    async fn apply(&mut self, connection: &mut SqliteConnection) -> Result<Verdict, sqlx::Error> {
        // A batch that is tried again begins anew.
        self.deleted.clear();
        for Deletion { session, audit, event } in &self.deletions {
            let Deleted { key, version } = session;
            let (tenant, session_id) = (key.tenant.as_str(), &key.session_id);
            let delete = sqlx::query("DELETE FROM sessions WHERE tenant = ?1 AND session_id = ?2 AND version = ?3");
            let delete = delete.bind(tenant).bind(session_id).bind(signed(*version));
            if delete.execute(&mut *connection).await?.rows_affected() == 0 {
                continue;
            }
            for statement in [
                "DELETE FROM journal WHERE tenant = ?1 AND session_id = ?2",
                "DELETE FROM idempotency WHERE tenant = ?1 AND session_id = ?2",
            ] {
                sqlx::query(statement).bind(tenant).bind(session_id).execute(&mut *connection).await?;
            }
            write_audit(connection, std::slice::from_ref(audit)).await?;
            write_events(connection, key, std::slice::from_ref(event)).await?;
            self.deleted.push(session.clone());
        }
        Ok(Verdict::Keep)
    }

    fn done(self: Box<Self>) {
        let _ = self.tell.send(Ok(self.deleted));
    }

    fn failed(self: Box<Self>, fault: StoreFault) {
        let _ = self.tell.send(Err(fault));
    }

    fn erases(&self) -> bool {
        !self.deleted.is_empty()
    }
}

/// Adds a service key.
#[derive(Debug)]
pub(super) struct AddServiceKeyJob {
    key: StoredServiceKey,
    audit: AuditRecord,
    tell: Tell<()>,
}

impl AddServiceKeyJob {
    pub(super) fn new(key: StoredServiceKey, audit: AuditRecord, tell: Tell<()>) -> Self {
        Self { key, audit, tell }
    }
}

#[async_trait]
impl WriteJob for AddServiceKeyJob {
    async fn apply(&mut self, connection: &mut SqliteConnection) -> Result<Verdict, sqlx::Error> {
        let key = &self.key;
        let known = sqlx::query("SELECT 1 FROM service_keys WHERE id = ?1 AND sha256 = ?2")
            .bind(&key.id)
            .bind(key.sha256.as_slice())
            .fetch_optional(&mut *connection)
            .await?;
        if known.is_some() {
            return Ok(Verdict::Keep);
        }
        let changed = next_service_key_change(connection).await?;
        sqlx::query(
            "INSERT INTO service_keys (id, tenant, name, sha256, scopes, created_at_ms, created_by, expires_at_ms,
                revoked_at_ms, last_used_at_ms, changed)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )
        .bind(&key.id)
        .bind(key.tenant.as_str())
        .bind(&key.name)
        .bind(key.sha256.as_slice())
        .bind(key.scopes.to_string())
        .bind(key.created_at_ms)
        .bind(&key.created_by)
        .bind(key.expires_at_ms)
        .bind(key.revoked_at_ms)
        .bind(key.last_used_at_ms)
        .bind(changed)
        .execute(&mut *connection)
        .await?;
        write_audit(connection, std::slice::from_ref(&self.audit)).await?;
        Ok(Verdict::Keep)
    }

    fn done(self: Box<Self>) {
        let _ = self.tell.send(Ok(()));
    }

    fn failed(self: Box<Self>, fault: StoreFault) {
        let _ = self.tell.send(Err(fault));
    }
}

/// Counts a change of service keys.
async fn next_service_key_change(connection: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    let query = sqlx::query("UPDATE service_key_changes SET version = version + 1 RETURNING version");
    query.fetch_one(connection).await?.try_get(0)
}

/// Revokes a service key.
#[derive(Debug)]
pub(super) struct RevokeServiceKeyJob {
    tenant: TenantId,
    id: String,
    now_ms: i64,
    audit: AuditRecord,
    outcome: Revocation,
    tell: Tell<Revocation>,
}

impl RevokeServiceKeyJob {
    pub(super) fn new(tenant: TenantId, id: String, now_ms: i64, audit: AuditRecord, tell: Tell<Revocation>) -> Self {
        Self { tenant, id, now_ms, audit, outcome: Revocation::Unknown, tell }
    }
}

#[async_trait]
impl WriteJob for RevokeServiceKeyJob {
    async fn apply(&mut self, connection: &mut SqliteConnection) -> Result<Verdict, sqlx::Error> {
        let found = sqlx::query("SELECT revoked_at_ms FROM service_keys WHERE id = ?1 AND tenant = ?2")
            .bind(&self.id)
            .bind(self.tenant.as_str())
            .fetch_optional(&mut *connection)
            .await?;
        self.outcome = match found.map(|row| row.try_get::<Option<i64>, _>(0)).transpose()? {
            None => Revocation::Unknown,
            Some(Some(_)) => Revocation::WasRevoked,
            Some(None) => {
                let changed = next_service_key_change(connection).await?;
                sqlx::query("UPDATE service_keys SET revoked_at_ms = ?2, changed = ?3 WHERE id = ?1")
                    .bind(&self.id)
                    .bind(self.now_ms)
                    .bind(changed)
                    .execute(&mut *connection)
                    .await?;
                write_audit(connection, std::slice::from_ref(&self.audit)).await?;
                Revocation::Revoked
            }
        };
        Ok(Verdict::Keep)
    }

    fn done(self: Box<Self>) {
        let _ = self.tell.send(Ok(self.outcome));
    }

    fn failed(self: Box<Self>, fault: StoreFault) {
        let _ = self.tell.send(Err(fault));
    }
}

/// Writes down that a service key was used.
#[derive(Debug)]
pub(super) struct NoteServiceKeyUseJob {
    id: String,
    at_ms: i64,
    is_noted: bool,
    tell: Tell<bool>,
}

impl NoteServiceKeyUseJob {
    pub(super) fn new(id: String, at_ms: i64, tell: Tell<bool>) -> Self {
        Self { id, at_ms, is_noted: false, tell }
    }
}

#[async_trait]
impl WriteJob for NoteServiceKeyUseJob {
    async fn apply(&mut self, connection: &mut SqliteConnection) -> Result<Verdict, sqlx::Error> {
        let query = sqlx::query(
            "UPDATE service_keys SET last_used_at_ms = ?2
             WHERE id = ?1 AND (last_used_at_ms IS NULL OR last_used_at_ms <= ?2 - ?3)",
        );
        let query = query.bind(&self.id).bind(self.at_ms).bind(millis(USES_APART));
        self.is_noted = query.execute(connection).await?.rows_affected() > 0;
        Ok(Verdict::Keep)
    }

    fn done(self: Box<Self>) {
        let _ = self.tell.send(Ok(self.is_noted));
    }

    fn failed(self: Box<Self>, fault: StoreFault) {
        let _ = self.tell.send(Err(fault));
    }
}

/// Finds out whether writing works: it needs new pages, as any change does.
#[derive(Debug)]
pub(super) struct ProbeJob {
    tell: Tell<()>,
}

impl ProbeJob {
    pub(super) fn new(tell: Tell<()>) -> Self {
        Self { tell }
    }
}

#[async_trait]
impl WriteJob for ProbeJob {
    async fn apply(&mut self, connection: &mut SqliteConnection) -> Result<Verdict, sqlx::Error> {
        let write = "INSERT OR REPLACE INTO probe (id, filler) VALUES (1, zeroblob(65536))";
        sqlx::query(write).execute(&mut *connection).await?;
        sqlx::query("DELETE FROM probe").execute(connection).await?;
        Ok(Verdict::Keep)
    }

    fn done(self: Box<Self>) {
        let _ = self.tell.send(Ok(()));
    }

    fn failed(self: Box<Self>, fault: StoreFault) {
        let _ = self.tell.send(Err(fault));
    }

    fn is_probe(&self) -> bool {
        true
    }
}

/// Keeps `answer` if the ticket still holds its key and the session that it tells of was not erased.
async fn write_answer(connection: &mut SqliteConnection, ticket: &Ticket, answer: &Answer) -> Result<(), sqlx::Error> {
    let headers = serde_json::to_string(&answer.headers).map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
    let Ticket { key, attempt } = ticket;
    sqlx::query(
        "UPDATE idempotency SET status = ?1, headers = ?2, body = ?3, session_id = ?8
         WHERE tenant = ?4 AND scope = ?5 AND key = ?6 AND attempt = ?7 AND status IS NULL
         AND NOT EXISTS (SELECT 1 FROM sessions WHERE tenant = ?4 AND session_id = ?8 AND erased <> 0)",
    )
    .bind(i64::from(answer.status))
    .bind(headers)
    .bind(&answer.body)
    .bind(key.tenant.as_str())
    .bind(&key.scope)
    .bind(&key.key)
    .bind(attempt.as_slice())
    .bind(&answer.session_id)
    .execute(connection)
    .await?;
    Ok(())
}

fn answer_of(row: &sqlx::sqlite::SqliteRow) -> Result<Option<Answer>, sqlx::Error> {
    let Some(status) = row.try_get::<Option<i64>, _>(2)? else { return Ok(None) };
    let headers: String = row.try_get(3)?;
    let decode = |error: Box<dyn std::error::Error + Send + Sync>| sqlx::Error::Decode(error);
    Ok(Some(Answer {
        status: u16::try_from(status).map_err(|error| decode(Box::new(error)))?,
        headers: serde_json::from_str(&headers).map_err(|error| decode(Box::new(error)))?,
        body: row.try_get(4)?,
        session_id: row.try_get(5)?,
    }))
}
