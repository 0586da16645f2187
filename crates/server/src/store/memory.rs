//! Sessions in this process's memory. For tests: everything is gone when it ends.

use std::collections::btree_map::Entry as Place;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::memory_webhooks::Webhook;
use super::route_migration::{EXAMPLES, MAX_FIELDS, MAX_FIELDS_OF_ROUTE, MAX_ROUTES, assembled};
use super::{
    Append, AuditStore, CommitError, Comparison, Deleted, Deletion, Due, EndedBefore, EventQuery, EventStore,
    FieldParity, Found, Group, JournalRecord, Lifetimes, LogMark, ModeOfRoute, OTHERS, Operational, OutboxEvent,
    Position, ReadError, Revocation, Rewrapped, RouteMigrationStore, RouteParity, Search, ServiceKeyChanges,
    ServiceKeyStore, SessionKey, SessionStore, StoreFault, Stored, StoredEvent, StoredServiceKey, Summary, SummaryOf,
    SurveyError, USES_APART,
};
use crate::audit::{AuditBlock, AuditHead, AuditRecord, StoredAuditRecord};
use crate::clock::millis;
use crate::idempotency::{Answer, Begin, Entry, IdempotencyError, IdempotencyKey, IdempotencyStore, KEPT, Ticket};
use crate::tenant::TenantId;

/// A store in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
pub(super) struct Tables {
    sessions: HashMap<SessionKey, Session>,
    answers: HashMap<IdempotencyKey, Claimed>,
    audit: Vec<(TenantId, StoredAuditRecord)>,
    blocks: Vec<AuditBlock>,
    heads: BTreeMap<TenantId, AuditHead>,
    events: Vec<(TenantId, StoredEvent)>,
    /// The latest position that was given to an event.
    events_told: u64,
    events_forgotten: HashMap<TenantId, u64>,
    /// In the order in which they were made, each with the number of its latest change.
    service_keys: Vec<(StoredServiceKey, u64)>,
    service_key_changes: u64,
    route_modes: BTreeMap<(TenantId, String), ModeOfRoute>,
    route_parity: BTreeMap<(TenantId, String), RouteParity>,
    pub(super) webhooks: Vec<Webhook>,
    closed: bool,
}

#[derive(Debug)]
struct Session {
    stored: Stored,
    columns: Operational,
    claimed_until_ms: Option<i64>,
    journal: Vec<JournalRecord>,
}

#[derive(Debug)]
struct Claimed {
    body_sha256: [u8; 32],
    attempt: [u8; 16],
    started_at_ms: i64,
    answer: Option<Answer>,
}

impl Claimed {
    fn tells_of(&self, key: &IdempotencyKey, session: &SessionKey) -> bool {
        let answer = self.answer.as_ref();
        key.tenant == session.tenant
            && answer.is_some_and(|answer| answer.session_id.as_ref() == Some(&session.session_id))
    }
}

impl MemoryStore {
    pub(super) fn tables(&self) -> MutexGuard<'_, Tables> {
        // Each method checks before it changes anything, so that a panic leaves whole rows.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    pub(super) fn audit(&mut self, records: Vec<AuditRecord>) {
        for AuditRecord { tenant, body, mac, key_id } in records {
            let position = self.audit.len() as u64 + 1;
            self.audit.push((tenant, StoredAuditRecord { position, body, mac: mac.to_vec(), key_id }));
        }
    }

    fn tell(&mut self, key: &SessionKey, events: Vec<OutboxEvent>) {
        for event in events {
            self.events_told += 1;
            let stored = StoredEvent { position: self.events_told, session_id: key.session_id.clone(), event };
            self.events.push((key.tenant.clone(), stored));
        }
    }

    fn holds(&self, ticket: &Ticket) -> bool {
        self.answers
            .get(&ticket.key)
            .is_some_and(|claimed| claimed.attempt == ticket.attempt && claimed.answer.is_none())
    }

    fn finish(&mut self, ticket: &Ticket, answer: Answer) {
        let is_erased = answer.session_id.as_ref().is_some_and(|session_id| {
            let key = SessionKey { tenant: ticket.key.tenant.clone(), session_id: session_id.clone() };
            self.sessions.get(&key).is_some_and(|session| session.columns.erased)
        });
        if !is_erased
            && self.holds(ticket)
            && let Some(claimed) = self.answers.get_mut(&ticket.key)
        {
            claimed.answer = Some(answer);
        }
    }
}

