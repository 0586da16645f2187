//! The server's end of the protocol: one session, whoever follows it, and the order of its commands.

mod batch;
mod reconcile;
mod tail;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::frame::{ErrorCode, Hello, PROTOCOL_VERSION, ServerFrame, Submission};
use crate::command::{Command, CommandKind, Durability};
use crate::event::{Caller, Event, Record};
use crate::evolve::evolve;
use crate::funnel::Funnel;
use crate::identifier::{ClientId, SessionId};
use crate::permission::Role;
use crate::rejection::Rejection;
use crate::state::{State, StateMark};
use crate::time::Timestamp;
use batch::Batch;
pub use reconcile::{DatabaseView, Loaded, SharedView};
pub use tail::{Issued, TailEntry};

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
    /// Whether a command may be accepted before the database has it: another memory than this server's is there to hold it.
    pub relaxed: bool,
}

/// A connection or request, as its shell names it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PeerId(pub u64);

/// With what a peer may act on this session. The shell has verified it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Credential {
    /// A key that is good for every session of its tenant, or the server's own doing.
    Verified,
    /// A token for this session. What its text can't tell is whether it was revoked since.
    Token {
        /// At which generation of the session's access it was made.
        generation: u32,
        /// What it has in common with those that it was renewed out of.
        family: String,
    },
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
    /// Whether the client's commands before it are settled, or gone for good.
    pub first: bool,
    /// The command, or why it can't be read.
    pub command: Result<Command, Rejection>,
    /// The version that it is meant for, where the caller named one.
    pub expected_version: Option<u64>,
    /// Whether it is meant only if the peer's command before it was applied.
    pub only_after_previous: bool,
    /// Who that is, as far as its server knows.
    pub caller: Option<Caller>,
    /// When the caller wants it to count as acknowledged, where it says so. What has to be strict stays strict.
    pub durability: Option<Durability>,
    /// The W3C `traceparent` of what caused it, as its client says. No rule looks at it, and it is kept nowhere.
    pub traceparent: Option<String>,
}

impl Request {
    /// This command, without conditions.
    pub fn new(client_id: ClientId, seq: Option<u64>, command: Result<Command, Rejection>) -> Self {
        Self {
            client_id,
            seq,
            first: false,
            command,
            expected_version: None,
            only_after_previous: false,
            durability: None,
            caller: None,
            traceparent: None,
        }
    }

    /// When it counts as acknowledged: a browser's commands as their kind says, a back end's after the database has
    /// them unless it asks otherwise.
    ///
    /// What could not be decided again on another history is strict: a command without a number of its own, and one
    /// with conditions on what was before it.
    fn durability(&self, role: Role) -> Durability {
        let is_repeatable = self.seq.is_some() && self.expected_version.is_none() && !self.only_after_previous;
        let of_kind = self.command.as_ref().map_or(Durability::Relaxed, |command| command.kind().durability());
        let by_default = if role == Role::Browser { Durability::Relaxed } else { Durability::Strict };
        match (is_repeatable, of_kind, self.durability.unwrap_or(by_default)) {
            (true, Durability::Relaxed, Durability::Relaxed) => Durability::Relaxed,
            _ => Durability::Strict,
        }
    }
}

