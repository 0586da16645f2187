//! The client's end of the protocol.

mod output;
mod tabs;

use alloc::sync::Arc;

pub use output::{Confirmation, Output, Restored, StorageChange, StoredCommand};

use super::frame::{ClientFrame, Hello, PROTOCOL_VERSION, ServerFrame, Submission};
use crate::command::Command;
use crate::decide::{Context, decide_for_browser};
use crate::event::{Event, Origin, Record};
use crate::evolve::evolve;
use crate::funnel::Funnel;
use crate::identifier::{ClientId, SessionId};
use crate::ordered::OrderedMap;
use crate::permission::Role;
use crate::prelude::*;
use crate::rejection::{Rejection, RejectionCode};
use crate::session::Session;
use crate::state::State;
use crate::time::Timestamp;

/// A session as one client has it: what the server confirmed, and on top of that the commands that the server has not
/// judged yet.
///
/// The tabs of one browser each have a replica, with a client id and numbers of its own. One of them *leads*: it talks to
/// the server, carries the commands of all, and keeps the confirmed state in the storage that they share. The others
/// *follow*: to them the leader is what the server is to it, with the same frames. A new replica leads; so does one that
/// is alone.
#[derive(Clone, Debug)]
pub struct Replica {
    session_id: SessionId,
    client_id: ClientId,
    token: Option<String>,
    claim: Option<String>,
    funnel: Option<(Funnel, String)>,
    is_leading: bool,
    /// The tabs that have followed this one, by their clients.
    followers: Vec<ClientId>,
    confirmed: Option<State>,
    optimistic: Option<State>,
    durable_version: u64,
    /// The history that this version belongs to; 0 as long as there is none.
    durable_epoch: u64,
    /// What this tab has said hello with last.
    said: Option<Hello>,
    /// The version that another tab knows to be durable, and that the server was asked for.
    asked_for: u64,
    /// Epoch and version of which the latest welcome told.
    welcomed: (u64, u64),
    /// The server's clock, as it was heard last.
    server_time: Timestamp,
    /// Clients of which the server expects a command that is not here, and which one.
    missing: Vec<(ClientId, u64)>,
    /// Tabs that said hello and know more than this one.
    greetings: Vec<Hello>,
    /// The commands of all tabs that are not durable, in the order in which they were issued.
    pending: Vec<Pending>,
    next_seq: u64,
    link: Link,
    /// The highest number of each client that the server has settled, as far as this connection has told.
    settled: OrderedMap<ClientId, u64>,
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
    client_id: ClientId,
    seq: u64,
    /// The client's commands before it are settled, or gone for good.
    is_first: bool,
    command: Command,
    at: Timestamp,
    stored: bool,
    /// The other tabs were told of it; or, where it is another tab's, this one was since it said hello to its leader.
    announced: bool,
    sent: bool,
    accepted: Option<u64>,
}