#[async_trait]
impl AuditStore for MemoryStore {
    async fn audit(&self, records: Vec<AuditRecord>) -> Result<(), ReadError> {
        self.tables().audit(records);
        Ok(())
    }

    async fn audit_mark(&self, _: u64) -> Result<LogMark, ReadError> {
        let position = self.tables().audit.len() as u64;
        Ok(LogMark { position, next_transaction: 0, oldest_transaction: 0 })
    }

    async fn unsealed_tenants(&self, through: u64) -> Result<Vec<String>, ReadError> {
        let tables = self.tables();
        let is_unsealed = |tenant: &TenantId, record: &StoredAuditRecord| {
            let sealed = tables.heads.get(tenant).map_or(0, |head| head.through);
            sealed < record.position && record.position <= through
        };
        let unsealed = tables.audit.iter().filter(|(tenant, record)| is_unsealed(tenant, record));
        let tenants: BTreeSet<&TenantId> = unsealed.map(|(tenant, _)| tenant).collect();
        Ok(tenants.into_iter().map(ToString::to_string).collect())
    }

    async fn audit_heads(&self) -> Result<Vec<(String, AuditHead)>, ReadError> {
        let tables = self.tables();
        Ok(tables.heads.iter().map(|(tenant, head)| (tenant.to_string(), head.clone())).collect())
    }

    async fn audited_tenants(&self) -> Result<Vec<String>, ReadError> {
        let tables = self.tables();
        let logged = tables.audit.iter().map(|(tenant, _)| tenant);
        let tenants: BTreeSet<&TenantId> = logged.chain(tables.heads.keys()).collect();
        Ok(tenants.into_iter().map(ToString::to_string).collect())
    }

    async fn audit_head(&self, tenant: &TenantId) -> Result<Option<AuditHead>, ReadError> {
        Ok(self.tables().heads.get(tenant).cloned())
    }

    async fn audit_blocks(&self, tenant: &TenantId, after: u64, limit: u32) -> Result<Vec<AuditBlock>, ReadError> {
        let tables = self.tables();
        let later = tables.blocks.iter().filter(|block| block.tenant == *tenant && block.sequence > after);
        Ok(later.take(limit as usize).cloned().collect())
    }

    async fn audit_records(
        &self,
        tenant: &TenantId,
        after: u64,
        through: u64,
        limit: u32,
    ) -> Result<Vec<StoredAuditRecord>, ReadError> {
        let tables = self.tables();
        let own = tables.audit.iter().filter(|(owner, _)| owner == tenant).map(|(_, record)| record);
        let wanted = own.filter(|record| after < record.position && record.position <= through);
        Ok(wanted.take(limit as usize).cloned().collect())
    }

    async fn seal_audit(&self, block: &AuditBlock, head: &AuditHead) -> Result<bool, ReadError> {
        let mut tables = self.tables();
        let latest = tables.heads.get(&head.tenant).map_or(0, |head| head.sequence);
        let is_next = latest + 1 == block.sequence;
        if is_next {
            tables.blocks.push(block.clone());
            tables.heads.insert(head.tenant.clone(), head.clone());
        }
        Ok(is_next)
    }
}

#[async_trait]
impl EventStore for MemoryStore {
    async fn event_mark(&self, _: u64) -> Result<LogMark, ReadError> {
        let position = self.tables().events_told;
        Ok(LogMark { position, next_transaction: 0, oldest_transaction: 0 })
    }

    async fn events(&self, query: &EventQuery) -> Result<Vec<StoredEvent>, ReadError> {
        let EventQuery { tenant, after, through, kinds, limit } = query;
        let is_wanted = |event: &StoredEvent| {
            let is_of_kind = kinds.is_empty() || kinds.contains(&event.event.kind);
            *after < event.position && event.position <= *through && is_of_kind
        };
        let tables = self.tables();
        let own = tables.events.iter().filter(|(owner, _)| owner == tenant).map(|(_, event)| event);
        Ok(own.filter(|event| is_wanted(event)).take(*limit as usize).cloned().collect())
    }

