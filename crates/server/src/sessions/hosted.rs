//! One session in memory: its authority, and the carrying out of its effects.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use throughline_core::sync::{
    Authority, Commit, Credential, Effect, Environment as Rules, Hello, JoinRefused, PeerId, Request, ServerFrame,
};
use throughline_core::{Role, SessionId, State, Timestamp};
use tokio::sync::{Notify, OnceCell, mpsc};

use super::stored::{append, read_state};
use super::{Environment, PEER_QUEUE, SessionError};
use crate::problem::chain;
use crate::store::{CommitError, ReadError, SessionKey};

/// When a client that was sent away may come back.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How long a commit may take before its outcome counts as unknown.
const COMMIT_PATIENCE: Duration = Duration::from_secs(5);

/// A session in memory.
#[derive(Debug)]
pub(super) struct Hosted {
    key: SessionKey,
    environment: Arc<Environment>,
    loaded: OnceCell<Mutex<Live>>,
    /// Told after each commit or reload.
    settled: Notify,
    used: Mutex<Instant>,
}

#[derive(Debug)]
struct Live {
    authority: Authority,
    peers: HashMap<PeerId, Listener>,
}

/// Where a peer's frames go, and what it waits for.
#[derive(Debug)]
struct Listener {
    frames: mpsc::Sender<ServerFrame>,
    /// Its commands that are not settled yet, in their order; answers come in the same order.
    unsettled: VecDeque<Unsettled>,
}

/// A command from its arrival to its answer.
#[derive(Debug)]
struct Unsettled {
    kind: &'static str,
    arrived: Instant,
    span: tracing::Span,
}

impl Unsettled {
    fn new(request: &Request) -> Self {
        let kind = request.command.as_ref().map_or("malformed", |command| command.kind().as_str());
        let span = tracing::info_span!("command", kind, seq = request.seq);
        Self { kind, arrived: Instant::now(), span }
    }

    fn settle(self, outcome: &'static str, code: Option<&'static str>) {
        let elapsed = self.arrived.elapsed();
        self.span.in_scope(|| tracing::info!(outcome, code, elapsed_ms = elapsed.as_millis(), "settled"));
        metrics::counter!("throughline_commands_total", "type" => self.kind, "outcome" => outcome).increment(1);
        metrics::histogram!("throughline_command_seconds", "type" => self.kind).record(elapsed.as_secs_f64());
    }
}

impl Hosted {
    pub(super) fn new(key: SessionKey, environment: Arc<Environment>) -> Arc<Self> {
        let used = Mutex::new(Instant::now());
        Arc::new(Self { key, environment, loaded: OnceCell::new(), settled: Notify::new(), used })
    }

    pub(super) fn key(&self) -> &SessionKey {
        &self.key
    }

    /// Reads the session from the database, once: who asks meanwhile waits for the first.
    pub(super) async fn load(&self) -> Result<(), SessionError> {
        self.loaded
            .get_or_try_init(|| async {
                let state = self.read().await?;
                // The id was checked where it came in; were it not valid, no session would be found under it.
                let id = SessionId::new(self.key.session_id.as_str()).or_else(|_| SessionId::new("invalid"));
                let id = id.map_err(|_| SessionError::Busy { retry_after: RETRY_AFTER })?;
                let authority = Authority::new(id, state);
                Ok(Mutex::new(Live { authority, peers: HashMap::new() }))
            })
            .await
            .map(|_| ())
    }

    async fn read(&self) -> Result<Option<State>, SessionError> {
        match self.environment.store.load(&self.key).await? {
            Some(stored) => Ok(Some(read_state(&stored)?)),
            None => Ok(None),
        }
    }

    /// The committed state.
    pub(super) fn state(&self) -> Option<Arc<State>> {
        self.live()?.authority.state().cloned()
    }

    pub(super) fn is_busy(&self) -> bool {
        self.live().is_some_and(|live| live.authority.is_busy())
    }

    pub(super) fn touch(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    pub(super) fn is_idle(&self, limit: Duration) -> bool {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).elapsed() >= limit
    }

    /// Opens a queue for a peer.
    pub(super) fn listen(&self, peer: PeerId) -> mpsc::Receiver<ServerFrame> {
        let (sender, receiver) = mpsc::channel(PEER_QUEUE);
        if let Some(mut live) = self.live() {
            live.peers.insert(peer, Listener { frames: sender, unsettled: VecDeque::new() });
        }
        receiver
    }

    pub(super) fn leave(&self, peer: PeerId) {
        if let Some(mut live) = self.live() {
            live.peers.remove(&peer);
            live.authority.leave(peer);
        }
    }

    pub(super) fn join(
        self: &Arc<Self>,
        peer: PeerId,
        role: Role,
        credential: Credential,
        hello: &Hello,
    ) -> Result<(), JoinRefused> {
        let mut refused = None;
        self.change(|authority, rules| {
            authority.join(peer, role, credential, hello, rules).unwrap_or_else(|refusal| {
                refused = Some(refusal);
                Vec::new()
            })
        });
        refused.map_or(Ok(()), Err)
    }

    pub(super) fn submit(self: &Arc<Self>, peer: PeerId, requests: Vec<Request>) {
        self.await_answers(peer, &requests);
        self.change(|authority, rules| authority.submit(peer, requests, rules));
    }

    pub(super) fn submit_once(
        self: &Arc<Self>,
        peer: PeerId,
        role: Role,
        credential: Credential,
        requests: Vec<Request>,
    ) {
        self.await_answers(peer, &requests);
        self.change(|authority, rules| authority.submit_once(peer, role, credential, requests, rules));
    }

