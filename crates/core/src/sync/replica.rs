//! The client's end of the protocol.

use alloc::collections::VecDeque;
use alloc::sync::Arc;

use serde::{Deserialize, Serialize};

use super::frame::{ClientFrame, ErrorCode, Hello, PROTOCOL_VERSION, ServerFrame, Submission};
use crate::command::Command;
use crate::decide::{Context, decide_for_browser};
use crate::event::{Event, Origin, Record};
use crate::evolve::evolve;
use crate::funnel::Funnel;
use crate::identifier::{ClientId, SessionId};
use crate::json::json_struct;
use crate::permission::Role;
use crate::prelude::*;
use crate::rejection::{Rejection, RejectionCode};
use crate::session::Session;
use crate::state::State;
use crate::time::Timestamp;

/// A session as one client has it: what the server confirmed, and on top of that its own commands that the server
/// has not judged yet.
#[derive(Clone, Debug)]
pub struct Replica {
    session_id: SessionId,
    client_id: ClientId,
    token: Option<String>,
    claim: Option<String>,
    funnel: Option<(Funnel, String)>,
    confirmed: Option<State>,
    optimistic: Option<State>,
    durable_version: u64,
    pending: VecDeque<Pending>,
    next_seq: u64,
    link: Link,
    /// The highest number that the server has settled, as far as this connection has told.
    settled: u64,
    /// Confirmed records that are not durable yet. Only what is durable is stored: it is never taken back.
    unstored: Vec<Arc<Record>>,
    /// The confirmed state came as a whole and is not stored yet.
    is_base_unstored: bool,
    /// The confirmed state may not be part of the history that won: a snapshot was asked for.
    awaits_snapshot: bool,
    /// Records in the storage since the last base there.
    records_stored: usize,
    outputs: Vec<Output>,
}

#[derive(Clone, PartialEq, Debug)]
struct Pending {
    seq: u64,
    command: Command,
    at: Timestamp,
    stored: bool,
    sent: bool,
    accepted: Option<u64>,
}

/// How the replica is connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Link {
    /// Not at all.
    Down,
    /// `hello` was said and `welcome` not heard yet.
    Greeting,
    /// Commands are sent as they come.
    Live,
}

/// What the replica wants of its shell, or tells it.
#[derive(Clone, PartialEq, Debug)]
pub enum Output {
    /// Send this frame.
    Send(ClientFrame),
    /// Store these changes, all or none, after those before them.
    Store(Vec<StorageChange>),
    /// The session, or how far it is confirmed, has changed.
    Changed,
    /// A command went one step further.
    Confirmed {
        /// Its number.
        seq: u64,
        /// How far it is.
        confirmation: Confirmation,
    },
    /// A record of the server became part of the confirmed state.
    Applied(Arc<Record>),
    /// Call [`Replica::retry`] after this many milliseconds.
    RetryAfter(u64),
    /// The server's clock, as just heard.
    ServerTime(Timestamp),
    /// A new token; the replica uses it already, the shell keeps it.
    Token(String),
    /// The server ends the connection.
    Refused {
        /// Why.
        code: ErrorCode,
        /// A sentence for a person.
        message: String,
        /// When to come back, in milliseconds.
        retry_after_ms: Option<u64>,
    },
    /// The server does not know this client's numbers any more: call [`Replica::renew_client`] with a new id.
    NeedsNewClient,
}

/// How far a command is.
#[derive(Clone, PartialEq, Debug)]
pub enum Confirmation {
    /// The server applied it; the session had this version then.
    Accepted(u64),
    /// The database has it.
    Durable(u64),
    /// The server refused it. It is gone.
    Rejected {
        /// Why.
        reason: Rejection,
        /// The command, for whoever did not issue it in this life of the page.
        command: Box<Command>,
    },
}

/// A change of the client's storage.
#[derive(Clone, PartialEq, Debug)]
pub enum StorageChange {
    /// Keep a command until it is durable.
    PutCommand(StoredCommand),
    /// Forget a command.
    DeleteCommand(u64),
    /// Keep a confirmed record.
    PutRecord(Arc<Record>),
    /// Forget everything that was stored so far: it was stored under a client id that is given up.
    Forget,
    /// Keep this confirmed state, and forget the records up to its version.
    PutBase(Box<State>),
}

/// A command as it is stored.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredCommand {
    /// Its number.
    pub seq: u64,
    /// When it was issued.
    pub at: Timestamp,
    /// The command.
    pub command: Command,
}

