//! The browsers: tabs that share a storage, a lock and a channel, and of which one leads.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use throughline_core::sync::{
    ClientFrame, Confirmation, Credential, Hello, Link, Output, PeerId, Replica, Request, Restored, ServerFrame,
    StorageChange, StoredCommand,
};
use throughline_core::{ClientId, Command, Record, Role, Session, State, StepId, Timestamp, evolve};

use crate::plants::Plant;
use crate::world::{World, client, default_funnel, tag_of, tagged};

pub(crate) const BROWSERS: usize = 2;
pub(crate) const TABS: usize = 3;

/// How many commands one frame has at most: few, so that more can happen between them.
const MOST_TOGETHER: usize = 3;

/// What a browser keeps over a crash.
#[derive(Clone, Default)]
struct Disk {
    /// Which of its leaders was the last.
    term: u64,
    base: Option<State>,
    records: BTreeMap<u64, Record>,
    outbox: BTreeMap<(ClientId, u64), StoredCommand>,
    /// The commands that were written and that no leader has deleted: the outbox, unless a mistake is planted.
    kept: BTreeSet<(ClientId, u64)>,
}

impl Disk {
    fn apply(&mut self, changes: Vec<StorageChange>) {
        for change in changes {
            match change {
                StorageChange::PutCommand(client_id, command) => {
                    self.kept.insert((client_id.clone(), command.seq));
                    self.outbox.insert((client_id, command.seq), command);
                }
                StorageChange::DeleteCommand(client_id, seq) => {
                    let number = (client_id, seq);
                    self.outbox.remove(&number);
                    self.kept.remove(&number);
                }
                StorageChange::PutRecord(record) => drop(self.records.insert(record.version, (*record).clone())),
                StorageChange::PutBase(state) => {
                    self.base = Some(*state);
                    self.records.clear();
                }
            }
        }
    }

    fn state(&self) -> Option<State> {
        self.records.values().fold(self.base.clone(), evolve)
    }

    fn restored(&self) -> Restored {
        Restored {
            base: self.base.clone(),
            records: self.records.values().cloned().collect(),
            outbox: self.outbox.iter().map(|((client_id, _), command)| (client_id.clone(), command.clone())).collect(),
            ..Restored::default()
        }
    }
}

/// A change of the disk on its way.
struct Write {
    changes: Vec<StorageChange>,
    /// The term of the leader that writes it, where it counts only as long as that one leads.
    term: Option<u64>,
}

/// What tabs of a browser tell each other.
#[derive(Clone)]
enum Message {
    Leads {
        term: u64,
    },
    Hello(Hello),
    Frames {
        term: u64,
        answers: Option<Box<Hello>>,
        frames: Vec<ServerFrame>,
    },
    Announce {
        client_id: ClientId,
        commands: Vec<StoredCommand>,
        is_all: bool,
    },
    /// The browser itself tells: a tab is gone.
    TabGone,
}

pub(crate) struct Wire {
    pub(crate) server: usize,
    pub(crate) peer: PeerId,
    up: VecDeque<ClientFrame>,
    pub(crate) down: VecDeque<ServerFrame>,
}

struct Tab {
    replica: Replica,
    writes: VecDeque<Write>,
    inbox: VecDeque<Message>,
    wire: Option<Wire>,
    wants_retry: bool,
    /// Its writes come through; otherwise it goes on in memory, and can still read.
    has_storage: bool,
    /// The term in which it leads or led.
    term: u64,
    /// The highest term that it has heard of.
    heard_term: u64,
    /// It does nothing, and keeps what it has.
    is_frozen: bool,
    /// It lost its connection while it was frozen.
    is_cut: bool,
    /// Another tab has taken its lock, and it does not know that yet.
    is_deposed: bool,
    /// What the page shows.
    shown: Option<Session>,
    /// The latest version that this page had and knew to be durable, and its epoch.
    durable_seen: (u64, u64),
}

#[derive(Default)]
pub(crate) struct Browser {
    disk: Disk,
    /// The disk as it would be after a loss of power.
    synced: Disk,
    tabs: [Option<Tab>; TABS],
    /// Who holds the lock.
    leader: Option<usize>,
    /// How far this browser's clock is from the server's, in milliseconds.
    skew: i64,
}

/// A tab, as the world names it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) browser: usize,
    pub(crate) tab: usize,
}

pub(crate) fn places() -> impl Iterator<Item = Place> {
    (0..BROWSERS).flat_map(|browser| (0..TABS).map(move |tab| Place { browser, tab }))
}

