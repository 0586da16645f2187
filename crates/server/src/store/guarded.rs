//! A database behind a circuit breaker: when it does not answer, nobody waits for it any more.

use std::sync::Arc;

use async_trait::async_trait;

use super::{
    Append, AuditStore, CommitError, Comparison, Deleted, Deletion, DeliveryNote, DeliveryTry, Due, EndedBefore,
    EventQuery, EventStore, Found, JournalRecord, LogMark, ModeOfRoute, ReadError, Revocation, Rewrapped,
    RouteMigrationStore, RouteParity, Search, ServiceKeyChanges, ServiceKeyStore, SessionKey, SessionStore, Store,
    StoreFault, Stored, StoredEvent, StoredServiceKey, StoredWebhook, Summary, SummaryOf, SurveyError, WaitingCount,
    WaitingDelivery, WebhookChange, WebhookStore,
};
use crate::audit::{AuditBlock, AuditHead, AuditRecord, StoredAuditRecord};
use crate::breaker::{Attempt, Breaker, BreakerSettings, Kind, Open};
use crate::idempotency::{Answer, Begin, IdempotencyError, IdempotencyKey, IdempotencyStore, Ticket};
use crate::tenant::TenantId;

/// How many failures in a row say that the database is away. Each of them has waited for its own time limit.
const FAILURES: u32 = 2;

/// A store behind a circuit breaker.
#[derive(Debug)]
pub struct GuardedStore {
    store: Arc<dyn Store>,
    breaker: Breaker,
    guards: Guards,
}

/// What nobody does while the database is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guards {
    /// Anything: a server elsewhere, for which everybody would wait.
    Everything,
    /// Writing: a file of this machine, which nobody waits for. On a disk that is full it can still be read.
    Writing,
}

/// Whether the database is away, for those who would do something else then.
#[derive(Debug, Clone, Default)]
pub struct DatabaseHealth {
    breaker: Option<Breaker>,
}

impl DatabaseHealth {
    /// Whether it did not answer, or could not store anything, and is left alone until it can.
    #[must_use]
    pub fn is_away(&self) -> bool {
        self.breaker.as_ref().is_some_and(Breaker::is_open)
    }

    /// Follows it: `true` while it is away. `None` for one that nothing guards.
    #[must_use]
    pub fn watch(&self) -> Option<tokio::sync::watch::Receiver<bool>> {
        self.breaker.as_ref().map(Breaker::watch)
    }
}

impl GuardedStore {
    /// Guards `store`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, guards: Guards) -> Self {
        let probed = Arc::clone(&store);
        let settings = BreakerSettings { failures: FAILURES, ..BreakerSettings::new("database") };
        let settings = BreakerSettings { probe_limit: std::time::Duration::from_secs(1), ..settings };
        let breaker = Breaker::new(settings, move || {
            let probed = Arc::clone(&probed);
            async move { probed.ping().await.is_ok() }
        });
        Self { store, breaker, guards }
    }

    /// Whether it is away.
    #[must_use]
    pub fn health(&self) -> DatabaseHealth {
        DatabaseHealth { breaker: Some(self.breaker.clone()) }
    }
}

/// An error that may mean that the database is away.
trait Failure: Sized {
    fn fault(&self) -> Option<&StoreFault>;
    fn away(open: Open) -> Self;
}

impl Failure for CommitError {
    fn fault(&self) -> Option<&StoreFault> {
        match self {
            Self::Unavailable { fault } => Some(fault),
            Self::Conflict { .. } | Self::Overloaded { .. } | Self::Malformed { .. } => None,
        }
    }

    fn away(open: Open) -> Self {
        Self::Unavailable { fault: StoreFault::new("asking the database", open) }
    }
}

impl Failure for ReadError {
    fn fault(&self) -> Option<&StoreFault> {
        match self {
            Self::Unavailable { fault } => Some(fault),
            Self::Overloaded { .. } => None,
        }
    }

    fn away(open: Open) -> Self {
        Self::Unavailable { fault: StoreFault::new("asking the database", open) }
    }
}

