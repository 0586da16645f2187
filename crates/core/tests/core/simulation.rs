//! A fleet with a failing network, failing disks, a failing shared tier and a failing database, in one thread and from
//! one number.
//!
//! Several browsers and a back end work on one session through two servers that share a tier in memory and a database.
//! Connections break, frames come twice, browsers and servers crash at any moment, commits fail or succeed without an
//! answer, servers are cut off from the shared tier, and that loses everything or goes back in time. Then everything
//! heals, and what was promised has to be true.
//!
//! While it lasts, a connection is worse than a WebSocket: frames of both directions may come twice or change places.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use throughline_core::json::{JsonObject, JsonValue};
use throughline_core::sync::{
    Authority, ClientFrame, Commit, Confirmation, Credential, DatabaseView, Effect, Environment, FixedFunnel, Link,
    Loaded, News, Output, PeerId, Replica, Request, Restored, ServerFrame, Share, SharedView, StorageChange,
    StoredCommand, TailEntry,
};
use throughline_core::{ClientId, Command, Event, Record, Role, SessionId, State, StepId, TimeSpan, Timestamp, evolve};

use crate::generate::{Dice, START, client, default_funnel, session_id};

const SEEDS: u64 = 1000;
const STEPS: u64 = 260;
const BROWSERS: usize = 3;
const SERVERS: usize = 2;

/// A mistake that is made on purpose, to see that it is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Plant {
    Nothing,
    /// A browser forgets a command when it is sent, instead of when it is durable.
    ForgetWhenSent,
    /// A browser sends a command before it is stored.
    SendBeforeStored,
    /// The database does not compare the version before it writes.
    WriteWithoutComparing,
    /// A server that starts forgets which numbers were applied.
    ForgetNumbers,
    /// A server whose tail lost against another history forgets the commands in it, and tells everybody that all is well.
    ForgetForks,
    /// The shared tier compares versions only, not histories.
    ShareWithoutComparing,
}

/// The database: survives everything.
#[derive(Default)]
struct Store {
    journal: Vec<Record>,
    state: Option<State>,
}

impl Store {
    fn version(&self) -> u64 {
        self.journal.len() as u64
    }

    /// `false` where it has another version than expected.
    fn commit(&mut self, commit: &Commit, plant: Plant) -> bool {
        if commit.expected_version != self.version() {
            if plant != Plant::WriteWithoutComparing {
                return false;
            }
            self.journal.truncate(commit.expected_version as usize);
        }
        self.journal.extend(commit.records.iter().cloned());
        self.state = Some((*commit.state).clone());
        true
    }
}

/// The tier that all servers share: in memory, and sometimes all of it is gone.
#[derive(Clone, Default)]
struct Tier {
    session: Option<TierSession>,
}

#[derive(Clone)]
struct TierSession {
    durable: State,
    /// What was shared after it, each with the state that it led to.
    tail: Vec<(Vec<TailEntry>, State)>,
}

impl TierSession {
    fn state(&self) -> &State {
        self.tail.last().map_or(&self.durable, |(_, state)| state)
    }

    fn view(&self) -> SharedView {
        let tail = self.tail.iter().flat_map(|(entries, _)| entries).cloned().collect();
        SharedView { state: self.durable.clone(), tail }
    }
}

/// What the shared tier says to a change.
enum Taken {
    Yes,
    Conflict,
    Missing,
}

impl Tier {
    fn share(&mut self, share: &Share, plant: Plant) -> Taken {
        let Some(session) = &mut self.session else { return Taken::Missing };
        let is_expected = match plant {
            Plant::ShareWithoutComparing => session.state().version() == share.previous.version(),
            _ => session.state() == &*share.previous,
        };
        if !is_expected {
            return Taken::Conflict;
        }
        session.tail.push((share.entries.clone(), (*share.state).clone()));
        Taken::Yes
    }

    /// The database has this state. What was shared after it stays; what was shared instead of it does not.
    fn settle(&mut self, state: &State) {
        let Some(session) = &mut self.session else {
            self.session = Some(TierSession { durable: state.clone(), tail: Vec::new() });
            return;
        };
        if session.durable.epoch == state.epoch && session.durable.version() >= state.version() {
            return;
        }
        let place = session.tail.iter().position(|(_, shared)| shared == state);
        let kept = place.map(|place| session.tail.split_off(place + 1)).unwrap_or_default();
        *session = TierSession { durable: state.clone(), tail: kept };
    }
}

/// What a server hears of the others, in its order.
enum Heard {
    News(News),
    /// Something may have been missed.
    Interrupted,
}

/// What a browser keeps over a crash.
#[derive(Clone)]
struct Disk {
    client_id: ClientId,
    base: Option<State>,
    records: BTreeMap<u64, Record>,
    commands: BTreeMap<u64, StoredCommand>,
}

