//! The server's end of the protocol: one session, whoever follows it, and the order of its commands.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::frame::{ErrorCode, Hello, PROTOCOL_VERSION, ServerFrame, Submission};
use crate::command::{Command, CommandKind};
use crate::decide::{Context, decide, expire};
use crate::event::{Event, Origin, Record};
use crate::evolve::evolve;
use crate::funnel::Funnel;
use crate::identifier::{ClientId, FunnelId, SessionId};
use crate::permission::Role;
use crate::rejection::{Rejection, RejectionCode};
use crate::state::State;
use crate::time::Timestamp;

/// Where funnel definitions come from.
pub trait Funnels {
    /// The funnel with this id and version; the newest version where none is named.
    fn find(&self, id: &str, version: Option<u32>) -> Option<FunnelEntry<'_>>;
}

/// A funnel definition with the hash by which clients know it.
#[derive(Clone, Copy, Debug)]
pub struct FunnelEntry<'a> {
    /// The definition.
    pub funnel: &'a Funnel,
    /// Its hash.
    pub hash: &'a str,
}

/// A single funnel definition, as clients and tests have it.
#[derive(Clone, Debug)]
pub struct FixedFunnel {
    funnel: Funnel,
    hash: String,
}

impl FixedFunnel {
    /// This funnel, known by this hash.
    pub fn new(funnel: Funnel, hash: impl Into<String>) -> Self {
        Self { funnel, hash: hash.into() }
    }
}

impl Funnels for FixedFunnel {
    fn find(&self, id: &str, version: Option<u32>) -> Option<FunnelEntry<'_>> {
        let fits = self.funnel.id.as_str() == id && version.is_none_or(|version| version == self.funnel.version);
        fits.then_some(FunnelEntry { funnel: &self.funnel, hash: &self.hash })
    }
}

/// What decisions depend on beside the session.
#[derive(Clone, Copy)]
pub struct Environment<'a> {
    /// The server's clock.
    pub now: Timestamp,
    /// The funnel definitions.
    pub funnels: &'a dyn Funnels,
    /// A fresh random number, used if a session is created.
    pub epoch: u64,
}

/// A connection or request, as its shell names it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PeerId(pub u64);

/// With what a peer may act on this session. The shell has verified it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Credential {
    /// A token or key that is good for this session.
    Verified,
    /// Digest of a claim secret: good for a session that was, or is being, created with it.
    Claim(String),
}

/// A command as it arrived: numbered, and perhaps not readable.
#[derive(Clone, PartialEq, Debug)]
pub struct Request {
    /// The client that issued it.
    pub client_id: ClientId,
    /// Its number; where there is none it gets the next one, and nothing tells it from another that is the same.
    pub seq: Option<u64>,
    /// The command, or why it can't be read.
    pub command: Result<Command, Rejection>,
    /// The version that it is meant for, where the caller named one.
    pub expected_version: Option<u64>,
    /// Whether it is meant only if the peer's command before it was applied.
    pub only_after_previous: bool,
}

impl From<Submission> for Request {
    fn from(Submission { client_id, seq, command }: Submission) -> Self {
        Self { client_id, seq: Some(seq), command: Ok(command), expected_version: None, only_after_previous: false }
    }
}

/// What the authority wants of its shell.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    /// Send this frame to that peer.
    Send {
        /// The peer.
        peer: PeerId,
        /// The frame.
        frame: ServerFrame,
    },
    /// Write this to the database, all or nothing, then call [`Authority::committed`], [`Authority::conflicted`] or
    /// [`Authority::commit_failed`]. Nothing is acknowledged before.
    Commit(Commit),
    /// Read the session from the database, then call [`Authority::reloaded`] or [`Authority::reload_failed`].
    Reload,
}

/// What is to be written.
#[derive(Clone, PartialEq, Debug)]
pub struct Commit {
    /// The version that the database has to have now; 0 for no session.
    pub expected_version: u64,
    /// The records, their versions following that one.
    pub records: Vec<Record>,
    /// The state after them.
    pub state: Arc<State>,
}

