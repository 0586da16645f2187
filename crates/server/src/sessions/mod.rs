//! Sessions while they are in use: each is hosted by one [`Authority`](throughline_core::sync::Authority), whose effects
//! are carried out here.

mod hosted;
mod stored;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use throughline_core::sync::{Credential, Hello, JoinRefused, PeerId, Request, ServerFrame};
use throughline_core::{Role, State};
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::funnels::FunnelLibrary;
use crate::store::{JournalRecord, ReadError, SessionKey, Store};
use hosted::Hosted;
pub use stored::{Unreadable, read_record};

/// How long a session stays in memory after its last use.
const IDLE: Duration = Duration::from_secs(300);

/// How many frames may wait for a peer; who reads slower is sent away.
pub const PEER_QUEUE: usize = 1024;

/// How long a request waits for its commands to be settled.
const PATIENCE: Duration = Duration::from_secs(8);

/// How many sessions one round of [`Sessions::end_overdue`] looks at.
const DUE_BATCH: u32 = 200;

/// How long the sessions of such a round are left alone by other servers.
const DUE_LEASE_MS: i64 = 30_000;

/// All sessions that this process hosts.
#[derive(Debug)]
pub struct Sessions {
    environment: Arc<Environment>,
    hosted: Mutex<HashMap<SessionKey, Arc<Hosted>>>,
    next_peer: AtomicU64,
}

/// What hosting a session needs.
#[derive(Debug)]
struct Environment {
    store: Arc<dyn Store>,
    funnels: Arc<FunnelLibrary>,
    clock: Arc<dyn Clock>,
    tasks: TaskTracker,
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
    pub frames: tokio::sync::mpsc::Receiver<ServerFrame>,
}

impl Subscription {
    /// Hands in commands; the answers come as frames.
    pub fn submit(&self, requests: Vec<Request>) {
        self.hosted.submit(self.peer, requests);
    }

    /// The session as it is committed.
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
    /// The claim is not the one that the session was created with.
    #[error("this session was created by somebody else")]
    Claim,
}

impl Sessions {
    /// Hosts sessions of this store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, funnels: Arc<FunnelLibrary>, clock: Arc<dyn Clock>, tasks: TaskTracker) -> Self {
        Self {
            environment: Arc::new(Environment { store, funnels, clock, tasks }),
            hosted: Mutex::new(HashMap::new()),
            next_peer: AtomicU64::new(1),
        }
    }

    /// The session as it is committed, ended if its time is over; `None` where there is none.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub async fn current(&self, key: &SessionKey) -> Result<Option<Arc<State>>, SessionError> {
        let hosted = self.host(key).await?;
        hosted.end_if_overdue(PATIENCE).await?;
        let state = hosted.state();
        self.release(hosted);
        Ok(state)
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
        requests: Vec<Request>,
    ) -> Result<Vec<ServerFrame>, SessionError> {
        let expected = requests.len();
        let hosted = self.host(key).await?;
        let peer = self.new_peer();
        let mut frames = hosted.listen(peer);
        hosted.submit_once(peer, role, Credential::Verified, requests);
        let answers = async {
            let mut answers = Vec::with_capacity(expected);
            while answers.len() < expected {
                match frames.recv().await {
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
        self.release(hosted);
        outcome.unwrap_or(Err(SessionError::Busy { retry_after: Duration::from_secs(1) }))
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
                self.release(hosted);
                Err(FollowError::Claim)
            }
        }
    }

    /// The session's journal after a version, at most `limit` records.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn journal(&self, key: &SessionKey, after: u64, limit: u32) -> Result<Vec<JournalRecord>, ReadError> {
        self.environment.store.journal(key, after, limit).await
    }

    /// Ends sessions whose time is over, also those that nobody asks for; answers how many were looked at.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub async fn end_overdue(&self) -> Result<usize, SessionError> {
        let now_ms = self.environment.clock.now_ms();
        let due = self.environment.store.claim_due(now_ms, DUE_LEASE_MS, DUE_BATCH).await?;
        for session in &due {
            let hosted = self.host(&session.key).await?;
            hosted.end_if_overdue(PATIENCE).await?;
            self.release(hosted);
        }
        Ok(due.len())
    }

    /// Lets go of sessions that nobody has used for a while.
    pub fn forget_idle(&self) {
        let mut hosted = self.lock();
        hosted.retain(|_, session| Arc::strong_count(session) > 1 || session.is_busy() || !session.is_idle(IDLE));
        metrics::gauge!("throughline_hosted_sessions").set(hosted.len() as f64);
    }

    /// The session in memory; loaded from the database by the first who asks.
    async fn host(&self, key: &SessionKey) -> Result<Arc<Hosted>, SessionError> {
        let hosted = {
            let mut all = self.lock();
            let environment = &self.environment;
            Arc::clone(all.entry(key.clone()).or_insert_with(|| Hosted::new(key.clone(), Arc::clone(environment))))
        };
        match hosted.load().await {
            Ok(()) => Ok(hosted),
            Err(error) => {
                self.release(hosted);
                Err(error)
            }
        }
    }

    /// Forgets at once what turned out not to exist: asking for made-up ids must not fill the memory.
    fn release(&self, hosted: Arc<Hosted>) {
        hosted.touch();
        if hosted.state().is_some() {
            return;
        }
        let mut all = self.lock();
        // Under the lock nobody can get another reference from the map: two are the map's and this one.
        if Arc::strong_count(&hosted) <= 2 && !hosted.is_busy() {
            all.remove(hosted.key());
        }
    }

    fn new_peer(&self) -> PeerId {
        PeerId(self.next_peer.fetch_add(1, Ordering::Relaxed))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SessionKey, Arc<Hosted>>> {
        // Entries are inserted and removed whole, so a panic elsewhere leaves nothing half done.
        self.hosted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
