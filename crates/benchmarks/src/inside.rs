//! What happens inside the process, without HTTP: reads from memory, and commands to the database.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use hdrhistogram::Histogram;
use sqlx::Connection as _;
use throughline_core::sync::{Request, ServerFrame};
use throughline_core::{Caller, ClientId, Command, Durability, Role};
use throughline_server::clock::SystemClock;
use throughline_server::funnels::FunnelLibrary;
use throughline_server::keys::KeyRing;
use throughline_server::sessions::{SessionLimits, Sessions, Tiers};
use throughline_server::shared_cache::{SharedCache, SharedCacheSettings};
use throughline_server::store::group_commit::GroupCommitLimits;
use throughline_server::store::memory::MemoryStore;
use throughline_server::store::{self, ChangeListener, DatabaseSettings, DatabaseUrl, SessionKey};
use throughline_server::tenant::TenantId;
use tokio_util::task::TaskTracker;

/// What came of commands.
#[derive(Debug)]
pub struct Commands {
    /// Accepted ones, each second.
    pub per_second: f64,
    /// How long each took, in nanoseconds.
    pub latencies: Histogram<u64>,
}

fn hosted(tiers: Tiers) -> Result<Arc<Sessions>> {
    let funnels = Arc::new(FunnelLibrary::load(None)?);
    let limits = SessionLimits::default();
    Ok(Arc::new(Sessions::new(tiers, limits, funnels, Arc::new(SystemClock), TaskTracker::new())))
}

fn key(id: &str) -> SessionKey {
    SessionKey { tenant: TenantId::single(), session_id: id.to_owned() }
}

fn request(client: &str, seq: u64, command: Command) -> Result<Request> {
    Ok(Request::new(ClientId::new(client).map_err(|_| anyhow!("not an id"))?, Some(seq), Ok(command)))
}

fn email(number: u64) -> Command {
    Command::SetEmail { email: format!("ada-{number}@example.com") }
}

/// A session that is in memory, read again and again by one task; latencies in nanoseconds.
pub async fn memory_reads(count: u64) -> Result<Histogram<u64>> {
    let sessions = hosted(Tiers::single(Arc::new(MemoryStore::default()), KeyRing::generate()?))?;
    let key = key("ws_1_benchmark");
    let create = request("benchmark", 1, Command::Create(Box::default()))?;
    sessions.execute(&key, Role::Service, &Caller::default(), vec![create]).await?;
    let mut latencies = Histogram::new_with_bounds(1, 1_000_000_000, 3)?;
    for _ in 0..count {
        let asked = Instant::now();
        let current = sessions.current(&key).await?;
        let took = asked.elapsed();
        current.context("the session is gone")?;
        latencies.record(took.as_nanos() as u64)?;
    }
    Ok(latencies)
}

/// Who else uses the database, and how they hear of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others<'a> {
    /// Nobody does.
    Nobody,
    /// PostgreSQL tells them.
    Notified,
    /// The Redis at this address tells them, and holds relaxed commands.
    Shared(&'a str),
}

