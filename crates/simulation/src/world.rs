//! The world: everything that there is, one step of its life, and what has to be true in the end.

use std::collections::{BTreeMap, BTreeSet};

use throughline_core::json::{JsonObject, JsonValue};
use throughline_core::sync::{Confirmation, FixedFunnel};
use throughline_core::{ClientId, Command, Event, Funnel, Record, SessionId, State, TimeSpan, Timestamp, evolve};

use crate::back_end::Call;
use crate::browsers::{BROWSERS, Browser, Place, TABS};
use crate::database::Database;
use crate::plants::Plant;
use crate::servers::{Heard, SERVERS, Server};
use crate::shared_tier::SharedTier;

/// Noon of a day.
const START: Timestamp = Timestamp::from_millis(1_795_165_200_000);

/// After how many rounds without a fault everything has to be at rest.
const ROUNDS_TO_REST: usize = 3000;

/// What was promised to somebody.
#[derive(Default)]
pub(crate) struct Promises {
    /// The tags of commands by who numbered them how.
    pub(crate) tags: BTreeMap<(ClientId, u64), u64>,
    pub(crate) stored: BTreeSet<u64>,
    pub(crate) confirmed: BTreeSet<u64>,
    rejected: BTreeSet<u64>,
    pub(crate) told: BTreeSet<(ClientId, u64)>,
    /// Those of them that were told the end.
    settled: BTreeSet<(ClientId, u64)>,
    /// Up to this one tags belong to a session that is gone; what is still told of them says nothing of this one.
    former: u64,
    /// The tags of what somebody was told is in the database.
    durable: BTreeSet<u64>,
    /// The commands that nobody waits for any more: their page is gone, and they were not stored, or lost by the disk; or they
    /// were settled in a session that is gone.
    forgotten: BTreeSet<(ClientId, u64)>,
}

impl Promises {
    pub(crate) fn note(&mut self, client_id: &ClientId, seq: u64, confirmation: &Confirmation) {
        let number = (client_id.clone(), seq);
        let tag = self.tags.get(&number).copied().filter(|tag| *tag > self.former);
        match confirmation {
            Confirmation::Accepted(_) => self.confirmed.extend(tag),
            Confirmation::Durable(_) => {
                self.confirmed.extend(tag);
                self.durable.extend(tag);
                self.settled.insert(number.clone());
            }
            Confirmation::Rejected { .. } => {
                self.rejected.extend(tag);
                self.settled.insert(number.clone());
            }
        }
        self.told.insert(number);
    }

    /// The browser has lost this command. What is accepted and not durable survives any one failure without its browser, and
    /// not two.
    pub(crate) fn forget(&mut self, number: (ClientId, u64)) {
        if let Some(tag) = self.tags.get(&number).filter(|tag| !self.durable.contains(tag)) {
            self.confirmed.remove(tag);
            self.stored.remove(tag);
        }
        self.forgotten.insert(number);
    }
}

/// Everything that there is.
pub struct World {
    pub(crate) dice: fastrand::Rng,
    pub(crate) plant: Plant,
    pub(crate) now: Timestamp,
    pub(crate) funnels: FixedFunnel,
    pub(crate) id: SessionId,
    pub(crate) database: Database,
    pub(crate) tier: SharedTier,
    /// The shared tier as it was some time ago.
    pub(crate) former_tier: SharedTier,
    pub(crate) forks: usize,
    pub(crate) servers: Vec<Server>,
    pub(crate) browsers: Vec<Browser>,
    pub(crate) calls: Vec<Call>,
    pub(crate) promises: Promises,
    /// The first promise that was broken while it lived.
    broken: Option<String>,
    next: u64,
    trace: u64,
}

pub(crate) fn client(name: &str) -> ClientId {
    match ClientId::new(name) {
        Ok(client_id) => client_id,
        Err(error) => unreachable!("'{name}' is no client id: {error}"),
    }
}

pub(crate) fn default_funnel() -> Funnel {
    match toml::from_str(include_str!("../../core/funnels/default.toml")) {
        Ok(funnel) => funnel,
        Err(error) => unreachable!("the default funnel can't be read: {error}"),
    }
}

