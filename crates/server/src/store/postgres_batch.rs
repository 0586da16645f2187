//! What one transaction writes to PostgreSQL: the changes of many callers, in a number of statements that does not
//! depend on how many there are.
//!
//! Mostly a batch is of sessions that exist and are at the versions that their callers expect: then one statement changes all
//! of them and adds to their journals, and nothing is written if one of them is not. Everything else is written after all
//! sessions were locked; what is decided on what the locks found needs no database.
//!
//! Either way sessions are locked in the order of their keys, and before answers, so that servers that write the same ones wait
//! for each other and never for one another in a circle. Several changes of one session in a row become one.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use sqlx::postgres::{PgArguments, PgConnection, PgRow, Postgres};
use sqlx::query::Query;
use sqlx::{Row as _, query};

use super::postgres_listener;
use super::{Append, OutboxEvent, SessionKey};
use crate::audit::AuditRecord;
use crate::idempotency::{ABANDONED, Answer, Begin, Entry, IdempotencyKey, KEPT, Ticket};
use crate::tenant::TenantId;

/// What one caller wants written.
#[derive(Debug)]
pub(super) enum Work {
    Commit(Box<Append>),
    Begin { ticket: Ticket, body_sha256: [u8; 32], now_ms: i64 },
    Finish(Ticket, Answer),
    Audit(Vec<AuditRecord>),
    Abandon(Ticket),
    Probe,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Written,
    Conflict {
        current_version: u64,
    },
    Begun(Begin),
    /// Somebody else holds its session for longer than the others can wait for.
    Busy,
}

/// Why a batch was not written.
#[derive(Debug)]
pub(super) enum BatchError {
    /// Another server created one of the sessions meanwhile. The next attempt sees it.
    Overtaken,
    /// The database refused, or did not answer.
    Database(sqlx::Error),
}

impl From<sqlx::Error> for BatchError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

/// How the sessions of a batch are found to be at the versions that their callers expect, each more careful than the one
/// before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Approach {
    /// By changing them in one statement, and counting them. Where that can't be, the next one is taken.
    Expecting,
    /// By locking all of them first.
    Locking,
    /// The same without those that somebody holds. After waiting for them took too long.
    PassingBy,
}

impl Approach {
    /// Its name in traces.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Expecting => "expecting",
            Self::Locking => "locking",
            Self::PassingBy => "passingBy",
        }
    }
}

/// Writes all of it within the transaction that `connection` is in.
pub(super) async fn write(
    connection: &mut PgConnection,
    works: &[&Work],
    approach: Approach,
) -> Result<Vec<Outcome>, BatchError> {
    let expected = Plan::expecting(works).filter(|_| approach == Approach::Expecting);
    match (expected, approach) {
        (Some(plan), _) => {
            plan.write(connection).await?;
            write_answers(connection, works, plan.outcomes, |_| false).await
        }
        (None, Approach::Expecting | Approach::Locking) => write_locked(connection, works).await,
        (None, Approach::PassingBy) => {
            let held = held_by_others(connection, works).await?;
            let is_held = |work: &Work| session_of(work).is_some_and(|session| held.contains(&*session));
            let free: Vec<usize> = (0..works.len()).filter(|&index| !is_held(works[index])).collect();
            let left: Vec<&Work> = free.iter().map(|&index| works[index]).collect();
            let mut outcomes = vec![Outcome::Busy; works.len()];
            for (index, outcome) in free.into_iter().zip(write_locked(connection, &left).await?) {
                outcomes[index] = outcome;
            }
            Ok(outcomes)
        }
    }
}

/// Writes whatever it is, after all sessions are locked that it is about.
async fn write_locked(connection: &mut PgConnection, works: &[&Work]) -> Result<Vec<Outcome>, BatchError> {
    let locked = lock_sessions(connection, works).await?;
    let plan = Plan::new(works, &locked);
    plan.write(connection).await?;
    let Plan { sessions, outcomes, .. } = plan;
    let is_erased = |session: &SessionKey| {
        let written = sessions.get(session).map(|written| written.last.columns.erased);
        written.or_else(|| locked.get(session).map(|locked| locked.erased)).unwrap_or(false)
    };
    write_answers(connection, works, outcomes, is_erased).await
}

/// Writes what is not about sessions but about requests, after the sessions; what came of all.
async fn write_answers(
    connection: &mut PgConnection,
    works: &[&Work],
    mut outcomes: Vec<Outcome>,
    is_erased: impl Fn(&SessionKey) -> bool,
) -> Result<Vec<Outcome>, BatchError> {
    lock_answers(connection, works).await?;
    begin(connection, works, &mut outcomes).await?;
    finish(connection, works, is_erased).await?;
    abandon(connection, works).await?;
    audit(connection, works).await?;
    if works.iter().any(|work| matches!(work, Work::Probe)) {
        probe(connection).await?;
    }
    Ok(outcomes)
}

