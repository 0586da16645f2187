//! The tabs of one browser: who speaks for all, and how the others follow.

use super::output::{Output, Restored, StorageChange, StoredCommand};
use super::{Link, MAX_NAMED, Pending, Replica};
use crate::identifier::ClientId;
use crate::prelude::*;
use crate::sync::frame::{Hello, PROTOCOL_VERSION, ServerFrame};

impl Replica {
    /// Follows another tab from now on, or until [`Replica::lead`]. Its leader is reached with [`Replica::connected`].
    pub fn follow(&mut self) {
        self.is_leading = false;
        self.unstored.clear();
        self.greetings.clear();
        self.disconnected();
    }

    /// Speaks for all tabs from now on, with what the storage has: another tab may have led until now, while this one was
    /// away. The server is reached with [`Replica::connected`].
    pub fn lead(&mut self, mut restored: Restored) {
        self.is_leading = true;
        let stored = restored.confirmed();
        let Restored { records, outbox, token, claim, .. } = restored;
        if let Some(state) = stored {
            let same_history = self.confirmed.as_ref().is_none_or(|confirmed| confirmed.epoch == state.epoch);
            if same_history {
                // The database has it, whether this tab was told so or not.
                self.durable_version = self.durable_version_in(state.epoch).max(state.version());
                self.durable_epoch = state.epoch;
            }
            if same_history && state.version() >= self.confirmed_version() {
                self.awaits_snapshot = false;
                self.confirmed = Some(state);
            }
        }
        // What is stored may be older than what this tab has, and what it has is stored as a whole.
        self.unstored.clear();
        self.is_base_unstored = self.confirmed.is_some();
        self.records_stored = records.len();
        self.token = token.or(self.token.take());
        self.claim = claim.or(self.claim.take());
        self.carry(outbox);
        self.rebase();
        self.disconnected();
        self.store();
    }

    /// The storage has lost what it had: whatever is not durable is stored again, and by the leader what is.
    pub fn store_again(&mut self) {
        let mine = self.pending.iter().filter(|pending| self.is_leading || pending.client_id == self.client_id);
        for pending in mine {
            let put = StorageChange::PutCommand(pending.client_id.clone(), pending.as_stored());
            self.outputs.push(Output::Store { changes: vec![put], as_leader: false });
        }
        self.is_base_unstored = self.confirmed.is_some();
        self.store();
    }

    /// Whether it speaks for all tabs.
    pub fn is_leading(&self) -> bool {
        self.is_leading
    }

    /// Another tab has announced commands of this client; `is_all` where no other one of it is pending.
    pub fn observe(&mut self, client_id: &ClientId, commands: Vec<StoredCommand>, is_all: bool) {
        if *client_id == self.client_id {
            return;
        }
        self.note_follower(client_id);
        if is_all && self.drop_settled(client_id, commands.first().map(|command| command.seq)) && self.is_leading {
            // Others may have heard of it from this tab, and before that from the one whose it is: they are told once more.
            let (client_id, commands) = (client_id.clone(), commands.clone());
            self.outputs.push(Output::Announce { client_id, commands, is_all });
        }
        self.carry(commands.into_iter().map(|command| (client_id.clone(), command)));
        self.rebase();
        self.outputs.push(Output::Changed);
        if is_all {
            self.skip(client_id);
        }
        self.send_pending();
    }

    /// Whoever has issued them says that nothing before `first` is pending any more; nothing at all where there is none. Whether
    /// that was news.
    fn drop_settled(&mut self, client_id: &ClientId, first: Option<u64>) -> bool {
        let is_settled =
            |pending: &Pending| pending.client_id == *client_id && first.is_none_or(|first| pending.seq < first);
        let settled = self.pending.iter().filter(|pending| is_settled(pending));
        let changes: Vec<StorageChange> =
            settled.map(|pending| StorageChange::DeleteCommand(client_id.clone(), pending.seq)).collect();
        self.pending.retain(|pending| !is_settled(pending));
        let is_news = !changes.is_empty();
        if self.is_leading && is_news {
            self.outputs.push(Output::Store { changes, as_leader: true });
        }
        is_news
    }