impl Failure for SurveyError {
    fn fault(&self) -> Option<&StoreFault> {
        match self {
            Self::Read(error) => error.fault(),
            // The database is there, and busy with something large.
            Self::TooSlow => None,
        }
    }

    fn away(open: Open) -> Self {
        Self::Read(ReadError::away(open))
    }
}

impl Failure for IdempotencyError {
    fn fault(&self) -> Option<&StoreFault> {
        match self {
            Self::Unavailable { fault } => Some(fault),
            Self::Overloaded { .. } => None,
        }
    }

    fn away(open: Open) -> Self {
        Self::Unavailable { fault: StoreFault::new("asking the database", open) }
    }
}

impl GuardedStore {
    /// Changes something.
    async fn write<T, E: Failure>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        self.write_if_any(work, |_| true).await
    }

    /// Changes what there is to change; whether there was something, its outcome tells. What changed nothing says nothing
    /// about whether writing works.
    async fn write_if_any<T, E: Failure>(
        &self,
        work: impl Future<Output = Result<T, E>>,
        has_changed: impl FnOnce(&T) -> bool,
    ) -> Result<T, E> {
        let attempt = self.breaker.admit(Kind::Writing).map_err(E::away)?;
        let outcome = work.await;
        match &outcome {
            Ok(changed) if !has_changed(changed) => drop(attempt),
            _ => note(attempt, outcome.as_ref().err()),
        }
        outcome
    }

    /// Reads.
    async fn read<T, E: Failure>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        if self.guards == Guards::Writing {
            return work.await;
        }
        let attempt = self.breaker.admit(Kind::Looking).map_err(E::away)?;
        let outcome = work.await;
        note(attempt, outcome.as_ref().err());
        outcome
    }
}

/// Tells the breaker how it went. A refusal before it was tried says nothing.
fn note<E: Failure>(attempt: Attempt, error: Option<&E>) {
    match error.map(E::fault) {
        Some(Some(fault)) => drop(attempt.failed(fault)),
        Some(None) => drop(attempt),
        None => attempt.succeeded(),
    }
}

#[async_trait]
impl SessionStore for GuardedStore {
    async fn commit(&self, change: Append) -> Result<(), CommitError> {
        self.write(self.store.commit(change)).await
    }

    async fn load(&self, key: &SessionKey) -> Result<Option<Stored>, ReadError> {
        self.read(self.store.load(key)).await
    }

    async fn journal(&self, key: &SessionKey, after_version: u64, limit: u32) -> Result<Vec<JournalRecord>, ReadError> {
        self.read(self.store.journal(key, after_version, limit)).await
    }

    async fn versions(&self, keys: &[SessionKey]) -> Result<Vec<Option<u64>>, ReadError> {
        self.read(self.store.versions(keys)).await
    }

    async fn claim_due(&self, now_ms: i64, lease_ms: i64, limit: u32) -> Result<Vec<Due>, ReadError> {
        self.write_if_any(self.store.claim_due(now_ms, lease_ms, limit), |due| !due.is_empty()).await
    }

    async fn ended(&self, before: EndedBefore, now_ms: i64, limit: u32) -> Result<Vec<Deleted>, ReadError> {
        self.read(self.store.ended(before, now_ms, limit)).await
    }

    async fn delete(&self, deletions: Vec<Deletion>) -> Result<Vec<Deleted>, ReadError> {
        self.write_if_any(self.store.delete(deletions), |deleted| !deleted.is_empty()).await
    }

    async fn wrapped_by(
        &self,
        root_key_id: &str,
        after: Option<&SessionKey>,
        limit: u32,
    ) -> Result<Vec<(SessionKey, Stored)>, ReadError> {
        self.read(self.store.wrapped_by(root_key_id, after, limit)).await
    }

    async fn rewrap(&self, rewrapped: &[Rewrapped]) -> Result<u64, ReadError> {
        self.write_if_any(self.store.rewrap(rewrapped), |count| *count > 0).await
    }

    async fn root_keys(&self) -> Result<Vec<String>, ReadError> {
        self.read(self.store.root_keys()).await
    }