impl From<Submission> for Request {
    fn from(Submission { client_id, seq, first, command }: Submission) -> Self {
        Self { first, ..Self::new(client_id, Some(seq), Ok(command)) }
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
    /// [`Authority::commit_failed`]. Nothing of it is acknowledged before.
    Commit(Commit),
    /// Give this to the tier that all servers share, then call [`Authority::shared`], [`Authority::share_conflicted`] or
    /// [`Authority::share_failed`]. Nothing of it is acknowledged before.
    Share(Share),
    /// Write what was accepted to the database, then call [`Authority::flushed`], [`Authority::flush_conflicted`] or
    /// [`Authority::flush_failed`]. Others go on meanwhile.
    Flush(Commit),
    /// Read the session from the database and from the shared tier, then call [`Authority::reloaded`] or
    /// [`Authority::reload_failed`].
    Reload,
    /// So many accepted commands were not part of the history that won. They are being decided again.
    Forked {
        /// How many.
        commands: usize,
    },
}

/// What is to be written to the database.
#[derive(Clone, PartialEq, Debug)]
pub struct Commit {
    /// The version that the database has to have now; 0 for no session.
    pub expected_version: u64,
    /// The state that the database has then.
    pub before: Option<Arc<State>>,
    /// The records, their versions following that one.
    pub records: Vec<Record>,
    /// The versions of records that do not say which command it was, refused or unneeded, and the kind of that command. One that
    /// could not be read has none.
    pub commands: Vec<(u64, CommandKind)>,
    /// The state after them.
    pub state: Arc<State>,
    /// The mark of the state up to which other servers were told of the records.
    pub told: Option<StateMark>,
}

impl Commit {
    /// The version of the record with which everything before it has to be destroyed, where there is one.
    pub fn erased_at_version(&self) -> Option<u64> {
        self.records.iter().rev().find(|record| record.event == Event::Erased {}).map(|record| record.version)
    }
}

impl Commit {
    /// What the other servers are to hear when the database has it.
    pub fn news(&self) -> News {
        let told = self.told.map_or(0, |told| told.version);
        let records: Vec<Record> = self.records.iter().filter(|record| record.version > told).cloned().collect();
        let entries = if records.is_empty() { Vec::new() } else { vec![TailEntry { issued: None, records }] };
        News { epoch: self.state.epoch, previous: self.told, entries, durable: Some(self.state.mark()) }
    }
}

/// What is to be held by the shared tier until the database has it.
#[derive(Clone, PartialEq, Debug)]
pub struct Share {
    /// The state that the shared tier has to have now: this very one, another of the same version is a conflict.
    pub previous: Arc<State>,
    /// What follows on it.
    pub entries: Vec<TailEntry>,
    /// The state after them.
    pub state: Arc<State>,
}

impl Share {
    /// What the other servers are to hear when the shared tier has it.
    pub fn news(&self) -> News {
        let previous = Some(self.previous.mark());
        News { epoch: self.state.epoch, previous, entries: self.entries.clone(), durable: None }
    }
}

/// What another server has told of the session.
#[derive(Clone, PartialEq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct News {
    /// The history that it belongs to.
    pub epoch: u64,
    /// On which state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<StateMark>,
    /// What was accepted on it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entries: Vec<TailEntry>,
    /// The state that the database has now, where this tells of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durable: Option<StateMark>,
}

/// A peer may not follow this session: its claim is not the one that the session was created with, nor one that is lent; or
/// its token was revoked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JoinRefused;

/// One session at one server.
///
/// What a server has of a session is the *durable* state, which the database has, and after it the *tail*: what was
/// accepted and is on its way to the database. Commands are decided in batches on top of both, one batch at a time:
/// while one is being accepted, others wait. So a decision is never based on something that may still be refused.
#[derive(Clone, Debug)]
pub struct Authority {
    session_id: SessionId,
    /// The state after the tail.
    state: Option<Arc<State>>,
    /// The state that the database has.
    durable: Option<Arc<State>>,
    tail: Vec<TailEntry>,
    /// The latest records, for clients that lack a few.
    recent: VecDeque<Record>,
    peers: BTreeMap<PeerId, Peer>,
    /// Peers that know more of the session than this server does: they are welcomed when it has read what they know.
    greeting: Vec<Greeting>,
    waiting: VecDeque<Work>,
    in_flight: Option<InFlight>,
    /// The state that is being flushed.
    flushing: Option<Arc<State>>,
    /// Other servers or the database may have something else; it has to be read before the next decision.
    stale: bool,
    /// The state was read from the database, or compared with it, just now.
    is_fresh: bool,
    reloading: bool,
    /// The shared tier has another history than this server, and reading again did not show a newer one: it has lost
    /// something. The database has to take what comes next, and mends it.
    is_shared_tier_behind: bool,
    /// It is read again as soon as nothing is under way that would write what was read over.
    wants_reload: bool,
    /// Whose latest command was not applied.
    refused: Option<PeerId>,
}

