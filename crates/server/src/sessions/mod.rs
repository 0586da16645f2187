//! Sessions while they are in use: each is hosted by one [`Authority`](throughline_core::sync::Authority), whose effects
//! are carried out here.
//!
//! What is hosted is this process's memory tier. Below it are the tier that all servers share, where there is one, and the
//! database. `hosted.rs` holds one session, `residents.rs` all of them within their bytes, `freshness.rs` tells whether
//! they can still be believed, `flushing.rs` keeps what is ahead of the database, `shared_tier.rs` talks to the shared
//! tier, `overview.rs` tells of many of them, `rewrapping.rs` follows the key ring, and `upkeep.rs` does what nobody asks for.
//! `importing.rs` writes down sessions that come from elsewhere, without hosting them.

pub(crate) mod exporting;
mod flushing;
mod freshness;
mod hosted;
pub(crate) mod importing;
mod measures;
mod overview;
mod recently_written;
mod residents;
mod rewrapping;
mod shared_tier;
mod stored;
#[cfg(test)]
mod tests;
mod unerased;
mod upkeep;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use throughline_core::sync::{Credential, Hello, JoinRefused, PeerId, Request, ServerFrame};
use throughline_core::{Caller, Record, Role, State};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use self::flushing::Backlog;
pub use self::freshness::Announcements;
use self::freshness::{Links, Stamp};
use self::hosted::Hosted;
use self::measures::{Measures, Reason};
pub use self::overview::{Listed, MemoryStatistics};
use self::recently_written::RecentlyWritten;
use self::residents::Residents;
pub use self::rewrapping::RewrapWalk;
use self::shared_tier::SharedTier;
pub use self::stored::Unreadable;
use self::stored::{open_session, read_record};
use self::unerased::Unerased;
use crate::clock::Clock;
use crate::email_lookup::EmailLookup;
use crate::funnels::FunnelLibrary;
use crate::keys::KeyRing;
use crate::shared_cache::SharedCache;
use crate::store::{DatabaseHealth, JournalRecord, ReadError, SessionKey, Store};

/// How many frames may wait for a peer; who reads slower is sent away.
pub const PEER_QUEUE: usize = 1024;

/// How long a request waits for its commands to be settled.
const PATIENCE: Duration = Duration::from_secs(8);

/// How many sessions are read again at a time.
const RELOADS: usize = 64;

/// What the tiers of sessions are made of.
#[derive(Debug)]
pub struct Tiers {
    /// The database.
    pub store: Arc<dyn Store>,
    /// Whether the database is away.
    pub database: DatabaseHealth,
    /// Whether the database tells of what other servers change; `None` where there are no other servers.
    pub announcements: Option<Arc<Announcements>>,
    /// The shared tier, if there is one.
    pub cache: Option<Arc<SharedCache>>,
    /// With what everything is encrypted that leaves the process.
    pub keys: KeyRing,
}

impl Tiers {
    /// A database that no other server uses, and no shared tier.
    #[must_use]
    pub fn single(store: Arc<dyn Store>, keys: KeyRing) -> Self {
        Self { store, database: DatabaseHealth::default(), announcements: None, cache: None, keys }
    }
}

/// How sessions are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimits {
    /// How many bytes of memory sessions that nobody uses may take.
    pub memory_bytes: u64,
    /// How many commands may be accepted ahead of the database.
    pub backlog: usize,
    /// Whether a command may be accepted ahead of the database at all.
    pub relaxed: bool,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self { memory_bytes: 256 * 1024 * 1024, backlog: 100_000, relaxed: true }
    }
}

/// For how long sessions are kept after they are over and unchanged, by what they ended as; `None` for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Completed ones.
    pub completed: Option<Duration>,
    /// Failed ones.
    pub failed: Option<Duration>,
    /// Expired ones.
    pub expired: Option<Duration>,
}

impl Retention {
    /// The shortest of them.
    #[must_use]
    pub fn shortest(self) -> Option<Duration> {
        [self.completed, self.failed, self.expired].into_iter().flatten().min()
    }
}

/// All sessions that this process hosts.
#[derive(Debug)]
pub struct Sessions {
    environment: Arc<Environment>,
    next_peer: AtomicU64,
}

/// What hosting a session needs.
#[derive(Debug)]
struct Environment {
    /// Tells this process from other servers.
    name: String,
    store: Arc<dyn Store>,
    database: DatabaseHealth,
    cache: Option<Arc<SharedCache>>,
    tier: SharedTier,
    links: Links,
    announcements: Option<Arc<Announcements>>,
    funnels: Arc<FunnelLibrary>,
    clock: Arc<dyn Clock>,
    tasks: TaskTracker,
    residents: Residents,
    backlog: Backlog,
    unerased: Unerased,
    keys: KeyRing,
    email_lookup: EmailLookup,
    recently_written: RecentlyWritten,
    reloads: Semaphore,
    relaxed: bool,
    measures: Measures,
}