/// What a client finds in its storage.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Restored {
    /// The confirmed state.
    pub base: Option<State>,
    /// Confirmed records after it, in the order of their versions.
    pub records: Vec<Record>,
    /// Commands that are not durable yet, in the order of their numbers.
    pub commands: Vec<StoredCommand>,
    /// The session's token.
    pub token: Option<String>,
    /// The secret with which the session was created offline.
    pub claim: Option<String>,
}

/// How many records are stored one by one before the whole confirmed state is stored once.
const RECORDS_PER_BASE: usize = 64;

/// How many commands may be on their way at a time.
const WINDOW: usize = 64;

impl Replica {
    /// The replica that `client_id` has of a session, with what it finds in its storage.
    pub fn new(session_id: SessionId, client_id: ClientId, restored: Restored) -> Self {
        let Restored { base, records, commands, token, claim } = restored;
        let records_stored = records.len();
        let mut confirmed = base;
        for record in &records {
            // After a hole the rest is of no use; the server sends it again.
            if record.version == confirmed.as_ref().map_or(0, State::version) + 1 {
                confirmed = evolve(confirmed, record);
            }
        }
        let durable_version = confirmed.as_ref().map_or(0, State::version);
        let applied = confirmed.as_ref().map_or(0, |state| state.last_seq(&client_id));
        let last_stored = commands.last().map_or(0, |command| command.seq);
        let mut replica = Self {
            session_id,
            client_id,
            token,
            claim,
            funnel: None,
            confirmed,
            optimistic: None,
            durable_version,
            pending: commands
                .into_iter()
                .map(|StoredCommand { seq, at, command }| Pending {
                    seq,
                    command,
                    at,
                    stored: true,
                    sent: false,
                    accepted: None,
                })
                .collect(),
            next_seq: applied.max(last_stored) + 1,
            link: Link::Down,
            settled: 0,
            unstored: Vec::new(),
            is_base_unstored: false,
            awaits_snapshot: false,
            records_stored,
            outputs: Vec::new(),
        };
        replica.rebase();
        replica
    }

    /// Takes the funnel definition that commands are judged by, with the server's hash of it.
    pub fn set_funnel(&mut self, funnel: Funnel, hash: String) {
        self.funnel = Some((funnel, hash));
        self.rebase();
        self.outputs.push(Output::Changed);
    }

    /// The funnel definition, where there is one yet.
    pub fn funnel(&self) -> Option<&Funnel> {
        self.funnel.as_ref().map(|(funnel, _)| funnel)
    }

    /// The session as this client sees it now, its own unconfirmed commands included.
    pub fn session(&self) -> Option<&Session> {
        self.optimistic.as_ref().map(|state| &state.session)
    }

    /// The version that the server has confirmed.
    pub fn confirmed_version(&self) -> u64 {
        self.confirmed.as_ref().map_or(0, State::version)
    }

    /// The version that the database has, as far as it is known here.
    pub fn durable_version(&self) -> u64 {
        self.durable_version
    }

    /// How many commands are not durable yet.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The commands that are not durable yet, with their numbers.
    pub fn pending_commands(&self) -> impl Iterator<Item = (u64, &Command)> {
        self.pending.iter().map(|pending| (pending.seq, &pending.command))
    }

    /// How it is connected.
    pub fn link(&self) -> Link {
        self.link
    }

    /// The session's id.
    pub fn session_id(&self) -> &SessionId {
        &self.session_id
    }

    /// The client's id.
    pub fn client_id(&self) -> &ClientId {
        &self.client_id
    }

    /// Whether the personal data of the session was erased.
    pub fn is_erased(&self) -> bool {
        self.confirmed.as_ref().is_some_and(|state| state.erased_at.is_some())
    }

    /// What the shell has to do, in this order.
    pub fn take_outputs(&mut self) -> Vec<Output> {
        core::mem::take(&mut self.outputs)
    }

