//! Sessions in PostgreSQL, for several servers of one database.
//!
//! A few connections write (see [`super::group_commit`]), each batch in one transaction with a number of statements that
//! does not depend on its size; `docs/decisions/0006-postgres.md` says why. All changes of a session go over the same
//! connection. The others run single statements: reads, claims and deletions.
//!
//! Nothing waits for longer than [`PostgresSettings::timeout`], also when the server is frozen or the network swallows
//! what is sent: our own clock counts, not an answer. sqlx cannot set TCP's keepalive, and nothing here needs it.

use std::hash::{DefaultHasher, Hasher as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::migrate::Migrator;
use sqlx::postgres::PgRow;
use sqlx::{Connection as _, Row as _, query};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::group_commit::{GroupCommit, GroupCommitLimits, SubmitError};
use super::migrations::{AppliedMigration, Tables, embedded};
use super::postgres_batch::{Outcome, Work, key_of, signed, told_of, unsigned};
use super::postgres_connect::Connector;
use super::postgres_pool::Pool;
use super::postgres_writer::{Job, PostgresWriter};
use super::service_keys::{COLUMNS, changes_statement, read_changes, read_key};
use super::survey::{self, Argument, Dialect, Statement};
use super::{
    Append, CommitError, Deleted, Deletion, Due, ENDED, EndedBefore, Found, JournalRecord, LogMark, OpenError,
    ROOT_KEYS, ReadError, Revocation, Rewrapped, Search, ServiceKeyChanges, ServiceKeyStore, SessionKey, SessionStore,
    StoreFault, Stored, StoredServiceKey, Summary, SummaryOf, SurveyError, USES_APART, postgres_listener,
};
use crate::audit::AuditRecord;
use crate::clock::millis;
use crate::encryption::WrappedKey;
use crate::idempotency::{Answer, Begin, IdempotencyError, IdempotencyKey, IdempotencyStore, KEPT, Ticket};
use crate::tenant::TenantId;

pub use super::postgres_connect::PostgresAddress;

/// What a refused caller is told to wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How long the first connection may take: a name that is looked up, a server that just starts.
const FIRST_CONNECTION: Duration = Duration::from_secs(5);

/// How many answers one statement of a sweep drops, so that each of them is quick.
const SWEEP_BATCH: i64 = 1_000;

/// Whether statements are kept prepared that look for rows up to a limit. They are not, so that each is planned for its
/// own limit: a plan for any limit expects a tenth of all rows, and reads whole tables.
const KEEP_PREPARED: bool = false;

/// Which database, and how it is used.
#[derive(Debug, Clone)]
pub struct PostgresSettings {
    /// Where it is.
    pub address: PostgresAddress,
    /// Connections in all; `writers` of them write.
    pub connections: usize,
    /// Connections that write.
    pub writers: usize,
    /// How long it may take to answer.
    pub timeout: Duration,
    /// Limits of the writing queue, which the writers share.
    pub group_commit: GroupCommitLimits,
    /// Whether the tables are brought up to date; otherwise outdated ones are refused.
    pub auto_migrate: bool,
}

/// A store in a PostgreSQL database.
#[derive(Debug)]
pub struct PostgresStore {
    writers: Vec<GroupCommit<Job>>,
    pub(super) pool: Pool,
    /// For what may take longer than what buyers wait for.
    surveyors: Pool,
    timeout: Duration,
    /// The latest write failed, so whether writing works has to be found out before it is promised.
    write_failed: AtomicBool,
}

/// Why something was not written.
pub(super) enum WriteError {
    /// Too much waits, or somebody else holds what was to be changed.
    Busy,
    Failed(StoreFault),
}

impl From<WriteError> for IdempotencyError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Busy => Self::Overloaded { retry_after: RETRY_AFTER },
            WriteError::Failed(fault) => Self::Unavailable { fault },
        }
    }
}

impl From<WriteError> for CommitError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Busy => Self::Overloaded { retry_after: RETRY_AFTER },
            WriteError::Failed(fault) => Self::Unavailable { fault },
        }
    }
}