impl Commit {
    /// The version of the record with which everything before it has to be destroyed, where there is one.
    pub fn erased_at_version(&self) -> Option<u64> {
        self.records.iter().rev().find(|record| record.event == Event::Erased {}).map(|record| record.version)
    }
}

/// A peer may not follow this session: its claim is not the one that the session was created with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JoinRefused;

/// One session at the server.
///
/// Commands are decided in batches, one batch at a time: while one is being committed, others wait. So a decision is
/// never based on something that the database may still refuse.
#[derive(Clone, Debug)]
pub struct Authority {
    session_id: SessionId,
    state: Option<Arc<State>>,
    /// The latest records, for clients that lack a few.
    recent: VecDeque<Record>,
    peers: BTreeMap<PeerId, Peer>,
    waiting: VecDeque<Work>,
    in_flight: Option<InFlight>,
    /// The database may have something else; it has to be read before the next decision.
    stale: bool,
    /// The state was read from the database, or compared with it, just now.
    is_fresh: bool,
    reloading: bool,
    /// Whose latest command was not applied.
    refused: Option<PeerId>,
}

#[derive(Clone, Debug)]
struct Peer {
    role: Role,
    client_id: ClientId,
    credential: Credential,
}

#[derive(Clone, Debug)]
struct Work {
    peer: Option<PeerId>,
    role: Role,
    credential: Credential,
    request: Request,
}

#[derive(Clone, Debug)]
struct InFlight {
    works: Vec<Work>,
    records: Vec<Record>,
    state: Arc<State>,
    answers: Vec<(PeerId, ServerFrame)>,
}

/// How many commands are decided as one batch.
const BATCH: usize = 64;
/// How many records are kept for catching up; who lacks more gets a snapshot.
const RECENT: usize = 256;
/// How many commands of a session may wait.
const MAX_WAITING: usize = 1024;
/// When a client that was sent away may come back.
const RETRY_AFTER_MS: u64 = 1000;

impl Authority {
    /// The session as the database has it; `None` where it has none.
    pub fn new(session_id: SessionId, state: Option<State>) -> Self {
        Self {
            session_id,
            state: state.map(Arc::new),
            recent: VecDeque::new(),
            peers: BTreeMap::new(),
            waiting: VecDeque::new(),
            in_flight: None,
            stale: false,
            is_fresh: true,
            reloading: false,
            refused: None,
        }
    }

    /// The committed state.
    pub fn state(&self) -> Option<&Arc<State>> {
        self.state.as_ref()
    }

    /// The committed version; 0 where there is no session.
    pub fn version(&self) -> u64 {
        self.state.as_ref().map_or(0, |state| state.version())
    }

    /// Whether anybody follows the session, or anything is under way.
    pub fn is_busy(&self) -> bool {
        !self.peers.is_empty() || !self.waiting.is_empty() || self.in_flight.is_some() || self.reloading
    }

    /// A peer says hello: it gets a welcome, and what it lacks. Saying it again catches up again.
    ///
    /// # Errors
    /// [`JoinRefused`] when its claim is not the session's.
    pub fn join(
        &mut self,
        peer: PeerId,
        role: Role,
        credential: Credential,
        hello: &Hello,
        environment: &Environment<'_>,
    ) -> Result<Vec<Effect>, JoinRefused> {
        if !self.is_entitled(&credential) {
            return Err(JoinRefused);
        }
        self.is_fresh = false;
        let client_id = hello.client_id.clone();
        self.peers.insert(peer, Peer { role, client_id: client_id.clone(), credential });
        let mut effects = vec![Effect::Send { peer, frame: self.welcome(role, hello, environment) }];
        if let Some(state) = &self.state {
            let same_history = hello.epoch == Some(state.epoch) && hello.known_version <= state.version();
            let lacks = state.version().saturating_sub(hello.known_version);
            let known = usize::try_from(lacks).ok().filter(|lacks| same_history && *lacks <= self.recent.len());
            let frame = match known {
                Some(0) => None,
                Some(lacks) => Some(ServerFrame::Events {
                    epoch: state.epoch,
                    records: self
                        .recent
                        .range(self.recent.len() - lacks..)
                        .map(|record| record.clone().project(role, Some(&client_id)))
                        .collect(),
                }),
                None => Some(snapshot(state, role, &client_id)),
            };
            effects.extend(frame.map(|frame| Effect::Send { peer, frame }));
        }
        Ok(effects)
    }