impl Pending {
    fn as_stored(&self) -> StoredCommand {
        StoredCommand { seq: self.seq, at: self.at, command: self.command.clone() }
    }
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

/// How many records are stored one by one before the whole confirmed state is stored once.
const RECORDS_PER_BASE: usize = 64;

/// How many commands may be on their way at a time.
const WINDOW: usize = 64;

/// How many commands one frame holds at most.
const COMMANDS_PER_FRAME: usize = 32;

/// How many other tabs are named to the server when a connection begins.
const MAX_NAMED: usize = 64;

impl Replica {
    /// The replica that `client_id` has of a session, with what the storage has.
    ///
    /// No two lives of a page may use one client id, unless the later one finds everything that the earlier one stored.
    pub fn new(session_id: SessionId, client_id: ClientId, mut restored: Restored) -> Self {
        let confirmed = restored.confirmed();
        let confirmed_epoch = confirmed.as_ref().map_or(0, |state| state.epoch);
        let Restored { records, outbox, token, claim, .. } = restored;
        let applied = confirmed.as_ref().map_or(0, |state| state.last_seq(&client_id));
        let own = outbox.iter().filter(|(owner, _)| *owner == client_id).map(|(_, command)| command.seq);
        let mut replica = Self {
            next_seq: own.fold(applied, u64::max) + 1,
            session_id,
            client_id,
            token,
            claim,
            funnel: None,
            is_leading: true,
            followers: Vec::new(),
            durable_version: confirmed.as_ref().map_or(0, State::version),
            durable_epoch: confirmed_epoch,
            said: None,
            asked_for: 0,
            welcomed: (0, 0),
            server_time: Timestamp::from_millis(0),
            missing: Vec::new(),
            greetings: Vec::new(),
            confirmed,
            optimistic: None,
            pending: Vec::new(),
            link: Link::Down,
            settled: OrderedMap::default(),
            unstored: Vec::new(),
            is_base_unstored: false,
            awaits_snapshot: false,
            records_stored: records.len(),
            outputs: Vec::new(),
        };
        replica.carry(outbox);
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

    /// The state that the server has confirmed.
    pub fn confirmed(&self) -> Option<&State> {
        self.confirmed.as_ref()
    }

    /// The version that the server has confirmed.
    pub fn confirmed_version(&self) -> u64 {
        self.confirmed.as_ref().map_or(0, State::version)
    }

    /// The version that the database has, as far as it is known here.
    pub fn durable_version(&self) -> u64 {
        self.durable_version
    }

    /// How many commands are not durable yet, those of other tabs included.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The commands that are not durable yet, with the clients that issued them and their numbers.
    pub fn pending_commands(&self) -> impl Iterator<Item = (&ClientId, u64, &Command)> {
        self.pending.iter().map(|pending| (&pending.client_id, pending.seq, &pending.command))
    }

    /// The number of the command that was issued last.
    pub fn last_seq(&self) -> u64 {
        self.next_seq - 1
    }

    /// How far each of [`Replica::pending_commands`] is: `issued`, `stored`, `sent` or `accepted`.
    pub fn pending_stages(&self) -> impl Iterator<Item = &'static str> {
        self.pending.iter().map(|pending| match pending {
            Pending { accepted: Some(_), .. } => "accepted",
            Pending { sent: true, .. } => "sent",
            Pending { stored: true, .. } => "stored",
            _ => "issued",
        })
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
        // In the order in which they are shown, also where a clock goes back.
        let at = self.pending.last().map_or(now, |last| last.at.max(now));
        let events = judge(&self.session_id, funnel, self.optimistic.as_ref(), &command, at)?;
        let seq = self.next_seq;
        self.next_seq += 1;
        self.optimistic = apply(self.optimistic.take(), events, &self.client_id, seq, at);
        let client_id = self.client_id.clone();
        let pending = Pending {
            client_id,
            seq,
            is_first: false,
            command,
            at,
            stored: false,
            announced: false,
            sent: false,
            accepted: None,
        };
        let put = StorageChange::PutCommand(self.client_id.clone(), pending.as_stored());
        self.outputs.push(Output::Store { changes: vec![put], as_leader: false });
        self.pending.push(pending);
        self.outputs.push(Output::Changed);
        Ok(seq)
    }

