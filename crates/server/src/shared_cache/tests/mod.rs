//! Against real Redis servers, which each test starts for itself.

mod cluster;
mod corrupt;
mod link;
mod outage;
mod semantics;

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use throughline_core::StateMark;
use throughline_test_services::redis::{Redis, RedisCluster};
use tokio::sync::mpsc;

use super::{
    CacheEvent, CacheFault, Loaded, PARTITIONS, Partition, Settle, Settled, Share, Shared, SharedCache,
    SharedCacheSettings, SharedSession, Vacancy,
};
use crate::store::SessionKey;

/// Beyond what a floating point number holds exactly.
const EPOCH: u64 = u64::MAX - 1;

const LONG: Duration = Duration::from_secs(10);

/// What the tests talk to behind the cache's back.
enum Servers {
    Alone(Redis),
    Cluster(RedisCluster),
}

impl Servers {
    fn url(&self) -> String {
        match self {
            Self::Alone(redis) => redis.url(),
            Self::Cluster(cluster) => cluster.url(),
        }
    }

    /// Sends a command to whoever has the key in it.
    fn command(&self, words: &[&str]) -> String {
        let nodes = match self {
            Self::Alone(redis) => std::slice::from_ref(redis),
            Self::Cluster(cluster) => cluster.nodes(),
        };
        let mut answers = nodes.iter().map(|node| node.command(words));
        let answer = answers.find(|answer| !answer.as_ref().is_err_and(|error| error.to_string().contains("MOVED")));
        answer.expect("a node has the key").expect("Redis takes the command")
    }

    fn flush_all(&self) {
        let nodes = match self {
            Self::Alone(redis) => std::slice::from_ref(redis),
            Self::Cluster(cluster) => cluster.nodes(),
        };
        for node in nodes {
            node.command(&["FLUSHALL"]).expect("Redis is emptied");
        }
    }
}

/// Two server processes on one Redis.
struct Pair {
    servers: Servers,
    one: Member,
    two: Member,
}

struct Member {
    cache: Arc<SharedCache>,
    events: mpsc::Receiver<CacheEvent>,
}

impl std::ops::Deref for Member {
    type Target = SharedCache;

    fn deref(&self) -> &SharedCache {
        &self.cache
    }
}

impl Member {
    async fn open(settings: SharedCacheSettings) -> Self {
        let (cache, events) = SharedCache::open(settings).await.expect("the settings are sound");
        Self { cache, events }
    }

    /// The next message, whatever else happens before it.
    async fn message(&mut self) -> (SessionKey, Bytes) {
        loop {
            let event = tokio::time::timeout(LONG, self.events.recv()).await.expect("a message arrives in time");
            if let CacheEvent::Message { key, payload } = event.expect("the cache is there") {
                return (key, payload);
            }
        }
    }

    async fn linked(&self) {
        until("all links are up", || Partition::all().all(|partition| self.link_of(partition).up)).await;
    }

    async fn session(&self, key: &SessionKey) -> SharedSession {
        match self.load(key).await.expect("Redis answers") {
            Loaded::Session(session) => session,
            other => panic!("{key:?} is {other:?}"),
        }
    }

    /// Puts a session there: a durable state, and changes accepted after it, one for each version.
    async fn lay(&self, key: &SessionKey, durable_version: u64, entries: &[&str]) {
        assert_eq!(self.settle(settle(key, durable_version)).await.expect("Redis answers"), Settled::Taken);
        for (version, entry) in (durable_version..).zip(entries) {
            assert_eq!(self.share(share(key, version, entry)).await.expect("Redis answers"), Shared::Taken);
        }
    }

    async fn vacancy(&self, key: &SessionKey) -> Vacancy {
        // So that there is a counter. What empties Redis is in the tests that want that.
        self.publish(key, b"hello").await.expect("Redis answers");
        match self.load(key).await.expect("Redis answers") {
            Loaded::Nothing(vacancy) | Loaded::Floor { vacancy, .. } => vacancy,
            Loaded::Session(session) => panic!("{key:?} is {session:?}"),
        }
    }
}

impl Pair {
    async fn on(servers: Servers) -> Self {
        // Generous: what is tested here is the meaning, on a machine that may be busy.
        let settings = || SharedCacheSettings { operation_limit: LONG, ..SharedCacheSettings::new(&servers.url()) };
        let (one, two) = (Member::open(settings()).await, Member::open(settings()).await);
        one.linked().await;
        two.linked().await;
        Self { servers, one, two }
    }

    /// Empties Redis, and waits until both noticed.
    async fn flush_all(&self) {
        let generations =
            || Partition::all().flat_map(|which| [&self.one, &self.two].map(|member| member.link_of(which)));
        let before: Vec<_> = generations().collect();
        self.servers.flush_all();
        until("both noticed the loss", || {
            generations().zip(&before).all(|(now, before)| now.up && now.generation > before.generation)
        })
        .await;
    }

    async fn alone() -> Self {
        Self::on(Servers::Alone(Redis::start().expect("Redis starts"))).await
    }
}

/// Looks until something is so.
async fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !happened() {
        assert!(Instant::now() < deadline, "gave up waiting until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn key(session_id: &str) -> SessionKey {
    SessionKey { tenant: "shop".parse().expect("a tenant's name"), session_id: session_id.to_owned() }
}

/// The key that Redis has for a session.
fn redis_key(key: &SessionKey) -> String {
    super::Names::new("throughline").session(key)
}

/// The state that the tests have at this version.
fn mark(version: u64) -> StateMark {
    StateMark { version, tag: version + (1 << 60) }
}

/// A change that leads to the next version.
fn share(key: &SessionKey, expected_version: u64, entry: &str) -> Share {
    Share {
        key: key.clone(),
        epoch: EPOCH,
        expected: mark(expected_version),
        reached: mark(expected_version + 1),
        entry: Bytes::copy_from_slice(entry.as_bytes()),
        message: Bytes::from(format!("shared on {expected_version}")),
    }
}

fn settle(key: &SessionKey, version: u64) -> Settle {
    Settle {
        key: key.clone(),
        epoch: EPOCH,
        reached: mark(version),
        snapshot: Bytes::from(format!("state {version}")),
        message: Bytes::from(format!("settled {version}")),
    }
}

fn tail(session: &SharedSession) -> Vec<(u64, &str)> {
    session.tail.iter().map(|entry| (entry.version, std::str::from_utf8(&entry.blob).expect("text"))).collect()
}

/// Collects what is logged by this thread, and with it by the runtime of the test.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn collect(&self) -> tracing::subscriber::DefaultGuard {
        let log = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_writer(move || log.clone())
            .finish();
        tracing::subscriber::set_default(subscriber)
    }

    fn lines_with(&self, part: &str) -> Vec<String> {
        let log = self.0.lock().expect("nobody panicked");
        let text = String::from_utf8_lossy(&log).into_owned();
        text.lines().filter(|line| line.contains(part)).map(str::to_owned).collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("nobody panicked").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