    async fn sessions_by_root_key(&self) -> Result<Vec<(String, u64)>, ReadError> {
        self.read(self.store.sessions_by_root_key()).await
    }

    async fn search(&self, search: &Search) -> Result<Vec<Found>, SurveyError> {
        self.read(self.store.search(search)).await
    }

    async fn summary(&self, of: &SummaryOf) -> Result<Summary, SurveyError> {
        self.read(self.store.summary(of)).await
    }

    async fn announce(&self, changes: &[(SessionKey, u64)]) -> Result<(), ReadError> {
        self.read(self.store.announce(changes)).await
    }

    // Although it writes: a row of a few bytes that is there already finds its place on a full disk, so that it works says
    // nothing about writing.
    async fn others_elsewhere(&self, server: &str, redis: &str) -> Result<u64, ReadError> {
        self.read(self.store.others_elsewhere(server, redis)).await
    }

    // Not guarded: whoever asks wants to know how it is now.
    async fn ping(&self) -> Result<(), ReadError> {
        self.store.ping().await
    }

    async fn close(&self) {
        self.store.close().await;
    }
}

// Only what records are written with is guarded: what is read and sealed behind everybody's back says nothing about whether
// buyers are served.
#[async_trait]
impl AuditStore for GuardedStore {
    async fn audit(&self, records: Vec<AuditRecord>) -> Result<(), ReadError> {
        self.write(self.store.audit(records)).await
    }

    async fn audit_mark(&self, settled: u64) -> Result<LogMark, ReadError> {
        self.store.audit_mark(settled).await
    }

    async fn unsealed_tenants(&self, through: u64) -> Result<Vec<String>, ReadError> {
        self.store.unsealed_tenants(through).await
    }

    async fn audit_heads(&self) -> Result<Vec<(String, AuditHead)>, ReadError> {
        self.store.audit_heads().await
    }

    async fn audited_tenants(&self) -> Result<Vec<String>, ReadError> {
        self.store.audited_tenants().await
    }

    async fn audit_head(&self, tenant: &TenantId) -> Result<Option<AuditHead>, ReadError> {
        self.store.audit_head(tenant).await
    }

    async fn audit_blocks(&self, tenant: &TenantId, after: u64, limit: u32) -> Result<Vec<AuditBlock>, ReadError> {
        self.store.audit_blocks(tenant, after, limit).await
    }

    async fn audit_records(
        &self,
        tenant: &TenantId,
        after: u64,
        through: u64,
        limit: u32,
    ) -> Result<Vec<StoredAuditRecord>, ReadError> {
        self.store.audit_records(tenant, after, through, limit).await
    }

    async fn seal_audit(&self, block: &AuditBlock, head: &AuditHead) -> Result<bool, ReadError> {
        self.store.seal_audit(block, head).await
    }
}

// As with the audit log: what passes events on works behind everybody's back.
#[async_trait]
impl EventStore for GuardedStore {
    async fn event_mark(&self, settled: u64) -> Result<LogMark, ReadError> {
        self.store.event_mark(settled).await
    }

    async fn events(&self, query: &EventQuery) -> Result<Vec<StoredEvent>, ReadError> {
        self.store.events(query).await
    }

    async fn events_forgotten(&self, tenant: &TenantId) -> Result<u64, ReadError> {
        self.store.events_forgotten(tenant).await
    }

    async fn first_event_since(&self, tenant: &TenantId, at_ms: i64) -> Result<Option<u64>, ReadError> {
        self.store.first_event_since(tenant, at_ms).await
    }

    async fn forget_events(&self, before_ms: i64, limit: u32) -> Result<u64, ReadError> {
        self.store.forget_events(before_ms, limit).await
    }
}

// Also behind everybody's back, but for what somebody asks for.
#[async_trait]
impl WebhookStore for GuardedStore {
    async fn add_webhook(&self, webhook: &StoredWebhook, audit: AuditRecord) -> Result<(), ReadError> {
        self.write(self.store.add_webhook(webhook, audit)).await
    }