    /// A peer is gone. What it submitted goes on.
    pub fn leave(&mut self, peer: PeerId) {
        self.peers.remove(&peer);
    }

    /// Commands of a peer that has joined.
    pub fn submit(
        &mut self,
        peer: PeerId,
        requests: impl IntoIterator<Item = Request>,
        environment: &Environment<'_>,
    ) -> Vec<Effect> {
        match self.peers.get(&peer) {
            Some(Peer { role, credential, .. }) => {
                let (role, credential) = (*role, credential.clone());
                self.submit_once(peer, role, credential, requests, environment)
            }
            None => Vec::new(),
        }
    }

    /// Commands of a peer that does not follow the session: it gets the answers and nothing else.
    pub fn submit_once(
        &mut self,
        peer: PeerId,
        role: Role,
        credential: Credential,
        requests: impl IntoIterator<Item = Request>,
        environment: &Environment<'_>,
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        for request in requests {
            if self.waiting.len() >= MAX_WAITING {
                effects.push(busy(peer, RETRY_AFTER_MS));
                break;
            }
            self.waiting.push_back(Work { peer: Some(peer), role, credential: credential.clone(), request });
        }
        effects.extend(self.advance(environment));
        effects
    }

    /// Looks at the clock: a session whose time is over ends.
    pub fn tick(&mut self, environment: &Environment<'_>) -> Vec<Effect> {
        self.advance(environment)
    }

    /// The database has what [`Effect::Commit`] asked for.
    pub fn committed(&mut self, environment: &Environment<'_>) -> Vec<Effect> {
        let Some(InFlight { records, state, answers, .. }) = self.in_flight.take() else { return Vec::new() };
        let epoch = state.epoch;
        let version = state.version();
        self.state = Some(state);
        self.is_fresh = true;
        let mut effects = self.dismiss_strangers();
        for (peer, Peer { role, client_id, .. }) in &self.peers {
            let records = records.iter().map(|record| record.clone().project(*role, Some(client_id))).collect();
            effects.push(Effect::Send { peer: *peer, frame: ServerFrame::Events { epoch, records } });
        }
        self.recent.extend(records);
        if let Some(erased) = self.recent.iter().rposition(|record| record.event == Event::Erased {}) {
            self.recent.drain(..erased);
        }
        self.recent.drain(..self.recent.len().saturating_sub(RECENT));
        let mut others = Vec::new();
        for (peer, frame) in answers {
            if !self.peers.contains_key(&peer) && !others.contains(&peer) {
                others.push(peer);
            }
            effects.push(Effect::Send { peer, frame });
        }
        let durable = ServerFrame::Durable { version };
        let everybody = self.peers.keys().copied().chain(others);
        effects.extend(everybody.map(|peer| Effect::Send { peer, frame: durable.clone() }));
        effects.extend(self.advance(environment));
        effects
    }

    /// The database has another version than was expected: somebody else wrote. Everything is decided again.
    pub fn conflicted(&mut self) -> Vec<Effect> {
        if let Some(InFlight { works, .. }) = self.in_flight.take() {
            for work in works.into_iter().rev() {
                self.waiting.push_front(work);
            }
        }
        self.reload()
    }

    /// The database did not answer, or refused: whether it has the records is not known. Who waits is asked to send again.
    pub fn commit_failed(&mut self, retry_after_ms: u64) -> Vec<Effect> {
        let works = self.in_flight.take().map(|in_flight| in_flight.works).unwrap_or_default();
        self.stale = true;
        self.send_away(works, retry_after_ms)
    }