#[derive(Clone, Debug)]
struct Peer {
    role: Role,
    /// The clients whose commands come from it.
    clients: Vec<ClientId>,
    credential: Credential,
}

impl Peer {
    fn new(role: Role, credential: Credential, hello: &Hello) -> Self {
        let mut peer = Self { role, clients: vec![hello.client_id.clone()], credential };
        hello.alongside.iter().for_each(|client_id| peer.add(client_id));
        peer
    }

    fn add(&mut self, client_id: &ClientId) {
        if self.clients.len() <= MAX_ALONGSIDE && !self.clients.contains(client_id) {
            self.clients.push(client_id.clone());
        }
    }
}

#[derive(Clone, Debug)]
struct Work {
    peer: Option<PeerId>,
    role: Role,
    credential: Credential,
    /// It came over a connection that had proved itself when it began.
    is_follower: bool,
    request: Request,
}

#[derive(Clone, Debug)]
struct InFlight {
    works: Vec<Work>,
    entries: Vec<TailEntry>,
    state: Arc<State>,
    answers: Vec<(PeerId, ServerFrame)>,
    goal: Goal,
}

/// Who has to hold a batch before it is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Goal {
    SharedTier,
    Database,
    /// The database has not been asked yet: it is, when no flush is under way any more.
    DatabaseAfterFlush,
}

/// How many commands are decided as one batch.
const BATCH: usize = 64;
/// How many records are kept for catching up while somebody follows; who lacks more gets a snapshot.
const RECENT: usize = 64;
/// How many clients a peer may have beside the one that says hello.
const MAX_ALONGSIDE: usize = 64;
/// How many commands of a session may wait.
const MAX_WAITING: usize = 1024;
/// When a client that was sent away may come back.
const RETRY_AFTER_MS: u64 = 1000;

/// A peer that knows more of the session than this server does, or came when that had to be found out.
#[derive(Clone, Debug)]
struct Greeting {
    peer: PeerId,
    newcomer: Peer,
    hello: Hello,
    /// It came while the session was being read: perhaps it was read before the peer was told what it knows.
    is_late: bool,
}

impl Authority {
    /// The session as the database has it; `None` where it has none.
    pub fn new(session_id: SessionId, state: Option<State>) -> Self {
        let state = state.map(Arc::new);
        Self {
            session_id,
            durable: state.clone(),
            state,
            tail: Vec::new(),
            recent: VecDeque::new(),
            peers: BTreeMap::new(),
            greeting: Vec::new(),
            waiting: VecDeque::new(),
            in_flight: None,
            flushing: None,
            stale: false,
            is_fresh: true,
            reloading: false,
            is_shared_tier_behind: false,
            wants_reload: false,
            refused: None,
        }
    }

    /// The session as the shared tier has it; `None` where its tail does not follow on its state.
    pub fn from_shared(session_id: SessionId, SharedView { state, tail }: SharedView) -> Option<Self> {
        let mut authority = Self::new(session_id, Some(state));
        authority.is_fresh = false;
        for entry in tail {
            let follows = entry.first_version() == authority.version() + 1;
            follows.then(|| authority.extend(entry))?;
        }
        Some(authority)
    }

    /// The accepted state.
    pub fn state(&self) -> Option<&Arc<State>> {
        self.state.as_ref()
    }

    /// The accepted version; 0 where there is no session.
    pub fn version(&self) -> u64 {
        self.state.as_ref().map_or(0, |state| state.version())
    }

    /// The state that the database has, as far as this server knows.
    pub fn durable_state(&self) -> Option<&Arc<State>> {
        self.durable.as_ref()
    }

    /// The version that the database has, as far as this server knows.
    pub fn durable_version(&self) -> u64 {
        self.durable.as_ref().map_or(0, |state| state.version())
    }

    /// The version that the database has, or gets if what this server is writing there is taken.
    pub fn written_version(&self) -> u64 {
        let committing = self.in_flight.as_ref().filter(|in_flight| in_flight.goal == Goal::Database);
        let written = [committing.map(|in_flight| &in_flight.state), self.flushing.as_ref()];
        written.into_iter().flatten().map(|state| state.version()).fold(self.durable_version(), u64::max)
    }