impl World {
    fn tab(&mut self, at: Place) -> Option<&mut Tab> {
        self.browsers[at.browser].tabs[at.tab].as_mut()
    }

    /// The tab, if it is there and not frozen.
    fn awake(&mut self, at: Place) -> Option<&mut Tab> {
        self.tab(at).filter(|tab| !tab.is_frozen)
    }

    pub(crate) fn wire_of(&mut self, peer: PeerId) -> Option<&mut Wire> {
        let tabs = self.browsers.iter_mut().flat_map(|browser| browser.tabs.iter_mut().flatten());
        tabs.filter_map(|tab| tab.wire.as_mut()).find(|wire| wire.peer == peer)
    }

    fn new_client(&mut self, at: Place) -> ClientId {
        match self.plant {
            Plant::KeepClientIds => client(&format!("browser-{}-{}", at.browser, at.tab)),
            _ => client(&format!("browser-{}-{}-{}", at.browser, at.tab, self.unique())),
        }
    }

    pub(crate) fn open_tab(&mut self, at: Place) {
        if self.tab(at).is_some() {
            return;
        }
        let client_id = self.new_client(at);
        let mut replica = Replica::new(self.id.clone(), client_id, self.browsers[at.browser].disk.restored());
        replica.set_funnel(default_funnel(), "hash".to_owned());
        replica.follow();
        self.browsers[at.browser].tabs[at.tab] = Some(Tab {
            replica,
            writes: VecDeque::new(),
            inbox: VecDeque::new(),
            wire: None,
            wants_retry: false,
            has_storage: true,
            term: 0,
            heard_term: 0,
            is_frozen: false,
            is_cut: false,
            is_deposed: false,
            shown: None,
            durable_seen: (0, 0),
        });
        match self.browsers[at.browser].leader {
            Some(_) if self.plant != Plant::IgnoreLock => self.say_hello(at),
            _ => self.lead(at),
        }
    }

    fn say_hello(&mut self, at: Place) {
        if let Some(tab) = self.awake(at) {
            tab.replica.connected();
        }
        self.pump(at);
    }

    /// The tab got the lock. A connection from when it led before, without having heard that it was deposed, is not kept.
    fn lead(&mut self, at: Place) {
        self.drop_wire(at);
        let browser = &mut self.browsers[at.browser];
        browser.leader = Some(at.tab);
        let Some(tab) = &mut browser.tabs[at.tab] else { return };
        browser.disk.term += 1;
        tab.term = browser.disk.term;
        tab.heard_term = tab.term;
        tab.is_deposed = false;
        tab.replica.lead(browser.disk.restored());
        let term = tab.term;
        self.pump(at);
        self.broadcast(at, &Message::Leads { term });
    }

    /// It has learned that it does not hold the lock any more.
    fn step_down(&mut self, at: Place) {
        self.drop_wire(at);
        let Some(tab) = self.tab(at) else { return };
        tab.is_deposed = false;
        tab.replica.follow();
        self.say_hello(at);
    }

    /// Somebody who waits gets the lock, if it is free.
    fn pass_lock(&mut self, browser: usize) {
        if self.browsers[browser].leader.is_some() {
            return;
        }
        let waiting: Vec<usize> = (0..TABS).filter(|tab| self.awake(Place { browser, tab: *tab }).is_some()).collect();
        if !waiting.is_empty() {
            let tab = waiting[self.dice.usize(..waiting.len())];
            self.lead(Place { browser, tab });
        }
    }

    fn broadcast(&mut self, from: Place, message: &Message) {
        for (index, tab) in self.browsers[from.browser].tabs.iter_mut().enumerate() {
            if let Some(tab) = tab.as_mut().filter(|_| index != from.tab) {
                tab.inbox.push_back(message.clone());
            }
        }
    }