    async fn events_forgotten(&self, tenant: &TenantId) -> Result<u64, ReadError> {
        Ok(self.tables().events_forgotten.get(tenant).copied().unwrap_or_default())
    }

    async fn first_event_since(&self, tenant: &TenantId, at_ms: i64) -> Result<Option<u64>, ReadError> {
        let tables = self.tables();
        let is_later = |(owner, event): &&(TenantId, StoredEvent)| owner == tenant && event.event.at_ms >= at_ms;
        Ok(tables.events.iter().find(is_later).map(|(_, event)| event.position))
    }

    async fn forget_events(&self, before_ms: i64, limit: u32) -> Result<u64, ReadError> {
        let mut tables = self.tables();
        let Tables { events, events_forgotten, .. } = &mut *tables;
        let mut forgotten: HashMap<TenantId, Vec<u64>> = HashMap::new();
        let mut kept: BTreeSet<&TenantId> = BTreeSet::new();
        for (tenant, event) in events.iter() {
            let positions = forgotten.entry(tenant.clone()).or_default();
            if event.event.at_ms >= before_ms || positions.len() >= limit as usize {
                kept.insert(tenant);
            } else if !kept.contains(tenant) {
                positions.push(event.position);
            }
        }
        events.retain(|(tenant, event)| !forgotten.get(tenant).is_some_and(|gone| gone.contains(&event.position)));
        let count = forgotten.values().map(Vec::len).sum::<usize>();
        events_forgotten.extend(forgotten.into_iter().filter_map(|(tenant, gone)| Some((tenant, *gone.last()?))));
        Ok(count as u64)
    }
}

#[async_trait]
impl SessionStore for MemoryStore {
    async fn commit(&self, change: Append) -> Result<(), CommitError> {
        change.check()?;
        let mut tables = self.tables();
        if tables.closed {
            let fault = StoreFault::new("committing a change", "the store is closed");
            return Err(CommitError::Unavailable { fault });
        }
        let current_version = tables.sessions.get(&change.key).map_or(0, |session| session.stored.version);
        if current_version != change.expected_version {
            return Err(CommitError::Conflict { current_version });
        }
        let version = change.new_version();
        let stored = Stored { version, state: change.state, data_key: *change.data_key };
        if change.purge_history {
            tables.answers.retain(|key, claimed| !claimed.tells_of(key, &change.key));
        }
        let columns = change.columns;
        let key = change.key;
        let session = tables.sessions.entry(key.clone()).or_insert_with(|| Session {
            stored: stored.clone(),
            columns: columns.clone(),
            claimed_until_ms: None,
            journal: Vec::new(),
        });
        session.stored = stored;
        session.columns = columns;
        session.claimed_until_ms = None;
        if change.purge_history {
            for record in &mut session.journal {
                record.blob = Vec::new();
            }
        }
        session.journal.extend(change.records);
        tables.audit(change.audit);
        tables.tell(&key, change.events);
        Ok(())
    }

    async fn load(&self, key: &SessionKey) -> Result<Option<Stored>, ReadError> {
        Ok(self.tables().sessions.get(key).map(|session| session.stored.clone()))
    }

    async fn journal(&self, key: &SessionKey, after_version: u64, limit: u32) -> Result<Vec<JournalRecord>, ReadError> {
        let tables = self.tables();
        let Some(session) = tables.sessions.get(key) else { return Ok(Vec::new()) };
        let later = session.journal.iter().filter(|record| record.version > after_version);
        Ok(later.take(limit as usize).cloned().collect())
    }

    async fn versions(&self, keys: &[SessionKey]) -> Result<Vec<Option<u64>>, ReadError> {
        let tables = self.tables();
        Ok(keys.iter().map(|key| tables.sessions.get(key).map(|session| session.stored.version)).collect())
    }