/// A session as it is now, as far as this server can tell.
#[derive(Debug, Clone)]
pub struct Current {
    /// The session.
    pub state: Arc<State>,
    /// For how long nobody could tell whether others have changed it; `None` where it is the latest.
    pub stale_for: Option<Duration>,
}

/// What became of commands.
#[derive(Debug, Clone)]
pub struct Executed {
    /// One for each command, in their order: accepted, rejected, or a gap.
    pub answers: Vec<ServerFrame>,
    /// The version that the database has.
    pub durable_version: u64,
}

/// A session as somebody may see it.
#[derive(Debug, Clone)]
pub struct View {
    /// The session as JSON.
    pub json: Bytes,
    /// What that was made of: it tells what tokens are good.
    pub state: Arc<State>,
    /// For how long nobody could tell whether others have changed it; `None` where it is the latest.
    pub stale_for: Option<Duration>,
}

/// Why a session can't be reached.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SessionError {
    /// The database does not answer.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What the database has can't be read as a session.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// The commands were not settled in time, or could not be stored; whether they will be is not known.
    #[error("the session's commands could not be stored just now; send them again")]
    Busy {
        /// When to try again.
        retry_after: Duration,
    },
}

/// A peer that follows a session: its frames arrive here until it is dropped.
#[derive(Debug)]
pub struct Subscription {
    hosted: Arc<Hosted>,
    peer: PeerId,
    /// Frames for the peer. Closed when the peer reads too slowly.
    pub frames: tokio::sync::mpsc::Receiver<Box<ServerFrame>>,
}

impl Subscription {
    /// Hands in commands; the answers come as frames.
    pub fn submit(&self, requests: Vec<Request>) {
        self.hosted.submit(self.peer, requests);
    }

    /// The session as it is accepted.
    #[must_use]
    pub fn state(&self) -> Option<Arc<State>> {
        self.hosted.state()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.hosted.leave(self.peer);
    }
}

/// Why a peer may not follow a session.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The session can't be reached.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The claim is none of the session's, or its time is over; or the token was revoked.
    #[error("the credential is not good for this session")]
    Refused,
}

impl Sessions {
    /// Hosts the sessions of these tiers.
    #[must_use]
    pub fn new(
        tiers: Tiers,
        limits: SessionLimits,
        funnels: Arc<FunnelLibrary>,
        clock: Arc<dyn Clock>,
        tasks: TaskTracker,
    ) -> Self {
        let Tiers { store, database, announcements, cache, keys } = tiers;
        let links = Links::new(cache.clone(), announcements.clone());
        let environment = Environment {
            store,
            database,
            tier: SharedTier::new(cache.clone(), keys.clone()),
            cache,
            name: format!("{:032x}", fastrand::u128(..)),
            links,
            announcements,
            funnels,
            clock,
            tasks,
            residents: Residents::new(limits.memory_bytes),
            backlog: Backlog::new(limits.backlog),
            unerased: Unerased::default(),
            email_lookup: EmailLookup::new(keys.clone()),
            keys,
            recently_written: RecentlyWritten::default(),
            reloads: Semaphore::new(RELOADS),
            relaxed: limits.relaxed,
            measures: Measures::new(),
        };
        metrics::gauge!("throughline_backlog_limit").set(limits.backlog as f64);
        metrics::gauge!("throughline_kept_session_bytes_limit").set(limits.memory_bytes as f64);
        Self { environment: Arc::new(environment), next_peer: AtomicU64::new(1) }
    }