    /// Handles one message of another tab.
    pub(crate) fn hear(&mut self, at: Place) -> bool {
        let outbox = self.browsers[at.browser].disk.restored().outbox;
        let Some(tab) = self.awake(at) else { return false };
        let Some(message) = tab.inbox.pop_front() else { return false };
        let is_leading = tab.replica.is_leading();
        match message {
            Message::Leads { term } if term > tab.heard_term => {
                tab.heard_term = term;
                if is_leading {
                    self.step_down(at);
                } else {
                    tab.replica.connected();
                }
            }
            Message::Leads { term } if term == tab.heard_term && !is_leading => tab.replica.connected(),
            Message::Hello(hello) if is_leading => tab.replica.greeted(hello),
            Message::Frames { term, answers, frames } if !is_leading && term >= tab.heard_term => {
                tab.heard_term = term;
                if answers.is_none_or(|hello| tab.replica.is_answer(&hello)) {
                    frames.into_iter().for_each(|frame| tab.replica.handle(frame));
                }
            }
            Message::Announce { client_id, commands, is_all } => tab.replica.observe(&client_id, commands, is_all),
            Message::TabGone if is_leading => tab.replica.recover(outbox),
            Message::Leads { .. } | Message::Hello(_) | Message::Frames { .. } | Message::TabGone => {}
        }
        self.pump(at);
        true
    }

    /// Carries out what a replica wants.
    fn pump(&mut self, at: Place) {
        loop {
            let Some(tab) = self.tab(at) else { return };
            let outputs = tab.replica.take_outputs();
            if outputs.is_empty() {
                return self.look(at);
            }
            let is_changed = outputs.contains(&Output::Changed);
            for output in outputs {
                self.perform(at, output);
            }
            let skips = self.plant == Plant::SkipRebase;
            if let Some(tab) = self.tab(at).filter(|_| is_changed)
                && (!skips || tab.replica.pending() == 0 || tab.shown.is_none())
            {
                tab.shown = tab.replica.session().cloned();
            }
        }
    }

    fn perform(&mut self, at: Place, output: Output) {
        let plant = self.plant;
        let browser = &mut self.browsers[at.browser];
        let Some(tab) = &mut browser.tabs[at.tab] else { return };
        match output {
            Output::Send(ClientFrame::Hello(hello)) if !tab.replica.is_leading() => {
                self.broadcast(at, &Message::Hello(hello));
            }
            Output::Send(ClientFrame::Submit { mut commands, .. }) => {
                // A shell makes several frames of many commands, by their size; here chance does.
                while let Some(wire) = tab.wire.as_mut().filter(|_| !commands.is_empty()) {
                    let rest = commands.split_off(self.dice.usize(1..=commands.len().min(MOST_TOGETHER)));
                    let commands = core::mem::replace(&mut commands, rest);
                    wire.up.push_back(ClientFrame::Submit { commands, traceparents: Vec::new() });
                }
            }
            Output::Send(frame) => {
                if let Some(wire) = &mut tab.wire {
                    wire.up.push_back(frame);
                }
            }
            Output::Store { changes, as_leader } => {
                let term = as_leader.then_some(tab.term);
                tab.writes.push_back(Write { changes, term });
            }
            Output::Announce { client_id, commands, is_all } => {
                self.broadcast(at, &Message::Announce { client_id, commands, is_all });
            }
            Output::Relay { answers, frames } => {
                let message = Message::Frames { term: tab.term, answers: answers.map(Box::new), frames };
                self.broadcast(at, &message);
            }
            Output::Confirmed { client_id, seq, confirmation } => {
                if plant == Plant::ForgetWhenAccepted && matches!(confirmation, Confirmation::Accepted(_)) {
                    browser.disk.outbox.remove(&(client_id.clone(), seq));
                }
                self.promises.note(&client_id, seq, &confirmation);
            }
            Output::RetryAfter(_) => tab.wants_retry = true,
            Output::Missing(client_id) => {
                let mut others = browser.tabs.iter().flatten();
                let has_owner = others.any(|tab| *tab.replica.client_id() == client_id);
                if !has_owner && let Some(tab) = self.tab(at) {
                    tab.replica.skip(&client_id);
                }
            }
            Output::Changed
            | Output::Applied(_)
            | Output::ServerTime(_)
            | Output::Token(_)
            | Output::CookieDue
            | Output::Refused { .. } => {}
        }
    }

    /// No page shows anything older than what it was told is safe.
    fn look(&mut self, at: Place) {
        let Some(tab) = self.tab(at) else { return };
        let client_id = tab.replica.client_id().clone();
        let shown = tab.shown.as_ref().map_or(0, |session| session.version);
        let Some(state) = tab.replica.confirmed() else { return };
        let (epoch, confirmed) = (state.epoch, state.version());
        let (seen_epoch, seen) = tab.durable_seen;
        let durable = tab.replica.durable_version().min(confirmed);
        tab.durable_seen = (epoch, if epoch == seen_epoch { durable.max(seen) } else { durable });
        if shown < confirmed {
            self.object(format!("{client_id} shows version {shown}, and the server has confirmed {confirmed}"));
        }
        if epoch == seen_epoch && confirmed < seen {
            self.object(format!("{client_id} went back to {confirmed}, and knew that {seen} is durable"));
        }
    }