    /// Issues a command: judged and shown at once, stored, then sent. `now` is the server's time as well as it is known.
    ///
    /// # Errors
    /// The [`Rejection`] that the server would give, as far as this client can know; then nothing was queued.
    pub fn submit(&mut self, command: Command, now: Timestamp) -> Result<u64, Rejection> {
        let Some((funnel, _)) = &self.funnel else {
            let message = "the funnel is not known yet; connect once, or pass its definition";
            return Err(Rejection::new(RejectionCode::UnknownFunnel, message));
        };
        let events = judge(&self.session_id, funnel, self.optimistic.as_ref(), &command, now)?;
        let seq = self.next_seq;
        self.next_seq += 1;
        self.optimistic = apply(self.optimistic.take(), events, &self.client_id, seq, now);
        let stored = StoredCommand { seq, at: now, command };
        self.outputs.push(Output::Store(vec![StorageChange::PutCommand(stored.clone())]));
        let StoredCommand { command, .. } = stored;
        self.pending.push_back(Pending { seq, command, at: now, stored: false, sent: false, accepted: None });
        self.outputs.push(Output::Changed);
        Ok(seq)
    }

    /// The commands up to `seq` are stored and may be sent.
    ///
    /// Not before: after a crash the number would be used again for another command, which the server would then
    /// take for one that it knows.
    pub fn commands_stored(&mut self, seq: u64) {
        for pending in self.pending.iter_mut().filter(|pending| pending.seq <= seq) {
            pending.stored = true;
        }
        self.send_pending();
    }

    /// A connection is open.
    pub fn connected(&mut self) {
        self.link = Link::Greeting;
        self.greet();
    }

    /// The connection is gone.
    pub fn disconnected(&mut self) {
        self.link = Link::Down;
        self.forget_sent();
        self.outputs.push(Output::Changed);
    }

    /// The time of [`Output::RetryAfter`] is over.
    pub fn retry(&mut self) {
        self.send_pending();
    }

    /// Goes on under a new client id, with its pending commands numbered anew.
    pub fn renew_client(&mut self, client_id: ClientId) {
        self.client_id = client_id;
        let mut next_seq = 1;
        for pending in &mut self.pending {
            pending.seq = next_seq;
            pending.stored = false;
            pending.sent = false;
            pending.accepted = None;
            next_seq += 1;
        }
        // What was stored belongs to the old id; whoever opens the new one has to find everything there.
        let mut changes = vec![StorageChange::Forget];
        self.is_base_unstored = true;
        self.store_durable(&mut changes);
        for pending in &self.pending {
            changes.push(StorageChange::PutCommand(StoredCommand {
                seq: pending.seq,
                at: pending.at,
                command: pending.command.clone(),
            }));
        }
        self.next_seq = next_seq;
        self.outputs.push(Output::Store(changes));
        self.rebase();
        if self.link != Link::Down {
            self.link = Link::Greeting;
            self.greet();
        }
    }

    /// Uses this token, or none, from the next greeting on.
    pub fn set_token(&mut self, token: Option<String>) {
        self.token = token;
    }

    /// Takes a frame of the server.
    pub fn handle(&mut self, frame: ServerFrame) {
        match frame {
            // What was answered before the welcome is asked again after it.
            ServerFrame::Accepted { .. } | ServerFrame::Rejected { .. } | ServerFrame::Gap { .. }
                if self.link != Link::Live => {}
            ServerFrame::Welcome {
                epoch,
                version,
                durable_version,
                last_seq,
                server_time,
                funnel_hash,
                funnel,
                ..
            } => {
                self.outputs.push(Output::ServerTime(server_time));
                if let (Some(funnel), Some(hash)) = (funnel, funnel_hash) {
                    self.funnel = Some((*funnel, hash));
                }
                self.welcomed(epoch, version, durable_version, last_seq);
            }
            ServerFrame::Snapshot { state } => {
                let (last_seq, version) = (state.last_seq(&self.client_id), state.version());
                for pending in &mut self.pending {
                    if pending.seq > last_seq {
                        // Accepted once, and not part of the history that won: it has to be sent again.
                        pending.sent = false;
                        pending.accepted = None;
                    } else if pending.accepted.is_some() {
                        // Perhaps at another version than before: it is durable when all of this is.
                        pending.accepted = Some(version);
                    }
                }
                self.confirmed = Some(*state);
                self.unstored.clear();
                self.awaits_snapshot = false;
                self.is_base_unstored = true;
                self.store();
                self.rebase();
                self.outputs.push(Output::Changed);
            }
            ServerFrame::Events { epoch, records } => self.apply_records(epoch, records),
            ServerFrame::Accepted { client_id, seq, version, .. } if client_id == self.client_id => {
                self.settled = self.settled.max(seq);
                if let Some(pending) = self.pending.iter_mut().find(|pending| pending.seq == seq) {
                    pending.accepted = Some(version);
                    self.outputs.push(Output::Confirmed { seq, confirmation: Confirmation::Accepted(version) });
                }
                self.store();
            }
            ServerFrame::Rejected { client_id, seq, reason } if client_id == self.client_id => {
                self.settled = self.settled.max(seq);
                let place = self.pending.iter().position(|pending| pending.seq == seq);
                if let Some(pending) = place.and_then(|place| self.pending.remove(place)) {
                    let command = Box::new(pending.command);
                    self.outputs.push(Output::Store(vec![StorageChange::DeleteCommand(seq)]));
                    self.outputs
                        .push(Output::Confirmed { seq, confirmation: Confirmation::Rejected { reason, command } });
                    self.rebase();
                    self.outputs.push(Output::Changed);
                }
            }
            ServerFrame::Durable { version } => {
                self.durable_version = self.durable_version.max(version);
                self.store();
                self.outputs.push(Output::Changed);
            }
            ServerFrame::Gap { client_id, expected } if client_id == self.client_id => self.fill_gap(expected),
            ServerFrame::Busy { retry_after_ms } => {
                self.forget_sent();
                self.outputs.push(Output::RetryAfter(retry_after_ms));
            }
            ServerFrame::Token { token, .. } => {
                self.token = Some(token.clone());
                self.outputs.push(Output::Token(token));
            }
            ServerFrame::Pong { server_time } => self.outputs.push(Output::ServerTime(server_time)),
            ServerFrame::Error { code, message, retry_after_ms } => {
                self.outputs.push(Output::Refused { code, message, retry_after_ms });
            }
            // Another client's answers, on a connection that several share.
            ServerFrame::Accepted { .. } | ServerFrame::Rejected { .. } | ServerFrame::Gap { .. } => {}
        }
        self.send_pending();
    }