impl PostgresStore {
    /// Connects, and brings the tables up to date if that is wanted.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(settings: &PostgresSettings) -> Result<Self, OpenError> {
        let PostgresSettings { address, timeout, group_commit, .. } = settings;
        if address.is_exposed() {
            tracing::warn!(database = %address, "traffic to the database can be read or changed on the way; add sslmode=verify-full to its address");
        }
        if settings.auto_migrate {
            migrate(address).await?;
        } else {
            with_tables(address, async |tables, connection| tables.check(connection).await).await?;
        }
        let unreachable = |source| OpenError::Postgres { place: address.to_string(), source };
        let count = settings.writers.max(1);
        let limits = GroupCommitLimits { queue: group_commit.queue.div_ceil(count), batch: group_commit.batch };
        let connector = Connector::with_limit(address, *timeout).in_key_order();
        let mut writers = Vec::with_capacity(count);
        for _ in 0..count {
            let connection = connector.connect(None).await.map_err(unreachable)?;
            writers.push(GroupCommit::start(PostgresWriter::new(connector.clone(), connection, *timeout), limits));
        }
        let pool = Pool::new(address, settings.connections.saturating_sub(count), *timeout).measured();
        let surveyors = Pool::new(address, survey::AT_ONCE as usize, survey::LIMIT);
        pool.warm_up().await.map_err(unreachable)?;
        Ok(Self { writers, pool, surveyors, timeout: *timeout, write_failed: AtomicBool::new(false) })
    }

    /// Write jobs and transactions so far: fewer transactions than jobs means that commits were grouped.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let counts = self.writers.iter().map(GroupCommit::counts);
        counts.fold((0, 0), |(jobs, transactions), (more, other)| (jobs + more, transactions + other))
    }

    /// The rows that answer a question about many sessions.
    async fn survey(&self, during: &'static str, statement: Statement) -> Result<Vec<PgRow>, SurveyError> {
        let ask = || {
            let asked = query(sqlx::AssertSqlSafe(statement.text.clone())).persistent(KEEP_PREPARED);
            statement.arguments.iter().fold(asked, |asked, argument| match argument {
                Argument::Text(text) => asked.bind(text.clone()),
                Argument::Number(number) => asked.bind(*number),
                Argument::Bytes(bytes) => asked.bind(bytes.clone()),
            })
        };
        let rows = self.surveyors.rows(during, ask).await;
        rows.map_err(|error| if is_too_slow(&error) { SurveyError::TooSlow } else { error.into() })
    }

    /// Hands `work` to the writer that everything about `key` goes to.
    pub(super) async fn write(&self, key: &impl std::hash::Hash, work: Work) -> Result<Outcome, WriteError> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let index = usize::try_from(hasher.finish() % self.writers.len().max(1) as u64).unwrap_or(0);
        self.write_with(index, work).await
    }

    async fn write_with(&self, index: usize, work: Work) -> Result<Outcome, WriteError> {
        const WAITING: &str = "waiting for the writer";
        let deadline = Instant::now() + self.timeout;
        let (tell, told) = oneshot::channel();
        let writer = self.writers.get(index).ok_or(WriteError::Busy)?;
        writer.submit(Job { work, deadline, tell }).map_err(|error| match error {
            SubmitError::Full => WriteError::Busy,
            SubmitError::Closed => WriteError::Failed(error.into_fault()),
        })?;
        let outcome = match timeout_at(deadline, told).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(lost)) => Err(StoreFault::new(WAITING, lost)),
            Err(late) => Err(StoreFault::new(WAITING, late)),
        };
        match outcome {
            Ok(Outcome::Busy) => Err(WriteError::Busy),
            Ok(outcome) => {
                // What wrote nothing says nothing.
                if outcome == Outcome::Written {
                    self.write_failed.store(false, Ordering::SeqCst);
                }
                Ok(outcome)
            }
            Err(fault) => {
                self.write_failed.store(true, Ordering::SeqCst);
                Err(WriteError::Failed(fault))
            }
        }
    }
}

#[async_trait]
impl SessionStore for PostgresStore {
    async fn commit(&self, change: Append) -> Result<(), CommitError> {
        change.check()?;
        let key = change.key.clone();
        match self.write(&key, Work::Commit(Box::new(change))).await? {
            Outcome::Written | Outcome::Begun(_) => Ok(()),
            Outcome::Busy => Err(WriteError::Busy.into()),
            Outcome::Conflict { current_version } => Err(CommitError::Conflict { current_version }),
        }
    }

    async fn load(&self, key: &SessionKey) -> Result<Option<Stored>, ReadError> {
        const DURING: &str = "loading a session";
        let select = || {
            query("SELECT version, state, root_key_id, data_key FROM sessions WHERE tenant = $1 AND session_id = $2")
                .bind(key.tenant.as_str())
                .bind(&key.session_id)
        };
        let rows = self.pool.rows(DURING, select).await?;
        rows.first().map(|row| stored_of(row, 0)).transpose().map_err(unreadable(DURING))
    }