    /// The session as the database has it.
    pub fn reloaded(&mut self, state: Option<State>, environment: &Environment<'_>) -> Vec<Effect> {
        self.reloading = false;
        self.stale = false;
        self.is_fresh = true;
        let changed = state.as_ref().map(|state| (state.epoch, state.version()))
            != self.state.as_ref().map(|state| (state.epoch, state.version()));
        self.state = state.map(Arc::new);
        let mut effects = self.dismiss_strangers();
        if changed {
            self.recent.clear();
            if let Some(state) = &self.state {
                for (peer, Peer { role, client_id, .. }) in &self.peers {
                    effects.push(Effect::Send { peer: *peer, frame: snapshot(state, *role, client_id) });
                    effects
                        .push(Effect::Send { peer: *peer, frame: ServerFrame::Durable { version: state.version() } });
                }
            }
        }
        effects.extend(self.advance(environment));
        effects
    }

    /// The database can't be read.
    pub fn reload_failed(&mut self, retry_after_ms: u64) -> Vec<Effect> {
        self.reloading = false;
        let works = std::mem::take(&mut self.waiting);
        self.send_away(works, retry_after_ms)
    }

    fn reload(&mut self) -> Vec<Effect> {
        self.stale = true;
        if self.reloading {
            return Vec::new();
        }
        self.reloading = true;
        vec![Effect::Reload]
    }

    fn send_away(&self, works: impl IntoIterator<Item = Work>, retry_after_ms: u64) -> Vec<Effect> {
        let mut peers: Vec<PeerId> = works.into_iter().filter_map(|work| work.peer).collect();
        peers.dedup();
        peers.into_iter().map(|peer| busy(peer, retry_after_ms)).collect()
    }

    /// Whoever waited with a claim for a session that somebody else has created must not hear of it.
    fn dismiss_strangers(&mut self) -> Vec<Effect> {
        let is_stranger = |peer: &Peer| !self.is_entitled(&peer.credential);
        let strangers: Vec<PeerId> =
            self.peers.iter().filter(|(_, peer)| is_stranger(peer)).map(|(id, _)| *id).collect();
        strangers
            .into_iter()
            .map(|peer| {
                self.peers.remove(&peer);
                let message = "this session was created by somebody else; start a new one".to_owned();
                let frame = ServerFrame::Error { code: ErrorCode::Unauthorized, message, retry_after_ms: None };
                Effect::Send { peer, frame }
            })
            .collect()
    }

    fn is_entitled(&self, credential: &Credential) -> bool {
        match (credential, &self.state) {
            (Credential::Verified, _) | (Credential::Claim(_), None) => true,
            (Credential::Claim(digest), Some(state)) => state.claim.as_ref() == Some(digest),
        }
    }

    fn welcome(&self, role: Role, hello: &Hello, environment: &Environment<'_>) -> ServerFrame {
        let state = self.state.as_deref();
        let funnel = state.map(|state| &state.session.funnel);
        let entry = funnel.and_then(|funnel| environment.funnels.find(funnel.id.as_str(), Some(funnel.version)));
        let is_new = |entry: &FunnelEntry<'_>| hello.funnel_hash.as_deref() != Some(entry.hash);
        ServerFrame::Welcome {
            protocol: PROTOCOL_VERSION,
            session_id: self.session_id.clone(),
            epoch: state.map_or(0, |state| state.epoch),
            version: self.version(),
            durable_version: self.version(),
            last_seq: state.map_or(0, |state| state.last_seq(&hello.client_id.in_ledger(role))),
            server_time: environment.now,
            funnel_hash: entry.map(|entry| entry.hash.to_owned()),
            funnel: entry.filter(is_new).map(|entry| Box::new(entry.funnel.clone())),
        }
    }

    /// Decides what waits, unless a commit is under way.
    fn advance(&mut self, environment: &Environment<'_>) -> Vec<Effect> {
        let effects = self.decide_waiting(environment);
        self.is_fresh = false;
        effects
    }