impl Disk {
    fn apply(&mut self, write: Write) {
        self.client_id = write.client_id;
        for change in write.changes {
            match change {
                StorageChange::PutCommand(command) => drop(self.commands.insert(command.seq, command)),
                StorageChange::DeleteCommand(seq) => drop(self.commands.remove(&seq)),
                StorageChange::PutRecord(record) => drop(self.records.insert(record.version, (*record).clone())),
                StorageChange::Forget => {
                    self.base = None;
                    self.records.clear();
                    self.commands.clear();
                }
                StorageChange::PutBase(state) => {
                    self.base = Some(*state);
                    self.records.clear();
                }
            }
        }
    }

    fn restored(&self) -> Restored {
        Restored {
            base: self.base.clone(),
            records: self.records.values().cloned().collect(),
            commands: self.commands.values().cloned().collect(),
            ..Restored::default()
        }
    }
}

struct Write {
    client_id: ClientId,
    changes: Vec<StorageChange>,
}

struct Browser {
    replica: Replica,
    client_id: ClientId,
    disk: Disk,
    writes: VecDeque<Write>,
    wire: Option<Wire>,
    wants_retry: bool,
    renewals: u64,
    skew: i64,
}

struct Wire {
    server: usize,
    peer: PeerId,
    up: VecDeque<ClientFrame>,
    down: VecDeque<ServerFrame>,
}

struct Server {
    authority: Authority,
    /// What the database and the shared tier were asked for and have not answered.
    asked: VecDeque<Asked>,
    heard: VecDeque<Heard>,
    /// It can't reach the shared tier.
    is_cut_off: bool,
}

enum Asked {
    Commit(Commit),
    Flush(Commit),
    Share(Share),
    Reload,
}

/// A request of the shop's back end, until it is answered.
struct Call {
    client_id: ClientId,
    command: Command,
    peer: Option<(usize, PeerId)>,
}

struct World {
    dice: Dice,
    plant: Plant,
    now: Timestamp,
    funnels: FixedFunnel,
    id: SessionId,
    store: Store,
    tier: Tier,
    /// The shared tier as it was some time ago.
    former_tier: Tier,
    forks: usize,
    servers: Vec<Server>,
    browsers: Vec<Browser>,
    calls: Vec<Call>,
    next: u64,
    trace: u64,
    /// The tags of commands by who numbered them how.
    tags: BTreeMap<(ClientId, u64), u64>,
    stored: BTreeSet<u64>,
    confirmed: BTreeSet<u64>,
    rejected: BTreeSet<u64>,
    told: BTreeSet<(ClientId, u64)>,
}

fn tag_of(command: &Command) -> Option<u64> {
    match command {
        Command::SetMetadata { metadata } => tag_in(metadata),
        _ => None,
    }
}

fn tag_in(metadata: &JsonObject) -> Option<u64> {
    match metadata.get("tag") {
        Some(JsonValue::Integer(tag)) => u64::try_from(*tag).ok(),
        _ => None,
    }
}

impl World {
    fn new(seed: u64, plant: Plant) -> Self {
        let id = session_id();
        let browsers = (0..BROWSERS)
            .map(|n| {
                let client_id = client(&format!("browser-{n}"));
                let disk = Disk {
                    client_id: client_id.clone(),
                    base: None,
                    records: BTreeMap::new(),
                    commands: BTreeMap::new(),
                };
                let mut replica = Replica::new(id.clone(), client_id.clone(), Restored::default());
                replica.set_funnel(default_funnel(), "hash".to_owned());
                let (writes, wire) = (VecDeque::new(), None);
                Browser { replica, client_id, disk, writes, wire, wants_retry: false, renewals: 0, skew: 0 }
            })
            .collect();
        let server = || Server {
            authority: Authority::new(id.clone(), None),
            asked: VecDeque::new(),
            heard: VecDeque::new(),
            is_cut_off: false,
        };
        Self {
            dice: Dice(seed),
            plant,
            now: START,
            funnels: FixedFunnel::new(default_funnel(), "hash"),
            store: Store::default(),
            tier: Tier::default(),
            former_tier: Tier::default(),
            forks: 0,
            servers: (0..SERVERS).map(|_| server()).collect(),
            browsers,
            calls: Vec::new(),
            next: 1,
            trace: seed,
            tags: BTreeMap::new(),
            stored: BTreeSet::new(),
            confirmed: BTreeSet::new(),
            rejected: BTreeSet::new(),
            told: BTreeSet::new(),
            id,
        }
    }