    async fn claim_due(&self, now_ms: i64, lease_ms: i64, limit: u32) -> Result<Vec<Due>, ReadError> {
        let mut tables = self.tables();
        let is_free = |session: &Session| session.claimed_until_ms.is_none_or(|until_ms| until_ms <= now_ms);
        let mut due: Vec<Due> = tables
            .sessions
            .iter()
            .filter(|(_, session)| is_free(session))
            .filter_map(|(key, session)| {
                let deadline_at_ms = session.columns.deadline_at_ms.filter(|at_ms| *at_ms <= now_ms)?;
                Some(Due { key: key.clone(), deadline_at_ms })
            })
            .collect();
        due.sort_by_key(|due| due.deadline_at_ms);
        due.truncate(limit as usize);
        for claimed in &due {
            if let Some(session) = tables.sessions.get_mut(&claimed.key) {
                session.claimed_until_ms = Some(now_ms.saturating_add(lease_ms));
            }
        }
        Ok(due)
    }

    async fn ended(&self, before: EndedBefore, now_ms: i64, limit: u32) -> Result<Vec<Deleted>, ReadError> {
        let [_, completed, failed, expired] = before.bounds();
        let tables = self.tables();
        let is_over = |columns: &Operational| {
            let before_ms = match columns.status.as_str() {
                "completed" => completed,
                "failed" => failed,
                _ => expired,
            };
            let is_held = columns.held_until_ms.is_some_and(|until_ms| until_ms > now_ms);
            columns.ended_at_ms.filter(|ended_at_ms| *ended_at_ms < before_ms && !is_held)
        };
        let mut ended: Vec<(i64, Deleted)> = tables
            .sessions
            .iter()
            .filter_map(|(key, session)| {
                let deleted = Deleted { key: key.clone(), version: session.stored.version };
                Some((is_over(&session.columns)?, deleted))
            })
            .collect();
        ended.sort_by_key(|(ended_at_ms, _)| *ended_at_ms);
        ended.truncate(limit as usize);
        Ok(ended.into_iter().map(|(_, deleted)| deleted).collect())
    }

    async fn delete(&self, deletions: Vec<Deletion>) -> Result<Vec<Deleted>, ReadError> {
        let mut tables = self.tables();
        let mut gone = Vec::with_capacity(deletions.len());
        for Deletion { session, audit, event } in deletions {
            let is_unchanged = |known: &Session| known.stored.version == session.version;
            if !tables.sessions.get(&session.key).is_some_and(is_unchanged) {
                continue;
            }
            tables.answers.retain(|request, claimed| !claimed.tells_of(request, &session.key));
            tables.sessions.remove(&session.key);
            tables.audit(vec![audit]);
            tables.tell(&session.key, vec![event]);
            gone.push(session);
        }
        Ok(gone)
    }

    async fn wrapped_by(
        &self,
        root_key_id: &str,
        after: Option<&SessionKey>,
        limit: u32,
    ) -> Result<Vec<(SessionKey, Stored)>, ReadError> {
        let tables = self.tables();
        let is_wrapped = |(key, session): &(&SessionKey, &Session)| {
            session.stored.data_key.root_key_id == root_key_id && after.is_none_or(|after| *key > after)
        };
        let mut wrapped: Vec<_> = tables.sessions.iter().filter(is_wrapped).collect();
        wrapped.sort_by_key(|(key, _)| *key);
        wrapped.truncate(limit as usize);
        Ok(wrapped.into_iter().map(|(key, session)| (key.clone(), session.stored.clone())).collect())
    }

    async fn rewrap(&self, rewrapped: &[Rewrapped]) -> Result<u64, ReadError> {
        let mut tables = self.tables();
        let mut count = 0;
        for Rewrapped { key, version, old, new, email_digest } in rewrapped {
            let session = tables.sessions.get_mut(key);
            let is_same =
                |session: &&mut Session| session.stored.version == *version && session.stored.data_key == *old;
            if let Some(session) = session.filter(is_same) {
                session.stored.data_key = new.clone();
                session.columns.email_digest.clone_from(email_digest);
                count += 1;
            }
        }
        Ok(count)
    }