    async fn webhooks(&self, tenant: Option<&TenantId>) -> Result<Vec<(StoredWebhook, WaitingCount)>, ReadError> {
        self.read(self.store.webhooks(tenant)).await
    }

    async fn change_webhook(
        &self,
        tenant: &TenantId,
        id: &str,
        change: &WebhookChange,
        audit: AuditRecord,
    ) -> Result<bool, ReadError> {
        self.write_if_any(self.store.change_webhook(tenant, id, change, audit), |is_known| *is_known).await
    }

    async fn remove_webhook(&self, tenant: &TenantId, id: &str, audit: AuditRecord) -> Result<bool, ReadError> {
        self.write_if_any(self.store.remove_webhook(tenant, id, audit), |is_known| *is_known).await
    }

    async fn lease_webhooks(&self, server: &str, now_ms: i64, until_ms: i64) -> Result<Vec<StoredWebhook>, ReadError> {
        self.store.lease_webhooks(server, now_ms, until_ms).await
    }

    async fn release_webhooks(&self, server: &str) -> Result<(), ReadError> {
        self.store.release_webhooks(server).await
    }

    async fn waiting_deliveries(
        &self,
        tenant: &TenantId,
        id: &str,
        given_up: bool,
        limit: u32,
    ) -> Result<Vec<WaitingDelivery>, ReadError> {
        self.store.waiting_deliveries(tenant, id, given_up, limit).await
    }

    async fn delivery_tries(&self, tenant: &TenantId, id: &str) -> Result<Vec<DeliveryTry>, ReadError> {
        self.store.delivery_tries(tenant, id).await
    }

    async fn note_deliveries(&self, note: &DeliveryNote) -> Result<bool, ReadError> {
        self.store.note_deliveries(note).await
    }
}

#[async_trait]
impl IdempotencyStore for GuardedStore {
    async fn begin(&self, key: IdempotencyKey, body_sha256: [u8; 32], now_ms: i64) -> Result<Begin, IdempotencyError> {
        // An answer that was given before is only looked up.
        self.write_if_any(self.store.begin(key, body_sha256, now_ms), |begun| matches!(begun, Begin::Started(_))).await
    }

    async fn finish(&self, ticket: Ticket, answer: Answer) -> Result<(), IdempotencyError> {
        self.write(self.store.finish(ticket, answer)).await
    }

    async fn abandon(&self, ticket: Ticket) -> Result<(), IdempotencyError> {
        self.write_if_any(self.store.abandon(ticket), |()| false).await
    }

    async fn sweep(&self, now_ms: i64) -> Result<u64, IdempotencyError> {
        self.write_if_any(self.store.sweep(now_ms), |dropped| *dropped > 0).await
    }
}

#[async_trait]
impl RouteMigrationStore for GuardedStore {
    async fn set_route_mode(&self, tenant: &TenantId, mode: &ModeOfRoute, audit: AuditRecord) -> Result<(), ReadError> {
        self.write(self.store.set_route_mode(tenant, mode, audit)).await
    }

    async fn route_modes(&self, tenant: &TenantId) -> Result<Vec<ModeOfRoute>, ReadError> {
        self.read(self.store.route_modes(tenant)).await
    }

    async fn add_comparison(&self, comparison: &Comparison) -> Result<(), ReadError> {
        self.write(self.store.add_comparison(comparison)).await
    }

    async fn route_parity(&self, tenant: &TenantId) -> Result<Vec<RouteParity>, ReadError> {
        self.read(self.store.route_parity(tenant)).await
    }

    async fn forget_parity(&self, tenant: &TenantId, route: Option<&str>) -> Result<(), ReadError> {
        self.write(self.store.forget_parity(tenant, route)).await
    }
}

#[async_trait]
impl ServiceKeyStore for GuardedStore {
    async fn add_service_key(&self, key: &StoredServiceKey, audit: AuditRecord) -> Result<(), ReadError> {
        self.write(self.store.add_service_key(key, audit)).await
    }