    async fn journal(&self, key: &SessionKey, after_version: u64, limit: u32) -> Result<Vec<JournalRecord>, ReadError> {
        const DURING: &str = "reading a journal";
        let select = || {
            query(
                "SELECT version, blob FROM journal
                 WHERE tenant = $1 AND session_id = $2 AND version > $3 ORDER BY version LIMIT $4",
            )
            .bind(key.tenant.as_str())
            .bind(&key.session_id)
            .bind(signed(after_version))
            .bind(i64::from(limit))
        };
        let rows = self.pool.rows(DURING, select).await?;
        rows.iter()
            .map(|row| Ok(JournalRecord { version: unsigned(row.try_get(0)?), blob: row.try_get(1)? }))
            .collect::<Result<_, sqlx::Error>>()
            .map_err(unreadable(DURING))
    }

    async fn versions(&self, keys: &[SessionKey]) -> Result<Vec<Option<u64>>, ReadError> {
        const DURING: &str = "reading versions";
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let tenants: Vec<&str> = keys.iter().map(|key| key.tenant.as_str()).collect();
        let ids: Vec<&str> = keys.iter().map(|key| key.session_id.as_str()).collect();
        let select = || {
            query(
                "SELECT sessions.version
                 FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS wanted (tenant, session_id, place)
                 LEFT JOIN sessions ON sessions.tenant = wanted.tenant AND sessions.session_id = wanted.session_id
                 ORDER BY wanted.place",
            )
            .bind(&tenants)
            .bind(&ids)
        };
        let rows = self.pool.rows(DURING, select).await?;
        rows.iter()
            .map(|row| Ok(row.try_get::<Option<i64>, _>(0)?.map(unsigned)))
            .collect::<Result<_, sqlx::Error>>()
            .map_err(unreadable(DURING))
    }