    async fn root_keys(&self) -> Result<Vec<String>, ReadError> {
        Ok(self.sessions_by_root_key().await?.into_iter().map(|(id, _)| id).collect())
    }

    async fn sessions_by_root_key(&self) -> Result<Vec<(String, u64)>, ReadError> {
        let mut counts = std::collections::BTreeMap::new();
        for session in self.tables().sessions.values() {
            *counts.entry(session.stored.data_key.root_key_id.clone()).or_insert(0) += 1;
        }
        Ok(counts.into_iter().collect())
    }

    async fn search(&self, search: &Search) -> Result<Vec<Found>, SurveyError> {
        let tables = self.tables();
        let mut found: Vec<Found> = tables
            .sessions
            .iter()
            .filter(|(key, _)| key.tenant == search.tenant)
            .filter_map(|(key, session)| {
                let created_at_ms = session.columns.created_at_ms;
                let position = Position { created_at_ms, session_id: key.session_id.clone() };
                let is_wanted = search.wants(&position, &session.columns);
                is_wanted.then(|| Found { position, stored: session.stored.clone() })
            })
            .collect();
        found.sort_by(|one, other| {
            let (one, other) = (&one.position, &other.position);
            (other.created_at_ms, &one.session_id).cmp(&(one.created_at_ms, &other.session_id))
        });
        found.truncate(search.limit as usize);
        Ok(found)
    }

    async fn summary(&self, of: &SummaryOf) -> Result<Summary, SurveyError> {
        let tables = self.tables();
        let (mut summary, mut lifetimes) = (Summary::default(), Vec::new());
        let created = of.created_from_ms..of.created_before_ms;
        for (_, Session { columns, .. }) in tables.sessions.iter().filter(|(key, _)| key.tenant == of.tenant) {
            let is_of_funnel = of.funnel_id.as_ref().is_none_or(|funnel| *funnel == columns.funnel_id);
            if !is_of_funnel || !created.contains(&columns.created_at_ms) {
                continue;
            }
            let kind = Group {
                status: columns.status.clone(),
                step: columns.step.clone(),
                funnel_id: columns.funnel_id.clone(),
                funnel_version: columns.funnel_version.clone(),
                currency: columns.currency.clone(),
                erased: columns.erased,
                sessions: 1,
                amount_minor: columns.amount_minor,
            };
            let is_same = |group: &Group| {
                let counted = (group.sessions, group.amount_minor);
                *group == Group { sessions: counted.0, amount_minor: counted.1, ..kind.clone() }
            };
            match summary.groups.iter_mut().find(|group| is_same(group)) {
                Some(group) => {
                    group.sessions += 1;
                    group.amount_minor = group.amount_minor.saturating_add(columns.amount_minor);
                }
                None => summary.groups.push(kind),
            }
            let ended_at_ms = match columns.status.as_str() {
                _ if columns.erased => None,
                "completed" => columns.completed_at_ms,
                "expired" => Some(columns.expires_at_ms),
                _ => None,
            };
            lifetimes.extend(ended_at_ms.map(|ended_at_ms| ended_at_ms.saturating_sub(columns.created_at_ms)));
        }
        summary.lifetimes = Lifetimes::of(lifetimes);
        Ok(summary)
    }

    async fn ping(&self) -> Result<(), ReadError> {
        Ok(())
    }

    async fn close(&self) {
        self.tables().closed = true;
    }
}

#[async_trait]
impl IdempotencyStore for MemoryStore {
    async fn begin(&self, key: IdempotencyKey, body_sha256: [u8; 32], now_ms: i64) -> Result<Begin, IdempotencyError> {
        let mut attempt = [0_u8; 16];
        getrandom::fill(&mut attempt).map_err(|error| IdempotencyError::Unavailable {
            fault: StoreFault::new("drawing a random number", error),
        })?;
        let mut tables = self.tables();
        if let Some(claimed) = tables.answers.get(&key) {
            let entry = Entry {
                body_sha256: claimed.body_sha256.to_vec(),
                started_at_ms: claimed.started_at_ms,
                answer: claimed.answer.clone(),
            };
            if let Some(known) = entry.judge(&body_sha256, now_ms) {
                return Ok(known);
            }
        }
        let claimed = Claimed { body_sha256, attempt, started_at_ms: now_ms, answer: None };
        tables.answers.insert(key.clone(), claimed);
        Ok(Begin::Started(Ticket { key, attempt }))
    }

