//! The servers: their authorities, and what they ask of database and shared tier.

use std::collections::VecDeque;

use throughline_core::sync::{
    Authority, Commit, DatabaseView, Effect, Environment, Loaded, News, PeerId, ServerFrame, Share,
};
use throughline_core::{SessionId, State};

use crate::plants::Plant;
use crate::shared_tier::{SharedSession, SharedTier, Taken};
use crate::world::World;

pub(crate) const SERVERS: usize = 2;

/// What a server hears of the others, in its order.
pub(crate) enum Heard {
    News(News),
    /// Something may have been missed.
    Interrupted,
}

pub(crate) struct Server {
    pub(crate) authority: Authority,
    /// What the database and the shared tier were asked for and have not answered.
    pub(crate) asked: VecDeque<Asked>,
    pub(crate) heard: VecDeque<Heard>,
    /// It can't reach the shared tier.
    pub(crate) is_cut_off: bool,
    /// It was started with what the shared tier had, written before it listened: that is to be compared with the database.
    pub(crate) is_unverified: bool,
}

impl Server {
    pub(crate) fn new(id: SessionId) -> Self {
        let (asked, heard) = (VecDeque::new(), VecDeque::new());
        Self { authority: Authority::new(id, None), asked, heard, is_cut_off: false, is_unverified: false }
    }
}

pub(crate) enum Asked {
    Commit(Commit),
    Flush(Commit),
    Share(Share),
    Reload,
}

impl World {
    /// Asks a server's authority something and carries out what it wants.
    pub(crate) fn ask(
        &mut self,
        server: usize,
        question: impl FnOnce(&mut Authority, &Environment<'_>) -> Vec<Effect>,
    ) {
        let epoch = self.dice.u64(..) >> 11;
        // Who is cut off notices after a while.
        let relaxed = !self.servers[server].is_cut_off || self.percent(20);
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

    fn send_down(&mut self, peer: PeerId, frame: ServerFrame) {
        match self.wire_of(peer) {
            Some(wire) => wire.down.push_back(frame),
            None => self.answer_call(peer, frame),
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
        if self.servers[server].is_cut_off || (!is_reliable && self.percent(5)) {
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
    pub(crate) fn fail_tier(&mut self) {
        self.tier = if self.percent(50) { SharedTier::default() } else { self.former_tier.clone() };
        for server in &mut self.servers {
            server.heard.push_back(Heard::Interrupted);
        }
    }

    pub(crate) fn cut_off(&mut self, server: usize) {
        let is_cut_off = !self.servers[server].is_cut_off;
        self.servers[server].is_cut_off = is_cut_off;
        if is_cut_off {
            let heard = self.servers[server].heard.len();
            // What was on its way may be lost with the link.
            let arrives = self.dice.usize(..=heard);
            self.servers[server].heard.truncate(arrives);
        }
        self.servers[server].heard.push_back(Heard::Interrupted);
    }

    pub(crate) fn listen(&mut self, server: usize) -> bool {
        match self.servers[server].heard.pop_front() {
            Some(Heard::News(news)) => self.ask(server, |authority, environment| authority.observed(news, environment)),
            Some(Heard::Interrupted) => self.ask(server, |authority, _| authority.suspect()),
            None => return false,
        }
        true
    }

    /// What was under way may have come through.
    pub(crate) fn crash_server(&mut self, server: usize) {
        while let Some(asked) = self.servers[server].asked.pop_front() {
            let comes_through = self.percent(50);
            match asked {
                Asked::Commit(commit) | Asked::Flush(commit) if comes_through => {
                    self.database.commit(&commit, self.plant);
                }
                Asked::Share(share) if comes_through && !self.servers[server].is_cut_off => {
                    if let Taken::Yes = self.tier.share(&share, self.plant) {
                        self.tell_others(server, &share.news());
                    }
                }
                _ => {}
            }
        }
        let mut state = self.database.state.clone();
        if let (Plant::ForgetNumbers, Some(state)) = (self.plant, &mut state) {
            state.clients = Default::default();
        }
        self.servers[server].heard.clear();
        let shared = self.tier.session.as_ref().filter(|_| !self.servers[server].is_cut_off).map(SharedSession::view);
        let from_shared = shared.filter(|_| self.plant != Plant::ForgetNumbers);
        let authority = from_shared.and_then(|shared| Authority::from_shared(self.id.clone(), shared));
        self.servers[server].is_unverified = authority.is_some();
        self.servers[server].authority = authority.unwrap_or_else(|| Authority::new(self.id.clone(), state));
        self.lose_wires_to(server);
        for call in &mut self.calls {
            call.peer = call.peer.filter(|(known, _)| *known != server);
        }
    }

    /// The database or the shared tier answers one of the questions, not always the first one.
    pub(crate) fn answer(&mut self, server: usize, is_reliable: bool) -> bool {
        let open = self.servers[server].asked.len();
        if open == 0 {
            return false;
        }
        let chosen = self.dice.usize(..open);
        let Some(asked) = self.servers[server].asked.remove(chosen) else { return false };
        let roll = if is_reliable { 100 } else { self.dice.u64(..100) };
        match asked {
            Asked::Commit(commit) => {
                // Below 15 the database does not answer; below 8 it has written all the same.
                let is_written = (!(8..15).contains(&roll)).then(|| self.database.commit(&commit, self.plant));
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
                let is_written = (!(8..15).contains(&roll)).then(|| self.database.commit(&commit, self.plant));
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
                        self.tell_others(server, &share.news());
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
        let shared = self.tier.session.as_ref().filter(|_| !is_cut_off).map(SharedSession::view);
        let known = self.servers[server].authority.durable_version();
        let after = shared.as_ref().map_or(known, |shared| known.min(shared.state.version()));
        let journal = self.database.journal.iter().filter(|record| record.version > after).cloned().collect();
        let database = DatabaseView { state: self.database.state.clone(), journal };
        let has_database = !may_lack || self.percent(85);
        self.servers[server].is_unverified &= !has_database;
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
}
