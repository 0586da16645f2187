//! One session in memory: its authority, and the carrying out of its effects.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use opentelemetry::trace::SpanContext;
use throughline_core::sync::{
    Authority, Commit, Credential, DatabaseView, Effect, Environment as Rules, Hello, JoinRefused, Loaded, News,
    PeerId, Request, ServerFrame, Share, SharedView,
};
use throughline_core::{ClientId, Record, Role, SessionId, State, Timestamp, ended};
use tokio::sync::{Notify, OnceCell, mpsc};
use tracing::{Instrument as _, Span};

use super::freshness::Stamp;
use super::measures::{self, Origin, Reason};
use super::residents::ByKey;
use super::shared_tier::{Answer, Found};
use super::stored::{
    Told, Unreadable, append, audit_records, current_cipher, email_digest, new_cipher, open_session, outbox_events,
    read_news, read_record, write_session,
};
use super::{Current, Environment, PEER_QUEUE, SessionError};
use crate::encryption::SessionCipher;
use crate::problem::chain;
use crate::store::{CommitError, ReadError, SessionKey};
use crate::telemetry::spans::{self, Step};

/// When a client that was sent away may come back.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How long a commit may take before its outcome counts as unknown.
const COMMIT_PATIENCE: Duration = Duration::from_secs(5);

/// How long a read waits for the session to be read again, or for its end to be written down.
const READ_PATIENCE: Duration = Duration::from_secs(3);

/// How many records of the journal are compared with a tail.
const COMPARED_RECORDS: u32 = 1024;

/// How many commands one flush is linked to.
const LINKED_COMMANDS: usize = 128;

/// What a session takes in memory beside its state, in bytes, and how many bytes a byte of its JSON takes: as values, as
/// answers for two roles, and in what the allocator rounds up. Measured by how much a server grows that is filled with
/// sessions, small ones and such with much metadata (`cargo xtask bench server --only session-memory`).
const BASE_BYTES: usize = 1024;
const BYTES_PER_JSON_BYTE: usize = 6;

/// A session in memory.
#[derive(Debug)]
pub(super) struct Hosted {
    key: SessionKey,
    environment: Arc<Environment>,
    by_key: Weak<ByKey>,
    loaded: OnceCell<Mutex<Live>>,
    /// Told after each commit or reload.
    settled: Notify,
    /// How long its state is as JSON; 0 as long as nobody knows.
    json_bytes: AtomicUsize,
    /// How much it was taken to be when it was last kept.
    kept_as: AtomicUsize,
    /// The latest answers, one for each view of the session: most reads find nothing changed since the one before.
    rendered: Mutex<Vec<Rendered>>,
}

/// A session as JSON, and the state that it shows.
#[derive(Debug)]
struct Rendered {
    role: Role,
    state: Arc<State>,
    json: Bytes,
}

#[derive(Debug)]
struct Live {
    authority: Authority,
    /// With what its parts are encrypted; `None` as long as it does not exist.
    cipher: Option<Arc<SessionCipher>>,
    peers: HashMap<PeerId, Listener>,
    /// During which time of the links it was read from the tiers below.
    validated: Option<Stamp>,
    validated_at: Instant,
    /// Commands that count in the backlog.
    unflushed: usize,
    /// This process accepted some of the tail, and brings it to the database.
    owns_tail: bool,
    is_queued: bool,
    unflushed_since: Option<Instant>,
    /// Where in which traces the commands are that are ahead of the database, and which versions they made.
    traced: Vec<(u64, SpanContext)>,
}

/// Where a peer's frames go, and what it waits for.
#[derive(Debug)]
struct Listener {
    /// Boxed, because a queue has room for 32 of them from its beginning.
    frames: mpsc::Sender<Box<ServerFrame>>,
    /// Its commands that are not settled yet, in their order; answers come in the same order.
    unsettled: VecDeque<Unsettled>,
}

/// A command from its arrival to its answer.
#[derive(Debug)]
struct Unsettled {
    kind: &'static str,
    seq: Option<u64>,
    arrived: Instant,
    span: Span,
    /// Who issued it, where it is traced.
    client_id: Option<ClientId>,
}