    /// The commands of this client up to `seq` are stored and may be sent.
    ///
    /// Not before: after a crash nobody would know of them, and the buyer would be shown something else than the server has.
    pub fn commands_stored(&mut self, client_id: &ClientId, seq: u64) {
        for pending in self.pending.iter_mut().filter(|pending| pending.client_id == *client_id && pending.seq <= seq) {
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
        self.asked_for = 0;
        self.answer_greetings();
        self.forget_sent();
        self.outputs.push(Output::Changed);
    }

    /// The time of [`Output::RetryAfter`] is over.
    pub fn retry(&mut self) {
        self.send_pending();
    }

    /// Proves itself with these, or none, from the next greeting on.
    pub fn set_credentials(&mut self, token: Option<String>, claim: Option<String>) {
        self.token = token;
        self.claim = claim;
    }

    /// Takes a frame of the server.
    pub fn handle(&mut self, frame: ServerFrame) {
        match frame {
            // What was answered before the welcome is asked again after it, by whoever sends it.
            ServerFrame::Accepted { ref client_id, .. }
            | ServerFrame::Rejected { ref client_id, .. }
            | ServerFrame::Gap { ref client_id, .. }
                if self.link != Link::Live && (self.is_leading || *client_id == self.client_id) => {}
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
                // A leading tab has it from the server, and its clock is this tab's.
                if self.is_leading {
                    self.server_time = server_time;
                    self.outputs.push(Output::ServerTime(server_time));
                }
                if let (Some(funnel), Some(hash)) = (funnel, funnel_hash) {
                    self.funnel = Some((*funnel, hash));
                }
                self.welcomed(epoch, version, durable_version, last_seq);
            }
            // What was told before this tab came to know more.
            ServerFrame::Snapshot { state } if self.is_outdated(&state) => {}
            ServerFrame::Snapshot { state } => {
                let version = state.version();
                let is_other_history = self.confirmed.as_ref().is_some_and(|confirmed| confirmed.epoch != state.epoch);
                for pending in &mut self.pending {
                    if is_other_history || pending.seq > state.last_seq(&pending.client_id) {
                        // Accepted once, and not part of the history that won, or perhaps refused there: it is asked again.
                        pending.sent = false;
                        pending.accepted = None;
                    } else if pending.accepted.is_some() {
                        // Perhaps at another version than before: it is durable when all of this is.
                        pending.accepted = Some(version);
                    }
                }
                self.durable_version = self.durable_version_in(state.epoch);
                self.durable_epoch = state.epoch;
                self.confirmed = Some(*state);
                self.unstored.clear();
                self.awaits_snapshot = false;
                self.is_base_unstored = true;
                self.store();
                self.rebase();
                self.outputs.push(Output::Changed);
            }
            ServerFrame::Events { epoch, records } => self.apply_records(epoch, records),
            ServerFrame::Accepted { client_id, seq, version, .. } => {
                self.settle(&client_id, seq);
                if let Some(place) = self.place_of(&client_id, seq) {
                    self.pending[place].accepted = Some(version);
                    let confirmed = self.confirmed.as_ref().filter(|state| version <= state.version());
                    let is_shown_twice = confirmed.is_some_and(|state| state.last_seq(&client_id) < seq);
                    let confirmation = Confirmation::Accepted(version);
                    self.outputs.push(Output::Confirmed { client_id, seq, confirmation });
                    if is_shown_twice {
                        self.rebase();
                        self.outputs.push(Output::Changed);
                    }
                }
                self.store();
            }
            ServerFrame::Rejected { client_id, seq, reason } => {
                self.settle(&client_id, seq);
                if let Some(place) = self.place_of(&client_id, seq) {
                    let command = Box::new(self.pending.remove(place).command);
                    if self.is_leading {
                        let delete = StorageChange::DeleteCommand(client_id.clone(), seq);
                        self.outputs.push(Output::Store { changes: vec![delete], as_leader: true });
                    }
                    let confirmation = Confirmation::Rejected { reason, command };
                    self.outputs.push(Output::Confirmed { client_id, seq, confirmation });
                    self.rebase();
                    self.outputs.push(Output::Changed);
                }
            }
            ServerFrame::Durable { version } => {
                self.durable_version = self.durable_version.max(version);
                self.store();
                self.outputs.push(Output::Changed);
            }
            ServerFrame::Gap { client_id, expected } => self.fill_gap(client_id, expected),
            ServerFrame::Busy { retry_after_ms } => {
                self.forget_sent();
                self.outputs.push(Output::RetryAfter(retry_after_ms));
            }
            ServerFrame::Token { token, .. } => {
                self.token = Some(token.clone());
                self.outputs.push(Output::Token(token));
            }
            ServerFrame::CookieDue {} => self.outputs.push(Output::CookieDue),
            ServerFrame::Pong { server_time } => {
                self.server_time = server_time;
                self.outputs.push(Output::ServerTime(server_time));
            }
            ServerFrame::Error { code, message, retry_after_ms } => {
                self.outputs.push(Output::Refused { code, message, retry_after_ms });
            }
        }
        self.answer_greetings();
        self.send_pending();
    }

    /// What it would say hello with now, for a connection that has to say it again each time it asks.
    pub fn hello(&self) -> Hello {
        let is_durable = !self.awaits_snapshot && self.confirmed_version() <= self.durable_version;
        let known_version = if is_durable { self.confirmed_version() } else { 0 };
        let known_durable = self.durable_version.max(self.asked_for);
        Hello {
            protocol: PROTOCOL_VERSION,
            session_id: self.session_id.clone(),
            client_id: self.client_id.clone(),
            alongside: self.alongside(),
            known_version,
            durable_version: Some(known_durable).filter(|version| *version > known_version),
            epoch: self.confirmed.as_ref().filter(|_| is_durable).map(|state| state.epoch),
            funnel_hash: self.funnel.as_ref().map(|(_, hash)| hash.clone()),
            token: self.token.clone(),
            claim: self.claim.clone(),
        }
    }