    /// What was accepted after the durable state.
    pub fn tail(&self) -> &[TailEntry] {
        &self.tail
    }

    /// Whether anybody follows the session, or anything is under way.
    pub fn is_busy(&self) -> bool {
        !self.peers.is_empty() || !self.greeting.is_empty() || self.is_working()
    }

    fn is_working(&self) -> bool {
        !self.waiting.is_empty()
            || self.in_flight.is_some()
            || self.reloading
            || self.flushing.is_some()
            || !self.tail.is_empty()
    }

    /// A peer says hello: it gets a welcome, and what it lacks. Saying it again catches up again.
    ///
    /// A peer names what it knows to be durable. One that knows more than this server is welcomed when the server has
    /// read it, so that nobody is shown an older session than before.
    ///
    /// # Errors
    /// [`JoinRefused`] when its claim is not the session's, or its token was revoked.
    pub fn join(
        &mut self,
        peer: PeerId,
        role: Role,
        credential: Credential,
        hello: &Hello,
        environment: &Environment<'_>,
    ) -> Result<Vec<Effect>, JoinRefused> {
        // What is not known to be the latest does not tell who is let in.
        let is_behind = self.is_behind(hello, &credential);
        if !self.stale && !is_behind && !self.is_entitled(&credential, environment.now) {
            return Err(JoinRefused);
        }
        let newcomer = Peer::new(role, credential, hello);
        self.leave(peer);
        if self.stale || is_behind {
            let is_late = self.reloading;
            self.greeting.push(Greeting { peer, newcomer, hello: hello.clone(), is_late });
            return Ok(self.reload());
        }
        Ok(self.welcome(peer, newcomer, hello, environment))
    }

    /// Whether a peer knows a durable version that this server does not have, or another history, or has a token of a
    /// generation that this server has not heard of.
    fn is_behind(&self, hello: &Hello, credential: &Credential) -> bool {
        if let (Credential::Token { generation, .. }, Some(state)) = (credential, &self.state)
            && *generation > state.access_generation
        {
            return true;
        }
        let epoch = self.state.as_ref().map(|state| state.epoch);
        hello.known_version.max(hello.durable_version.unwrap_or(0)) > self.version()
            || (hello.epoch.is_some() && hello.epoch != epoch)
    }