    async fn revoke_service_key(
        &self,
        tenant: &TenantId,
        id: &str,
        now_ms: i64,
        audit: AuditRecord,
    ) -> Result<Revocation, ReadError> {
        let has_changed = |revocation: &Revocation| *revocation == Revocation::Revoked;
        self.write_if_any(self.store.revoke_service_key(tenant, id, now_ms, audit), has_changed).await
    }

    async fn service_keys(&self, tenant: Option<&TenantId>) -> Result<Vec<StoredServiceKey>, ReadError> {
        self.read(self.store.service_keys(tenant)).await
    }

    async fn service_key_changes(&self, since: u64) -> Result<ServiceKeyChanges, ReadError> {
        self.read(self.store.service_key_changes(since)).await
    }

    async fn note_service_key_use(&self, id: &str, at_ms: i64) -> Result<bool, ReadError> {
        self.write_if_any(self.store.note_service_key_use(id, at_ms), |noted| *noted).await
    }
}

#[cfg(test)]
mod tests {
    use super::super::conformance::{append, session};
    use super::super::memory::MemoryStore;
    use super::*;
    use crate::problem::chain;

    /// A guarded store that can be read and takes no commits, as on a full disk. It answers probes, but none is made
    /// while a test waits for nothing.
    struct Full {
        memory: Arc<MemoryStore>,
        guarded: GuardedStore,
        key: SessionKey,
    }

    impl Full {
        /// It has one session, with this deadline.
        async fn new(guards: Guards, deadline_at_ms: Option<i64>) -> Self {
            let (memory, key) = (Arc::new(MemoryStore::default()), session("shop", "ws_1"));
            let mut created = append(&key, 0);
            created.columns.deadline_at_ms = deadline_at_ms;
            memory.commit(created).await.expect("it is not full yet");
            memory.close().await;
            Self { guarded: GuardedStore::new(memory.clone(), guards), memory, key }
        }

        async fn fail_to_write(&self) -> String {
            chain(&self.guarded.commit(append(&self.key, 1)).await.expect_err("it is full"))
        }

        fn is_away(&self) -> bool {
            self.guarded.health().is_away()
        }
    }

    #[tokio::test]
    async fn writes_that_fail_open_it_although_reads_succeed_between_them() {
        for guards in [Guards::Everything, Guards::Writing] {
            let full = Full::new(guards, None).await;
            full.guarded.load(&full.key).await.expect("it can be read");
            assert!(full.fail_to_write().await.contains("the store is closed"));
            assert!(!full.is_away(), "one failure may be an accident");
            full.guarded.load(&full.key).await.expect("it can be read");
            assert!(full.fail_to_write().await.contains("the store is closed"));
            assert!(full.is_away(), "{guards:?}");
            assert!(full.fail_to_write().await.contains("not asked"), "nobody waits for it any more");
        }
    }

    #[tokio::test]
    async fn while_it_is_open_only_a_store_that_guards_nothing_but_writing_is_read() {
        for (guards, is_read) in [(Guards::Writing, true), (Guards::Everything, false)] {
            let full = Full::new(guards, None).await;
            full.fail_to_write().await;
            full.fail_to_write().await;
            assert!(full.is_away());
            assert_eq!(full.guarded.load(&full.key).await.is_ok(), is_read, "{guards:?}");
            assert_eq!(full.guarded.versions(std::slice::from_ref(&full.key)).await.is_ok(), is_read, "{guards:?}");
            assert!(full.memory.load(&full.key).await.is_ok(), "where it is refused, the store was not asked");
        }
    }

    #[tokio::test]
    async fn a_claim_that_finds_nothing_does_not_say_that_writing_works() {
        for (deadline_at_ms, is_away) in [(None, true), (Some(1), false)] {
            let full = Full::new(Guards::Writing, deadline_at_ms).await;
            full.fail_to_write().await;
            let due = full.guarded.claim_due(1_000, 1_000, 10).await.expect("it can be claimed");
            assert_eq!(due.is_empty(), deadline_at_ms.is_none());
            full.fail_to_write().await;
            assert_eq!(full.is_away(), is_away, "{due:?}");
        }
    }
}