    async fn claim_due(&self, now_ms: i64, lease_ms: i64, limit: u32) -> Result<Vec<Due>, ReadError> {
        const DURING: &str = "claiming due sessions";
        let update = || {
            query(
                "WITH due AS MATERIALIZED (
                    SELECT tenant, session_id FROM sessions
                    WHERE deadline_at_ms <= $1 AND (claimed_until_ms IS NULL OR claimed_until_ms <= $1)
                    ORDER BY deadline_at_ms LIMIT $3 FOR UPDATE SKIP LOCKED)
                 UPDATE sessions SET claimed_until_ms = $2 FROM due
                 WHERE sessions.tenant = due.tenant AND sessions.session_id = due.session_id
                 RETURNING sessions.tenant, sessions.session_id, sessions.deadline_at_ms",
            )
            .persistent(KEEP_PREPARED)
            .bind(now_ms)
            .bind(now_ms.saturating_add(lease_ms))
            .bind(i64::from(limit))
        };
        let rows = self.pool.rows(DURING, update).await?;
        let mut due = rows
            .iter()
            .map(|row| Ok(Due { key: key_of(row)?, deadline_at_ms: row.try_get(2)? }))
            .collect::<Result<Vec<_>, sqlx::Error>>()
            .map_err(unreadable(DURING))?;
        due.sort_by_key(|due| due.deadline_at_ms);
        Ok(due)
    }

    async fn ended(&self, before: EndedBefore, now_ms: i64, limit: u32) -> Result<Vec<Deleted>, ReadError> {
        const DURING: &str = "looking for sessions that are over";
        let select = || {
            let select = query(ENDED).persistent(KEEP_PREPARED);
            let select = before.bounds().into_iter().fold(select, |select, bound| select.bind(bound));
            select.bind(now_ms).bind(i64::from(limit))
        };
        let rows = self.pool.rows(DURING, select).await?;
        rows.iter()
            .map(|row| Ok(Deleted { key: key_of(row)?, version: unsigned(row.try_get(2)?) }))
            .collect::<Result<_, sqlx::Error>>()
            .map_err(unreadable(DURING))
    }

    async fn delete(&self, deletions: Vec<Deletion>) -> Result<Vec<Deleted>, ReadError> {
        const DURING: &str = "deleting sessions that are over";
        // In the order of the keys, as with commits; what somebody changes just now has its turn next time.
        const DELETE: &str = "WITH wanted AS MATERIALIZED (
                SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::bytea[], $6::text[], $7::text[],
                    $8::text[], $9::bigint[], $10::text[])
                    AS row (tenant, session_id, version, body, mac, key_id, event_id, kind, at_ms, told)),
             free AS MATERIALIZED (
                SELECT sessions.tenant, sessions.session_id FROM sessions
                JOIN wanted ON sessions.tenant = wanted.tenant AND sessions.session_id = wanted.session_id
                    AND sessions.version = wanted.version
                ORDER BY sessions.tenant, sessions.session_id FOR UPDATE OF sessions SKIP LOCKED),
             records AS (DELETE FROM journal USING free
                WHERE journal.tenant = free.tenant AND journal.session_id = free.session_id),
             answers AS (DELETE FROM idempotency USING free
                WHERE idempotency.tenant = free.tenant AND idempotency.session_id = free.session_id),
             audited AS (
                INSERT INTO audit_log (tenant, position, body, mac, key_id)
                SELECT wanted.tenant, nextval('audit_positions'), wanted.body, wanted.mac, wanted.key_id
                FROM (SELECT pg_current_xact_id() AS id OFFSET 0) AS transaction, wanted JOIN free USING (tenant, session_id)
                WHERE transaction.id IS NOT NULL),
             told AS (
                INSERT INTO lifecycle_events (tenant, position, id, session_id, version, kind, at_ms, body)
                SELECT wanted.tenant, nextval('lifecycle_positions'), wanted.event_id, wanted.session_id, wanted.version,
                    wanted.kind, wanted.at_ms, wanted.told
                FROM (SELECT pg_current_xact_id() AS id OFFSET 0) AS transaction, wanted JOIN free USING (tenant, session_id)
                WHERE transaction.id IS NOT NULL)
             DELETE FROM sessions USING free
                WHERE sessions.tenant = free.tenant AND sessions.session_id = free.session_id
             RETURNING sessions.tenant, sessions.session_id, sessions.version";
        let delete = || {
            query(DELETE)
                .bind(deletions.iter().map(|deletion| deletion.session.key.tenant.as_str()).collect::<Vec<_>>())
                .bind(deletions.iter().map(|deletion| deletion.session.key.session_id.as_str()).collect::<Vec<_>>())
                .bind(deletions.iter().map(|deletion| signed(deletion.session.version)).collect::<Vec<_>>())
                .bind(deletions.iter().map(|deletion| deletion.audit.body.as_str()).collect::<Vec<_>>())
                .bind(deletions.iter().map(|deletion| deletion.audit.mac.as_slice()).collect::<Vec<_>>())
                .bind(deletions.iter().map(|deletion| deletion.audit.key_id.as_str()).collect::<Vec<_>>())
                .bind(deletions.iter().map(|deletion| deletion.event.id.as_str()).collect::<Vec<_>>())
                .bind(deletions.iter().map(|deletion| deletion.event.kind.as_str()).collect::<Vec<_>>())
                .bind(deletions.iter().map(|deletion| deletion.event.at_ms).collect::<Vec<_>>())
                .bind(deletions.iter().map(|deletion| deletion.event.body.as_str()).collect::<Vec<_>>())
        };
        let rows = self.pool.rows(DURING, delete).await?;
        rows.iter()
            .map(|row| Ok(Deleted { key: key_of(row)?, version: unsigned(row.try_get(2)?) }))
            .collect::<Result<_, sqlx::Error>>()
            .map_err(unreadable(DURING))
    }

    async fn wrapped_by(
        &self,
        root_key_id: &str,
        after: Option<&SessionKey>,
        limit: u32,
    ) -> Result<Vec<(SessionKey, Stored)>, ReadError> {
        const DURING: &str = "looking for sessions under other keys";
        const SELECT: &str = "SELECT tenant, session_id, version, state, root_key_id, data_key FROM sessions
             WHERE root_key_id = $1 AND (tenant, session_id) > ($2, $3) ORDER BY tenant, session_id LIMIT $4";
        let (tenant, session_id) = after.map_or(("", ""), |after| (after.tenant.as_str(), after.session_id.as_str()));
        let select = || {
            let select = query(SELECT).persistent(KEEP_PREPARED).bind(root_key_id);
            select.bind(tenant).bind(session_id).bind(i64::from(limit))
        };
        let rows = self.pool.rows(DURING, select).await?;
        let read = |row| Ok((key_of(row)?, stored_of(row, 2)?));
        rows.iter().map(read).collect::<Result<_, _>>().map_err(unreadable(DURING))
    }

    async fn rewrap(&self, rewrapped: &[Rewrapped]) -> Result<u64, ReadError> {
        const DURING: &str = "wrapping data keys anew";
        if rewrapped.is_empty() {
            return Ok(0);
        }
        // In the order of the keys, as with commits; what is being changed just now has its turn next time.
        const UPDATE: &str = "WITH new AS MATERIALIZED (
                SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bytea[], $5::text[], $6::bytea[],
                    $7::bytea[]) AS row (tenant, session_id, version, old, root_key_id, data_key, email_digest)),
             free AS MATERIALIZED (
                SELECT sessions.tenant, sessions.session_id FROM sessions
                JOIN new ON sessions.tenant = new.tenant AND sessions.session_id = new.session_id
                    AND sessions.version = new.version AND sessions.data_key = new.old
                ORDER BY sessions.tenant, sessions.session_id FOR UPDATE OF sessions SKIP LOCKED)
             UPDATE sessions SET root_key_id = new.root_key_id, data_key = new.data_key,
                email_digest = new.email_digest
             FROM new JOIN free USING (tenant, session_id)
             WHERE sessions.tenant = new.tenant AND sessions.session_id = new.session_id
             RETURNING 1";
        let update = || {
            query(UPDATE)
                .bind(rewrapped.iter().map(|row| row.key.tenant.as_str()).collect::<Vec<_>>())
                .bind(rewrapped.iter().map(|row| row.key.session_id.as_str()).collect::<Vec<_>>())
                .bind(rewrapped.iter().map(|row| signed(row.version)).collect::<Vec<_>>())
                .bind(rewrapped.iter().map(|row| row.old.sealed.as_slice()).collect::<Vec<_>>())
                .bind(rewrapped.iter().map(|row| row.new.root_key_id.as_str()).collect::<Vec<_>>())
                .bind(rewrapped.iter().map(|row| row.new.sealed.as_slice()).collect::<Vec<_>>())
                .bind(rewrapped.iter().map(|row| row.email_digest.as_deref()).collect::<Vec<_>>())
        };
        Ok(self.pool.rows(DURING, update).await?.len() as u64)
    }

    async fn root_keys(&self) -> Result<Vec<String>, ReadError> {
        const DURING: &str = "looking for the keys of sessions";
        let rows = self.pool.rows(DURING, || query(ROOT_KEYS)).await?;
        rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(unreadable(DURING))
    }

    async fn sessions_by_root_key(&self) -> Result<Vec<(String, u64)>, ReadError> {
        const DURING: &str = "counting sessions by key";
        const SELECT: &str = "SELECT root_key_id, count(*) FROM sessions GROUP BY root_key_id ORDER BY root_key_id";
        // It may take longer than what buyers wait for.
        let rows = self.surveyors.rows(DURING, || query(SELECT)).await?;
        let read = |row: &PgRow| Ok((row.try_get(0)?, unsigned(row.try_get(1)?)));
        rows.iter().map(read).collect::<Result<_, _>>().map_err(unreadable(DURING))
    }

    async fn search(&self, search: &Search) -> Result<Vec<Found>, SurveyError> {
        const DURING: &str = "searching sessions";
        let rows = self.survey(DURING, Statement::search(search, Dialect::Postgres)).await?;
        survey::found!(rows).map_err(|error| unreadable(DURING)(error).into())
    }

    async fn summary(&self, of: &SummaryOf) -> Result<Summary, SurveyError> {
        const DURING: &str = "summing up sessions";
        let rows = self.survey(DURING, Statement::summary(of, Dialect::Postgres)).await?;
        survey::summed!(rows).map_err(|error| unreadable(DURING)(error).into())
    }

    async fn announce(&self, changes: &[(SessionKey, u64)]) -> Result<(), ReadError> {
        let payloads = postgres_listener::payloads(changes.iter().map(|(key, version)| (key, *version)));
        if payloads.is_empty() {
            return Ok(());
        }
        let notify = || postgres_listener::notify(payloads.clone());
        self.pool.rows("announcing changes", notify).await.map(drop)
    }

    async fn others_elsewhere(&self, server: &str, redis: &str) -> Result<u64, ReadError> {
        const DURING: &str = "looking for other servers";
        // Who has not been here for five seconds has ended, or reaches the database no more than it reaches us.
        const MEET: &str = "WITH own AS (
                INSERT INTO servers (id, redis, seen_at) VALUES ($1, $2, now())
                ON CONFLICT (id) DO UPDATE SET redis = excluded.redis, seen_at = excluded.seen_at),
             gone AS (DELETE FROM servers WHERE seen_at < now() - interval '1 hour')
             SELECT count(*) FROM servers
             WHERE id <> $1 AND redis <> $2 AND redis <> '' AND seen_at > now() - interval '5 seconds'";
        let meet = || query(MEET).bind(server).bind(redis);
        let rows = self.pool.rows(DURING, meet).await?;
        let others = rows.first().map_or(Ok(0), |row| row.try_get::<i64, _>(0).map(unsigned));
        others.map_err(unreadable(DURING))
    }

    async fn ping(&self) -> Result<(), ReadError> {
        let select = || query("SELECT 1 FROM sessions LIMIT 1");
        self.pool.rows("asking the database whether it is there", select).await?;
        if self.write_failed.load(Ordering::SeqCst) {
            let probes = (0..self.writers.len()).map(|index| self.write_with(index, Work::Probe));
            futures_util::future::try_join_all(probes).await.map_err(IdempotencyError::from)?;
        }
        Ok(())
    }

    async fn close(&self) {
        for writer in &self.writers {
            writer.close().await;
        }
        self.pool.close().await;
        self.surveyors.close().await;
    }
}