    /// The session as it is now, ended if its time is over; `None` where there is none.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub async fn current(&self, key: &SessionKey) -> Result<Option<Current>, SessionError> {
        Ok(self.find(key).await?.map(|(_, current)| current))
    }

    async fn find(&self, key: &SessionKey) -> Result<Option<(Arc<Hosted>, Current)>, SessionError> {
        let begun = Instant::now();
        let environment = &self.environment;
        let stamp = environment.links.stamp(key);
        if let Some(hosted) = environment.residents.kept(key)
            && let Some(state) = hosted.latest(stamp)
        {
            environment.residents.count_use(true);
            environment.measures.read_from_memory(begun);
            return Ok(Some((hosted, Current { state, stale_for: None })));
        }
        if environment.residents.is_absent(key, stamp) {
            environment.measures.known_absent();
            return Ok(None);
        }
        Box::pin(self.find_below(key, stamp)).await
    }

    /// What takes more than a look into the memory.
    async fn find_below(
        &self,
        key: &SessionKey,
        stamp: Option<Stamp>,
    ) -> Result<Option<(Arc<Hosted>, Current)>, SessionError> {
        let environment = &self.environment;
        let hosted = self.host(key).await?;
        let current = hosted.current().await?;
        if let (None, Some(stamp)) = (&current, stamp) {
            environment.residents.note_absence(key, stamp);
            // Somebody may have created it since; whoever creates it from now on takes the note away.
            if hosted.state().is_some() {
                environment.residents.forget_absence(key);
            }
        }
        Ok(current.map(|current| (hosted, current)))
    }

    /// The session as it is now and as `role` may see it; `None` where there is none.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub async fn view(&self, key: &SessionKey, role: Role) -> Result<Option<View>, SessionError> {
        let Some((hosted, Current { state, stale_for })) = self.find(key).await? else { return Ok(None) };
        let json = hosted.render(&state, role)?;
        Ok(Some(View { json, state, stale_for }))
    }

    /// The session as the tiers below have it now, whatever is in memory: somebody has proved to know more.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub async fn read_again(&self, key: &SessionKey) -> Result<Option<Current>, SessionError> {
        let hosted = self.host(key).await?;
        hosted.suspect(Reason::Read);
        hosted.current().await
    }

    /// Hands in commands and waits until each is settled; the answers are in their order.
    ///
    /// Dropping the future does not undo what was handed in.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub async fn execute(
        &self,
        key: &SessionKey,
        role: Role,
        caller: &Caller,
        requests: Vec<Request>,
    ) -> Result<Executed, SessionError> {
        self.execute_as(key, role, Credential::Verified, caller, requests).await
    }

    /// The same, for who came with this credential: whether it is good still is seen when the commands are decided.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub async fn execute_as(
        &self,
        key: &SessionKey,
        role: Role,
        credential: Credential,
        caller: &Caller,
        mut requests: Vec<Request>,
    ) -> Result<Executed, SessionError> {
        let expected = requests.len();
        requests.iter_mut().for_each(|request| request.caller = Some(caller.clone()));
        // They may create it: whoever is told of that must find it.
        self.environment.residents.forget_absence(key);
        let hosted = self.host(key).await?;
        let peer = self.new_peer();
        let mut frames = hosted.listen(peer);
        hosted.submit_once(peer, role, credential, requests);
        let answers = async {
            let mut answers = Vec::with_capacity(expected);
            while answers.len() < expected {
                match frames.recv().await.map(|frame| *frame) {
                    Some(ServerFrame::Busy { retry_after_ms }) => {
                        return Err(SessionError::Busy { retry_after: Duration::from_millis(retry_after_ms) });
                    }
                    Some(ServerFrame::Durable { .. }) => {}
                    Some(answer) => answers.push(answer),
                    None => return Err(SessionError::Busy { retry_after: Duration::from_secs(1) }),
                }
            }
            Ok(answers)
        };
        let outcome = tokio::time::timeout(PATIENCE, answers).await;
        hosted.leave(peer);
        let answers = outcome.unwrap_or(Err(SessionError::Busy { retry_after: Duration::from_secs(1) }))?;
        Ok(Executed { answers, durable_version: hosted.durable_version() })
    }

    /// Lets a peer follow a session.
    ///
    /// # Errors
    /// See [`FollowError`].
    pub async fn follow(
        &self,
        key: &SessionKey,
        role: Role,
        credential: Credential,
        hello: &Hello,
    ) -> Result<Subscription, FollowError> {
        let hosted = self.host(key).await?;
        let peer = self.new_peer();
        let frames = hosted.listen(peer);
        match hosted.join(peer, role, credential, hello) {
            Ok(()) => Ok(Subscription { hosted, peer, frames }),
            Err(JoinRefused) => {
                hosted.leave(peer);
                Err(FollowError::Refused)
            }
        }
    }

    /// The session's journal after a version, at most `limit` records: the version of each, and what happened, unless
    /// that was erased.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub async fn journal(
        &self,
        key: &SessionKey,
        after: u64,
        limit: u32,
    ) -> Result<Vec<(u64, Option<Record>)>, SessionError> {
        let Environment { store, keys, .. } = &*self.environment;
        let mut attempt = 1;
        loop {
            let Some(stored) = store.load(key).await? else { return Ok(Vec::new()) };
            let (_, cipher) = open_session(key, stored, keys)?;
            let records = store.journal(key, after, limit).await?;
            let read = |record: &JournalRecord| Ok((record.version, read_record(record, &cipher)?));
            match records.iter().map(read).collect::<Result<_, Unreadable>>() {
                // It was erased between the two reads.
                Err(error) if error.is_of_another_key() && attempt < 3 => attempt += 1,
                read => return Ok(read?),
            }
        }
    }

    /// The session in memory; read from the tiers below by the first who asks.
    async fn host(&self, key: &SessionKey) -> Result<Arc<Hosted>, SessionError> {
        let environment = &self.environment;
        let hosted =
            environment.residents.get_or_host(key, |by_key| Hosted::new(key.clone(), Arc::clone(environment), by_key));
        let is_hit = hosted.is_fresh();
        environment.residents.count_use(is_hit);
        environment.measures.memory(is_hit);
        hosted.load().await?;
        Ok(hosted)
    }

    fn new_peer(&self) -> PeerId {
        PeerId(self.next_peer.fetch_add(1, Ordering::Relaxed))
    }
}