    fn await_answers(&self, peer: PeerId, requests: &[Request]) {
        if let Some(listener) = self.live().as_mut().and_then(|live| live.peers.get_mut(&peer)) {
            listener.unsettled.extend(requests.iter().map(Unsettled::new));
        }
    }

    /// Ends the session if its time is over, and waits until that is committed.
    pub(super) async fn end_if_overdue(self: &Arc<Self>, patience: Duration) -> Result<(), SessionError> {
        let settled = async {
            loop {
                let told = self.settled.notified();
                let now = self.now();
                let deadline = self.state().and_then(|state| state.deadline());
                if deadline.is_none_or(|deadline| now < deadline) {
                    return;
                }
                self.change(|authority, rules| authority.tick(rules));
                told.await;
            }
        };
        let late = |_| SessionError::Busy { retry_after: RETRY_AFTER };
        tokio::time::timeout(patience, settled).await.map_err(late)
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.environment.clock.now_ms())
    }

    /// Lets the authority do something, and carries out what it wants.
    fn change(self: &Arc<Self>, act: impl FnOnce(&mut Authority, &Rules<'_>) -> Vec<Effect>) {
        let rules =
            Rules { now: self.now(), funnels: &*self.environment.funnels, epoch: new_epoch(&self.environment.clock) };
        let Some(mut live) = self.live() else { return };
        let effects = act(&mut live.authority, &rules);
        for effect in effects {
            match effect {
                Effect::Send { peer, frame } => send(&mut live, peer, frame),
                Effect::Commit(commit) => self.commit(commit),
                Effect::Reload => self.reload(),
            }
        }
    }

    /// Commits in a task of its own: a caller that goes away does not leave the authority waiting.
    fn commit(self: &Arc<Self>, commit: Commit) {
        let hosted = Arc::clone(self);
        self.environment.tasks.spawn(async move {
            let outcome = match append(&hosted.key, &commit) {
                Ok(change) => tokio::time::timeout(COMMIT_PATIENCE, hosted.environment.store.commit(change)).await,
                Err(error) => {
                    tracing::error!(error = %chain(&error), "a session can't be written down");
                    Ok(Err(CommitError::Malformed { detail: "it can't be written as JSON" }))
                }
            };
            match outcome {
                Ok(Ok(())) => hosted.change(|authority, rules| authority.committed(rules)),
                Ok(Err(CommitError::Conflict { .. })) => {
                    metrics::counter!("throughline_commit_conflicts_total").increment(1);
                    hosted.change(|authority, _| authority.conflicted());
                }
                Ok(Err(error)) => {
                    let retry_after = match &error {
                        CommitError::Overloaded { retry_after } => *retry_after,
                        _ => RETRY_AFTER,
                    };
                    tracing::warn!(error = %chain(&error), "a commit failed; its clients are asked to send again");
                    hosted.change(|authority, _| authority.commit_failed(millis(retry_after)));
                }
                Err(_) => {
                    tracing::warn!("a commit took too long; its clients are asked to send again");
                    hosted.change(|authority, _| authority.commit_failed(millis(RETRY_AFTER)));
                }
            }
            hosted.settled.notify_waiters();
        });
    }

    fn reload(self: &Arc<Self>) {
        let hosted = Arc::clone(self);
        self.environment.tasks.spawn(async move {
            match hosted.read().await {
                Ok(state) => hosted.change(|authority, rules| authority.reloaded(state, rules)),
                Err(error) => {
                    let retry_after = match &error {
                        SessionError::Read(ReadError::Overloaded { retry_after }) => *retry_after,
                        _ => RETRY_AFTER,
                    };
                    tracing::warn!(error = %chain(&error), "a session can't be read again");
                    hosted.change(|authority, _| authority.reload_failed(millis(retry_after)));
                }
            }
            hosted.settled.notify_waiters();
        });
    }

    fn live(&self) -> Option<MutexGuard<'_, Live>> {
        // The authority is a pure state machine: a panic while it is held would have come from a bug in there, and a
        // session that goes on from what it last knew is checked by the database at the next commit.
        self.loaded.get().map(|live| live.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Puts a frame into the peer's queue. A peer that does not keep up loses its queue; its socket then closes, and it comes
/// back and catches up.
fn send(live: &mut Live, peer: PeerId, frame: ServerFrame) {
    let Some(listener) = live.peers.get_mut(&peer) else { return };
    let settled = match &frame {
        ServerFrame::Accepted { repeated, .. } => Some((if *repeated { "repeated" } else { "accepted" }, None)),
        ServerFrame::Rejected { reason, .. } => Some(("rejected", Some(reason.code.as_str()))),
        ServerFrame::Gap { .. } => Some(("gap", None)),
        ServerFrame::Busy { .. } => {
            listener.unsettled.drain(..).for_each(|command| command.settle("busy", None));
            None
        }
        _ => None,
    };
    if let Some((outcome, code)) = settled {
        if let Some(code) = code {
            metrics::counter!("throughline_rejections_total", "code" => code).increment(1);
        }
        if let Some(command) = listener.unsettled.pop_front() {
            command.settle(outcome, code);
        }
    }
    if listener.frames.try_send(frame).is_err() {
        live.peers.remove(&peer);
        live.authority.leave(peer);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// 53 random bits, so that JavaScript can hold them, and never 0, which means no session.
fn new_epoch(clock: &Arc<dyn crate::clock::Clock>) -> u64 {
    let mut bytes = [0; 8];
    // Not a secret: should the operating system's source fail, the clock tells two histories apart as well.
    if getrandom::fill(&mut bytes).is_err() {
        bytes = clock.now_ms().to_le_bytes();
    }
    (u64::from_le_bytes(bytes) >> 11).max(1)
}