#[async_trait]
impl IdempotencyStore for PostgresStore {
    async fn begin(&self, key: IdempotencyKey, body_sha256: [u8; 32], now_ms: i64) -> Result<Begin, IdempotencyError> {
        let mut attempt = [0_u8; 16];
        getrandom::fill(&mut attempt).map_err(|error| IdempotencyError::Unavailable {
            fault: StoreFault::new("drawing a random number", error),
        })?;
        let work = Work::Begin { ticket: Ticket { key: key.clone(), attempt }, body_sha256, now_ms };
        match self.write(&key, work).await? {
            Outcome::Begun(begin) => Ok(begin),
            Outcome::Written | Outcome::Conflict { .. } => Ok(Begin::InProgress),
            Outcome::Busy => Err(WriteError::Busy.into()),
        }
    }

    async fn finish(&self, ticket: Ticket, answer: Answer) -> Result<(), IdempotencyError> {
        // Over the same connection as the session's changes: they would only wait for each other.
        let outcome = match told_of(&ticket, &answer) {
            Some(session) => self.write(&session, Work::Finish(ticket, answer)).await?,
            None => self.write(&ticket.key.clone(), Work::Finish(ticket, answer)).await?,
        };
        debug_assert_eq!(outcome, Outcome::Written);
        Ok(())
    }