/// Commands of so many clients, each with a session of its own, on PostgreSQL.
pub async fn commands(
    database: &str,
    others: Others<'_>,
    durability: Durability,
    clients: usize,
    duration: Duration,
) -> Result<Commands> {
    let store = store::open(&DatabaseSettings {
        url: database.parse()?,
        read_connections: 4,
        connections: 8,
        writers: 2,
        timeout: Duration::from_secs(5),
        group_commit: GroupCommitLimits::default(),
        auto_migrate: true,
    })
    .await?;
    let mut tiers = Tiers::single(Arc::clone(&store), KeyRing::generate()?);
    let (mut told, mut notified) = (None, None);
    if let Others::Shared(url) = others {
        let (cache, events) = SharedCache::open(SharedCacheSettings::new(url)).await?;
        tiers.cache = Some(cache);
        told = Some(events);
    }
    if let (Others::Notified, DatabaseUrl::Postgres(address)) = (others, database.parse()?) {
        tiers.announcements = Some(Arc::default());
        notified = Some(ChangeListener::start(&address, 4096));
    }
    let sessions = hosted(tiers)?;
    if let Some(events) = told {
        let sessions = Arc::clone(&sessions);
        tokio::spawn(async move { sessions.listen_to_cache(events).await });
    }
    if let Some((listener, events)) = notified {
        let sessions = Arc::clone(&sessions);
        tokio::spawn(async move {
            let _listener = listener;
            sessions.listen_to_database(events).await;
        });
    }
    let flushing = Arc::clone(&sessions);
    let flusher = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(250)).await;
            flushing.flush();
        }
    });
    // Sessions of each round are its own: a command that is sent again is answered from what is known.
    static ROUND: AtomicU64 = AtomicU64::new(0);
    let round = ROUND.fetch_add(1, Ordering::Relaxed);
    let started = Instant::now();
    let mut tasks = Vec::new();
    for number in 0..clients {
        let sessions = Arc::clone(&sessions);
        tasks.push(tokio::spawn(async move {
            let key = key(&format!("ws_{round}_{number}"));
            let client = format!("client-{number}");
            sessions
                .execute(
                    &key,
                    Role::Service,
                    &Caller::default(),
                    vec![request(&client, 1, Command::Create(Box::default()))?],
                )
                .await?;
            let mut latencies = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3)?;
            let mut seq = 1;
            while started.elapsed() < duration {
                seq += 1;
                let request = Request { durability: Some(durability), ..request(&client, seq, email(seq))? };
                let asked = Instant::now();
                let executed = sessions.execute(&key, Role::Service, &Caller::default(), vec![request]).await?;
                latencies.record(asked.elapsed().as_nanos() as u64)?;
                if !matches!(executed.answers[0], ServerFrame::Accepted { repeated: false, .. }) {
                    return Err(anyhow!("{:?}", executed.answers));
                }
            }
            Ok(latencies)
        }));
    }
    let mut latencies = Histogram::new_with_bounds(1, 60_000_000_000, 3)?;
    for task in tasks {
        latencies.add(task.await??)?;
    }
    let per_second = latencies.len() as f64 / started.elapsed().as_secs_f64();
    sessions.flush_all(Duration::from_secs(30)).await;
    flusher.abort();
    store.close().await;
    Ok(Commands { per_second, latencies })
}

/// The usual way: each command is a transaction of its own, on a connection of its own. The same tables in spirit, the same
/// amount of bytes, and nothing decided.
pub async fn one_transaction_for_each(database: &str, clients: usize, duration: Duration) -> Result<f64> {
    let mut connection = sqlx::PgConnection::connect(database).await?;
    for statement in [
        "DROP TABLE IF EXISTS peer_sessions, peer_journal",
        "CREATE TABLE peer_sessions (id TEXT PRIMARY KEY, version BIGINT NOT NULL, state BYTEA NOT NULL)",
        "CREATE TABLE peer_journal (id TEXT, version BIGINT, record BYTEA NOT NULL, PRIMARY KEY (id, version))",
    ] {
        sqlx::query(statement).execute(&mut connection).await?;
    }
    let started = Instant::now();
    let mut tasks = Vec::new();
    for number in 0..clients {
        let database = database.to_owned();
        tasks.push(tokio::spawn(async move {
            let mut connection = sqlx::PgConnection::connect(&database).await?;
            let (id, state, record) = (format!("ws_{number}"), vec![b'x'; 1500], vec![b'y'; 300]);
            sqlx::query("INSERT INTO peer_sessions VALUES ($1, 0, $2)")
                .bind(&id)
                .bind(&state)
                .execute(&mut connection)
                .await?;
            let (mut version, mut done) = (0_i64, 0_u64);
            while started.elapsed() < duration {
                let mut transaction = connection.begin().await?;
                sqlx::query("SELECT version FROM peer_sessions WHERE id = $1 FOR UPDATE")
                    .bind(&id)
                    .fetch_one(&mut *transaction)
                    .await?;
                version += 1;
                sqlx::query("INSERT INTO peer_journal VALUES ($1, $2, $3)")
                    .bind(&id)
                    .bind(version)
                    .bind(&record)
                    .execute(&mut *transaction)
                    .await?;
                sqlx::query("UPDATE peer_sessions SET version = $2, state = $3 WHERE id = $1")
                    .bind(&id)
                    .bind(version)
                    .bind(&state)
                    .execute(&mut *transaction)
                    .await?;
                transaction.commit().await?;
                done += 1;
            }
            Ok::<_, anyhow::Error>(done)
        }));
    }
    let mut done = 0;
    for task in tasks {
        done += task.await??;
    }
    Ok(done as f64 / started.elapsed().as_secs_f64())
}