impl Unsettled {
    fn new(session: &str, request: &Request) -> Self {
        let kind = request.command.as_ref().map_or("malformed", |command| command.kind().as_str());
        let span = spans::command(session, kind, request.seq, request.traceparent.as_deref());
        let client_id = (!span.is_disabled()).then(|| request.client_id.clone());
        Self { kind, seq: request.seq, arrived: Instant::now(), span, client_id }
    }

    fn is(&self, client_id: &ClientId, seq: u64) -> bool {
        // One without a number has got one since. In the ledger, a back end's client has a name that no browser can take.
        let is_its = |own: &ClientId| {
            own == client_id || [Role::Service, Role::Operator].iter().any(|&role| own.in_ledger(role) == *client_id)
        };
        self.client_id.as_ref().is_some_and(is_its) && self.seq.is_none_or(|own| own == seq)
    }

    fn settle(self, outcome: &'static str, code: Option<&'static str>) {
        let (elapsed, kind, seq) = (self.arrived.elapsed(), self.kind, self.seq);
        self.span.in_scope(|| tracing::debug!(kind, seq, outcome, code, elapsed_ms = elapsed.as_millis(), "settled"));
        spans::settled(&self.span, outcome, code);
        metrics::counter!("throughline_commands_total", "type" => self.kind, "outcome" => outcome).increment(1);
        metrics::histogram!("throughline_command_seconds", "type" => self.kind).record(elapsed.as_secs_f64());
    }
}

impl Live {
    /// The spans of the commands that are not answered yet and that these are of.
    fn spans_of<'a>(&self, commands: impl IntoIterator<Item = (&'a ClientId, u64)>) -> Vec<Span> {
        let mut spans: Vec<Span> = Vec::new();
        if spans::is_on() {
            for (client_id, seq) in commands {
                let unsettled = self.peers.values().flat_map(|listener| &listener.unsettled);
                let found = unsettled.filter(|command| command.is(client_id, seq)).map(|command| &command.span);
                spans.extend(found.filter(|span| !spans.contains(span)).cloned().collect::<Vec<Span>>());
            }
        }
        spans
    }

    /// Whether nothing that others did can have been missed, if this is the present stamp of the links.
    fn is_fresh(&self, stamp: Option<Stamp>) -> bool {
        stamp.is_some() && self.validated == stamp && !self.authority.is_stale()
    }
}

/// A session as the shared tier has it, and with what it is encrypted.
type FromShared = (SharedView, Arc<SessionCipher>);

/// A session as the tiers below have it, and with what it is encrypted; `None` where it does not exist.
type FromBelow = (Loaded, Option<Arc<SessionCipher>>);

impl Drop for Hosted {
    fn drop(&mut self) {
        if let Some(by_key) = self.by_key.upgrade() {
            by_key.left(&self.key);
        }
    }
}

impl Hosted {
    pub(super) fn new(key: SessionKey, environment: Arc<Environment>, by_key: Weak<ByKey>) -> Arc<Self> {
        let json_bytes = AtomicUsize::new(0);
        Arc::new(Self {
            key,
            environment,
            by_key,
            loaded: OnceCell::new(),
            settled: Notify::new(),
            json_bytes,
            kept_as: AtomicUsize::new(0),
            rendered: Mutex::default(),
        })
    }

    pub(super) fn key(&self) -> &SessionKey {
        &self.key
    }