    fn greet(&mut self) {
        if !self.is_leading {
            // The leader announces again what others still have pending.
            for pending in self.pending.iter_mut().filter(|pending| pending.client_id != self.client_id) {
                pending.announced = false;
            }
        }
        // What is not durable may turn out not to have happened, so all of it is asked for again.
        self.awaits_snapshot |= self.confirmed_version() > self.durable_version;
        let hello = self.hello();
        self.said = Some(hello.clone());
        self.outputs.push(Output::Send(ClientFrame::Hello(hello)));
    }

    fn welcomed(&mut self, epoch: u64, version: u64, durable_version: u64, last_seq: u64) {
        let is_as_told = epoch == self.welcomed.0 && version >= self.confirmed_version();
        if self.link != Link::Greeting {
            // It answers a hello that was answered already, or one that asks what is new.
            if self.link == Link::Live && is_as_told && self.durable_epoch == epoch {
                self.durable_version = self.durable_version.max(durable_version);
                self.store();
                self.outputs.push(Output::Changed);
            }
            return;
        }
        self.link = Link::Live;
        self.missing.clear();
        self.settled = OrderedMap::default();
        self.settled.insert(self.client_id.clone(), last_seq);
        self.welcomed = (epoch, version);
        self.durable_version = self.durable_version_in(epoch);
        self.durable_epoch = epoch;
        let same_history = self.confirmed.as_ref().is_some_and(|state| state.epoch == epoch);
        if !same_history || version < self.confirmed_version() {
            // The server has another history; what it has is on its way as a snapshot.
            self.durable_version = 0;
        }
        self.durable_version = self.durable_version.max(durable_version);
        if !self.is_leading {
            self.pending.retain(|pending| pending.client_id == self.client_id || pending.announced);
        }
        for pending in &mut self.pending {
            // What was accepted and is not durable may have been lost since, or decided again: it is asked for again, by
            // whoever sends it.
            if self.is_leading || pending.client_id == self.client_id {
                pending.announced &= self.is_leading;
                pending.sent = false;
                pending.accepted = None;
            }
        }
        self.next_seq = self.next_seq.max(last_seq + 1);
        self.store();
        self.rebase();
        self.outputs.push(Output::Changed);
    }