/// A command that nothing else is like.
pub(crate) fn tagged(tag: u64) -> Command {
    let metadata = JsonObject::from([("tag".to_owned(), JsonValue::Integer(tag as i64))]);
    Command::SetMetadata { metadata }
}

pub(crate) fn tag_of(command: &Command) -> Option<u64> {
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
    /// Nothing has happened yet.
    pub fn new(seed: u64, plant: Plant) -> Self {
        let id = SessionId::generate(START, [7; 16]);
        Self {
            dice: fastrand::Rng::with_seed(seed),
            plant,
            now: START,
            funnels: FixedFunnel::new(default_funnel(), "hash"),
            database: Database::default(),
            tier: SharedTier::default(),
            former_tier: SharedTier::default(),
            forks: 0,
            servers: (0..SERVERS).map(|_| Server::new(id.clone())).collect(),
            browsers: (0..BROWSERS).map(|_| Browser::default()).collect(),
            calls: Vec::new(),
            promises: Promises::default(),
            broken: None,
            next: 1,
            trace: seed,
            id,
        }
    }

    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.dice.u64(..100) < chance
    }

    pub(crate) fn unique(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(crate) fn note(&mut self, what: u64) {
        self.trace = (self.trace ^ what).wrapping_mul(0x100_0000_01b3);
    }

    /// A promise was broken while everything still goes on.
    pub(crate) fn object(&mut self, problem: String) {
        self.broken.get_or_insert(problem);
    }

    /// A number that only the same life has.
    pub fn trace(&mut self) -> u64 {
        let state = serde_json::to_vec(&self.database.state).unwrap_or_default();
        state.into_iter().for_each(|byte| self.note(byte.into()));
        self.trace
    }

    /// One thing happens somewhere.
    pub fn step(&mut self) {
        self.now = self.now.plus(TimeSpan::from_millis(self.dice.i64(0..2000)));
        let at = Place { browser: self.dice.usize(..BROWSERS), tab: self.dice.usize(..TABS) };
        let server = self.dice.usize(..SERVERS);
        let roll = self.dice.u64(..1000);
        self.note(roll << 16 | (at.browser as u64) << 12 | (at.tab as u64) << 8 | server as u64);
        match roll {
            0..120 => self.submit(at),
            120..280 => drop(self.finish_write(at, false)),
            280..370 => drop(self.connect(at, server)),
            370..380 => self.disconnect(at),
            380..390 => self.close_tab(at),
            390..425 => self.open_tab(at),
            425..428 => self.crash_browser(at.browser),
            428..440 => self.sync_disk(at.browser),
            440..455 => self.freeze_or_thaw(at),
            455..470 => self.steal_lock(at),
            470..480 => drop(self.learn(at)),
            480..490 => self.crash_server(server),
            490..600 => drop(self.deliver_up(at, false)),
            600..720 => drop(self.deliver_down(at, false)),
            720..800 => drop(self.hear(at)),
            800..880 => drop(self.answer(server, false)),
            880..912 => drop(self.listen(server)),
            912..920 => self.ask(server, |authority, _| authority.flush()),
            920..930 => self.call(),
            930..948 => drop(self.send_calls(server)),
            948..956 => self.cut_off(server),
            956..962 => {
                self.fail_tier();
                // Now and then it is the power of all.
                if self.percent(15) {
                    (0..SERVERS).for_each(|server| self.crash_server(server));
                }
            }
            962..967 => self.former_tier = self.tier.clone(),
            967..973 => self.ask(server, |authority, environment| authority.tick(environment)),
            973..990 => drop(self.retry(at)),
            990..994 => self.skew_clock(at.browser),
            // The clock jumps, within the session's life.
            _ => self.now = self.now.plus(TimeSpan::from_millis(self.dice.i64(0..4_000_000))),
        }
    }

    /// Everything works again, until nothing moves.
    ///
    /// # Errors
    /// Where it does not come to rest.
    pub fn heal(&mut self) -> Result<(), String> {
        self.heal_browsers();
        for server in 0..SERVERS {
            if self.servers[server].is_cut_off {
                self.cut_off(server);
            }
            if self.percent(50) {
                self.crash_server(server);
            }
            if self.servers[server].is_unverified {
                self.servers[server].heard.push_back(Heard::Interrupted);
            }
        }
        self.come_to_rest()
    }

    /// Nothing fails, until nothing moves.
    pub(crate) fn come_to_rest(&mut self) -> Result<(), String> {
        for _ in 0..ROUNDS_TO_REST {
            let mut moved = self.send_calls(0);
            moved |= self.advance_browsers(0);
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

    /// How often each tagged command took effect.
    pub(crate) fn effects(&self) -> BTreeMap<u64, u64> {
        let mut times: BTreeMap<u64, u64> = BTreeMap::new();
        for record in &self.database.journal {
            if let Event::MetadataSet { metadata } = &record.event {
                tag_in(metadata).into_iter().for_each(|tag| *times.entry(tag).or_default() += 1);
            }
        }
        times
    }

    /// The tags of what somebody was told is accepted, unless it was taken back with a rejection.
    pub(crate) fn acknowledged(&self) -> impl Iterator<Item = u64> {
        self.promises.confirmed.difference(&self.promises.rejected).copied()
    }

    /// Whether every promise was kept.
    ///
    /// # Errors
    /// The first one that was not.
    pub fn check(&self) -> Result<(), String> {
        if let Some(problem) = &self.broken {
            return Err(problem.clone());
        }
        self.check_journal()?;
        let Promises { stored, confirmed, rejected, .. } = &self.promises;
        let times = self.effects();
        for tag in confirmed {
            if times.get(tag) != Some(&1) {
                return Err(format!("{tag} was confirmed and is there {:?} times", times.get(tag)));
            }
        }
        if let Some((tag, count)) = times.iter().find(|(_, count)| **count > 1) {
            return Err(format!("{tag} took effect {count} times"));
        }
        let is_unknown = |tag: &&u64| !times.contains_key(tag) && !rejected.contains(tag);
        if let Some(tag) = stored.iter().find(is_unknown) {
            return Err(format!("{tag} was stored, and nobody knows what became of it"));
        }
        self.check_browsers()?;
        if !self.calls.is_empty() {
            return Err("a call of the back end was never answered".to_owned());
        }
        Ok(())
    }

    fn check_journal(&self) -> Result<(), String> {
        let journal = &self.database.journal;
        let mut last: BTreeMap<&ClientId, u64> = BTreeMap::new();
        for (index, record) in journal.iter().enumerate() {
            let Record { version, origin, event, .. } = record;
            if *version != index as u64 + 1 {
                return Err(format!("version {version} stands at place {}", index + 1));
            }
            let Some(origin) = origin else { continue };
            let before = last.insert(&origin.client_id, origin.seq).unwrap_or(0);
            // Numbers may be left out: their commands were settled in a history that is gone, or went with their page.
            if origin.seq < before {
                return Err(format!("{} went from {before} to {}", origin.client_id, origin.seq));
            }
            let number = (origin.client_id.clone(), origin.seq);
            let is_told = self.promises.told.contains(&number) || self.promises.forgotten.contains(&number);
            if matches!(event, Event::CommandRejected { .. }) && !is_told {
                return Err(format!("nobody told {} that {} was rejected", origin.client_id, origin.seq));
            }
        }
        if journal.iter().fold(None, evolve) != self.database.state {
            return Err("the journal does not lead to the state".to_owned());
        }
        Ok(())
    }

    /// The session was deleted and created anew under its id, with another history; nobody was there to hear of it.
    pub(crate) fn recreate(&mut self) {
        for browser in 0..BROWSERS {
            for tab in 0..TABS {
                self.disconnect(Place { browser, tab });
            }
        }
        let id = self.id.clone();
        self.database = Database::default();
        self.tier = SharedTier::default();
        self.former_tier = SharedTier::default();
        self.servers = (0..SERVERS).map(|_| Server::new(id.clone())).collect();
        // What was promised was promised of the former session.
        let forgotten = &self.promises.forgotten | &self.promises.settled;
        self.promises = Promises { former: self.next, forgotten, ..Promises::default() };
        self.call_to_create();
    }

    /// The state that the database has.
    pub(crate) fn state(&self) -> Option<&State> {
        self.database.state.as_ref()
    }
}