    fn decide_waiting(&mut self, environment: &Environment<'_>) -> Vec<Effect> {
        if self.in_flight.is_some() || self.reloading {
            return Vec::new();
        }
        let is_due = self.state.as_ref().and_then(|state| state.deadline()).is_some_and(|end| environment.now >= end);
        if self.waiting.is_empty() && !is_due {
            return Vec::new();
        }
        if self.stale {
            return self.reload();
        }

        let mut batch = Batch { state: self.state.as_deref().cloned(), records: Vec::new(), environment };
        let mut answers = Vec::new();
        let mut works = Vec::new();
        let refused_before = self.refused;
        if is_due {
            batch.end_session();
        }
        while works.len() < BATCH
            && let Some(work) = self.waiting.pop_front()
        {
            let is_void = work.request.only_after_previous && work.peer.is_some() && self.refused == work.peer;
            let frame = batch.judge(&self.session_id, &work, is_void);
            self.refused = work.peer.filter(|_| !matches!(frame, ServerFrame::Accepted { .. }));
            answers.extend(work.peer.map(|peer| (peer, frame)));
            works.push(work);
        }

        let Batch { state, records, .. } = batch;
        match state {
            Some(state) if !records.is_empty() => {
                let state = Arc::new(state);
                let commit =
                    Commit { expected_version: self.version(), records: records.clone(), state: Arc::clone(&state) };
                self.in_flight = Some(InFlight { works, records, state, answers });
                vec![Effect::Commit(commit)]
            }
            // Nothing is written, so the database does not compare the version. Then a refusal that nobody remembers
            // must not come from a state that another server has left behind: a client that is told of a gap takes it
            // for lost history, and sends under new numbers what was applied under the old ones.
            _ if !self.is_fresh && answers.iter().any(|(_, frame)| !matches!(frame, ServerFrame::Accepted { .. })) => {
                for work in works.into_iter().rev() {
                    self.waiting.push_front(work);
                }
                self.refused = refused_before;
                self.reload()
            }
            _ => {
                let mut effects: Vec<Effect> =
                    answers.into_iter().map(|(peer, frame)| Effect::Send { peer, frame }).collect();
                let repeated: Vec<PeerId> = works.iter().filter_map(|work| work.peer).collect();
                let durable = ServerFrame::Durable { version: self.version() };
                let mut told = Vec::new();
                for peer in repeated {
                    if !told.contains(&peer) {
                        told.push(peer);
                        effects.push(Effect::Send { peer, frame: durable.clone() });
                    }
                }
                // Only for what still waits: an end that could not be recorded must not be tried for ever.
                if !self.waiting.is_empty() {
                    effects.extend(self.decide_waiting(environment));
                }
                effects
            }
        }
    }
}

fn snapshot(state: &State, role: Role, client_id: &ClientId) -> ServerFrame {
    ServerFrame::Snapshot { state: Box::new(state.clone().project(role, Some(client_id))) }
}

fn busy(peer: PeerId, retry_after_ms: u64) -> Effect {
    Effect::Send { peer, frame: ServerFrame::Busy { retry_after_ms } }
}

/// Decisions that build on each other and are committed together.
struct Batch<'a> {
    state: Option<State>,
    records: Vec<Record>,
    environment: &'a Environment<'a>,
}