    /// A tab is gone: what it has stored is in `outbox`, perhaps without having been announced.
    pub fn recover(&mut self, outbox: Vec<(ClientId, StoredCommand)>) {
        self.carry(outbox.into_iter().filter(|(client_id, _)| *client_id != self.client_id).collect::<Vec<_>>());
        self.rebase();
        self.outputs.push(Output::Changed);
        self.send_pending();
    }

    /// The tab with this client is gone, and with it the numbers that the server expects of it: those that are here are
    /// sent without them. See [`Output::Missing`].
    pub fn skip(&mut self, client_id: &ClientId) {
        let Some(place) = self.missing.iter().position(|(known, _)| known == client_id) else { return };
        let (_, expected) = self.missing.swap_remove(place);
        let mut is_first = true;
        let is_waiting = |pending: &&mut Pending| pending.client_id == *client_id && pending.seq >= expected;
        for pending in self.pending.iter_mut().filter(is_waiting) {
            pending.is_first |= core::mem::take(&mut is_first);
            pending.sent = false;
        }
        self.send_pending();
    }

    /// Another tab says hello. A leading tab answers it; one that knows more than this tab does is answered as soon as the
    /// server has told as much, so that nobody is shown an older session than before.
    pub fn greeted(&mut self, hello: Hello) {
        self.note_follower(&hello.client_id);
        self.greetings.retain(|known| known.client_id != hello.client_id);
        self.greetings.push(hello);
        self.answer_greetings();
    }

    /// Whether a leading tab that answers this hello answers what this tab has said last. An answer to an earlier one may
    /// show less than it has come to know since.
    pub fn is_answer(&self, hello: &Hello) -> bool {
        self.said.as_ref() == Some(hello)
    }

    pub(super) fn answer_greetings(&mut self) {
        if !self.is_leading || self.greetings.is_empty() {
            return;
        }
        let epoch = self.confirmed.as_ref().map_or(0, |state| state.epoch);
        let version = self.confirmed_version();
        let is_live = self.link == Link::Live;
        if is_live && self.welcomed.1 > 0 && (epoch != self.welcomed.0 || version < self.welcomed.1) {
            // What the server has is on its way.
            return;
        }
        let is_of_this_history = |hello: &Hello| hello.epoch.is_none_or(|theirs| theirs == epoch);
        let known = |hello: &Hello| {
            if is_of_this_history(hello) { hello.known_version.max(hello.durable_version.unwrap_or(0)) } else { 0 }
        };
        let most = self.greetings.iter().map(known).fold(0, u64::max);
        if is_live && most > version && most > self.asked_for {
            // The server has not been asked for as much yet.
            self.asked_for = most;
            return self.resync();
        }
        let is_due = |hello: &Hello| is_live || known(hello) <= version;
        let (due, others): (Vec<Hello>, _) = core::mem::take(&mut self.greetings).into_iter().partition(is_due);
        self.greetings = others;
        if due.is_empty() {
            return;
        }
        self.announce_all();
        for hello in due {
            let frames = self.welcome(&hello);
            self.outputs.push(Output::Relay { answers: Some(hello), frames });
        }
        // Whoever took something for pending that was accepted before hears of it.
        let accepted = self.pending.iter().filter_map(|pending| {
            let (client_id, seq) = (pending.client_id.clone(), pending.seq);
            pending.accepted.map(|version| ServerFrame::Accepted { client_id, seq, version, repeated: true })
        });
        let frames: Vec<ServerFrame> = accepted.collect();
        if !frames.is_empty() {
            self.outputs.push(Output::Relay { answers: None, frames });
        }
    }

