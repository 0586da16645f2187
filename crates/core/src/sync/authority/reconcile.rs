//! Making one history of what this server, the shared tier and the database have.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{
    Authority, Effect, Environment, Greeting, Peer, Request, TailEntry, Work, refusal, snapshot, unavailable, vanished,
};
use crate::command::Durability;
use crate::event::Record;
use crate::evolve::evolve;
use crate::state::State;

/// The session as it was read for [`Effect::Reload`].
#[derive(Clone, PartialEq, Debug)]
pub struct Loaded {
    /// What the database has; `None` where it could not be asked.
    pub database: Option<DatabaseView>,
    /// What the shared tier has; `None` where it has nothing, or could not be asked.
    pub shared: Option<SharedView>,
}

/// The session as the database has it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct DatabaseView {
    /// The state; `None` where there is no session.
    pub state: Option<State>,
    /// The latest records of its journal, at best all after [`Authority::durable_version`] and after the shared tier's
    /// state. What of a tail can't be found in them is decided again.
    pub journal: Vec<Record>,
}

/// The session as the shared tier has it.
#[derive(Clone, PartialEq, Debug)]
pub struct SharedView {
    /// A state that the database has.
    pub state: State,
    /// What was accepted after it.
    pub tail: Vec<TailEntry>,
}

/// The history that holds: what the database has, and after it what was accepted and fits.
struct History {
    durable: Option<State>,
    state: Option<State>,
    records: BTreeMap<u64, Record>,
    tail: Vec<TailEntry>,
}

impl History {
    fn new(durable: Option<State>, journal: Vec<Record>) -> Self {
        let state = durable.clone();
        let records = journal.into_iter().map(|record| (record.version, record)).collect();
        Self { durable, state, records, tail: Vec::new() }
    }

    fn version(&self) -> u64 {
        self.state.as_ref().map_or(0, State::version)
    }

    /// Puts a tail on top, as far as it fits; what does not is returned.
    fn graft(&mut self, epoch: Option<u64>, tail: Vec<TailEntry>) -> Vec<TailEntry> {
        let is_same = epoch == self.state.as_ref().map(|state| state.epoch);
        let mut entries = tail.into_iter();
        let mut lost = Vec::new();
        for entry in entries.by_ref() {
            if is_same && entry.last_version() <= self.version() {
                if entry.records.iter().all(|record| self.records.get(&record.version) == Some(record)) {
                    continue;
                }
            } else if is_same && entry.first_version() == self.version() + 1 {
                for record in &entry.records {
                    self.state = evolve(self.state.take(), record);
                    self.records.insert(record.version, record.clone());
                }
                self.tail.push(entry);
                continue;
            }
            lost.push(entry);
            break;
        }
        // What builds on something that did not happen did not happen either.
        lost.extend(entries);
        lost
    }
}

impl Authority {
    /// The session as the database and the shared tier have it.
    ///
    /// The database is right. What was accepted after it holds where it fits; of two tails that differ, the shared tier's
    /// holds. Commands whose records are in neither are decided again, and whoever issued them is told the outcome. Where
    /// there is nothing any more of what the database had, the session was deleted, and whoever follows it is sent away.
    pub fn reloaded(&mut self, loaded: Loaded, environment: &Environment<'_>) -> Vec<Effect> {
        let Loaded { database, shared } = loaded;
        let is_from_database = database.is_some();
        let (durable, journal) = match (database, &shared) {
            (Some(DatabaseView { state, journal }), _) => (state, journal),
            (None, Some(shared)) if shared.state.version() >= self.durable_version() => {
                (Some(shared.state.clone()), Vec::new())
            }
            (None, _) => return self.reload_failed(super::RETRY_AFTER_MS),
        };
        self.reloading = false;
        self.wants_reload = false;
        self.stale = false;
        self.is_fresh = is_from_database;

        let mut history = History::new(durable, journal);
        let mut lost = Vec::new();
        if let Some(SharedView { state, tail }) = shared {
            lost.extend(history.graft(Some(state.epoch), tail));
        }
        let own_epoch = self.state.as_ref().map(|state| state.epoch);
        lost.extend(history.graft(own_epoch, std::mem::take(&mut self.tail)));

        let History { durable, state, tail, .. } = history;
        let is_changed = self.state.as_deref() != state.as_ref();
        let was_durable = self.durable.is_some();
        let has_news = durable.as_ref().map_or(0, State::version) > self.durable_version();
        self.durable = durable.map(Arc::new);
        if is_changed {
            self.state = state.map(Arc::new);
        }
        self.tail = tail;
        let mut effects = self.dismiss_strangers();
        if was_durable && self.state.is_none() {
            let followers = std::mem::take(&mut self.peers);
            effects.extend(followers.into_keys().map(|peer| Effect::Send { peer, frame: vanished() }));
        }
        if is_changed {
            self.recent.clear();
            self.is_shared_tier_behind = false;
            if let Some(state) = &self.state {
                for (peer, follower) in &self.peers {
                    let frame = snapshot(state, follower.role, &follower.clients);
                    effects.push(Effect::Send { peer: *peer, frame });
                }
            }
        }
        if is_changed || has_news {
            effects.extend(self.tell_durable());
        }
        for greeting in std::mem::take(&mut self.greeting) {
            let is_behind = self.is_behind(&greeting.hello, &greeting.newcomer.credential);
            let is_entitled = self.is_entitled(&greeting.newcomer.credential, environment.now);
            if greeting.is_late && (is_behind || !is_entitled) {
                self.greeting.push(Greeting { is_late: false, ..greeting });
                continue;
            }
            let Greeting { peer, newcomer, hello, .. } = greeting;
            if !is_from_database && (is_behind || !is_entitled) {
                // The shared tier may have missed what the peer was told to be durable; the database can't be asked.
                effects.push(Effect::Send { peer, frame: unavailable(super::RETRY_AFTER_MS) });
            } else if !is_entitled {
                effects.push(Effect::Send { peer, frame: refusal(&newcomer.credential) });
            } else {
                effects.extend(self.welcome(peer, newcomer, &hello, environment));
            }
        }
        self.is_fresh = is_from_database;
        effects.extend(self.decide_again(lost));
        effects.extend(self.advance(environment));
        if !self.greeting.is_empty() {
            // After what waited was decided: however many come to greet, the session goes on.
            effects.extend(self.reload());
        }
        effects
    }

    /// Commands whose records turned out not to be history, before everything else that waits.
    fn decide_again(&mut self, lost: Vec<TailEntry>) -> Option<Effect> {
        let works: Vec<Work> = lost
            .into_iter()
            .filter_map(TailEntry::into_work)
            .map(|work| {
                let is_of = |peer: &Peer| peer.clients.contains(&work.request.client_id) && peer.role == work.role;
                let peer = self.peers.iter().find(|(_, peer)| is_of(peer)).map(|(peer, _)| *peer);
                // The shared tier has not kept its word for it; sharing it again could lose to others for ever.
                let request = Request { durability: Some(Durability::Strict), ..work.request };
                Work { peer, request, ..work }
            })
            .collect();
        let commands = works.len();
        for work in works.into_iter().rev() {
            self.waiting.push_front(work);
        }
        (commands > 0).then_some(Effect::Forked { commands })
    }
}