    async fn abandon(&self, ticket: Ticket) -> Result<(), IdempotencyError> {
        self.write(&ticket.key.clone(), Work::Abandon(ticket)).await?;
        Ok(())
    }

    async fn sweep(&self, now_ms: i64) -> Result<u64, IdempotencyError> {
        let before_ms = now_ms.saturating_sub(crate::clock::millis(KEPT));
        let delete = || {
            query(
                "WITH old AS MATERIALIZED (
                    SELECT tenant, scope, key FROM idempotency WHERE started_at_ms <= $1
                    ORDER BY started_at_ms LIMIT $2 FOR UPDATE SKIP LOCKED)
                 DELETE FROM idempotency USING old
                 WHERE idempotency.tenant = old.tenant AND idempotency.scope = old.scope AND idempotency.key = old.key
                 RETURNING 1",
            )
            .persistent(KEEP_PREPARED)
            .bind(before_ms)
            .bind(SWEEP_BATCH)
        };
        let mut dropped = 0;
        loop {
            let rows = self.pool.rows("dropping old answers", delete).await;
            let rows = rows.map_err(|error| match error {
                ReadError::Unavailable { fault } => IdempotencyError::Unavailable { fault },
                ReadError::Overloaded { retry_after } => IdempotencyError::Overloaded { retry_after },
            })?;
            dropped += rows.len() as u64;
            if (rows.len() as u64) < SWEEP_BATCH.unsigned_abs() {
                return Ok(dropped);
            }
        }
    }
}