    fn note_numbers(&mut self, at: Place) {
        let Some(tab) = self.tab(at) else { return };
        let pending: Vec<(ClientId, u64, Option<u64>)> = tab
            .replica
            .pending_commands()
            .map(|(client_id, seq, command)| (client_id.clone(), seq, tag_of(command)))
            .collect();
        for (client_id, seq, tag) in pending {
            // A number whose command died with its tab before it was stored may be given again, under a planted mistake.
            match tag {
                Some(tag) => drop(self.promises.tags.insert((client_id, seq), tag)),
                None => drop(self.promises.tags.remove(&(client_id, seq))),
            }
        }
    }

    pub(crate) fn submit(&mut self, at: Place) {
        let tag = self.unique();
        let skew = self.browsers[at.browser].skew;
        let now = Timestamp::from_millis(self.now.as_millis() + skew);
        let roll = self.dice.u64(..10);
        let step = self.dice.choice(["checkout", "upsell-1", "upsell-2", "success"]).unwrap_or("checkout");
        let Some(tab) = self.awake(at) else { return };
        let command = match (tab.replica.session(), roll) {
            (None, _) => Command::Create(Box::default()),
            (_, 0) => Command::SetEmail { email: format!("buyer-{tag}@example.com") },
            (_, 1) => Command::BeginProcessing {},
            (_, 2) => match StepId::new(step) {
                Ok(step) => Command::GoToStep { step },
                Err(_) => return,
            },
            _ => tagged(tag),
        };
        if tab.replica.submit(command, now).is_ok() {
            self.note_numbers(at);
        }
        self.pump(at);
    }

    /// One write comes to its end.
    pub(crate) fn finish_write(&mut self, at: Place, is_reliable: bool) -> bool {
        let fails = !is_reliable && self.percent(2);
        let is_fenced = self.plant != Plant::IgnoreLock;
        let Some(tab) = self.awake(at) else { return false };
        let Some(write) = tab.writes.pop_front() else { return false };
        // Full or gone: from now on the tab goes on in memory.
        tab.has_storage &= !fails;
        let (has_storage, is_current) = (tab.has_storage, write.term == Some(tab.term));
        let stored = write.changes.iter().filter_map(|change| match change {
            StorageChange::PutCommand(client_id, command) => Some((client_id.clone(), command.seq)),
            _ => None,
        });
        let stored: Vec<(ClientId, u64)> = stored.collect();
        if has_storage && !self.write(at.browser, write, is_fenced) {
            // What it wrote in an earlier term says nothing of this one.
            if is_current {
                self.step_down(at);
            }
            return true;
        }
        let Some(tab) = self.tab(at) else { return true };
        for (client_id, seq) in stored {
            tab.replica.commands_stored(&client_id, seq);
        }
        self.pump(at);
        true
    }

    /// Writes to the disk; `false` where another leader has taken over since.
    fn write(&mut self, browser: usize, Write { changes, term }: Write, is_fenced: bool) -> bool {
        let disk = &mut self.browsers[browser].disk;
        if is_fenced && term.is_some_and(|term| term != disk.term) {
            return false;
        }
        let before = disk.state();
        for change in &changes {
            if let StorageChange::PutCommand(_, command) = change {
                self.promises.stored.extend(tag_of(&command.command));
            }
        }
        disk.apply(changes);
        let after = disk.state();
        if let (Some(before), Some(after)) = (&before, &after)
            && before.epoch == after.epoch
            && before.version() > after.version()
        {
            let (before, after) = (before.version(), after.version());
            self.object(format!("browser {browser} had version {before} in its storage, and now has {after}"));
        }
        true
    }

    pub(crate) fn connect(&mut self, at: Place, server: usize) -> bool {
        let peer = PeerId(self.unique());
        let Some(tab) = self.awake(at) else { return false };
        if tab.wire.is_some() || !tab.replica.is_leading() {
            return false;
        }
        tab.wire = Some(Wire { server, peer, up: VecDeque::new(), down: VecDeque::new() });
        tab.replica.connected();
        self.pump(at);
        true
    }

    pub(crate) fn disconnect(&mut self, at: Place) {
        if self.drop_wire(at)
            && let Some(tab) = self.tab(at)
        {
            if tab.is_frozen {
                tab.is_cut = true;
            } else {
                tab.replica.disconnected();
                self.pump(at);
            }
        }
    }