    /// About how many bytes it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        BASE_BYTES + BYTES_PER_JSON_BYTE * self.json_bytes.load(Ordering::Relaxed)
    }

    /// Reads the session from the tiers below, once: who asks meanwhile waits for the first.
    pub(super) async fn load(self: &Arc<Self>) -> Result<(), SessionError> {
        let (mut is_first, mut left) = (false, Vec::new());
        self.loaded
            .get_or_try_init(|| async {
                // Boxed, as all that is rarely done: whoever waits for a session would carry its size around.
                let (live, effects) = Box::pin(self.first_load()).await?;
                (is_first, left) = (true, effects);
                Ok::<_, SessionError>(Mutex::new(live))
            })
            .await?;
        // Without a pause since the session became visible: nobody waits for something that was never begun.
        if is_first {
            if let Some(mut live) = self.live() {
                self.carry_out(&mut live, left, Reason::Other);
            }
            self.remember();
        }
        Ok(())
    }

    async fn first_load(self: &Arc<Self>) -> Result<(Live, Vec<Effect>), SessionError> {
        // The id was checked where it came in; were it not valid, no session would be found under it.
        let id = SessionId::new(self.key.session_id.as_str()).or_else(|_| SessionId::new("invalid"));
        let id = id.map_err(|_| SessionError::Busy { retry_after: RETRY_AFTER })?;
        let stamp = self.environment.links.stamp(&self.key);
        let live = |authority: Authority, cipher, validated| Live {
            authority,
            cipher,
            peers: HashMap::new(),
            validated,
            validated_at: Instant::now(),
            unflushed: 0,
            owns_tail: false,
            is_queued: false,
            unflushed_since: None,
            traced: Vec::new(),
        };
        let found = self.environment.tier.load(&self.key).await;
        if let (Found::Session { view, cipher, is_verified: true }, Some(_)) = (&found, stamp)
            && let Some(authority) = Authority::from_shared(id.clone(), SharedView::clone(view))
        {
            metrics::counter!("throughline_tier_reads_total", "tier" => "redis", "outcome" => "hit").increment(1);
            return Ok((live(authority, Some(Arc::clone(cipher)), stamp), Vec::new()));
        }
        metrics::counter!("throughline_tier_reads_total", "tier" => "redis", "outcome" => "miss").increment(1);
        match self.complete(found, 0).await {
            Ok((loaded, cipher)) => {
                let mut authority = Authority::new(id, None);
                let effects = authority.reloaded(loaded, &self.rules());
                Ok((live(authority, cipher, stamp), effects))
            }
            Err((error, Some((view, cipher)))) => match Authority::from_shared(id, view) {
                // The database can't say whether this is the latest.
                Some(authority) => Ok((live(authority, Some(cipher), None), Vec::new())),
                None => Err(error),
            },
            Err((error, None)) => Err(error),
        }
    }

    /// Everything that the tiers below have of the session, and with what it is encrypted.
    async fn read(&self) -> Result<FromBelow, SessionError> {
        let known = self.live().map_or(0, |live| live.authority.durable_version());
        let found = self.environment.tier.load(&self.key).await;
        match self.complete(found, known).await {
            Ok(loaded) => Ok(loaded),
            Err((_, Some((view, cipher)))) => Ok((Loaded { database: None, shared: Some(view) }, Some(cipher))),
            Err((error, None)) => Err(error),
        }
    }

    /// What the database has, beside what the shared tier was found to have. The latter is read first: what it holds
    /// ahead of the database then is either still ahead of it, or in its journal.
    async fn complete(&self, found: Found, known: u64) -> Result<FromBelow, (SessionError, Option<FromShared>)> {
        let environment = &self.environment;
        let is_unreadable = matches!(found, Found::Unreadable);
        let (shared, vacancy) = match found {
            Found::Session { view, cipher, .. } => (Some((*view, cipher)), None),
            Found::Nothing(vacancy) => (None, vacancy),
            Found::Unreadable => (None, None),
        };
        let (database, cipher) = match self.read_database(known, shared.as_ref().map(|(view, _)| view)).await {
            Ok(read) => read,
            Err(error) => return Err((error, shared)),
        };
        let shared = shared.map(|(view, _)| view);
        if let (Some(state), Some(cipher)) = (&database.state, &cipher) {
            match (&shared, vacancy) {
                (Some(view), _) => {
                    let is_same = view.state.epoch == state.epoch;
                    if !is_same || view.state.version() < state.version() {
                        environment.tier.correct(&self.key, state, cipher).await;
                    }
                }
                (None, Some(vacancy)) => environment.tier.fill(&self.key, &vacancy, state, cipher).await,
                (None, None) if is_unreadable => environment.tier.correct(&self.key, state, cipher).await,
                (None, None) => {}
            }
        }
        Ok((Loaded { database: Some(database), shared }, cipher))
    }

    async fn read_database(
        &self,
        known: u64,
        shared: Option<&SharedView>,
    ) -> Result<(DatabaseView, Option<Arc<SessionCipher>>), SessionError> {
        let store = &self.environment.store;
        let stored = measures::database("load", store.load(&self.key)).await?;
        let outcome = if stored.is_some() { "hit" } else { "miss" };
        metrics::counter!("throughline_tier_reads_total", "tier" => "database", "outcome" => outcome).increment(1);
        let Some(stored) = stored else { return Ok((DatabaseView::default(), None)) };
        self.json_bytes.store(stored.state.len(), Ordering::Relaxed);
        let version = stored.version;
        let (state, cipher) = open_session(&self.key, stored, &self.environment.keys)?;
        let after = shared.map_or(known, |view| known.min(view.state.version()));
        let has_tail = shared.is_some_and(|view| !view.tail.is_empty());
        let has_own = self.live().is_some_and(|live| !live.authority.tail().is_empty());
        let mut journal = Vec::new();
        if (has_tail || has_own) && after < version {
            for record in measures::database("journal", store.journal(&self.key, after, COMPARED_RECORDS)).await? {
                journal.extend(read_record(&record, &cipher)?.filter(|record| record.version <= version));
            }
        }
        Ok((DatabaseView { state: Some(state), journal }, Some(cipher)))
    }

    /// The state as `role` may see it, as JSON.
    pub(super) fn render(&self, state: &Arc<State>, role: Role) -> Result<Bytes, Unreadable> {
        let mut rendered = self.rendered.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = rendered.iter().find(|known| known.role == role && Arc::ptr_eq(&known.state, state)) {
            return Ok(known.json.clone());
        }
        // Copied, because what was written is up to twice as large as it has to be.
        let json = Bytes::copy_from_slice(&write_session(state, role)?);
        rendered.retain(|known| known.role != role);
        rendered.push(Rendered { role, state: Arc::clone(state), json: json.clone() });
        Ok(json)
    }

    /// The accepted state.
    pub(super) fn state(&self) -> Option<Arc<State>> {
        self.live()?.authority.state().cloned()
    }

    pub(super) fn durable_version(&self) -> u64 {
        self.live().map_or(0, |live| live.authority.durable_version())
    }

    /// The version that the database has, or gets if what is being written there now is taken.
    pub(super) fn written_version(&self) -> u64 {
        self.live().map_or(0, |live| live.authority.written_version())
    }

    /// Whether anybody follows it here.
    pub(super) fn is_followed(&self) -> bool {
        self.live().is_some_and(|live| !live.peers.is_empty())
    }

    /// The session as it is now, if that takes nothing but a look: nothing can have been missed, and its time is not over.
    pub(super) fn latest(&self, stamp: Option<Stamp>) -> Option<Arc<State>> {
        let live = self.live()?;
        let state = live.authority.state().filter(|_| live.is_fresh(stamp))?;
        let is_over = state.deadline().is_some_and(|deadline| self.now() >= deadline);
        (!is_over).then(|| Arc::clone(state))
    }

    /// The session as it is now. Read again if something may have been missed; as it was last known where that can't be.
    pub(super) async fn current(self: &Arc<Self>) -> Result<Option<Current>, SessionError> {
        let stale_for = if self.is_fresh() { None } else { Box::pin(self.read_again()).await? };
        if self.is_overdue() {
            Box::pin(self.end_if_overdue(READ_PATIENCE)).await;
        }
        let Some(state) = self.state() else { return Ok(None) };
        // Its end could not be written down; it is over all the same.
        let state = if self.is_overdue() { Arc::new(ended(&state, self.now())) } else { state };
        if stale_for.is_some() {
            self.environment.measures.stale_read();
        }
        Ok(Some(Current { state, stale_for }))
    }

    /// Whether nothing that others did can have been missed.
    pub(super) fn is_fresh(&self) -> bool {
        let stamp = self.environment.links.stamp(&self.key);
        self.live().is_some_and(|live| live.is_fresh(stamp))
    }

    /// Reads it again; for how long nobody could say whether it changed, where the tiers below do not answer.
    async fn read_again(self: &Arc<Self>) -> Result<Option<Duration>, SessionError> {
        let started = Instant::now();
        let settled = async {
            loop {
                let told = self.settled.notified();
                let is_done = |live: &Live| live.validated_at >= started;
                if self.live().is_some_and(|live| is_done(&live)) {
                    return true;
                }
                self.change_because(Reason::Read, |authority, _| authority.reload());
                told.await;
                if self.live().is_some_and(|live| !is_done(&live) && !live.authority.is_reloading()) {
                    return false;
                }
            }
        };
        if tokio::time::timeout(READ_PATIENCE, settled).await == Ok(true) {
            return Ok(None);
        }
        match self.live() {
            Some(live) if live.authority.state().is_some() => Ok(Some(live.validated_at.elapsed())),
            _ => Err(SessionError::Busy { retry_after: RETRY_AFTER }),
        }
    }

    /// Opens a queue for a peer.
    pub(super) fn listen(&self, peer: PeerId) -> mpsc::Receiver<Box<ServerFrame>> {
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
        let step = self.await_answers(peer, &requests);
        step.span().in_scope(|| self.change(|authority, rules| authority.submit(peer, requests, rules)));
    }

    pub(super) fn submit_once(
        self: &Arc<Self>,
        peer: PeerId,
        role: Role,
        credential: Credential,
        requests: Vec<Request>,
    ) {
        let step = self.await_answers(peer, &requests);
        step.span().in_scope(|| {
            self.change(|authority, rules| authority.submit_once(peer, role, credential, requests, rules))
        });
    }

    /// The step of deciding them.
    fn await_answers(&self, peer: PeerId, requests: &[Request]) -> Step {
        let session = self.key.session_id.as_str();
        let awaited: Vec<Unsettled> = requests.iter().map(|request| Unsettled::new(session, request)).collect();
        let traced = awaited.iter().map(|command| &command.span).filter(|span| !span.is_disabled());
        let step = Step::of("decide", &traced.cloned().collect::<Vec<Span>>());
        if let Some(listener) = self.live().as_mut().and_then(|live| live.peers.get_mut(&peer)) {
            listener.unsettled.extend(awaited);
        }
        step
    }

    fn is_overdue(&self) -> bool {
        let deadline = self.state().and_then(|state| state.deadline());
        deadline.is_some_and(|deadline| self.now() >= deadline)
    }

    /// Ends the session if its time is over, and waits until that is committed; whether it is.
    pub(super) async fn end_if_overdue(self: &Arc<Self>, patience: Duration) -> bool {
        let settled = async {
            while self.is_overdue() {
                let told = self.settled.notified();
                self.change(|authority, rules| authority.tick(rules));
                told.await;
                if self.environment.database.is_away() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(patience, settled).await;
        !self.is_overdue()
    }

    /// What another server has told of the session.
    pub(super) fn hear(self: &Arc<Self>, news: &[u8]) {
        let Some(cipher) = self.live().and_then(|live| live.cipher.clone()) else {
            return self.suspect(Reason::News);
        };
        match read_news(news, &cipher) {
            Ok(news) => self.observe(news),
            // It has a new data key: it was erased, or deleted and begun anew.
            Err(error) if error.is_of_another_key() => self.suspect(Reason::News),
            Err(error) => {
                tracing::warn!(error = %chain(&error), "what another server told can't be read; is it of another release?");
                self.suspect(Reason::News);
            }
        }
    }

    fn observe(self: &Arc<Self>, news: News) {
        self.change_because(Reason::News, |authority, rules| authority.observed(news, rules));
    }

    /// Others may have changed the session.
    pub(super) fn suspect(self: &Arc<Self>, reason: Reason) {
        self.change_because(reason, |authority, _| authority.suspect());
    }

    /// Brings the tail to the database, whoever accepted it.
    pub(super) fn flush(self: &Arc<Self>) {
        if let Some(mut live) = self.live() {
            live.owns_tail = true;
            live.is_queued = false;
        }
        self.change(|authority, _| authority.flush());
    }

    /// Whether it has to be read again before it can be believed.
    pub(super) fn is_stale(&self) -> bool {
        self.live().is_some_and(|live| live.authority.is_stale())
    }

    /// For how long its oldest command has been ahead of the database.
    pub(super) fn unflushed_for(&self) -> Duration {
        self.live().and_then(|live| live.unflushed_since).map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Whether something is on its way to the database.
    pub(super) fn is_unflushed(&self) -> bool {
        self.live().is_some_and(|live| !live.authority.tail().is_empty())
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.environment.clock.now_ms())
    }

    fn rules(&self) -> Rules<'_> {
        let environment = &self.environment;
        Rules {
            now: self.now(),
            funnels: &*environment.funnels,
            // Tells histories apart, and is no secret: 53 bits, so that JavaScript can hold them, and not 0.
            epoch: fastrand::u64(1..1 << 53),
            relaxed: environment.relaxed
                && environment.backlog.has_room()
                && environment.tier.is_available_for(&self.key),
        }
    }

    /// Lets the authority do something, and carries out what it wants.
    fn change(self: &Arc<Self>, act: impl FnOnce(&mut Authority, &Rules<'_>) -> Vec<Effect>) {
        self.change_because(Reason::Other, act);
    }

    /// The same, with the reason for which the authority may want to read the session again.
    fn change_because(self: &Arc<Self>, reason: Reason, act: impl FnOnce(&mut Authority, &Rules<'_>) -> Vec<Effect>) {
        let begun = Instant::now();
        let rules = self.rules();
        let Some(mut live) = self.live() else { return };
        let effects = act(&mut live.authority, &rules);
        let is_news = |effect: &&Effect| matches!(effect, Effect::Send { frame: ServerFrame::Events { .. }, .. });
        let told = effects.iter().filter(is_news).count();
        let tells = told > 0;
        let span = if tells { spans::fan_out(told) } else { Span::none() };
        span.in_scope(|| self.carry_out(&mut live, effects, reason));
        if tells {
            let origin = if reason == Reason::News { Origin::There } else { Origin::Here };
            self.environment.measures.told(origin, begun);
        }
    }

    fn carry_out(self: &Arc<Self>, live: &mut Live, effects: Vec<Effect>, reason: Reason) {
        for effect in effects {
            match effect {
                Effect::Send { peer, frame } => send(live, peer, frame),
                Effect::Commit(commit) => {
                    let step = Step::of("commit", &live.spans_of(commit.records.iter().filter_map(origin)));
                    self.commit(commit, step);
                }
                Effect::Share(share) => {
                    let issued = share.entries.iter().filter_map(|entry| entry.issued.as_ref());
                    let commands = live.spans_of(issued.map(|issued| (&issued.client_id, issued.seq)));
                    self.share(share, commands);
                }
                Effect::Flush(commit) => {
                    let versions = commit.expected_version + 1..=commit.state.version();
                    live.traced.retain(|(version, _)| *version >= *versions.start());
                    let of_it = live.traced.iter().filter(|(version, _)| versions.contains(version));
                    let places = of_it.map(|(_, place)| place.clone()).collect();
                    self.write_tail(commit, spans::flush(self.key.session_id.as_str(), places));
                }
                Effect::Reload => self.reload(reason),
                Effect::Forked { commands } => {
                    metrics::counter!("throughline_forked_commands_total").increment(commands as u64);
                    tracing::warn!(
                        commands,
                        "accepted commands were not part of the history that won; they are decided again"
                    );
                }
            }
        }
        self.note_tail(live);
        // What shows an earlier state goes, whoever it was for: it may hold what was erased since.
        let state = live.authority.state();
        let is_shown = |known: &Rendered| state.is_some_and(|state| Arc::ptr_eq(&known.state, state));
        self.rendered.lock().unwrap_or_else(PoisonError::into_inner).retain(is_shown);
    }

    /// Counts what is ahead of the database, and has it flushed.
    fn note_tail(self: &Arc<Self>, live: &mut Live) {
        let unflushed = live.authority.tail().len();
        self.environment.backlog.count(live.unflushed, unflushed);
        live.unflushed = unflushed;
        if unflushed == 0 {
            live.owns_tail = false;
            if let Some(since) = live.unflushed_since.take() {
                metrics::histogram!("throughline_flush_lag_seconds").record(since.elapsed().as_secs_f64());
            }
        } else {
            live.unflushed_since.get_or_insert_with(Instant::now);
            if live.owns_tail && !live.is_queued {
                live.is_queued = true;
                self.environment.backlog.push(Arc::clone(self));
            }
        }
    }

    /// The cipher for what a commit writes: a new one where the session begins, and where it is erased, so that nothing
    /// written before can be read any more.
    fn cipher_for(&self, commit: &Commit) -> Result<Arc<SessionCipher>, Unreadable> {
        let (keys, now_ms) = (&self.environment.keys, self.environment.clock.now_ms());
        if commit.expected_version == 0 || commit.erased_at_version().is_some() {
            return new_cipher(&self.key, keys, now_ms);
        }
        let known = self.live().and_then(|live| live.cipher.clone());
        // Under the newest root key, as is the hash of the email address beside it.
        current_cipher(known.as_deref(), keys, now_ms)
    }

    /// Writes to the database, and tells the other servers. Answers with what it is encrypted.
    async fn write(&self, commit: &Commit) -> Result<Arc<SessionCipher>, CommitError> {
        let environment = &self.environment;
        // Where there are other servers, one of the two links has to tell them.
        let has_others = environment.announcements.is_some();
        let announce = has_others && !environment.tier.is_available_for(&self.key);
        let written = self.cipher_for(commit).and_then(|cipher| {
            let now_ms = environment.clock.now_ms();
            let digest = email_digest(&self.key, &commit.state, &environment.email_lookup, now_ms);
            let audit = audit_records(&self.key, commit, &environment.keys, now_ms)?;
            let told = Told { audit, events: outbox_events(commit)? };
            Ok((append(&self.key, commit, &cipher, digest, told, announce)?, cipher))
        });
        let (change, cipher) = written.map_err(|error| {
            tracing::error!(error = %chain(&error), "a session can't be written down");
            CommitError::Malformed { detail: "it can't be written as JSON, or not encrypted" }
        })?;
        self.json_bytes.store(change.state.len(), Ordering::Relaxed);
        let is_erasure = change.purge_history;
        measures::database("commit", environment.store.commit(change)).await?;
        if environment.tier.settle(&self.key, commit, &cipher).await {
            environment.recently_written.note(&self.key, commit.state.version());
        } else {
            if is_erasure {
                environment.unerased.add(self.key.clone(), commit.state.version());
            }
            // The others have to hear of it before anybody can ask them for what is acknowledged here.
            if has_others && !announce {
                let committed = [(self.key.clone(), commit.state.version())];
                let told = measures::database("announce", environment.store.announce(&committed)).await;
                if let Err(error) = told {
                    tracing::warn!(error = %chain(&error), "other servers could not be told of a commit");
                }
            }
        }
        Ok(cipher)
    }

    /// What is written from now on is encrypted with this.
    fn use_cipher(&self, cipher: Arc<SessionCipher>) {
        if let Some(mut live) = self.live() {
            live.cipher = Some(cipher);
        }
    }

    /// Commits in a task of its own: a caller that goes away does not leave the authority waiting.
    fn commit(self: &Arc<Self>, commit: Commit, step: Step) {
        let hosted = Arc::clone(self);
        let span = step.span();
        let committing = async move {
            match tokio::time::timeout(COMMIT_PATIENCE, hosted.write(&commit)).await {
                Ok(Ok(cipher)) => {
                    hosted.use_cipher(cipher);
                    hosted.change(|authority, rules| authority.committed(rules));
                }
                Ok(Err(CommitError::Conflict { .. })) => {
                    metrics::counter!("throughline_commit_conflicts_total").increment(1);
                    hosted.change_because(Reason::Conflict, |authority, _| authority.conflicted());
                }
                Ok(Err(error)) => {
                    let retry_after = match &error {
                        CommitError::Overloaded { retry_after } => *retry_after,
                        _ => RETRY_AFTER,
                    };
                    hosted.note_failure(&error, "a commit failed; its clients are asked to send again");
                    hosted.change(|authority, _| authority.commit_failed(millis(retry_after)));
                }
                Err(_) => {
                    tracing::warn!("a commit took too long; its clients are asked to send again");
                    hosted.change(|authority, _| authority.commit_failed(millis(RETRY_AFTER)));
                }
            }
            hosted.remember();
            hosted.settled.notify_waiters();
            drop(step);
        };
        self.environment.tasks.spawn(committing.instrument(span));
    }

    /// A database that is away has been told of once already.
    fn note_failure(&self, error: &CommitError, message: &'static str) {
        if self.environment.database.is_away() {
            tracing::debug!(error = %chain(error), "{message}");
        } else {
            tracing::warn!(error = %chain(error), "{message}");
        }
    }

    fn share(self: &Arc<Self>, share: Share, commands: Vec<Span>) {
        let hosted = Arc::clone(self);
        let step = Step::of("share", &commands);
        let span = step.span();
        let sharing = async move {
            let cipher = hosted.live().and_then(|live| live.cipher.clone());
            let answer = match &cipher {
                Some(cipher) => hosted.environment.tier.share(&hosted.key, &share, cipher).await,
                None => Answer::Failed,
            };
            match answer {
                Answer::Taken => {
                    if let Some(mut live) = hosted.live() {
                        live.owns_tail = true;
                        let places = commands.iter().filter_map(spans::place_of);
                        live.traced.extend(places.map(|place| (share.state.version(), place)));
                        live.traced.truncate(LINKED_COMMANDS);
                    }
                    hosted.change(|authority, rules| authority.shared(rules));
                }
                Answer::Conflict => {
                    hosted.change_because(Reason::Conflict, |authority, _| authority.share_conflicted())
                }
                Answer::Failed => hosted.change(|authority, _| authority.share_failed()),
            }
            hosted.settled.notify_waiters();
            drop(step);
        };
        self.environment.tasks.spawn(sharing.instrument(span));
    }

    fn write_tail(self: &Arc<Self>, commit: Commit, span: Span) {
        let hosted = Arc::clone(self);
        let writing = async move {
            match tokio::time::timeout(COMMIT_PATIENCE, hosted.write(&commit)).await {
                Ok(Ok(cipher)) => {
                    hosted.use_cipher(cipher);
                    hosted.change(|authority, rules| authority.flushed(rules));
                }
                Ok(Err(CommitError::Conflict { .. })) => {
                    metrics::counter!("throughline_flush_conflicts_total").increment(1);
                    hosted.change_because(Reason::Conflict, |authority, _| authority.flush_conflicted());
                }
                Ok(Err(error)) => {
                    hosted.note_failure(&error, "what was accepted could not be written yet; it is tried again");
                    hosted.change(|authority, rules| authority.flush_failed(rules));
                }
                Err(_) => hosted.change(|authority, rules| authority.flush_failed(rules)),
            }
            hosted.remember();
            hosted.settled.notify_waiters();
        };
        self.environment.tasks.spawn(writing.instrument(span));
    }

    fn reload(self: &Arc<Self>, reason: Reason) {
        reason.count_reload();
        let hosted = Arc::clone(self);
        self.environment.tasks.spawn(async move {
            // After an outage everything that is followed is read again; not all at once. It is never closed.
            let _place = hosted.environment.reloads.acquire().await;
            let stamp = hosted.environment.links.stamp(&hosted.key);
            match hosted.read().await {
                Ok((loaded, cipher)) => {
                    let is_whole = loaded.database.is_some();
                    let shared_version = loaded.shared.as_ref().map_or(0, |view| view.state.version());
                    let rules = hosted.rules();
                    if let Some(mut live) = hosted.live() {
                        // The authority takes what the shared tier has for its own unless it has something later.
                        if is_whole || shared_version >= live.authority.durable_version() {
                            live.cipher = cipher;
                        }
                        if is_whole {
                            live.validated = stamp;
                            live.validated_at = Instant::now();
                        }
                        let effects = live.authority.reloaded(loaded, &rules);
                        hosted.carry_out(&mut live, effects, Reason::Other);
                    }
                }
                Err(error) => {
                    let retry_after = match &error {
                        SessionError::Read(ReadError::Overloaded { retry_after }) => *retry_after,
                        _ => RETRY_AFTER,
                    };
                    if !hosted.environment.database.is_away() {
                        tracing::warn!(error = %chain(&error), "a session can't be read again");
                    }
                    hosted.change(|authority, _| authority.reload_failed(millis(retry_after)));
                }
            }
            hosted.settled.notify_waiters();
        });
    }

    /// Keeps the session in memory for whoever comes next, if there is one.
    pub(super) fn remember(self: &Arc<Self>) {
        let Some(state) = self.state() else { return };
        if self.json_bytes.load(Ordering::Relaxed) == 0 {
            // It came from the shared tier.
            let json_bytes = serde_json::to_vec(&*state).map_or(0, |json| json.len());
            self.json_bytes.store(json_bytes, Ordering::Relaxed);
        }
        let (bytes, kept_as) = (self.bytes(), self.kept_as.load(Ordering::Relaxed));
        // To keep it anew costs more than to look, and most commands change next to nothing.
        let is_kept = self.environment.residents.kept(&self.key).is_some_and(|kept| Arc::ptr_eq(&kept, self));
        if !is_kept || bytes.abs_diff(kept_as) * 16 > kept_as {
            self.kept_as.store(bytes, Ordering::Relaxed);
            self.environment.residents.keep(self);
        }
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
    if listener.frames.try_send(Box::new(frame)).is_err() {
        live.peers.remove(&peer);
        live.authority.leave(peer);
    }
}

fn origin(record: &Record) -> Option<(&ClientId, u64)> {
    record.origin.as_ref().map(|origin| (&origin.client_id, origin.seq))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