impl PostgresStore {
    /// How far the log is whose latest position `position` asks for, where it is whole up to `settled`.
    pub(super) async fn log_mark(
        &self,
        during: &'static str,
        position: &'static str,
        settled: u64,
    ) -> Result<LogMark, ReadError> {
        let silent = || ReadError::Unavailable { fault: StoreFault::new(during, "it gave no answer") };
        let rows = self.pool.rows(during, || query(position)).await?;
        let position = rows.first().ok_or_else(silent)?.try_get(0).map(unsigned).map_err(unreadable(during))?;
        if position == settled {
            return Ok(LogMark { position, next_transaction: 0, oldest_transaction: 0 });
        }
        // Only now: who has taken a position up to this one got its transaction id before, so it is a smaller one. What a
        // snapshot calls its end says less: it is one more than the latest transaction that is over, and others may be under way
        // that began after that one.
        let transactions = || {
            query("SELECT pg_current_xact_id()::text::bigint, pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
        };
        let rows = self.pool.rows(during, transactions).await?;
        let row = rows.first().ok_or_else(silent)?;
        let read = || {
            let (next, oldest) = (row.try_get(0)?, row.try_get(1)?);
            let (next_transaction, oldest_transaction) = (unsigned(next), unsigned(oldest));
            Ok::<_, sqlx::Error>(LogMark { position, next_transaction, oldest_transaction })
        };
        read().map_err(unreadable(during))
    }
}

#[async_trait]
impl ServiceKeyStore for PostgresStore {
    async fn add_service_key(&self, key: &StoredServiceKey, audit: AuditRecord) -> Result<(), ReadError> {
        const DURING: &str = "adding a service key";
        // Counting first takes the lock, so that changes become visible in the order of their numbers.
        // That gives the transaction its id as well, before it takes a position in the audit log.
        const INSERT: &str = "WITH step AS (UPDATE service_key_changes SET version = version + 1 RETURNING version),
             added AS (
                INSERT INTO service_keys (id, tenant, name, sha256, scopes, created_at_ms, created_by, expires_at_ms,
                    revoked_at_ms, last_used_at_ms, changed)
                SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, step.version FROM step
                ON CONFLICT (id) DO UPDATE SET id = excluded.id WHERE service_keys.sha256 = excluded.sha256
                RETURNING changed),
             audited AS (
                INSERT INTO audit_log (tenant, position, body, mac, key_id)
                SELECT $11, nextval('audit_positions'), $12, $13, $14
                FROM added JOIN step ON added.changed = step.version)
             SELECT 1 FROM added";
        let insert = || {
            query(INSERT)
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
                .bind(audit.tenant.as_str())
                .bind(&audit.body)
                .bind(audit.mac.as_slice())
                .bind(&audit.key_id)
        };
        if self.pool.rows(DURING, insert).await?.is_empty() {
            let fault = StoreFault::new(DURING, "another key has the same name; make a new one");
            return Err(ReadError::Unavailable { fault });
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
        const DURING: &str = "revoking a service key";
        const REVOKE: &str = "WITH found AS (
                SELECT revoked_at_ms FROM service_keys WHERE id = $1 AND tenant = $2),
             step AS (
                UPDATE service_key_changes SET version = version + 1
                WHERE EXISTS (SELECT 1 FROM found WHERE revoked_at_ms IS NULL) RETURNING version),
             revoked AS (
                UPDATE service_keys SET revoked_at_ms = $3, changed = step.version FROM step
                WHERE service_keys.id = $1 AND service_keys.revoked_at_ms IS NULL RETURNING 1),
             audited AS (
                INSERT INTO audit_log (tenant, position, body, mac, key_id)
                SELECT $4, nextval('audit_positions'), $5, $6, $7 FROM revoked)
             SELECT EXISTS (SELECT 1 FROM found), EXISTS (SELECT 1 FROM revoked)";
        let revoke = || {
            query(REVOKE)
                .bind(id)
                .bind(tenant.as_str())
                .bind(now_ms)
                .bind(audit.tenant.as_str())
                .bind(&audit.body)
                .bind(audit.mac.as_slice())
                .bind(&audit.key_id)
        };
        let rows = self.pool.rows(DURING, revoke).await?;
        let read = |row: &PgRow| Ok((row.try_get(0)?, row.try_get(1)?));
        match rows.first().map_or(Ok((false, false)), read).map_err(unreadable(DURING))? {
            (false, _) => Ok(Revocation::Unknown),
            (true, true) => Ok(Revocation::Revoked),
            (true, false) => Ok(Revocation::WasRevoked),
        }
    }

    async fn service_keys(&self, tenant: Option<&TenantId>) -> Result<Vec<StoredServiceKey>, ReadError> {
        const DURING: &str = "listing service keys";
        let select = format!(
            "SELECT {COLUMNS} FROM service_keys WHERE $1::text IS NULL OR tenant = $1 ORDER BY created_at_ms, id"
        );
        let select = || query(sqlx::AssertSqlSafe(select.clone())).bind(tenant.map(TenantId::as_str));
        let rows = self.pool.rows(DURING, select).await?;
        rows.iter().map(|row| read_key!(row)).collect::<Result<_, _>>().map_err(unreadable(DURING))
    }