    fn drop_wire(&mut self, at: Place) -> bool {
        let Some(wire) = self.tab(at).and_then(|tab| tab.wire.take()) else { return false };
        self.servers[wire.server].authority.leave(wire.peer);
        true
    }

    pub(crate) fn lose_wires_to(&mut self, server: usize) {
        for at in places() {
            let is_lost = |tab: &mut Tab| tab.wire.as_ref().is_some_and(|wire| wire.server == server);
            if self.tab(at).is_some_and(is_lost) {
                self.disconnect(at);
            }
        }
    }

    /// The tab is closed or crashes. Of what it was writing, the first part is written.
    pub(crate) fn close_tab(&mut self, at: Place) {
        self.drop_wire(at);
        let Some(tab) = self.browsers[at.browser].tabs[at.tab].take() else { return };
        if tab.has_storage {
            let written = self.dice.usize(..=tab.writes.len());
            let is_fenced = self.plant != Plant::IgnoreLock;
            for write in tab.writes.into_iter().take(written) {
                self.write(at.browser, write, is_fenced);
            }
        }
        self.forget_unstored(at.browser, &tab.replica);
        self.broadcast(at, &Message::TabGone);
        let browser = &mut self.browsers[at.browser];
        if browser.leader == Some(at.tab) {
            browser.leader = None;
            self.pass_lock(at.browser);
        }
    }

    /// What a tab had in memory only is gone with it, and so is whoever could be told of it.
    fn forget_unstored(&mut self, browser: usize, replica: &Replica) {
        for (client_id, seq, _) in replica.pending_commands() {
            let number = (client_id.clone(), seq);
            if !self.browsers[browser].disk.kept.contains(&number) {
                self.promises.forget(number);
            }
        }
    }

    /// All tabs are gone; the disk may lose what was written last.
    pub(crate) fn crash_browser(&mut self, browser: usize) {
        self.browsers[browser].leader = None;
        for tab in 0..TABS {
            let at = Place { browser, tab };
            self.drop_wire(at);
            if let Some(tab) = self.browsers[browser].tabs[tab].take() {
                self.forget_unstored(browser, &tab.replica);
            }
        }
        if self.percent(50) {
            let Browser { disk, synced, .. } = &mut self.browsers[browser];
            let lost = disk.kept.difference(&synced.kept);
            lost.cloned().for_each(|number| self.promises.forget(number));
            *disk = synced.clone();
        }
    }

    pub(crate) fn sync_disk(&mut self, browser: usize) {
        let Browser { disk, synced, .. } = &mut self.browsers[browser];
        *synced = disk.clone();
    }

    /// A tab freezes, or goes on. One that leads and is frozen loses its lock to another.
    pub(crate) fn freeze_or_thaw(&mut self, at: Place) {
        let Some(tab) = self.tab(at) else { return };
        tab.is_frozen = !tab.is_frozen;
        if !tab.is_frozen {
            if std::mem::take(&mut tab.is_cut) {
                tab.replica.disconnected();
            }
            self.pump(at);
        }
    }

    /// A leader that does not answer loses its lock to a tab that asks.
    pub(crate) fn steal_lock(&mut self, at: Place) {
        let Some(leader) = self.browsers[at.browser].leader else { return self.pass_lock(at.browser) };
        let former = Place { browser: at.browser, tab: leader };
        if self.awake(at).is_none() || self.awake(former).is_some() {
            return;
        }
        if let Some(tab) = self.tab(former) {
            tab.is_deposed = true;
        }
        self.lead(at);
    }

    /// A tab that has lost its lock hears of it.
    pub(crate) fn learn(&mut self, at: Place) -> bool {
        let is_deposed = self.awake(at).is_some_and(|tab| tab.is_deposed);
        if is_deposed {
            self.step_down(at);
        }
        is_deposed
    }

    pub(crate) fn skew_clock(&mut self, browser: usize) {
        self.browsers[browser].skew = self.dice.i64(-3_600_000..3_600_000);
    }

    pub(crate) fn retry(&mut self, at: Place) -> bool {
        let Some(tab) = self.awake(at).filter(|tab| tab.wants_retry) else { return false };
        tab.wants_retry = false;
        tab.replica.retry();
        self.pump(at);
        true
    }