    async fn finish(&self, ticket: Ticket, answer: Answer) -> Result<(), IdempotencyError> {
        self.tables().finish(&ticket, answer);
        Ok(())
    }

    async fn abandon(&self, ticket: Ticket) -> Result<(), IdempotencyError> {
        let mut tables = self.tables();
        if tables.holds(&ticket) {
            tables.answers.remove(&ticket.key);
        }
        Ok(())
    }

    async fn sweep(&self, now_ms: i64) -> Result<u64, IdempotencyError> {
        let before_ms = now_ms.saturating_sub(millis(KEPT));
        Ok(self.drop_answers(|_, claimed| claimed.started_at_ms <= before_ms))
    }
}

#[async_trait]
impl RouteMigrationStore for MemoryStore {
    async fn set_route_mode(&self, tenant: &TenantId, mode: &ModeOfRoute, audit: AuditRecord) -> Result<(), ReadError> {
        let mut tables = self.tables();
        let place = tables.route_modes.entry((tenant.clone(), mode.route.clone()));
        let is_so = matches!(&place, Place::Occupied(known) if known.get().mode == mode.mode);
        if !is_so {
            place.insert_entry(mode.clone());
            tables.audit(vec![audit]);
        }
        Ok(())
    }

    async fn route_modes(&self, tenant: &TenantId) -> Result<Vec<ModeOfRoute>, ReadError> {
        let tables = self.tables();
        Ok(tables.route_modes.iter().filter(|((of, _), _)| of == tenant).map(|(_, mode)| mode.clone()).collect())
    }

    async fn add_comparison(&self, comparison: &Comparison) -> Result<(), ReadError> {
        let mut tables = self.tables();
        let Comparison { tenant, mut route, counts, differences, at_ms } = comparison.clone();
        let bound = |most: i64| usize::try_from(most).unwrap_or(usize::MAX);
        let of_tenant = || tables.route_parity.iter().filter(|((of, _), _)| *of == tenant);
        if !tables.route_parity.contains_key(&(tenant.clone(), route.clone()))
            && of_tenant().count() >= bound(MAX_ROUTES)
        {
            route = OTHERS.to_owned();
        }
        let fields_of_others: usize =
            of_tenant().filter(|((_, of), _)| *of != route).map(|(_, parity)| parity.fields.len()).sum();
        let parity = tables.route_parity.entry((tenant, route.clone())).or_insert_with(|| RouteParity {
            route,
            since_ms: at_ms,
            ..RouteParity::default()
        });
        parity.counts.equal += counts.equal;
        parity.counts.different += counts.different;
        parity.counts.legacy_failed += counts.legacy_failed;
        parity.counts.unified_failed += counts.unified_failed;
        for mut difference in differences {
            let place_of = |fields: &[FieldParity], name: &str| fields.iter().position(|field| field.field == name);
            let has_room = parity.fields.len() < bound(MAX_FIELDS_OF_ROUTE)
                && fields_of_others + parity.fields.len() < bound(MAX_FIELDS);
            if !has_room && place_of(&parity.fields, &difference.field).is_none() {
                difference.field = OTHERS.to_owned();
            }
            let known = place_of(&parity.fields, &difference.field);
            let place = known.unwrap_or_else(|| {
                let (field, first_at_ms) = (difference.field.clone(), difference.at_ms);
                parity.fields.push(FieldParity { field, first_at_ms, ..FieldParity::default() });
                parity.fields.len() - 1
            });
            let Some(field) = parity.fields.get_mut(place) else { continue };
            field.times += 1;
            field.last_at_ms = difference.at_ms;
            field.examples.insert(0, difference);
            field.examples.truncate(usize::try_from(EXAMPLES).unwrap_or(usize::MAX));
        }
        Ok(())
    }