    fn greet(&mut self) {
        // What is not durable may turn out not to have happened, so all of it is asked for again.
        self.awaits_snapshot |= self.confirmed_version() > self.durable_version;
        let is_durable = !self.awaits_snapshot;
        self.outputs.push(Output::Send(ClientFrame::Hello(Hello {
            protocol: PROTOCOL_VERSION,
            session_id: self.session_id.clone(),
            client_id: self.client_id.clone(),
            known_version: if is_durable { self.confirmed_version() } else { 0 },
            epoch: self.confirmed.as_ref().filter(|_| is_durable).map(|state| state.epoch),
            funnel_hash: self.funnel.as_ref().map(|(_, hash)| hash.clone()),
            token: self.token.clone(),
            claim: self.claim.clone(),
        })));
    }

    fn welcomed(&mut self, epoch: u64, version: u64, durable_version: u64, last_seq: u64) {
        if self.link != Link::Greeting {
            // It answers a hello that was answered already.
            return;
        }
        self.link = Link::Live;
        self.settled = last_seq;
        let same_history = self.confirmed.as_ref().is_some_and(|state| state.epoch == epoch);
        if !same_history || version < self.confirmed_version() {
            // The server has another history; what it has is on its way as a snapshot.
            self.durable_version = 0;
        }
        self.durable_version = self.durable_version.max(durable_version);
        for pending in &mut self.pending {
            // What was accepted and is not durable may have been lost since, or decided again: it is asked for again.
            pending.sent = false;
            pending.accepted = None;
        }
        self.next_seq = self.next_seq.max(last_seq + 1);
        self.store();
        self.outputs.push(Output::Changed);
    }

    fn apply_records(&mut self, epoch: u64, records: Vec<Record>) {
        if self.awaits_snapshot {
            return;
        }
        if self.confirmed.as_ref().is_some_and(|state| state.epoch != epoch) {
            return self.resync();
        }
        let mut has_hole = false;
        let mut is_changed = false;
        for record in records {
            let version = self.confirmed_version();
            if record.version <= version {
                continue;
            }
            if record.version != version + 1 {
                has_hole = true;
                break;
            }
            self.confirmed = evolve(self.confirmed.take(), &record);
            let record = Arc::new(record);
            self.unstored.push(Arc::clone(&record));
            self.outputs.push(Output::Applied(record));
            is_changed = true;
        }
        if is_changed {
            self.store();
            self.rebase();
            self.outputs.push(Output::Changed);
        }
        if has_hole {
            self.resync();
        }
    }

    /// Says hello again, to be told what is missing.
    fn resync(&mut self) {
        if self.link == Link::Live {
            self.link = Link::Greeting;
            self.greet();
        }
    }