    pub(crate) fn deliver_up(&mut self, at: Place, is_reliable: bool) -> bool {
        let roll = if is_reliable { 100 } else { self.dice.u64(..100) };
        let plant = self.plant;
        let epoch = self.database.state.as_ref().map(|state| state.epoch);
        let Some(wire) = self.tab(at).and_then(|tab| tab.wire.as_mut()) else { return false };
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
            ClientFrame::Hello(mut hello) => {
                if plant == Plant::IgnoreEpoch {
                    hello.epoch = hello.epoch.and(epoch);
                }
                self.ask(server, |authority, environment| {
                    authority.join(peer, Role::Browser, Credential::Verified, &hello, environment).unwrap_or_default()
                });
            }
            ClientFrame::Submit { commands, .. } => self.ask(server, |authority, environment| {
                authority.submit(peer, commands.into_iter().map(Request::from), environment)
            }),
            ClientFrame::Ping {} => {}
        }
        true
    }

    pub(crate) fn deliver_down(&mut self, at: Place, is_reliable: bool) -> bool {
        let roll = if is_reliable { 100 } else { self.dice.u64(..100) };
        let Some(wire) = self.awake(at).and_then(|tab| tab.wire.as_mut()) else { return false };
        // Nothing overtakes a snapshot: before and after it versions may mean different histories.
        let is_snapshot = |frame: &ServerFrame| matches!(frame, ServerFrame::Snapshot { .. });
        if roll < 5 && wire.down.len() > 1 && !wire.down.iter().take(2).any(is_snapshot) {
            wire.down.swap(0, 1);
        }
        let Some(frame) = wire.down.pop_front() else { return false };
        if (5..10).contains(&roll) {
            self.take_frame(at, frame.clone());
        }
        self.take_frame(at, frame);
        true
    }

    /// What the server says is for all tabs.
    fn take_frame(&mut self, at: Place, frame: ServerFrame) {
        let Some(tab) = self.tab(at) else { return };
        let term = tab.term;
        let message = match &frame {
            ServerFrame::Welcome { .. } => Some(Message::Leads { term }),
            frame if frame.is_for_all_tabs() => {
                Some(Message::Frames { term, answers: None, frames: vec![frame.clone()] })
            }
            _ => None,
        };
        tab.replica.handle(frame);
        self.pump(at);
        if let Some(message) = message {
            self.broadcast(at, &message);
        }
    }

    /// Every browser is started, with its tabs awake and one of them leading.
    pub(crate) fn heal_browsers(&mut self) {
        for at in places() {
            self.disconnect(at);
            if self.tab(at).is_some_and(|tab| tab.is_frozen) {
                self.freeze_or_thaw(at);
            }
            self.learn(at);
        }
        for browser in 0..BROWSERS {
            self.pass_lock(browser);
            self.open_tab(Place { browser, tab: 0 });
        }
    }

    /// Everything that is under way in the browsers goes one step on; whether anything did.
    pub(crate) fn advance_browsers(&mut self, server: usize) -> bool {
        let mut moved = false;
        for at in places() {
            moved |= self.finish_write(at, true);
            moved |= self.hear(at);
            moved |= self.connect(at, server);
            moved |= self.deliver_up(at, true);
            moved |= self.deliver_down(at, true);
            moved |= self.retry(at);
        }
        moved
    }

    /// Every page shows what the database has, and knows that it is safe; nothing is left in an outbox.
    pub(crate) fn check_browsers(&self) -> Result<(), String> {
        for browser in &self.browsers {
            for tab in browser.tabs.iter().flatten() {
                let Tab { replica, shown, .. } = tab;
                let client_id = replica.client_id();
                if replica.pending() > 0 {
                    let pending: Vec<_> =
                        replica.pending_commands().map(|(client_id, seq, _)| (client_id, seq)).collect();
                    return Err(format!("{client_id} still has pending {pending:?}"));
                }
                let state = self.database.state.clone();
                let expected = state.map(|state| state.project(Role::Browser, &[]).session);
                if *shown != expected {
                    return Err(format!("{client_id} shows {shown:?} instead of {expected:?}"));
                }
                if replica.durable_version() != self.database.version() || replica.link() != Link::Live {
                    return Err(format!("{client_id} does not know that everything is durable"));
                }
            }
            let leader = browser.leader.and_then(|leader| browser.tabs[leader].as_ref());
            if leader.is_some_and(|leader| leader.has_storage) && !browser.disk.outbox.is_empty() {
                return Err(format!("an outbox still has {:?}", browser.disk.outbox.keys().collect::<Vec<_>>()));
            }
        }
        Ok(())
    }
}