    async fn service_key_changes(&self, since: u64) -> Result<ServiceKeyChanges, ReadError> {
        const DURING: &str = "looking for changes of service keys";
        let select = || query(sqlx::AssertSqlSafe(changes_statement())).bind(signed(since));
        let rows = self.pool.rows(DURING, select).await?;
        read_changes!(rows, unsigned).map_err(unreadable(DURING))
    }

    async fn note_service_key_use(&self, id: &str, at_ms: i64) -> Result<bool, ReadError> {
        const UPDATE: &str = "UPDATE service_keys SET last_used_at_ms = $2
             WHERE id = $1 AND (last_used_at_ms IS NULL OR last_used_at_ms <= $2 - $3::bigint) RETURNING 1";
        let update = || query(UPDATE).bind(id).bind(at_ms).bind(millis(USES_APART));
        Ok(!self.pool.rows("writing down that a service key was used", update).await?.is_empty())
    }
}

/// Brings the database's tables up to date.
pub(super) async fn migrate(address: &PostgresAddress) -> Result<Vec<AppliedMigration>, OpenError> {
    with_tables(address, async |tables, connection| tables.migrate(connection).await).await
}

/// Does something about the tables on a connection of its own: it may take longer than statements usually may, and with
/// its end a lock is gone that an error has left behind.
async fn with_tables<T>(
    address: &PostgresAddress,
    act: impl AsyncFnOnce(&Tables, &mut sqlx::PgConnection) -> Result<T, super::MigrationError>,
) -> Result<T, OpenError> {
    let connector = Connector::without_limit(address, FIRST_CONNECTION);
    let unreachable = |source| OpenError::Postgres { place: address.to_string(), source };
    let mut connection = connector.connect(None).await.map_err(unreachable)?;
    let done = act(&Tables::new(connector.address(), migrations()), &mut connection).await?;
    connection.close().await.map_err(|error| unreachable(StoreFault::new("closing a connection", error)))?;
    Ok(done)
}

/// The migrations, compiled in: the binary needs no files beside it.
pub(super) fn migrations() -> Migrator {
    embedded(&[
        (1, "sessions", include_str!("../../migrations/postgres/0001_sessions.sql")),
        (2, "idempotency", include_str!("../../migrations/postgres/0002_idempotency.sql")),
        (3, "probe", include_str!("../../migrations/postgres/0003_probe.sql")),
        (4, "listing", include_str!("../../migrations/postgres/0004_listing.sql")),
        (5, "order of creation", include_str!("../../migrations/postgres/0005_order_of_creation.sql")),
        (6, "servers", include_str!("../../migrations/postgres/0006_servers.sql")),
        (7, "data keys", include_str!("../../migrations/postgres/0007_data_keys.sql")),
        (8, "audit", include_str!("../../migrations/postgres/0008_audit.sql")),
        (9, "service keys", include_str!("../../migrations/postgres/0009_service_keys.sql")),
        (10, "holds", include_str!("../../migrations/postgres/0010_holds.sql")),
        (11, "route migration", include_str!("../../migrations/postgres/0011_route_migration.sql")),
        (12, "lifecycle events", include_str!("../../migrations/postgres/0012_lifecycle_events.sql")),
        (13, "webhooks", include_str!("../../migrations/postgres/0013_webhooks.sql")),
    ])
}

/// A session out of its version, state, root key and data key, which stand from column `first` on.
fn stored_of(row: &PgRow, first: usize) -> Result<Stored, sqlx::Error> {
    let data_key = WrappedKey { root_key_id: row.try_get(first + 2)?, sealed: row.try_get(first + 3)? };
    Ok(Stored { version: unsigned(row.try_get(first)?), state: row.try_get(first + 1)?, data_key })
}

/// Whether PostgreSQL has given up on a statement because of its time limit, and is fine otherwise.
fn is_too_slow(error: &ReadError) -> bool {
    let ReadError::Unavailable { fault } = error else { return false };
    let cause = fault.cause().downcast_ref();
    matches!(cause, Some(sqlx::Error::Database(database)) if database.code().as_deref() == Some("57014"))
}

pub(super) fn unreadable(during: &'static str) -> impl FnOnce(sqlx::Error) -> ReadError {
    move |error| ReadError::Unavailable { fault: StoreFault::new(during, error) }
}

#[cfg(test)]
#[path = "postgres_tests.rs"]
mod tests;