/// Finds out whether writing works, also of what takes room: a row that is there already finds its place on a disk that is
/// full, while a table that was emptied begins with new files. Where the user may not empty it, the row has to do.
async fn probe(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let may = query("SELECT has_table_privilege('probe', 'TRUNCATE')").fetch_one(&mut *connection).await?;
    if may.try_get(0)? {
        query("TRUNCATE probe").execute(&mut *connection).await?;
    }
    let write = "INSERT INTO probe (id, rounds) VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET rounds = probe.rounds + 1";
    query(write).execute(connection).await?;
    Ok(())
}

/// A session that existed when the transaction locked it.
#[derive(Debug, Clone, Copy)]
struct Locked {
    version: u64,
    erased: bool,
}

/// The session that is going to be changed, or that must not be erased while an answer about it is kept.
fn session_of(work: &Work) -> Option<Cow<'_, SessionKey>> {
    match work {
        Work::Commit(change) => Some(Cow::Borrowed(&change.key)),
        Work::Finish(ticket, answer) => told_of(ticket, answer).map(Cow::Owned),
        Work::Begin { .. } | Work::Abandon(_) | Work::Audit(_) | Work::Probe => None,
    }
}

/// Locks those sessions that nobody else has locked; which ones somebody has.
async fn held_by_others(connection: &mut PgConnection, works: &[&Work]) -> Result<HashSet<SessionKey>, sqlx::Error> {
    let keys: BTreeSet<Cow<'_, SessionKey>> = works.iter().filter_map(|work| session_of(work)).collect();
    let rows = query(
        "WITH wanted AS MATERIALIZED (SELECT * FROM unnest($1::text[], $2::text[]) AS key (tenant, session_id)),
         free AS MATERIALIZED (
            SELECT tenant, session_id FROM sessions JOIN wanted USING (tenant, session_id)
            ORDER BY tenant, session_id FOR UPDATE OF sessions SKIP LOCKED)
         SELECT tenant, session_id FROM sessions JOIN wanted USING (tenant, session_id)
         WHERE (tenant, session_id) NOT IN (SELECT tenant, session_id FROM free)",
    )
    .bind(keys.iter().map(|key| key.tenant.as_str()).collect::<Vec<_>>())
    .bind(keys.iter().map(|key| key.session_id.as_str()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    keys_of(&rows)
}

/// Locks the sessions that `works` are about.
async fn lock_sessions(
    connection: &mut PgConnection,
    works: &[&Work],
) -> Result<HashMap<SessionKey, Locked>, sqlx::Error> {
    let keys: BTreeSet<Cow<'_, SessionKey>> = works.iter().filter_map(|work| session_of(work)).collect();
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = query(
        "SELECT tenant, session_id, version, erased FROM sessions
         JOIN unnest($1::text[], $2::text[]) AS wanted (tenant, session_id) USING (tenant, session_id)
         ORDER BY tenant, session_id FOR UPDATE OF sessions",
    )
    .bind(keys.iter().map(|key| key.tenant.as_str()).collect::<Vec<_>>())
    .bind(keys.iter().map(|key| key.session_id.as_str()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| Ok((key_of(row)?, Locked { version: unsigned(row.try_get(2)?), erased: row.try_get(3)? })))
        .collect()
}

/// What is to be written about sessions, decided on what the locks found.
#[derive(Debug)]
struct Plan<'a> {
    /// In the order of the keys.
    sessions: BTreeMap<&'a SessionKey, Written<'a>>,
    outcomes: Vec<Outcome>,
}

/// All changes of one session, in a row.
#[derive(Debug)]
struct Written<'a> {
    expected_version: u64,
    version: u64,
    records: Vec<(u64, &'a [u8])>,
    /// Everything up to this version loses its content.
    purged_through: Option<u64>,
    announced: bool,
    audit: Vec<&'a AuditRecord>,
    events: Vec<&'a OutboxEvent>,
    last: &'a Append,
}

impl<'a> Plan<'a> {
    fn new(works: &[&'a Work], locked: &HashMap<SessionKey, Locked>) -> Self {
        let mut plan = Self { sessions: BTreeMap::new(), outcomes: Vec::with_capacity(works.len()) };
        for work in works {
            let outcome = match work {
                Work::Commit(change) => plan.add(change, locked.get(&change.key).map_or(0, |locked| locked.version)),
                _ => Outcome::Written,
            };
            plan.outcomes.push(outcome);
        }
        plan
    }

    fn add(&mut self, change: &'a Append, stored_version: u64) -> Outcome {
        let current_version = self.sessions.get(&change.key).map_or(stored_version, |written| written.version);
        if change.expected_version != current_version {
            return Outcome::Conflict { current_version };
        }
        let written = self.sessions.entry(&change.key).or_insert_with(|| Written {
            expected_version: current_version,
            version: current_version,
            records: Vec::new(),
            purged_through: None,
            announced: false,
            audit: Vec::new(),
            events: Vec::new(),
            last: change,
        });
        if change.purge_history {
            written.purged_through = Some(current_version);
            for (_, blob) in &mut written.records {
                *blob = &[];
            }
        }
        written.records.extend(change.records.iter().map(|record| (record.version, record.blob.as_slice())));
        written.version = change.new_version();
        written.announced |= change.announce;
        written.audit.extend(&change.audit);
        written.events.extend(&change.events);
        written.last = change;
        Outcome::Written
    }

    /// What is to be written if every session exists and is as its callers expect it. `None` where something has to be locked
    /// first, or can't be so.
    fn expecting(works: &[&'a Work]) -> Option<Self> {
        let mut plan = Self { sessions: BTreeMap::new(), outcomes: Vec::with_capacity(works.len()) };
        for work in works {
            let outcome = match work {
                Work::Commit(change) if change.expected_version > 0 && !change.purge_history => {
                    plan.add(change, change.expected_version)
                }
                work if session_of(work).is_some() => return None,
                _ => Outcome::Written,
            };
            if outcome != Outcome::Written {
                return None;
            }
            plan.outcomes.push(outcome);
        }
        Some(plan)
    }

    async fn write(&self, connection: &mut PgConnection) -> Result<(), BatchError> {
        if self.sessions.is_empty() {
            return Ok(());
        }
        let (created, changed): (Vec<_>, Vec<_>) =
            self.sessions.values().partition(|written| written.expected_version == 0);
        let expected_versions: Vec<i64> = changed.iter().map(|row| signed(row.expected_version)).collect();
        for (rows, statement) in [
            (created.len(), Columns(&created).bind_to(query(INSERT))),
            (changed.len(), Columns(&changed).bind_to(query(UPDATE)).bind(expected_versions)),
        ] {
            if rows == 0 {
                continue;
            }
            let written: i64 = statement.fetch_one(&mut *connection).await?.try_get(0)?;
            // Another server has created or changed one of them: nothing of it may be committed.
            if written != i64::try_from(rows).unwrap_or(i64::MAX) {
                return Err(BatchError::Overtaken);
            }
        }
        self.purge(connection).await?;
        Ok(())
    }

    async fn purge(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let purged: Vec<(&SessionKey, i64)> =
            self.sessions.iter().filter_map(|(key, written)| Some((*key, signed(written.purged_through?)))).collect();
        if purged.is_empty() {
            return Ok(());
        }
        let tenants: Vec<&str> = purged.iter().map(|(key, _)| key.tenant.as_str()).collect();
        let ids: Vec<&str> = purged.iter().map(|(key, _)| key.session_id.as_str()).collect();
        query(
            "UPDATE journal SET blob = '' FROM unnest($1::text[], $2::text[], $3::bigint[])
                AS purged (tenant, session_id, through)
             WHERE journal.tenant = purged.tenant AND journal.session_id = purged.session_id
                AND journal.version <= purged.through",
        )
        .bind(&tenants)
        .bind(&ids)
        .bind(purged.iter().map(|(_, through)| *through).collect::<Vec<_>>())
        .execute(&mut *connection)
        .await?;
        query(
            "WITH told AS MATERIALIZED (
                SELECT tenant, scope, key FROM idempotency
                JOIN unnest($1::text[], $2::text[]) AS purged (tenant, session_id) USING (tenant, session_id)
                ORDER BY tenant, scope, key FOR UPDATE OF idempotency)
             DELETE FROM idempotency USING told
             WHERE idempotency.tenant = told.tenant AND idempotency.scope = told.scope AND idempotency.key = told.key",
        )
        .bind(&tenants)
        .bind(&ids)
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// New sessions, in the order of their keys, with their journals, announced; how many of them were created.
const INSERT: &str =
    "WITH written AS (
        INSERT INTO sessions (tenant, session_id, version, state, status, step, funnel_id, funnel_version,
            created_at_ms, updated_at_ms, expires_at_ms, completed_at_ms, deadline_at_ms, erased, currency, amount_minor,
            email_digest, ended_at_ms, root_key_id, data_key, held_until_ms)
        SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bytea[], $5::text[], $6::text[], $7::text[],
            $8::text[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bool[],
            $15::text[], $16::bigint[], $17::bytea[], $18::bigint[], $23::text[], $24::bytea[], $29::bigint[])
            AS new (tenant, session_id)
        ORDER BY new.tenant COLLATE \"C\", new.session_id COLLATE \"C\"
        ON CONFLICT DO NOTHING
        RETURNING 1),
     recorded AS (
        INSERT INTO journal (tenant, session_id, version, blob)
        SELECT * FROM unnest($19::text[], $20::text[], $21::bigint[], $22::bytea[])),
     audited AS (
        INSERT INTO audit_log (tenant, position, body, mac, key_id)
        SELECT told.tenant, nextval('audit_positions'), told.body, told.mac, told.key_id
        FROM (SELECT pg_current_xact_id() AS id OFFSET 0) AS transaction,
            unnest($25::text[], $26::text[], $27::bytea[], $28::text[]) AS told (tenant, body, mac, key_id)
        WHERE transaction.id IS NOT NULL),
     told AS (
        INSERT INTO lifecycle_events (tenant, position, id, session_id, version, kind, at_ms, body)
        SELECT told.tenant, nextval('lifecycle_positions'), told.id, told.session_id, told.version, told.kind, told.at_ms,
            told.body
        FROM (SELECT pg_current_xact_id() AS id OFFSET 0) AS transaction,
            unnest($32::text[], $33::text[], $34::text[], $35::bigint[], $36::text[], $37::bigint[], $38::text[])
            AS told (tenant, id, session_id, version, kind, at_ms, body)
        WHERE transaction.id IS NOT NULL),
     announced AS (SELECT pg_notify($30, payload) FROM unnest($31::text[]) AS payload)
     SELECT (SELECT count(*) FROM written), (SELECT count(*) FROM announced)";

/// Changes of those sessions that are at the version that is expected ($39), with what all of them add to their journals, announced;
/// how many were changed.
const UPDATE: &str = "WITH written AS (
        UPDATE sessions SET version = new.version, state = new.state, status = new.status,
            step = new.step, funnel_id = new.funnel_id, funnel_version = new.funnel_version,
            created_at_ms = new.created_at_ms, updated_at_ms = new.updated_at_ms, expires_at_ms = new.expires_at_ms,
            completed_at_ms = new.completed_at_ms, deadline_at_ms = new.deadline_at_ms, erased = new.erased,
            currency = new.currency, amount_minor = new.amount_minor, email_digest = new.email_digest,
            ended_at_ms = new.ended_at_ms, claimed_until_ms = NULL,
            root_key_id = new.root_key_id, data_key = new.data_key, held_until_ms = new.held_until_ms
        FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bytea[], $5::text[], $6::text[], $7::text[],
            $8::text[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bool[],
            $15::text[], $16::bigint[], $17::bytea[], $18::bigint[], $23::text[], $24::bytea[],
            $29::bigint[], $39::bigint[])
            AS new (tenant, session_id, version, state, status, step, funnel_id, funnel_version, created_at_ms,
                updated_at_ms, expires_at_ms, completed_at_ms, deadline_at_ms, erased, currency, amount_minor,
                email_digest, ended_at_ms, root_key_id, data_key, held_until_ms, expected_version)
        WHERE sessions.tenant = new.tenant AND sessions.session_id = new.session_id
            AND sessions.version = new.expected_version
        RETURNING 1),
     recorded AS (
        INSERT INTO journal (tenant, session_id, version, blob)
        SELECT * FROM unnest($19::text[], $20::text[], $21::bigint[], $22::bytea[])),
     audited AS (
        INSERT INTO audit_log (tenant, position, body, mac, key_id)
        SELECT told.tenant, nextval('audit_positions'), told.body, told.mac, told.key_id
        FROM (SELECT pg_current_xact_id() AS id OFFSET 0) AS transaction,
            unnest($25::text[], $26::text[], $27::bytea[], $28::text[]) AS told (tenant, body, mac, key_id)
        WHERE transaction.id IS NOT NULL),
     told AS (
        INSERT INTO lifecycle_events (tenant, position, id, session_id, version, kind, at_ms, body)
        SELECT told.tenant, nextval('lifecycle_positions'), told.id, told.session_id, told.version, told.kind, told.at_ms,
            told.body
        FROM (SELECT pg_current_xact_id() AS id OFFSET 0) AS transaction,
            unnest($32::text[], $33::text[], $34::text[], $35::bigint[], $36::text[], $37::bigint[], $38::text[])
            AS told (tenant, id, session_id, version, kind, at_ms, body)
        WHERE transaction.id IS NOT NULL),
     announced AS (SELECT pg_notify($30, payload) FROM unnest($31::text[]) AS payload)
     SELECT (SELECT count(*) FROM written), (SELECT count(*) FROM announced)";

/// Rows of sessions, turned into one array for each column.
#[derive(Debug)]
struct Columns<'a>(&'a [&'a Written<'a>]);

impl<'a> Columns<'a> {
    fn bind_to(&self, query: Query<'a, Postgres, PgArguments>) -> Query<'a, Postgres, PgArguments> {
        let records = || self.0.iter().flat_map(|row| row.records.iter().map(move |record| (&row.last.key, record)));
        let audit = || self.0.iter().flat_map(|row| row.audit.iter().copied());
        let events = || self.0.iter().flat_map(|row| row.events.iter().map(move |event| (&row.last.key, *event)));
        let announced = self.0.iter().filter(|row| row.announced).map(|row| (&row.last.key, row.version));
        query
            .bind(self.column(|row| row.last.key.tenant.as_str()))
            .bind(self.column(|row| row.last.key.session_id.as_str()))
            .bind(self.column(|row| signed(row.version)))
            .bind(self.column(|row| row.last.state.as_slice()))
            .bind(self.column(|row| row.last.columns.status.as_str()))
            .bind(self.column(|row| row.last.columns.step.as_str()))
            .bind(self.column(|row| row.last.columns.funnel_id.as_str()))
            .bind(self.column(|row| row.last.columns.funnel_version.as_str()))
            .bind(self.column(|row| row.last.columns.created_at_ms))
            .bind(self.column(|row| row.last.columns.updated_at_ms))
            .bind(self.column(|row| row.last.columns.expires_at_ms))
            .bind(self.column(|row| row.last.columns.completed_at_ms))
            .bind(self.column(|row| row.last.columns.deadline_at_ms))
            .bind(self.column(|row| row.last.columns.erased))
            .bind(self.column(|row| row.last.columns.currency.as_str()))
            .bind(self.column(|row| row.last.columns.amount_minor))
            .bind(self.column(|row| row.last.columns.email_digest.as_deref()))
            .bind(self.column(|row| row.last.columns.ended_at_ms))
            // What they add to their journals.
            .bind(records().map(|(key, _)| key.tenant.as_str()).collect::<Vec<_>>())
            .bind(records().map(|(key, _)| key.session_id.as_str()).collect::<Vec<_>>())
            .bind(records().map(|(_, (version, _))| signed(*version)).collect::<Vec<_>>())
            .bind(records().map(|(_, (_, blob))| *blob).collect::<Vec<_>>())
            // Their data keys.
            .bind(self.column(|row| row.last.data_key.root_key_id.as_str()))
            .bind(self.column(|row| row.last.data_key.sealed.as_slice()))
            // What the audit log says of them.
            .bind(audit().map(|record| record.tenant.as_str()).collect::<Vec<_>>())
            .bind(audit().map(|record| record.body.as_str()).collect::<Vec<_>>())
            .bind(audit().map(|record| record.mac.as_slice()).collect::<Vec<_>>())
            .bind(audit().map(|record| record.key_id.as_str()).collect::<Vec<_>>())
            // Their holds.
            .bind(self.column(|row| row.last.columns.held_until_ms))
            .bind(postgres_listener::CHANNEL)
            .bind(postgres_listener::payloads(announced))
            // What others are told of them.
            .bind(events().map(|(key, _)| key.tenant.as_str()).collect::<Vec<_>>())
            .bind(events().map(|(_, event)| event.id.as_str()).collect::<Vec<_>>())
            .bind(events().map(|(key, _)| key.session_id.as_str()).collect::<Vec<_>>())
            .bind(events().map(|(_, event)| signed(event.version)).collect::<Vec<_>>())
            .bind(events().map(|(_, event)| event.kind.as_str()).collect::<Vec<_>>())
            .bind(events().map(|(_, event)| event.at_ms).collect::<Vec<_>>())
            .bind(events().map(|(_, event)| event.body.as_str()).collect::<Vec<_>>())
    }

    fn column<T>(&self, value: impl Fn(&'a Written<'a>) -> T) -> Vec<T> {
        self.0.iter().map(|row| value(row)).collect()
    }
}

/// Adds to the audit log what tells of no session's change.
async fn audit(connection: &mut PgConnection, works: &[&Work]) -> Result<(), sqlx::Error> {
    let records: Vec<&AuditRecord> = works
        .iter()
        .filter_map(|work| match work {
            Work::Audit(records) => Some(records),
            _ => None,
        })
        .flatten()
        .collect();
    if records.is_empty() {
        return Ok(());
    }
    query(
        "INSERT INTO audit_log (tenant, position, body, mac, key_id)
         SELECT told.tenant, nextval('audit_positions'), told.body, told.mac, told.key_id
         FROM (SELECT pg_current_xact_id() AS id OFFSET 0) AS transaction,
            unnest($1::text[], $2::text[], $3::bytea[], $4::text[]) AS told (tenant, body, mac, key_id)
         WHERE transaction.id IS NOT NULL",
    )
    .bind(records.iter().map(|record| record.tenant.as_str()).collect::<Vec<_>>())
    .bind(records.iter().map(|record| record.body.as_str()).collect::<Vec<_>>())
    .bind(records.iter().map(|record| record.mac.as_slice()).collect::<Vec<_>>())
    .bind(records.iter().map(|record| record.key_id.as_str()).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// Locks the requests that are known already, in the order of their keys, as with sessions.
async fn lock_answers(connection: &mut PgConnection, works: &[&Work]) -> Result<(), sqlx::Error> {
    let keys: BTreeSet<(&str, &str, &str)> = works
        .iter()
        .filter_map(|work| match work {
            Work::Begin { ticket, .. } | Work::Finish(ticket, _) | Work::Abandon(ticket) => Some(ticket),
            Work::Commit(_) | Work::Audit(_) | Work::Probe => None,
        })
        .map(|ticket| (ticket.key.tenant.as_str(), ticket.key.scope.as_str(), ticket.key.key.as_str()))
        .collect();
    // A single one is locked by what changes it.
    if keys.len() < 2 {
        return Ok(());
    }
    query(
        "SELECT 1 FROM idempotency
         JOIN unnest($1::text[], $2::text[], $3::text[]) AS wanted (tenant, scope, key) USING (tenant, scope, key)
         ORDER BY tenant, scope, key FOR UPDATE OF idempotency",
    )
    .bind(keys.iter().map(|key| key.0).collect::<Vec<_>>())
    .bind(keys.iter().map(|key| key.1).collect::<Vec<_>>())
    .bind(keys.iter().map(|key| key.2).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// A request that is to be claimed.
struct Claim<'a> {
    index: usize,
    ticket: &'a Ticket,
    body_sha256: &'a [u8; 32],
    now_ms: i64,
}

/// Claims requests, and says of those that are known what is known.
async fn begin(connection: &mut PgConnection, works: &[&Work], outcomes: &mut [Outcome]) -> Result<(), sqlx::Error> {
    let claims: Vec<Claim<'_>> = works
        .iter()
        .enumerate()
        .filter_map(|(index, work)| match work {
            Work::Begin { ticket, body_sha256, now_ms } => Some(Claim { index, ticket, body_sha256, now_ms: *now_ms }),
            _ => None,
        })
        .collect();
    if claims.is_empty() {
        return Ok(());
    }
    // Of several for the same request the first one gets it.
    let mut first: BTreeMap<(&str, &str, &str), &Claim<'_>> = BTreeMap::new();
    for claim in &claims {
        let IdempotencyKey { tenant, scope, key } = &claim.ticket.key;
        first.entry((tenant.as_str(), scope, key)).or_insert(claim);
    }
    let firsts: Vec<&Claim<'_>> = first.into_values().collect();
    let started = claim(connection, &firsts).await?;
    let started: BTreeSet<&[u8]> = started.iter().map(Vec::as_slice).collect();
    let (won, known): (Vec<_>, Vec<_>) =
        claims.iter().partition(|claim| started.contains(claim.ticket.attempt.as_slice()));
    for claim in won {
        outcomes[claim.index] = Outcome::Begun(Begin::Started(claim.ticket.clone()));
    }
    if known.is_empty() {
        return Ok(());
    }
    let entries = entries(connection, &known).await?;
    for claim in known {
        let entry = entries.get(&claim.ticket.key).cloned();
        // An entry that ended between the two statements: the client asks again.
        let judged = entry.and_then(|entry| entry.judge(claim.body_sha256, claim.now_ms));
        outcomes[claim.index] = Outcome::Begun(judged.unwrap_or(Begin::InProgress));
    }
    Ok(())
}

/// Takes the requests that are new or whose entry counts for nothing any more; answers the attempts that got theirs.
async fn claim(connection: &mut PgConnection, claims: &[&Claim<'_>]) -> Result<Vec<Vec<u8>>, sqlx::Error> {
    let rows = query(
        "INSERT INTO idempotency (tenant, scope, key, body_sha256, attempt, started_at_ms)
         SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::bytea[], $6::bigint[])
            AS new (tenant, scope, key)
         ORDER BY new.tenant COLLATE \"C\", new.scope COLLATE \"C\", new.key COLLATE \"C\"
         ON CONFLICT (tenant, scope, key) DO UPDATE
            SET body_sha256 = excluded.body_sha256, attempt = excluded.attempt,
                started_at_ms = excluded.started_at_ms, status = NULL, headers = NULL, body = NULL, session_id = NULL
            WHERE excluded.started_at_ms - idempotency.started_at_ms
                >= CASE WHEN idempotency.status IS NULL THEN $7::bigint ELSE $8::bigint END
         RETURNING attempt",
    )
    .bind(claims.iter().map(|claim| claim.ticket.key.tenant.as_str()).collect::<Vec<_>>())
    .bind(claims.iter().map(|claim| claim.ticket.key.scope.as_str()).collect::<Vec<_>>())
    .bind(claims.iter().map(|claim| claim.ticket.key.key.as_str()).collect::<Vec<_>>())
    .bind(claims.iter().map(|claim| claim.body_sha256.as_slice()).collect::<Vec<_>>())
    .bind(claims.iter().map(|claim| claim.ticket.attempt.as_slice()).collect::<Vec<_>>())
    .bind(claims.iter().map(|claim| claim.now_ms).collect::<Vec<_>>())
    .bind(crate::clock::millis(ABANDONED))
    .bind(crate::clock::millis(KEPT))
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

async fn entries(
    connection: &mut PgConnection,
    claims: &[&Claim<'_>],
) -> Result<HashMap<IdempotencyKey, Entry>, sqlx::Error> {
    let rows = query(
        "SELECT tenant, scope, key, body_sha256, started_at_ms, status, headers, body, session_id FROM idempotency
         WHERE (tenant, scope, key) IN (SELECT * FROM unnest($1::text[], $2::text[], $3::text[]))",
    )
    .bind(claims.iter().map(|claim| claim.ticket.key.tenant.as_str()).collect::<Vec<_>>())
    .bind(claims.iter().map(|claim| claim.ticket.key.scope.as_str()).collect::<Vec<_>>())
    .bind(claims.iter().map(|claim| claim.ticket.key.key.as_str()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let key = IdempotencyKey { tenant: tenant_of(row)?, scope: row.try_get(1)?, key: row.try_get(2)? };
            let entry = Entry { body_sha256: row.try_get(3)?, started_at_ms: row.try_get(4)?, answer: answer_of(row)? };
            Ok((key, entry))
        })
        .collect()
}

/// Keeps answers, but none that tells of an erased session.
async fn finish(
    connection: &mut PgConnection,
    works: &[&Work],
    is_erased: impl Fn(&SessionKey) -> bool,
) -> Result<(), sqlx::Error> {
    let mut kept = Vec::new();
    for work in works {
        let Work::Finish(ticket, answer) = work else { continue };
        if !told_of(ticket, answer).is_some_and(|session| is_erased(&session)) {
            let headers = serde_json::to_string(&answer.headers);
            kept.push((ticket, answer, headers.map_err(|error| sqlx::Error::Encode(Box::new(error)))?));
        }
    }
    if kept.is_empty() {
        return Ok(());
    }
    query(
        "UPDATE idempotency SET status = new.status, headers = new.headers, body = new.body,
            session_id = new.session_id
         FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::int[], $6::text[], $7::bytea[], $8::text[])
            AS new (tenant, scope, key, attempt, status, headers, body, session_id)
         WHERE idempotency.tenant = new.tenant AND idempotency.scope = new.scope AND idempotency.key = new.key
            AND idempotency.attempt = new.attempt AND idempotency.status IS NULL",
    )
    .bind(kept.iter().map(|(ticket, ..)| ticket.key.tenant.as_str()).collect::<Vec<_>>())
    .bind(kept.iter().map(|(ticket, ..)| ticket.key.scope.as_str()).collect::<Vec<_>>())
    .bind(kept.iter().map(|(ticket, ..)| ticket.key.key.as_str()).collect::<Vec<_>>())
    .bind(kept.iter().map(|(ticket, ..)| ticket.attempt.as_slice()).collect::<Vec<_>>())
    .bind(kept.iter().map(|(_, answer, _)| i32::from(answer.status)).collect::<Vec<_>>())
    .bind(kept.iter().map(|(.., headers)| headers.as_str()).collect::<Vec<_>>())
    .bind(kept.iter().map(|(_, answer, _)| answer.body.as_slice()).collect::<Vec<_>>())
    .bind(kept.iter().map(|(_, answer, _)| answer.session_id.as_deref()).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

async fn abandon(connection: &mut PgConnection, works: &[&Work]) -> Result<(), sqlx::Error> {
    let tickets: Vec<&Ticket> = works
        .iter()
        .filter_map(|work| match work {
            Work::Abandon(ticket) => Some(ticket),
            _ => None,
        })
        .collect();
    if tickets.is_empty() {
        return Ok(());
    }
    query(
        "DELETE FROM idempotency
         USING unnest($1::text[], $2::text[], $3::text[], $4::bytea[]) AS gone (tenant, scope, key, attempt)
         WHERE idempotency.tenant = gone.tenant AND idempotency.scope = gone.scope AND idempotency.key = gone.key
            AND idempotency.attempt = gone.attempt AND idempotency.status IS NULL",
    )
    .bind(tickets.iter().map(|ticket| ticket.key.tenant.as_str()).collect::<Vec<_>>())
    .bind(tickets.iter().map(|ticket| ticket.key.scope.as_str()).collect::<Vec<_>>())
    .bind(tickets.iter().map(|ticket| ticket.key.key.as_str()).collect::<Vec<_>>())
    .bind(tickets.iter().map(|ticket| ticket.attempt.as_slice()).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// The session that an answer tells of.
pub(super) fn told_of(ticket: &Ticket, answer: &Answer) -> Option<SessionKey> {
    let session_id = answer.session_id.clone()?;
    Some(SessionKey { tenant: ticket.key.tenant.clone(), session_id })
}

fn answer_of(row: &PgRow) -> Result<Option<Answer>, sqlx::Error> {
    let Some(status) = row.try_get::<Option<i32>, _>(5)? else { return Ok(None) };
    let headers: String = row.try_get(6)?;
    let decode = |error: Box<dyn std::error::Error + Send + Sync>| sqlx::Error::Decode(error);
    Ok(Some(Answer {
        status: u16::try_from(status).map_err(|error| decode(Box::new(error)))?,
        headers: serde_json::from_str(&headers).map_err(|error| decode(Box::new(error)))?,
        body: row.try_get(7)?,
        session_id: row.try_get(8)?,
    }))
}

fn keys_of(rows: &[PgRow]) -> Result<HashSet<SessionKey>, sqlx::Error> {
    rows.iter().map(key_of).collect()
}

/// The key of a session, out of the first two columns.
pub(super) fn key_of(row: &PgRow) -> Result<SessionKey, sqlx::Error> {
    Ok(SessionKey { tenant: tenant_of(row)?, session_id: row.try_get(1)? })
}

fn tenant_of(row: &PgRow) -> Result<TenantId, sqlx::Error> {
    TenantId::try_from(row.try_get::<String, _>(0)?).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

/// PostgreSQL counts in `i64`; `Append::check` keeps versions within it.
pub(super) fn signed(version: u64) -> i64 {
    i64::try_from(version).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(version: i64) -> u64 {
    u64::try_from(version).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::{append, session};

    fn commit(change: Append) -> Work {
        Work::Commit(Box::new(change))
    }

    fn at(version: u64) -> Locked {
        Locked { version, erased: false }
    }

    #[test]
    fn changes_of_one_session_in_a_row_become_one() {
        let key = session("a", "ws_1");
        let mut erasure = append(&key, 4);
        erasure.purge_history = true;
        let works = [append(&key, 3), append(&key, 3), erasure, append(&key, 5)].map(commit);
        let works: Vec<&Work> = works.iter().collect();
        let plan = Plan::new(&works, &HashMap::from([(key.clone(), at(3))]));
        let conflict = Outcome::Conflict { current_version: 4 };
        assert_eq!(plan.outcomes, [Outcome::Written, conflict, Outcome::Written, Outcome::Written]);
        let written = &plan.sessions[&key];
        assert_eq!((written.expected_version, written.version, written.purged_through), (3, 6, Some(4)));
        assert_eq!(written.records, [(4, b"".as_slice()), (5, b"event 5"), (6, b"event 6")]);
        assert_eq!(written.last.state, b"state 6");
    }

    #[test]
    fn what_has_to_be_locked_first_or_contradicts_itself_is_not_expected() {
        let keys = ["ws_1", "ws_2"].map(|id| session("a", id));
        let expected = |works: Vec<Work>| {
            let works: Vec<&Work> = works.iter().collect();
            let plan = Plan::expecting(&works)?;
            Some(plan.sessions.values().map(|row| (row.expected_version, row.version)).collect::<Vec<_>>())
        };
        let usual = || vec![append(&keys[0], 3), append(&keys[1], 7), append(&keys[0], 4)];
        let with = |change: Append| usual().into_iter().chain([change]).map(commit).collect();
        let mut works: Vec<Work> = usual().into_iter().map(commit).collect();
        works.push(Work::Probe);
        assert_eq!(expected(works), Some(vec![(3, 5), (7, 8)]));
        assert_eq!(expected(with(append(&session("a", "ws_3"), 0))), None, "it is new");
        assert_eq!(expected(with(append(&keys[1], 7))), None, "one of the two is too late");
        assert_eq!(
            expected(with(Append { purge_history: true, ..append(&keys[1], 8) })),
            None,
            "it destroys a history"
        );
    }

    #[test]
    fn what_is_stale_or_unknown_is_not_written() {
        let (stale, unknown) = (session("a", "ws_1"), session("a", "ws_2"));
        let works = [append(&stale, 1), append(&unknown, 1), append(&stale, 0)].map(commit);
        let works: Vec<&Work> = works.iter().collect();
        let plan = Plan::new(&works, &HashMap::from([(stale, at(2))]));
        let conflict = |current_version| Outcome::Conflict { current_version };
        assert_eq!(plan.outcomes, [conflict(2), conflict(0), conflict(2)]);
        assert!(plan.sessions.is_empty());
    }
}