    fn apply_records(&mut self, epoch: u64, records: Vec<Record>) {
        if self.awaits_snapshot {
            return;
        }
        if self.confirmed.as_ref().is_some_and(|state| state.epoch != epoch) {
            return self.resync();
        }
        self.durable_version = self.durable_version_in(epoch);
        self.durable_epoch = epoch;
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
            if self.is_leading {
                self.unstored.push(Arc::clone(&record));
            }
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

    fn fill_gap(&mut self, client_id: ClientId, expected: u64) {
        let is_own = client_id == self.client_id;
        if !is_own && !self.is_leading {
            return;
        }
        if self.settled.get(&client_id).is_some_and(|settled| expected <= *settled) {
            // Said before that number was settled, and overtaken by the answer to it; or the server has lost what it
            // knew. Its next welcome tells which.
            return self.resync();
        }
        let is_there = self.place_of(&client_id, expected).is_some();
        let is_waiting = |pending: &Pending| pending.client_id == client_id && pending.seq >= expected;
        let has_more = self.pending.iter().any(is_waiting);
        for pending in self.pending.iter_mut().filter(|pending| is_waiting(pending)) {
            // Those of another tab wait until it is known that nothing is before them.
            pending.sent = !is_there && !is_own;
            pending.announced &= !is_own || self.is_leading;
            pending.accepted = None;
        }
        if is_own && !self.is_leading && self.pending.iter().all(|pending| pending.client_id != client_id) {
            // The leader carries something that was settled long ago.
            self.outputs.push(Output::Announce { client_id: client_id.clone(), commands: Vec::new(), is_all: true });
        }
        if has_more && !is_there {
            self.missing.retain(|(known, _)| *known != client_id);
            self.missing.push((client_id.clone(), expected));
            if !is_own {
                self.outputs.push(Output::Missing(client_id));
            } else if self.is_leading {
                // The server has lost what it knew of this client.
                self.skip(&client_id);
            }
        }
    }

    /// The version that the database has of this history, as far as it is known here.
    fn durable_version_in(&self, epoch: u64) -> u64 {
        if matches!(self.durable_epoch, 0) || self.durable_epoch == epoch { self.durable_version } else { 0 }
    }

    /// Whether another tab tells of an older state than this one knows to be durable. A leader that has really gone back
    /// says so in its welcome.
    fn is_outdated(&self, state: &State) -> bool {
        let known = self.durable_version.min(self.confirmed_version());
        let same_history = self.confirmed.as_ref().is_some_and(|confirmed| confirmed.epoch == state.epoch);
        !self.is_leading && same_history && state.version() < known
    }

    fn settle(&mut self, client_id: &ClientId, seq: u64) {
        let known = self.settled.get(client_id).copied().unwrap_or(0);
        self.settled.insert(client_id.clone(), known.max(seq));
    }

    fn place_of(&self, client_id: &ClientId, seq: u64) -> Option<usize> {
        self.pending.iter().position(|pending| pending.seq == seq && pending.client_id == *client_id)
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
        let (durable_version, is_leading) = (self.durable_version, self.is_leading);
        let outputs = &mut self.outputs;
        self.pending.retain(|pending| match pending.accepted {
            Some(version) if version <= durable_version => {
                let (client_id, seq) = (pending.client_id.clone(), pending.seq);
                if is_leading {
                    changes.push(StorageChange::DeleteCommand(client_id.clone(), seq));
                }
                let confirmation = Confirmation::Durable(version);
                outputs.push(Output::Confirmed { client_id, seq, confirmation });
                false
            }
            _ => true,
        });
        if !changes.is_empty() {
            self.outputs.push(Output::Store { changes, as_leader: true });
        }
    }

    fn store_durable(&mut self, changes: &mut Vec<StorageChange>) {
        let is_ours = self.is_leading && !self.awaits_snapshot;
        let Some(confirmed) = self.confirmed.as_ref().filter(|_| is_ours) else { return };
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
        self.announce();
        if self.link != Link::Live || !self.is_leading {
            return;
        }
        let on_their_way = self.pending.iter().filter(|pending| pending.sent && pending.accepted.is_none()).count();
        // Only this tab's own commands can be unstored; those of others may pass them.
        let is_due = |pending: &&mut Pending| pending.stored && !pending.sent && pending.accepted.is_none();
        let mut due = self.pending.iter_mut().filter(is_due).take(WINDOW.saturating_sub(on_their_way));
        loop {
            let next = due.by_ref().take(COMMANDS_PER_FRAME).map(|pending| {
                pending.sent = true;
                let (client_id, seq, first) = (pending.client_id.clone(), pending.seq, pending.is_first);
                Submission { client_id, seq, first, command: pending.command.clone() }
            });
            let commands: Vec<Submission> = next.collect();
            if commands.is_empty() {
                break;
            }
            // Which traces they belong to is known to whoever keeps them as they were issued.
            self.outputs.push(Output::Send(ClientFrame::Submit { commands, traceparents: Vec::new() }));
        }
    }

    /// Confirmed state, and the pending commands that are not in it, judged again. One that does not fit any more
    /// shows no effect; the server has the last word on it.
    fn rebase(&mut self) {
        let confirmed = self.confirmed.as_ref();
        let version = self.confirmed_version();
        let is_open = |pending: &&Pending| {
            // A snapshot may have been made before the server knew of the client: it has what the command did, and not
            // its number.
            let is_in_version = pending.accepted.is_some_and(|accepted| accepted <= version);
            !is_in_version && pending.seq > confirmed.map_or(0, |state| state.last_seq(&pending.client_id))
        };
        let mut optimistic = confirmed.cloned();
        if let Some((funnel, _)) = &self.funnel {
            for pending in self.pending.iter().filter(is_open) {
                let judged = judge(&self.session_id, funnel, optimistic.as_ref(), &pending.command, pending.at);
                if let Ok(events) = judged {
                    optimistic = apply(optimistic, events, &pending.client_id, pending.seq, pending.at);
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
        evolve(state, &Record { version, at: now, by: Role::Browser, origin, caller: None, event })
    })
}