impl Batch<'_> {
    fn version(&self) -> u64 {
        self.state.as_ref().map_or(0, State::version)
    }

    fn record(&mut self, by: Role, origin: Option<Origin>, event: Event) {
        let record = Record { version: self.version() + 1, at: self.environment.now, by, origin, event };
        self.state = evolve(self.state.take(), &record);
        self.records.push(record);
    }

    fn end_session(&mut self) {
        let Some(state) = &self.state else { return };
        for event in expire(&state.session, self.environment.now).unwrap_or_default() {
            self.record(Role::System, None, event);
        }
    }

    /// Judges one command; the answer counts once the batch is committed.
    fn judge(&mut self, session_id: &SessionId, work: &Work, is_void: bool) -> ServerFrame {
        let Work { request: Request { client_id, seq, command, expected_version, .. }, role, credential, .. } = work;
        let ledger_key = client_id.in_ledger(*role);
        let last_seq = self.state.as_ref().map_or(0, |state| state.last_seq(&ledger_key));
        let (client_id, seq) = (client_id.clone(), seq.unwrap_or(last_seq + 1));
        let refuse = |reason: Rejection| ServerFrame::Rejected { client_id: client_id.clone(), seq, reason };

        if let (Credential::Claim(digest), Some(state)) = (credential, &self.state)
            && state.claim.as_ref() != Some(digest)
        {
            let message = "this session was created by somebody else; start a new one";
            return refuse(Rejection::new(RejectionCode::ClaimMismatch, message));
        }
        if !client_id.may_be_used_by(*role) {
            let message =
                "this client id is too long, or of the form that is kept for back ends (no ':' in a browser's)";
            return refuse(Rejection::new(RejectionCode::NotPermitted, message));
        }
        if let Some(state) = &self.state {
            let is_erasure = matches!(command, Ok(Command::Erase {})) && *role != Role::Browser;
            if state.erased_at.is_some() && !is_erasure {
                // Not recorded, not even as refused: what a late command says of a person must not come back.
                let message = "the personal data of this session was erased; start a new session";
                return refuse(Rejection::new(RejectionCode::SessionErased, message));
            }
            let ledger = state.clients.get(&ledger_key);
            if seq <= last_seq {
                let rejected = ledger.iter().flat_map(|ledger| &ledger.rejected).find(|(known, _)| *known == seq);
                return match rejected {
                    Some((_, reason)) => refuse(reason.clone()),
                    None => ServerFrame::Accepted { client_id, seq, version: state.version(), repeated: true },
                };
            }
            if seq != last_seq + 1 {
                return ServerFrame::Gap { client_id, expected: last_seq + 1 };
            }
        } else if seq != 1 {
            return ServerFrame::Gap { client_id, expected: 1 };
        }
        if is_void {
            let message = "the command before this one was refused, so this one was not applied either";
            return refuse(Rejection::new(RejectionCode::StaleVersion, message));
        }
        if let Some(expected) = expected_version.filter(|expected| *expected != self.version()) {
            let message = format!("the session is at version {}, not at {expected}; read it again", self.version());
            return refuse(Rejection::new(RejectionCode::StaleVersion, message));
        }

        let decision = match command {
            Err(malformed) => Err(malformed.clone()),
            Ok(command) => self.decide(session_id, command, *role, credential),
        };
        let origin = Some(Origin { client_id: ledger_key, seq });
        match decision {
            Ok(events) if events.is_empty() => self.record(*role, origin, Event::CommandUnneeded {}),
            Ok(events) => {
                for event in events {
                    self.record(*role, origin.clone(), event);
                }
            }
            Err(rejection) => {
                // It is settled all the same, so that it gets the same answer when it comes again.
                if self.state.is_some() {
                    self.record(*role, origin, Event::CommandRejected { rejection: rejection.clone() });
                }
                return refuse(rejection);
            }
        }
        ServerFrame::Accepted { client_id, seq, version: self.version(), repeated: false }
    }

    fn decide(
        &self,
        session_id: &SessionId,
        command: &Command,
        role: Role,
        credential: &Credential,
    ) -> Result<Vec<Event>, Rejection> {
        let funnels = self.environment.funnels;
        let entry = match (&self.state, command) {
            (Some(state), _) => {
                let funnel = &state.session.funnel;
                funnels.find(funnel.id.as_str(), Some(funnel.version))
            }
            (None, Command::Create(create)) => match &create.funnel {
                Some(choice) => funnels.find(choice.id.as_str(), choice.version),
                None => funnels.find(FunnelId::DEFAULT, None),
            },
            (None, _) => {
                let message = "there is no session with this id";
                return Err(Rejection::new(RejectionCode::SessionNotFound, message));
            }
        };
        let Some(entry) = entry else {
            // Erasure must not depend on a file that somebody removed.
            if command.kind() == CommandKind::Erase && self.state.is_some() {
                return Ok(vec![Event::Erased {}]);
            }
            let message = "this server does not have the session's funnel; its operator has to load that version";
            return Err(Rejection::new(RejectionCode::UnknownFunnel, message));
        };
        let claim = match credential {
            Credential::Claim(digest) => Some(digest.as_str()),
            Credential::Verified => None,
        };
        let context = Context {
            now: self.environment.now,
            funnel: entry.funnel,
            session_id,
            epoch: self.environment.epoch,
            claim,
        };
        decide(self.state.as_ref(), command, role, &context)
    }
}