    fn welcome(&mut self, peer: PeerId, newcomer: Peer, hello: &Hello, environment: &Environment<'_>) -> Vec<Effect> {
        self.is_fresh = false;
        let Peer { role, clients, .. } = newcomer.clone();
        self.peers.insert(peer, newcomer);
        let mut effects = vec![Effect::Send { peer, frame: self.welcome_frame(role, hello, environment) }];
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
                        .map(|record| record.clone().project(role, &clients))
                        .collect(),
                }),
                None => Some(snapshot(state, role, &clients)),
            };
            effects.extend(frame.map(|frame| Effect::Send { peer, frame }));
        }
        effects
    }

    /// A peer is gone. What it submitted goes on.
    pub fn leave(&mut self, peer: PeerId) {
        self.peers.remove(&peer);
        self.greeting.retain(|greeting| greeting.peer != peer);
        self.trim();
    }

    /// Commands of a peer that has joined.
    pub fn submit(
        &mut self,
        peer: PeerId,
        requests: impl IntoIterator<Item = Request>,
        environment: &Environment<'_>,
    ) -> Vec<Effect> {
        match self.peers.get_mut(&peer) {
            Some(known) => {
                let (role, credential) = (known.role, known.credential.clone());
                let requests: Vec<Request> = requests.into_iter().collect();
                requests.iter().for_each(|request| known.add(&request.client_id));
                self.take(peer, role, credential, true, requests, environment)
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
        self.take(peer, role, credential, false, requests, environment)
    }

    fn take(
        &mut self,
        peer: PeerId,
        role: Role,
        credential: Credential,
        is_follower: bool,
        requests: impl IntoIterator<Item = Request>,
        environment: &Environment<'_>,
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        for request in requests {
            if self.waiting.len() >= MAX_WAITING {
                effects.push(busy(peer, RETRY_AFTER_MS));
                break;
            }
            let credential = credential.clone();
            self.waiting.push_back(Work { peer: Some(peer), role, credential, is_follower, request });
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
        let Some(in_flight) = self.in_flight.take() else { return Vec::new() };
        self.is_fresh = true;
        self.is_shared_tier_behind = false;
        self.durable = Some(Arc::clone(&in_flight.state));
        let mut effects = self.accept(in_flight);
        self.tail.clear();
        effects.extend(self.advance(environment));
        effects
    }

    /// The shared tier has what [`Effect::Share`] asked for.
    pub fn shared(&mut self, environment: &Environment<'_>) -> Vec<Effect> {
        let Some(in_flight) = self.in_flight.take() else { return Vec::new() };
        let mut effects = self.accept(in_flight);
        effects.extend(self.advance(environment));
        effects
    }

    /// A batch counts: everybody is told, and its state becomes the session's.
    fn accept(&mut self, InFlight { entries, state, answers, .. }: InFlight) -> Vec<Effect> {
        let is_durable = self.durable_version() == state.version();
        self.state = Some(state);
        let mut effects = self.dismiss_strangers();
        effects.extend(self.tell(&entries));
        self.tail.extend(entries);
        let mut others = Vec::new();
        for (peer, frame) in answers {
            if !self.peers.contains_key(&peer) && !others.contains(&peer) {
                others.push(peer);
            }
            effects.push(Effect::Send { peer, frame });
        }
        if is_durable {
            effects.extend(self.tell_durable());
            let frame = ServerFrame::Durable { version: self.durable_version() };
            effects.extend(others.into_iter().map(|peer| Effect::Send { peer, frame: frame.clone() }));
        }
        effects
    }

    /// Sends the records to everybody who follows the session, and keeps them for those who come back.
    fn tell(&mut self, entries: &[TailEntry]) -> Vec<Effect> {
        let Some(epoch) = self.state.as_ref().map(|state| state.epoch) else { return Vec::new() };
        let records = || entries.iter().flat_map(|entry| &entry.records);
        let mut effects = Vec::new();
        for (peer, Peer { role, clients, .. }) in &self.peers {
            let records = records().map(|record| record.clone().project(*role, clients)).collect();
            effects.push(Effect::Send { peer: *peer, frame: ServerFrame::Events { epoch, records } });
        }
        if !self.peers.is_empty() {
            self.recent.extend(records().cloned());
        }
        if let Some(erased) = self.recent.iter().rposition(|record| record.event == Event::Erased {}) {
            self.recent.drain(..erased);
        }
        self.trim();
        effects
    }

    fn trim(&mut self) {
        self.recent.drain(..self.recent.len().saturating_sub(RECENT));
        if self.peers.is_empty() {
            // Most sessions in a server's memory are followed by nobody: they take as little as can be.
            self.recent = VecDeque::new();
            self.waiting.shrink_to_fit();
        }
    }

    fn tell_durable(&self) -> Vec<Effect> {
        let frame = ServerFrame::Durable { version: self.durable_version() };
        self.peers.keys().map(|peer| Effect::Send { peer: *peer, frame: frame.clone() }).collect()
    }

    /// The database has another version than was expected: somebody else wrote. Everything is decided again.
    pub fn conflicted(&mut self) -> Vec<Effect> {
        self.take_back()
    }

    /// The shared tier has another version than was expected: another server was first. Everything is decided again.
    pub fn share_conflicted(&mut self) -> Vec<Effect> {
        self.is_shared_tier_behind = true;
        self.take_back()
    }

    fn take_back(&mut self) -> Vec<Effect> {
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
        let mut effects = self.send_away(works, retry_after_ms);
        // Who came meanwhile is decided on what the database turns out to have, or sent away as well.
        effects.extend(if self.waiting.is_empty() { self.begin_reload() } else { self.reload() });
        effects
    }

    /// The shared tier did not answer: the database has to take it.
    pub fn share_failed(&mut self) -> Vec<Effect> {
        let Some(in_flight) = &mut self.in_flight else { return Vec::new() };
        in_flight.goal = Goal::DatabaseAfterFlush;
        self.commit_in_turn()
    }

    fn commit_in_turn(&mut self) -> Vec<Effect> {
        if self.flushing.is_some() {
            return Vec::new();
        }
        match &mut self.in_flight {
            Some(in_flight) if in_flight.goal == Goal::DatabaseAfterFlush => {
                in_flight.goal = Goal::Database;
                let (entries, state) = (in_flight.entries.clone(), Arc::clone(&in_flight.state));
                vec![Effect::Commit(self.commit_of(&entries, state))]
            }
            _ => Vec::new(),
        }
    }

    /// The tail and these entries, as the database is to have them.
    fn commit_of(&self, entries: &[TailEntry], state: Arc<State>) -> Commit {
        let entries = || self.tail.iter().chain(entries);
        let records = entries().flat_map(|entry| &entry.records).cloned().collect();
        let commands = entries().flat_map(TailEntry::unnamed_commands).collect();
        let told = self.state.as_ref().map(|state| state.mark());
        let before = self.durable.clone();
        Commit { expected_version: self.durable_version(), before, records, commands, state, told }
    }

    /// Brings the tail to the database, unless that is under way.
    pub fn flush(&mut self) -> Vec<Effect> {
        let is_committing = self.in_flight.as_ref().is_some_and(|in_flight| in_flight.goal != Goal::SharedTier);
        if self.tail.is_empty() || self.flushing.is_some() || self.reloading || is_committing {
            return Vec::new();
        }
        if self.stale {
            return self.reload();
        }
        let Some(state) = self.state.clone() else { return Vec::new() };
        self.flushing = Some(Arc::clone(&state));
        vec![Effect::Flush(self.commit_of(&[], state))]
    }

    /// The database has what [`Effect::Flush`] asked for.
    pub fn flushed(&mut self, environment: &Environment<'_>) -> Vec<Effect> {
        let Some(state) = self.flushing.take() else { return Vec::new() };
        let mut effects = Vec::new();
        if state.version() > self.durable_version() {
            self.tail.retain(|entry| entry.last_version() > state.version());
            self.durable = Some(state);
            self.is_shared_tier_behind = false;
            effects.extend(self.tell_durable());
        }
        effects.extend(self.commit_in_turn());
        effects.extend(self.advance(environment));
        effects
    }

    /// The database has another version than the flush expected.
    pub fn flush_conflicted(&mut self) -> Vec<Effect> {
        self.flushing = None;
        match &self.in_flight {
            // It can't be committed any more, and is decided again.
            Some(in_flight) if in_flight.goal == Goal::DatabaseAfterFlush => self.take_back(),
            _ => self.reload(),
        }
    }

    /// The database did not answer to a flush: whether it has the records is not known.
    pub fn flush_failed(&mut self, environment: &Environment<'_>) -> Vec<Effect> {
        self.flushing = None;
        let mut effects = self.commit_in_turn();
        effects.extend(self.advance(environment));
        effects
    }

    /// Another server has accepted something, or the database has it.
    pub fn observed(&mut self, news: News, environment: &Environment<'_>) -> Vec<Effect> {
        let News { epoch, previous, entries, durable } = news;
        if self.stale || self.reloading {
            // What is read then has it.
            return Vec::new();
        }
        let Some(state) = self.state.clone().filter(|state| state.epoch == epoch) else { return self.suspect() };
        let mut effects = Vec::new();
        let reaches = entries.last().map_or(0, TailEntry::last_version);
        if reaches > state.version() {
            if self.in_flight.is_some() {
                // Both can't be accepted: the conflict that follows tells which one was.
                return Vec::new();
            }
            if previous != Some(state.mark()) {
                return self.suspect();
            }
            entries.iter().cloned().for_each(|entry| self.extend(entry));
            effects.extend(self.dismiss_strangers());
            effects.extend(self.tell(&entries));
        } else if !entries.iter().all(|entry| self.agrees_with(entry)) {
            return self.suspect();
        }
        if let Some(mark) = durable.filter(|mark| mark.version > self.durable_version()) {
            let Some(durable) = self.state_at(mark.version).filter(|state| state.mark() == mark) else {
                effects.extend(self.suspect());
                return effects;
            };
            self.tail.retain(|entry| entry.last_version() > mark.version);
            self.durable = Some(durable);
            effects.extend(self.tell_durable());
        }
        effects.extend(self.advance(environment));
        effects
    }

    /// What this server knows may not be all there is any more: a link on which others tell was interrupted, or the
    /// database is known to have more. Who follows the session is told as soon as it has been read again.
    pub fn suspect(&mut self) -> Vec<Effect> {
        self.stale = true;
        self.is_fresh = false;
        if self.is_busy() { self.reload() } else { Vec::new() }
    }

    /// Whether it has to be read again before anything can be said of it.
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// Whether it is being read again, or will be as soon as what is under way is answered.
    pub fn is_reloading(&self) -> bool {
        self.reloading || self.wants_reload
    }

    fn extend(&mut self, entry: TailEntry) {
        let mut state = self.state.as_deref().cloned();
        for record in &entry.records {
            state = evolve(state, record);
        }
        self.state = state.map(Arc::new);
        self.tail.push(entry);
    }

    /// Whether what is told of versions that are known here already is the same; what is durable is.
    fn agrees_with(&self, entry: &TailEntry) -> bool {
        entry
            .records
            .iter()
            .filter(|record| record.version > self.durable_version())
            .all(|record| self.tail.iter().flat_map(|entry| &entry.records).any(|known| known == record))
    }

    fn state_at(&self, version: u64) -> Option<Arc<State>> {
        if version == self.version() {
            return self.state.clone();
        }
        let records = self.tail.iter().flat_map(|entry| &entry.records);
        let until = records.take_while(|record| record.version <= version);
        let state = until.fold(self.durable.as_deref().cloned(), evolve)?;
        (state.version() == version).then(|| Arc::new(state))
    }

    /// The database can't be read.
    pub fn reload_failed(&mut self, retry_after_ms: u64) -> Vec<Effect> {
        self.reloading = false;
        self.wants_reload = false;
        let works = std::mem::take(&mut self.waiting);
        let mut effects = self.send_away(works, retry_after_ms);
        for Greeting { peer, .. } in std::mem::take(&mut self.greeting) {
            effects.push(Effect::Send { peer, frame: unavailable(retry_after_ms) });
        }
        effects
    }

    /// Reads the session again before anything else is decided.
    pub fn reload(&mut self) -> Vec<Effect> {
        self.stale = true;
        self.wants_reload = true;
        self.begin_reload()
    }

    fn begin_reload(&mut self) -> Vec<Effect> {
        if !self.wants_reload || self.reloading || self.in_flight.is_some() || self.flushing.is_some() {
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

    /// Whoever waited with a claim for a session that somebody else has created must not hear of it, nor must those whose
    /// access was revoked hear any more.
    fn dismiss_strangers(&mut self) -> Vec<Effect> {
        let Some(state) = &self.state else { return Vec::new() };
        let farewell = |peer: &Peer| match &peer.credential {
            // By the claim alone: a connection whose time is over ends by itself.
            Credential::Claim(digest) if !state.knows(digest) => Some(stranger()),
            Credential::Token { generation, family } if !state.keeps(*generation, family) => Some(revoked()),
            _ => None,
        };
        let strangers: Vec<(PeerId, ServerFrame)> =
            self.peers.iter().filter_map(|(id, peer)| Some((*id, farewell(peer)?))).collect();
        strangers
            .into_iter()
            .map(|(peer, frame)| {
                self.peers.remove(&peer);
                Effect::Send { peer, frame }
            })
            .collect()
    }

    fn is_entitled(&self, credential: &Credential, now: Timestamp) -> bool {
        match (credential, &self.state) {
            (Credential::Verified, _) | (_, None) => true,
            (Credential::Claim(digest), Some(state)) => state.admits(digest, now),
            (Credential::Token { generation, family }, Some(state)) => state.accepts(*generation, family),
        }
    }

    fn welcome_frame(&self, role: Role, hello: &Hello, environment: &Environment<'_>) -> ServerFrame {
        let state = self.state.as_deref();
        let funnel = state.map(|state| &state.session.funnel);
        let entry = funnel.and_then(|funnel| environment.funnels.find(funnel.id.as_str(), Some(funnel.version)));
        let is_new = |entry: &FunnelEntry<'_>| hello.funnel_hash.as_deref() != Some(entry.hash);
        ServerFrame::Welcome {
            protocol: PROTOCOL_VERSION,
            session_id: self.session_id.clone(),
            epoch: state.map_or(0, |state| state.epoch),
            version: self.version(),
            durable_version: self.durable_version(),
            last_seq: state.map_or(0, |state| state.last_seq(&hello.client_id.in_ledger(role))),
            server_time: environment.now,
            funnel_hash: entry.map(|entry| entry.hash.to_owned()),
            funnel: entry.filter(is_new).map(|entry| Box::new(entry.funnel.clone())),
        }
    }

    /// Decides what waits, unless something is under way that has to be known first.
    fn advance(&mut self, environment: &Environment<'_>) -> Vec<Effect> {
        let mut effects = self.begin_reload();
        effects.extend(self.decide_waiting(environment));
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
        let is_relaxed = |work: &Work| work.request.durability(work.role) == Durability::Relaxed;
        let may_be_shared = environment.relaxed
            && !is_due
            && !self.is_shared_tier_behind
            && self.waiting.iter().take(BATCH).all(is_relaxed);

        let mut batch = Batch::new(self.state.as_deref().cloned(), environment);
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

        let Batch { state, entries, .. } = batch;
        match state {
            Some(state) if !entries.is_empty() => {
                let state = Arc::new(state);
                // A refusal has to be final, so the database is asked: a client lets go of a command when it hears that it
                // was refused, and were that lost with the tail, the server would wait for a number that nobody has any
                // more. And one that is told of a gap takes its numbers for forgotten.
                let refuses = answers.iter().any(|(_, frame)| !matches!(frame, ServerFrame::Accepted { .. }));
                let previous = self.state.clone().filter(|_| may_be_shared && !refuses);
                let share = previous.map(|previous| {
                    Effect::Share(Share { previous, entries: entries.clone(), state: Arc::clone(&state) })
                });
                let goal = if share.is_some() { Goal::SharedTier } else { Goal::DatabaseAfterFlush };
                self.in_flight = Some(InFlight { works, entries, state, answers, goal });
                match share {
                    Some(share) => vec![share],
                    None => self.commit_in_turn(),
                }
            }
            // Nothing is written, so nobody compares the version. Then a refusal that nobody remembers
            // must not come from a state that another server has left behind: a client that is told of a gap takes it
            // for lost history, and says that the numbers before need not be waited for.
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
                let durable = ServerFrame::Durable { version: self.durable_version() };
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

fn snapshot(state: &State, role: Role, clients: &[ClientId]) -> ServerFrame {
    ServerFrame::Snapshot { state: Box::new(state.clone().project(role, clients)) }
}

fn unavailable(retry_after_ms: u64) -> ServerFrame {
    let message = "the session can't be read just now; come back later".to_owned();
    ServerFrame::Error { code: ErrorCode::Unavailable, message, retry_after_ms: Some(retry_after_ms) }
}

fn vanished() -> ServerFrame {
    let message = "this session was deleted; start a new one".to_owned();
    ServerFrame::Error { code: ErrorCode::SessionNotFound, message, retry_after_ms: None }
}

fn revoked() -> ServerFrame {
    ServerFrame::Error {
        code: ErrorCode::TokenRevoked,
        message: Rejection::token_revoked().message,
        retry_after_ms: None,
    }
}

fn refusal(credential: &Credential) -> ServerFrame {
    if let Credential::Token { .. } = credential { revoked() } else { stranger() }
}

fn stranger() -> ServerFrame {
    let message =
        "this session is not this browser's, or its time with it is over, or was ended by the shop; start a new \
                   one, or ask for a link on the device that has the session"
            .to_owned();
    ServerFrame::Error { code: ErrorCode::Unauthorized, message, retry_after_ms: None }
}

fn busy(peer: PeerId, retry_after_ms: u64) -> Effect {
    Effect::Send { peer, frame: ServerFrame::Busy { retry_after_ms } }
}