    fn unique(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn note(&mut self, what: u64) {
        self.trace = (self.trace ^ what).wrapping_mul(0x100_0000_01b3);
    }

    /// Asks a server's authority something and carries out what it wants.
    fn ask(&mut self, server: usize, question: impl FnOnce(&mut Authority, &Environment<'_>) -> Vec<Effect>) {
        let epoch = self.dice.next() >> 11;
        // Who is cut off notices after a while.
        let relaxed = !self.servers[server].is_cut_off || self.dice.percent(20);
        let environment = Environment { now: self.now, funnels: &self.funnels, epoch, relaxed };
        let effects = question(&mut self.servers[server].authority, &environment);
        for effect in effects {
            let asked = match effect {
                Effect::Send { peer, frame } => {
                    self.send_down(peer, frame);
                    continue;
                }
                Effect::Forked { commands } => {
                    self.forks += commands;
                    continue;
                }
                Effect::Commit(commit) => Asked::Commit(commit),
                Effect::Flush(commit) => Asked::Flush(commit),
                Effect::Share(share) => Asked::Share(share),
                Effect::Reload => Asked::Reload,
            };
            self.servers[server].asked.push_back(asked);
        }
    }

    /// Tells every other server that can be reached.
    fn tell_others(&mut self, server: usize, news: &News) {
        for (index, other) in self.servers.iter_mut().enumerate() {
            if index != server && !other.is_cut_off {
                other.heard.push_back(Heard::News(news.clone()));
            }
        }
    }

    /// The database has written: the shared tier and the other servers are told, on whatever way there is.
    fn settle(&mut self, server: usize, commit: &Commit, is_reliable: bool) {
        if self.servers[server].is_cut_off || (!is_reliable && self.dice.percent(5)) {
            for (index, other) in self.servers.iter_mut().enumerate() {
                if index != server {
                    other.heard.push_back(Heard::Interrupted);
                }
            }
            return;
        }
        self.tier.settle(&commit.state);
        self.tell_others(server, &commit.news());
    }

    /// The shared tier is empty, or as it was some time ago; everybody's link to it was interrupted.
    fn fail_tier(&mut self) {
        self.tier = if self.dice.percent(50) { Tier::default() } else { self.former_tier.clone() };
        for server in &mut self.servers {
            server.heard.push_back(Heard::Interrupted);
        }
    }

    fn cut_off(&mut self, server: usize) {
        let is_cut_off = !self.servers[server].is_cut_off;
        self.servers[server].is_cut_off = is_cut_off;
        if is_cut_off {
            let heard = self.servers[server].heard.len() as u64;
            // What was on its way may be lost with the link.
            let arrives = self.dice.below(heard + 1) as usize;
            self.servers[server].heard.truncate(arrives);
        }
        self.servers[server].heard.push_back(Heard::Interrupted);
    }

    fn listen(&mut self, server: usize) -> bool {
        match self.servers[server].heard.pop_front() {
            Some(Heard::News(news)) => self.ask(server, |authority, environment| authority.observed(news, environment)),
            Some(Heard::Interrupted) => self.ask(server, |authority, _| authority.suspect()),
            None => return false,
        }
        true
    }

    fn send_down(&mut self, peer: PeerId, frame: ServerFrame) {
        let wires = self.browsers.iter_mut().filter_map(|browser| browser.wire.as_mut());
        if let Some(wire) = wires.into_iter().find(|wire| wire.peer == peer) {
            wire.down.push_back(frame);
            return;
        }
        let Some(index) = self.calls.iter().position(|call| call.peer.is_some_and(|(_, known)| known == peer)) else {
            return;
        };
        match frame {
            ServerFrame::Accepted { client_id, seq, .. } => {
                self.confirmed.extend(tag_of(&self.calls[index].command));
                self.told.insert((client_id.in_ledger(Role::Service), seq));
                self.calls.remove(index);
            }
            ServerFrame::Rejected { client_id, seq, .. } => {
                self.told.insert((client_id.in_ledger(Role::Service), seq));
                self.calls.remove(index);
            }
            ServerFrame::Busy { .. } | ServerFrame::Gap { .. } => self.calls[index].peer = None,
            _ => {}
        }
    }

    /// Carries out what a replica wants.
    fn pump(&mut self, index: usize) {
        loop {
            let outputs = self.browsers[index].replica.take_outputs();
            if outputs.is_empty() {
                return;
            }
            for output in outputs {
                self.perform(index, output);
            }
        }
    }

    fn perform(&mut self, index: usize, output: Output) {
        let plant = self.plant;
        let browser = &mut self.browsers[index];
        match output {
            Output::Send(frame) => {
                if let (Plant::ForgetWhenSent, ClientFrame::Submit { commands }) = (plant, &frame) {
                    for command in commands {
                        browser.disk.commands.remove(&command.seq);
                    }
                }
                if let Some(wire) = &mut browser.wire {
                    wire.up.push_back(frame);
                }
            }
            Output::Store(changes) => {
                let client_id = browser.client_id.clone();
                if plant == Plant::SendBeforeStored {
                    for change in &changes {
                        if let StorageChange::PutCommand(command) = change {
                            browser.replica.commands_stored(command.seq);
                        }
                    }
                }
                browser.writes.push_back(Write { client_id, changes });
            }
            Output::Confirmed { seq, confirmation } => {
                let number = (browser.client_id.clone(), seq);
                let tag = self.tags.get(&number).copied();
                match confirmation {
                    Confirmation::Accepted(_) | Confirmation::Durable(_) => self.confirmed.extend(tag),
                    Confirmation::Rejected { .. } => self.rejected.extend(tag),
                }
                self.told.insert(number);
            }
            Output::RetryAfter(_) => browser.wants_retry = true,
            Output::NeedsNewClient => {
                browser.renewals += 1;
                browser.client_id = client(&format!("browser-{index}-{}", browser.renewals));
                let renewed = browser.client_id.clone();
                browser.replica.renew_client(renewed);
                self.note_numbers(index);
            }
            Output::Changed
            | Output::Applied(_)
            | Output::ServerTime(_)
            | Output::Token(_)
            | Output::Refused { .. } => {}
        }
    }

    fn note_numbers(&mut self, index: usize) {
        let browser = &self.browsers[index];
        for (seq, command) in browser.replica.pending_commands() {
            // A number whose command died with the browser before it was stored is given again.
            let number = (browser.client_id.clone(), seq);
            match tag_of(command) {
                Some(tag) => drop(self.tags.insert(number, tag)),
                None => drop(self.tags.remove(&number)),
            }
        }
    }

    fn submit(&mut self, index: usize) {
        let tag = self.unique();
        let metadata = JsonObject::from([("tag".to_owned(), JsonValue::Integer(tag as i64))]);
        let step = |name: &str| StepId::new(name).unwrap();
        let command = match (self.browsers[index].replica.session(), self.dice.below(10)) {
            (None, _) => Command::Create(Box::default()),
            (_, 0) => Command::SetEmail { email: format!("buyer-{tag}@example.com") },
            (_, 1) => Command::BeginProcessing {},
            (_, 2) => {
                Command::GoToStep { step: step(self.dice.pick(&["checkout", "upsell-1", "upsell-2", "success"])) }
            }
            _ => Command::SetMetadata { metadata },
        };
        let browser = &mut self.browsers[index];
        let at = Timestamp::from_millis(self.now.as_millis() + browser.skew);
        if browser.replica.submit(command, at).is_ok() {
            self.note_numbers(index);
        }
        self.pump(index);
    }

    fn finish_write(&mut self, index: usize) -> bool {
        let Some(write) = self.browsers[index].writes.pop_front() else { return false };
        let is_current = write.client_id == self.browsers[index].client_id;
        let mut highest = 0;
        for change in &write.changes {
            if let StorageChange::PutCommand(command) = change {
                highest = highest.max(command.seq);
                self.stored.extend(tag_of(&command.command));
            }
        }
        self.browsers[index].disk.apply(write);
        // A write under a former client id says nothing of today's numbers.
        if highest > 0 && is_current {
            self.browsers[index].replica.commands_stored(highest);
            self.pump(index);
        }
        true
    }

    fn connect(&mut self, index: usize, server: usize) {
        if self.browsers[index].wire.is_some() {
            return;
        }
        let peer = PeerId(self.unique());
        let browser = &mut self.browsers[index];
        browser.wire = Some(Wire { server, peer, up: VecDeque::new(), down: VecDeque::new() });
        browser.replica.connected();
        self.pump(index);
    }

    fn disconnect(&mut self, index: usize) {
        let Some(wire) = self.browsers[index].wire.take() else { return };
        self.servers[wire.server].authority.leave(wire.peer);
        self.browsers[index].replica.disconnected();
        self.pump(index);
    }

    /// Everything that was not on the disk is gone.
    fn crash_browser(&mut self, index: usize) {
        if let Some(wire) = self.browsers[index].wire.take() {
            self.servers[wire.server].authority.leave(wire.peer);
        }
        let browser = &mut self.browsers[index];
        browser.writes.clear();
        browser.wants_retry = false;
        browser.client_id = browser.disk.client_id.clone();
        browser.replica = Replica::new(self.id.clone(), browser.client_id.clone(), browser.disk.restored());
        browser.replica.set_funnel(default_funnel(), "hash".to_owned());
        self.note_numbers(index);
        self.pump(index);
    }

    /// What was under way may have come through.
    fn crash_server(&mut self, server: usize) {
        while let Some(asked) = self.servers[server].asked.pop_front() {
            let comes_through = self.dice.percent(50);
            match asked {
                Asked::Commit(commit) | Asked::Flush(commit) if comes_through => {
                    self.store.commit(&commit, self.plant);
                }
                Asked::Share(share) if comes_through && !self.servers[server].is_cut_off => {
                    if let Taken::Yes = self.tier.share(&share, self.plant) {
                        self.tell_share(server, &share);
                    }
                }
                _ => {}
            }
        }
        let mut state = self.store.state.clone();
        if let (Plant::ForgetNumbers, Some(state)) = (self.plant, &mut state) {
            state.clients = Default::default();
        }
        self.servers[server].heard.clear();
        let shared = self.tier.session.as_ref().filter(|_| !self.servers[server].is_cut_off).map(TierSession::view);
        let from_shared = shared.filter(|_| self.plant != Plant::ForgetNumbers);
        let authority = from_shared.and_then(|shared| Authority::from_shared(self.id.clone(), shared));
        self.servers[server].authority = authority.unwrap_or_else(|| Authority::new(self.id.clone(), state));
        for index in 0..BROWSERS {
            if self.browsers[index].wire.as_ref().is_some_and(|wire| wire.server == server) {
                self.browsers[index].wire = None;
                self.browsers[index].replica.disconnected();
                self.pump(index);
            }
        }
        for call in &mut self.calls {
            call.peer = call.peer.filter(|(known, _)| *known != server);
        }
    }

    fn deliver_up(&mut self, index: usize, is_reliable: bool) -> bool {
        let roll = if is_reliable { 100 } else { self.dice.below(100) };
        let Some(wire) = &mut self.browsers[index].wire else { return false };
        let (server, peer) = (wire.server, wire.peer);
        let is_submit = |frame: Option<&ClientFrame>| matches!(frame, Some(ClientFrame::Submit { .. }));
        if roll < 5 && is_submit(wire.up.front()) && is_submit(wire.up.get(1)) {
            wire.up.swap(0, 1);
        }
        let Some(frame) = wire.up.pop_front() else { return false };
        if (5..10).contains(&roll) {
            wire.up.push_front(frame.clone());
        }
        match frame {
            ClientFrame::Hello(hello) => self.ask(server, |authority, environment| {
                authority.join(peer, Role::Browser, Credential::Verified, &hello, environment).unwrap_or_default()
            }),
            ClientFrame::Submit { commands } => self.ask(server, |authority, environment| {
                authority.submit(peer, commands.into_iter().map(Request::from), environment)
            }),
            ClientFrame::Ping {} => {}
        }
        true
    }

    fn deliver_down(&mut self, index: usize, is_reliable: bool) -> bool {
        let roll = if is_reliable { 100 } else { self.dice.below(100) };
        let Some(wire) = &mut self.browsers[index].wire else { return false };
        // Nothing overtakes a snapshot: before and after it versions may mean different histories.
        let is_snapshot = |frame: &ServerFrame| matches!(frame, ServerFrame::Snapshot { .. });
        if roll < 5 && wire.down.len() > 1 && !wire.down.iter().take(2).any(is_snapshot) {
            wire.down.swap(0, 1);
        }
        let Some(frame) = wire.down.pop_front() else { return false };
        if (5..10).contains(&roll) {
            self.browsers[index].replica.handle(frame.clone());
        }
        self.browsers[index].replica.handle(frame);
        self.pump(index);
        true
    }

    fn tell_share(&mut self, server: usize, share: &Share) {
        self.tell_others(server, &share.news());
    }

    /// The database or the shared tier answers one of the questions, not always the first one.
    fn answer(&mut self, server: usize, is_reliable: bool) -> bool {
        let open = self.servers[server].asked.len() as u64;
        if open == 0 {
            return false;
        }
        let chosen = self.dice.below(open) as usize;
        let Some(asked) = self.servers[server].asked.remove(chosen) else { return false };
        let roll = if is_reliable { 100 } else { self.dice.below(100) };
        match asked {
            Asked::Commit(commit) => {
                // Below 15 the database does not answer; below 8 it has written all the same.
                let is_written = (!(8..15).contains(&roll)).then(|| self.store.commit(&commit, self.plant));
                match (roll < 15, is_written) {
                    (true, _) => self.ask(server, |authority, _| authority.commit_failed(1000)),
                    (false, Some(false)) => self.ask(server, |authority, _| authority.conflicted()),
                    (false, _) => {
                        self.settle(server, &commit, is_reliable);
                        self.ask(server, |authority, environment| authority.committed(environment));
                    }
                }
            }
            Asked::Flush(commit) => {
                let is_written = (!(8..15).contains(&roll)).then(|| self.store.commit(&commit, self.plant));
                match (roll < 15, is_written) {
                    (true, _) => self.ask(server, |authority, environment| authority.flush_failed(environment)),
                    (false, Some(false)) => self.ask(server, |authority, _| authority.flush_conflicted()),
                    (false, _) => {
                        self.settle(server, &commit, is_reliable);
                        self.ask(server, |authority, environment| authority.flushed(environment));
                    }
                }
            }
            Asked::Share(share) => {
                if self.servers[server].is_cut_off || roll < 7 {
                    self.ask(server, |authority, _| authority.share_failed());
                    return true;
                }
                match self.tier.share(&share, self.plant) {
                    Taken::Yes => {
                        self.tell_share(server, &share);
                        // Below 15 it was taken, and nobody knows.
                        match roll < 15 {
                            true => self.ask(server, |authority, _| authority.share_failed()),
                            false => self.ask(server, |authority, environment| authority.shared(environment)),
                        }
                    }
                    Taken::Conflict => self.ask(server, |authority, _| authority.share_conflicted()),
                    Taken::Missing => self.ask(server, |authority, _| authority.share_failed()),
                }
            }
            Asked::Reload if roll < 15 => self.ask(server, |authority, _| authority.reload_failed(1000)),
            Asked::Reload => self.reload(server, !is_reliable),
        }
        true
    }

    fn reload(&mut self, server: usize, may_lack: bool) {
        let is_cut_off = self.servers[server].is_cut_off;
        let shared = self.tier.session.as_ref().filter(|_| !is_cut_off).map(TierSession::view);
        let known = self.servers[server].authority.durable_version();
        let after = shared.as_ref().map_or(known, |shared| known.min(shared.state.version()));
        let journal = self.store.journal.iter().filter(|record| record.version > after).cloned().collect();
        let database = DatabaseView { state: self.store.state.clone(), journal };
        let has_database = !may_lack || self.dice.percent(85);
        let state = has_database.then_some(&database.state).cloned().flatten();
        if let Some(state) = state.as_ref().filter(|_| shared.is_some()) {
            self.tier.settle(state);
        }
        let loaded = Loaded { database: has_database.then_some(database), shared };
        let forgets_forks = self.plant == Plant::ForgetForks;
        let id = self.id.clone();
        self.ask(server, |authority, environment| {
            let effects = authority.reloaded(loaded, environment);
            if forgets_forks && effects.iter().any(|effect| matches!(effect, Effect::Forked { .. })) {
                let version = state.as_ref().map_or(0, State::version);
                *authority = Authority::new(id, state);
                let frame = ServerFrame::Durable { version };
                let told = effects.into_iter().filter_map(|effect| match effect {
                    Effect::Send { peer, .. } => Some(Effect::Send { peer, frame: frame.clone() }),
                    _ => None,
                });
                return told.collect();
            }
            effects
        });
    }

    fn call(&mut self) {
        let tag = self.unique();
        let metadata = JsonObject::from([("tag".to_owned(), JsonValue::Integer(tag as i64))]);
        let amount = self.store.state.as_ref().map_or_else(Default::default, |state| state.session.amount);
        let transaction_id = format!("transaction-{tag}");
        let payment =
            Command::RecordPayment { transaction_id, amount, vault_id: None, customer_id: None, payment_token: None };
        let command = if self.dice.percent(15) { payment } else { Command::SetMetadata { metadata } };
        self.calls.push(Call { client_id: client(&format!("backend-{tag}")), command, peer: None });
    }

    /// The back end asks again until it is answered.
    fn send_calls(&mut self, server: usize) -> bool {
        let mut sent = false;
        for index in 0..self.calls.len() {
            let Some(call) = self.calls.get(index) else { break };
            if call.peer.is_some() {
                continue;
            }
            let (client_id, command) = (call.client_id.clone(), Ok(call.command.clone()));
            let peer = PeerId(self.unique());
            self.calls[index].peer = Some((server, peer));
            let request = Request::new(client_id, Some(1), command);
            self.ask(server, |authority, environment| {
                authority.submit_once(peer, Role::Service, Credential::Verified, [request], environment)
            });
            sent = true;
        }
        sent
    }

    fn step(&mut self) {
        self.now = self.now.plus(TimeSpan::from_millis(self.dice.below(2000) as i64));
        let browser = self.dice.below(BROWSERS as u64) as usize;
        let server = self.dice.below(SERVERS as u64) as usize;
        let roll = self.dice.below(1000);
        self.note(roll << 8 | (browser as u64) << 4 | server as u64);
        match roll {
            0..140 => self.submit(browser),
            140..330 => drop(self.finish_write(browser)),
            330..430 => self.connect(browser, server),
            430..450 => self.disconnect(browser),
            450..470 => self.crash_browser(browser),
            470..485 => self.crash_server(server),
            485..640 => drop(self.deliver_up(browser, false)),
            640..810 => drop(self.deliver_down(browser, false)),
            810..880 => drop(self.answer(server, false)),
            880..912 => drop(self.listen(server)),
            912..920 => self.ask(server, |authority, _| authority.flush()),
            920..932 => self.call(),
            932..950 => drop(self.send_calls(server)),
            950..958 => self.cut_off(server),
            958..964 => self.fail_tier(),
            964..969 => self.former_tier = self.tier.clone(),
            969..975 => self.ask(server, |authority, environment| authority.tick(environment)),
            975..995 => {
                let browser = &mut self.browsers[browser];
                if std::mem::take(&mut browser.wants_retry) {
                    browser.replica.retry();
                }
                let skew = self.dice.below(7_200_000) as i64 - 3_600_000;
                let index = self.dice.below(BROWSERS as u64) as usize;
                self.browsers[index].skew = skew;
                (0..BROWSERS).for_each(|index| self.pump(index));
            }
            // The clock jumps, within the session's life.
            _ => self.now = self.now.plus(TimeSpan::from_millis(self.dice.below(4_000_000) as i64)),
        }
    }

    /// Everything works again, until nothing moves.
    fn heal(&mut self) -> Result<(), String> {
        (0..BROWSERS).for_each(|index| self.disconnect(index));
        for server in 0..SERVERS {
            if self.servers[server].is_cut_off {
                self.cut_off(server);
            }
            if self.dice.percent(50) {
                self.crash_server(server);
            }
        }
        self.come_to_rest()
    }

    /// Nothing fails, until nothing moves.
    fn come_to_rest(&mut self) -> Result<(), String> {
        for _ in 0..2000 {
            let mut moved = self.send_calls(0);
            for index in 0..BROWSERS {
                moved |= self.finish_write(index);
                if self.browsers[index].wire.is_none() {
                    self.connect(index, 0);
                    moved = true;
                }
                moved |= self.deliver_up(index, true);
                moved |= self.deliver_down(index, true);
                if std::mem::take(&mut self.browsers[index].wants_retry) {
                    self.browsers[index].replica.retry();
                    self.pump(index);
                    moved = true;
                }
            }
            for server in 0..SERVERS {
                moved |= self.answer(server, true) || self.listen(server);
                if !moved && !self.servers[server].authority.tail().is_empty() {
                    self.ask(server, |authority, _| authority.flush());
                    moved = !self.servers[server].asked.is_empty();
                }
            }
            if !moved {
                return Ok(());
            }
        }
        Err("it never came to rest".to_owned())
    }

    fn check(&self) -> Result<(), String> {
        let fail = |text: String| Err(text);
        let journal = &self.store.journal;
        let mut times: BTreeMap<u64, u64> = BTreeMap::new();
        let mut last: BTreeMap<&ClientId, u64> = BTreeMap::new();
        for (index, record) in journal.iter().enumerate() {
            if record.version != index as u64 + 1 {
                return fail(format!("version {} stands at place {}", record.version, index + 1));
            }
            if let Event::MetadataSet { metadata } = &record.event {
                tag_in(metadata).into_iter().for_each(|tag| *times.entry(tag).or_default() += 1);
            }
            if let Some(origin) = &record.origin {
                let before = last.insert(&origin.client_id, origin.seq).unwrap_or(0);
                if origin.seq != before && origin.seq != before + 1 {
                    return fail(format!("{} went from {before} to {}", origin.client_id, origin.seq));
                }
                if let Event::CommandRejected { .. } = &record.event
                    && !self.told.contains(&(origin.client_id.clone(), origin.seq))
                {
                    return fail(format!("nobody told {} that {} was rejected", origin.client_id, origin.seq));
                }
            }
        }
        for tag in &self.confirmed {
            if times.get(tag) != Some(&1) {
                return fail(format!("{tag} was confirmed and is there {:?} times", times.get(tag)));
            }
        }
        if let Some((tag, count)) = times.iter().find(|(_, count)| **count > 1) {
            return fail(format!("{tag} took effect {count} times"));
        }
        let is_unknown = |tag: &&u64| !times.contains_key(tag) && !self.rejected.contains(tag);
        if let Some(tag) = self.stored.iter().find(is_unknown) {
            return fail(format!("{tag} was stored, and nobody knows what became of it"));
        }
        if journal.iter().fold(None, evolve) != self.store.state {
            return fail("the journal does not lead to the state".to_owned());
        }
        for browser in &self.browsers {
            let Browser { replica, client_id, .. } = browser;
            if replica.pending() > 0 {
                return fail(format!("{client_id} still has {} commands pending", replica.pending()));
            }
            let expected = self.store.state.clone().map(|state| state.project(Role::Browser, Some(client_id)).session);
            if replica.session() != expected.as_ref() {
                return fail(format!("{client_id} has {:?} instead of {expected:?}", replica.session()));
            }
            if replica.durable_version() != self.store.version() || replica.link() != Link::Live {
                return fail(format!("{client_id} does not know that everything is durable"));
            }
        }
        if !self.calls.is_empty() {
            return fail("a call of the back end was never answered".to_owned());
        }
        Ok(())
    }
}

/// Half of the lives begin with a session that everybody follows, the others with nothing.
fn begun(seed: u64, plant: Plant) -> World {
    let mut world = World::new(seed, plant);
    if seed % 2 == 1 {
        world.submit(0);
        for index in 0..BROWSERS {
            world.connect(index, index % SERVERS);
        }
        world.come_to_rest().unwrap();
    }
    world
}

/// A fleet in which everything works, until a server crashes, or the shared tier loses everything, or both; its browsers
/// never come back. Answers how many of the changes that a browser was told of did not reach the database.
fn lost_without_browsers(seed: u64, server_crashes: bool, tier_fails: bool) -> usize {
    let mut world = World::new(seed, Plant::Nothing);
    for index in 0..BROWSERS {
        world.connect(index, index % SERVERS);
    }
    for _ in 0..400 {
        let browser = world.dice.below(BROWSERS as u64) as usize;
        let server = world.dice.below(SERVERS as u64) as usize;
        match world.dice.below(100) {
            0..20 => world.submit(browser),
            20..40 => drop(world.finish_write(browser)),
            40..60 => drop(world.deliver_up(browser, true)),
            60..75 => drop(world.deliver_down(browser, true)),
            75..90 => drop(world.answer(server, true)),
            90..97 => drop(world.listen(server)),
            _ => world.ask(server, |authority, _| authority.flush()),
        }
    }
    if server_crashes {
        world.crash_server(0);
    }
    if tier_fails {
        world.tier = Tier::default();
        world.servers.iter_mut().for_each(|server| server.heard.push_back(Heard::Interrupted));
    }
    if server_crashes && tier_fails {
        world.servers[0].authority = Authority::new(world.id.clone(), world.store.state.clone());
    }
    for _ in 0..2000 {
        for server in 0..SERVERS {
            world.answer(server, true);
            world.listen(server);
            world.ask(server, |authority, _| authority.flush());
        }
    }
    let journal = &world.store.journal;
    let is_there = |tag: &&u64| {
        let is_it = |record: &Record| matches!(&record.event, Event::MetadataSet { metadata } if tag_in(metadata) == Some(**tag));
        journal.iter().any(is_it)
    };
    world.confirmed.iter().filter(|tag| !is_there(tag) && !world.rejected.contains(tag)).count()
}

#[test]
fn what_was_accepted_survives_any_single_failure_without_its_browser() {
    for seed in 0..300 {
        assert_eq!(lost_without_browsers(seed, true, false), 0, "seed {seed}: a server crashed");
        assert_eq!(lost_without_browsers(seed, false, true), 0, "seed {seed}: the shared tier lost everything");
    }
    // Only the browsers are left then; without them this has to show.
    assert!((0..300).any(|seed| lost_without_browsers(seed, true, true) > 0));
}

#[test]
fn forks_happen_in_these_lives() {
    let forks = |seed| {
        let mut world = begun(seed, Plant::Nothing);
        (0..STEPS).for_each(|_| world.step());
        world.forks
    };
    let lives = (0..200).filter(|seed| forks(*seed) > 0).count();
    assert!(lives >= 5, "{lives} of 200");
}

/// The whole life of one fleet; the trace is a number that only the same life has.
fn run(seed: u64, plant: Plant) -> (u64, Result<(), String>) {
    let mut world = begun(seed, plant);
    for _ in 0..STEPS {
        world.step();
    }
    let healed = world.heal();
    let state = serde_json::to_string(&world.store.state).unwrap();
    state.bytes().for_each(|byte| world.note(byte.into()));
    let result = healed.and_then(|()| world.check());
    (world.trace, result)
}

fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("THROUGHLINE_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("THROUGHLINE_SIM_SEEDS").unwrap_or(SEEDS),
    }
}

#[test]
fn nothing_that_was_confirmed_is_lost_or_doubled() {
    for seed in seeds() {
        if let (_, Err(problem)) = run(seed, Plant::Nothing) {
            panic!(
                "seed {seed}: {problem}\nrun it again: THROUGHLINE_SIM_SEED={seed} \
                 cargo test -p throughline-core --test core simulation"
            );
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_life() {
    for seed in 0..20 {
        assert_eq!(run(seed, Plant::Nothing), run(seed, Plant::Nothing), "seed {seed}");
    }
    assert_ne!(run(1, Plant::Nothing).0, run(2, Plant::Nothing).0);
}

fn is_found(plant: Plant) {
    let found = (0..SEEDS).find_map(|seed| run(seed, plant).1.err().map(|problem| (seed, problem)));
    let (seed, problem) = found.unwrap_or_else(|| panic!("{SEEDS} seeds did not find {plant:?}"));
    println!("{plant:?} is found by seed {seed}: {problem}");
}

#[test]
fn it_is_found_when_a_browser_forgets_what_it_sent() {
    is_found(Plant::ForgetWhenSent);
}

#[test]
fn it_is_found_when_a_browser_sends_before_it_stores() {
    is_found(Plant::SendBeforeStored);
}

#[test]
fn it_is_found_when_the_database_does_not_compare_versions() {
    is_found(Plant::WriteWithoutComparing);
}

#[test]
fn it_is_found_when_a_server_forgets_the_numbers() {
    is_found(Plant::ForgetNumbers);
}

#[test]
fn it_is_found_when_a_server_forgets_its_forks() {
    is_found(Plant::ForgetForks);
}

#[test]
fn it_is_found_when_the_shared_tier_does_not_compare_histories() {
    is_found(Plant::ShareWithoutComparing);
}