    async fn route_parity(&self, tenant: &TenantId) -> Result<Vec<RouteParity>, ReadError> {
        let tables = self.tables();
        let of_tenant = tables.route_parity.iter().filter(|((of, _), _)| of == tenant);
        Ok(assembled(of_tenant.map(|(_, parity)| parity.clone()).collect(), Vec::new(), Vec::new()))
    }

    async fn forget_parity(&self, tenant: &TenantId, route: Option<&str>) -> Result<(), ReadError> {
        self.tables().route_parity.retain(|(of, name), _| of != tenant || route.is_some_and(|route| route != name));
        Ok(())
    }
}

#[async_trait]
impl ServiceKeyStore for MemoryStore {
    async fn add_service_key(&self, key: &StoredServiceKey, audit: AuditRecord) -> Result<(), ReadError> {
        let mut tables = self.tables();
        if !tables.service_keys.iter().any(|(known, _)| known.id == key.id) {
            tables.service_key_changes += 1;
            let changed = tables.service_key_changes;
            tables.service_keys.push((key.clone(), changed));
            tables.audit(vec![audit]);
        }
        Ok(())
    }

    async fn revoke_service_key(
        &self,
        tenant: &TenantId,
        id: &str,
        now_ms: i64,
        audit: AuditRecord,
    ) -> Result<Revocation, ReadError> {
        let mut tables = self.tables();
        let next = tables.service_key_changes + 1;
        let is_it = |key: &StoredServiceKey| key.id == id && *tenant == key.tenant;
        let Some((key, changed)) = tables.service_keys.iter_mut().find(|(key, _)| is_it(key)) else {
            return Ok(Revocation::Unknown);
        };
        if key.revoked_at_ms.is_some() {
            return Ok(Revocation::WasRevoked);
        }
        (key.revoked_at_ms, *changed) = (Some(now_ms), next);
        tables.service_key_changes = next;
        tables.audit(vec![audit]);
        Ok(Revocation::Revoked)
    }

    async fn service_keys(&self, tenant: Option<&TenantId>) -> Result<Vec<StoredServiceKey>, ReadError> {
        let tables = self.tables();
        let keys = tables.service_keys.iter().map(|(key, _)| key);
        Ok(keys.filter(|key| tenant.is_none_or(|tenant| *tenant == key.tenant)).cloned().collect())
    }

    async fn service_key_changes(&self, since: u64) -> Result<ServiceKeyChanges, ReadError> {
        let tables = self.tables();
        let changed = tables.service_keys.iter().filter(|(_, changed)| *changed > since);
        let keys = changed.map(|(key, _)| key.clone()).collect();
        Ok(ServiceKeyChanges { version: tables.service_key_changes, keys })
    }

    async fn note_service_key_use(&self, id: &str, at_ms: i64) -> Result<bool, ReadError> {
        let mut tables = self.tables();
        let is_due = |key: &StoredServiceKey| {
            key.id == id && key.last_used_at_ms.is_none_or(|last_ms| at_ms - last_ms >= millis(USES_APART))
        };
        let Some((key, _)) = tables.service_keys.iter_mut().find(|(key, _)| is_due(key)) else { return Ok(false) };
        key.last_used_at_ms = Some(at_ms);
        Ok(true)
    }
}

impl Lifetimes {
    fn of(mut lifetimes: Vec<i64>) -> Option<Self> {
        lifetimes.sort_unstable();
        let sessions = lifetimes.len();
        let (low, high) = (lifetimes.get(sessions.checked_sub(1)? / 2)?, lifetimes.get(sessions / 2)?);
        let average_ms = lifetimes.iter().sum::<i64>() as f64 / sessions as f64;
        Some(Self { sessions: sessions as u64, average_ms, median_ms: (low + high) as f64 / 2.0 })
    }
}

impl MemoryStore {
    fn drop_answers(&self, dropped: impl Fn(&IdempotencyKey, &Claimed) -> bool) -> u64 {
        let mut tables = self.tables();
        let before = tables.answers.len();
        tables.answers.retain(|key, claimed| !dropped(key, claimed));
        (before - tables.answers.len()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn fresh() -> (MemoryStore, ()) {
        (MemoryStore::default(), ())
    }

    crate::store::conformance::suite!(fresh);
}