    fn fill_gap(&mut self, expected: u64) {
        if expected <= self.settled {
            // Said before that number was settled, and overtaken by the answer to it; or the server has lost what it
            // knew. Its next welcome tells which.
            return self.resync();
        }
        match self.pending.front().map(|first| first.seq) {
            Some(first) if first <= expected => {
                for pending in self.pending.iter_mut().filter(|pending| pending.seq >= expected) {
                    pending.sent = false;
                    pending.accepted = None;
                }
            }
            // The server expects numbers that are gone here, so it has lost what it knew of this client.
            Some(_) => {
                self.forget_sent();
                self.link = Link::Greeting;
                self.outputs.push(Output::NeedsNewClient);
            }
            None => {}
        }
    }

    fn forget_sent(&mut self) {
        for pending in &mut self.pending {
            pending.sent = false;
        }
    }

    /// Stores what has become durable, and lets go of the commands in it.
    fn store(&mut self) {
        let mut changes = Vec::new();
        self.store_durable(&mut changes);
        let durable_version = self.durable_version;
        let outputs = &mut self.outputs;
        self.pending.retain(|pending| match pending.accepted {
            Some(version) if version <= durable_version => {
                changes.push(StorageChange::DeleteCommand(pending.seq));
                let confirmation = Confirmation::Durable(version);
                outputs.push(Output::Confirmed { seq: pending.seq, confirmation });
                false
            }
            _ => true,
        });
        if !changes.is_empty() {
            self.outputs.push(Output::Store(changes));
        }
    }

    fn store_durable(&mut self, changes: &mut Vec<StorageChange>) {
        let Some(confirmed) = self.confirmed.as_ref().filter(|_| !self.awaits_snapshot) else { return };
        let is_all = confirmed.version() <= self.durable_version;
        let durable = self.unstored.iter().take_while(|record| record.version <= self.durable_version).count();
        if is_all && (self.is_base_unstored || self.records_stored + durable >= RECORDS_PER_BASE) {
            changes.push(StorageChange::PutBase(Box::new(confirmed.clone())));
            self.unstored.clear();
            self.is_base_unstored = false;
            self.records_stored = 0;
        } else if !self.is_base_unstored {
            self.records_stored += durable;
            changes.extend(self.unstored.drain(..durable).map(StorageChange::PutRecord));
        }
    }

    fn send_pending(&mut self) {
        if self.link != Link::Live {
            return;
        }
        let mut on_their_way = self.pending.iter().filter(|pending| pending.sent && pending.accepted.is_none()).count();
        for pending in &mut self.pending {
            if !pending.stored || on_their_way >= WINDOW {
                break;
            }
            if pending.sent || pending.accepted.is_some() {
                continue;
            }
            pending.sent = true;
            on_their_way += 1;
            self.outputs.push(Output::Send(ClientFrame::Submit {
                commands: vec![Submission {
                    client_id: self.client_id.clone(),
                    seq: pending.seq,
                    command: pending.command.clone(),
                }],
            }));
        }
    }

    /// Confirmed state, and the pending commands that are not in it, judged again. One that does not fit any more
    /// shows no effect; the server has the last word on it.
    fn rebase(&mut self) {
        let applied = self.confirmed.as_ref().map_or(0, |state| state.last_seq(&self.client_id));
        let mut optimistic = self.confirmed.clone();
        if let Some((funnel, _)) = &self.funnel {
            for pending in self.pending.iter().filter(|pending| pending.seq > applied) {
                let judged = judge(&self.session_id, funnel, optimistic.as_ref(), &pending.command, pending.at);
                if let Ok(events) = judged {
                    optimistic = apply(optimistic, events, &self.client_id, pending.seq, pending.at);
                }
            }
        }
        self.optimistic = optimistic;
    }
}

fn judge(
    session_id: &SessionId,
    funnel: &Funnel,
    state: Option<&State>,
    command: &Command,
    now: Timestamp,
) -> Result<Vec<Event>, Rejection> {
    decide_for_browser(state, command, &Context { now, funnel, session_id, epoch: 0, claim: None })
}

fn apply(state: Option<State>, events: Vec<Event>, client_id: &ClientId, seq: u64, now: Timestamp) -> Option<State> {
    events.into_iter().fold(state, |state, event| {
        let version = state.as_ref().map_or(0, State::version) + 1;
        let origin = Some(Origin { client_id: client_id.clone(), seq });
        evolve(state, &Record { version, at: now, by: Role::Browser, origin, event })
    })
}

json_struct!(StoredCommand, Ignored { seq: "seq", at: "at", command: "command" });