    /// What a tab that says hello is told, after everything that is pending was announced.
    fn welcome(&self, hello: &Hello) -> Vec<ServerFrame> {
        let state = self.confirmed.as_ref();
        let epoch = state.map_or(0, |state| state.epoch);
        let funnel = self.funnel.as_ref().filter(|(_, hash)| hello.funnel_hash.as_ref() != Some(hash));
        let mut frames = vec![ServerFrame::Welcome {
            protocol: PROTOCOL_VERSION,
            session_id: self.session_id.clone(),
            epoch,
            version: self.confirmed_version(),
            durable_version: self.durable_version_in(epoch),
            last_seq: state.map_or(0, |state| state.last_seq(&hello.client_id)),
            server_time: self.server_time,
            funnel_hash: self.funnel.as_ref().map(|(_, hash)| hash.clone()),
            funnel: funnel.map(|(funnel, _)| Box::new(funnel.clone())),
        }];
        let has_it = hello.epoch == Some(epoch) && hello.known_version == self.confirmed_version();
        if let Some(state) = state.filter(|_| !has_it) {
            frames.push(ServerFrame::Snapshot { state: Box::new(state.clone()) });
        }
        frames
    }

    fn announce_all(&mut self) {
        let mut clients: Vec<ClientId> = Vec::new();
        for pending in &self.pending {
            if !clients.contains(&pending.client_id) {
                clients.push(pending.client_id.clone());
            }
        }
        for client_id in clients {
            let is_its = |pending: &&Pending| pending.client_id == client_id && pending.stored;
            let commands: Vec<StoredCommand> = self.pending.iter().filter(is_its).map(Pending::as_stored).collect();
            if !commands.is_empty() {
                self.outputs.push(Output::Announce { client_id, commands, is_all: false });
            }
        }
    }

    pub(super) fn note_follower(&mut self, client_id: &ClientId) {
        if !self.followers.contains(client_id) {
            self.followers.push(client_id.clone());
            self.followers.drain(..self.followers.len().saturating_sub(MAX_NAMED));
        }
    }

    /// Takes stored commands among the pending ones, in the order in which they were issued.
    pub(super) fn carry(&mut self, commands: impl IntoIterator<Item = (ClientId, StoredCommand)>) {
        for (client_id, StoredCommand { seq, at, command }) in commands {
            let known = self.pending.iter_mut().find(|known| known.client_id == client_id && known.seq == seq);
            if let Some(known) = known {
                // Whoever announces it to the leader again has not heard the answer, so it is asked for again.
                known.announced = true;
                known.sent = false;
                known.accepted = known.accepted.filter(|_| !self.is_leading);
                continue;
            }
            let is_before = |known: &Pending| (known.at, &known.client_id, known.seq) < (at, &client_id, seq);
            let place = self.pending.iter().rposition(is_before).map_or(0, |place| place + 1);
            let pending = Pending {
                client_id,
                seq,
                is_first: false,
                command,
                at,
                stored: true,
                announced: true,
                sent: false,
                accepted: None,
            };
            self.pending.insert(place, pending);
        }
    }

    /// The other clients whose commands this connection carries.
    pub(super) fn alongside(&self) -> Vec<ClientId> {
        let mut clients = Vec::new();
        let carried = self.pending.iter().map(|pending| &pending.client_id);
        for client_id in carried.chain(&self.followers) {
            let is_named = *client_id == self.client_id || clients.contains(client_id);
            if self.is_leading && !is_named && clients.len() < MAX_NAMED {
                clients.push(client_id.clone());
            }
        }
        clients
    }

    /// Tells the other tabs what this one has stored: the leader, so that it is sent, and all, so that they show it.
    pub(super) fn announce(&mut self) {
        if self.is_leading && self.followers.is_empty() {
            return;
        }
        let mut commands = Vec::new();
        let mut is_all = true;
        for pending in self.pending.iter_mut().filter(|pending| pending.client_id == self.client_id) {
            if pending.stored && !pending.announced {
                pending.announced = true;
                commands.push(pending.as_stored());
            } else {
                is_all &= !pending.stored;
            }
        }
        if !commands.is_empty() {
            self.outputs.push(Output::Announce { client_id: self.client_id.clone(), commands, is_all });
        }
    }
}
