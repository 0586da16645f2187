//! Decisions that build on each other.

use super::tail::{Issued, TailEntry};
use super::{Credential, Environment, Request, Work};
use crate::command::{Command, CommandKind, FunnelChoice};
use crate::decide::{Context, decide, erase, expire};
use crate::event::{Event, Origin, Record};
use crate::evolve::evolve;
use crate::identifier::{FunnelId, SessionId};
use crate::permission::Role;
use crate::rejection::{Rejection, RejectionCode};
use crate::state::State;
use crate::sync::frame::ServerFrame;

/// Decisions that build on each other and are accepted together.
pub(super) struct Batch<'a> {
    pub(super) state: Option<State>,
    /// One for each command that left a record, and for what the server did by itself.
    pub(super) entries: Vec<TailEntry>,
    environment: &'a Environment<'a>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(state: Option<State>, environment: &'a Environment<'a>) -> Self {
        Self { state, entries: Vec::new(), environment }
    }

    fn version(&self) -> u64 {
        self.state.as_ref().map_or(0, State::version)
    }

    fn record(&mut self, entry: &mut TailEntry, by: Role, origin: Option<Origin>, event: Event) {
        let caller = entry.issued.as_ref().and_then(|issued| issued.caller.clone());
        let record = Record { version: self.version() + 1, at: self.environment.now, by, origin, caller, event };
        self.state = evolve(self.state.take(), &record);
        entry.records.push(record);
    }

    /// Ends a session whose time is over.
    pub(super) fn end_session(&mut self) {
        let Some(state) = &self.state else { return };
        let events = expire(&state.session, self.environment.now).unwrap_or_default();
        let mut entry = TailEntry { issued: None, records: Vec::new() };
        for event in events {
            self.record(&mut entry, Role::System, None, event);
        }
        self.keep(entry);
    }

    fn keep(&mut self, entry: TailEntry) {
        if !entry.records.is_empty() {
            self.entries.push(entry);
        }
    }

    /// Judges one command; the answer counts once the batch is accepted.
    pub(super) fn judge(&mut self, session_id: &SessionId, work: &Work, is_void: bool) -> ServerFrame {
        let Work {
            request: Request { client_id, seq, first, command, expected_version, .. },
            role,
            credential,
            is_follower,
            ..
        } = work;
        let ledger_key = client_id.in_ledger(*role);
        let last_seq = self.state.as_ref().map_or(0, |state| state.last_seq(&ledger_key));
        let (client_id, seq) = (client_id.clone(), seq.unwrap_or(last_seq + 1));
        let refuse = |reason: Rejection| ServerFrame::Rejected { client_id: client_id.clone(), seq, reason };

        if let (Credential::Claim(digest), Some(state)) = (credential, &self.state)
            && !state.knows(digest)
        {
            let message =
                "this session was created by somebody else, and is not handed to this browser; start a new one";
            return refuse(Rejection::new(RejectionCode::ClaimMismatch, message));
        }
        if let (Credential::Token { generation, family }, Some(state)) = (credential, &self.state) {
            let is_good =
                if *is_follower { state.keeps(*generation, family) } else { state.accepts(*generation, family) };
            if !is_good {
                // Not recorded: with a new token the same command may be applied.
                return refuse(Rejection::token_revoked());
            }
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
            if seq != last_seq + 1 && !first {
                return ServerFrame::Gap { client_id, expected: last_seq + 1 };
            }
        } else if seq != 1 && !first {
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
        let mut entry = TailEntry { issued: Some(Issued::of(work, seq)), records: Vec::new() };
        let refusal = match decision {
            Ok(events) => {
                let events = if events.is_empty() { vec![Event::CommandUnneeded {}] } else { events };
                for event in events {
                    self.record(&mut entry, *role, origin.clone(), event);
                }
                None
            }
            Err(rejection) => {
                // It is settled all the same, so that it gets the same answer when it comes again.
                if self.state.is_some() {
                    let event = Event::CommandRejected { rejection: rejection.clone() };
                    self.record(&mut entry, *role, origin, event);
                }
                Some(rejection)
            }
        };
        self.keep(entry);
        if let Some(rejection) = refusal {
            return refuse(rejection);
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
        let chosen = |choice: Option<&FunnelChoice>| match choice {
            Some(choice) => funnels.find(choice.id.as_str(), choice.version),
            None => funnels.find(FunnelId::DEFAULT, None),
        };
        let entry = match (&self.state, command) {
            (Some(state), _) => {
                let funnel = &state.session.funnel;
                funnels.find(funnel.id.as_str(), Some(funnel.version))
            }
            (None, Command::Create(create)) => chosen(create.funnel.as_ref()),
            (None, Command::Import { funnel, .. }) => chosen(funnel.as_ref()),
            (None, _) => {
                let message = "there is no session with this id";
                return Err(Rejection::new(RejectionCode::SessionNotFound, message));
            }
        };
        let Some(entry) = entry else {
            // Erasure must not depend on a file that somebody removed.
            if let (CommandKind::Erase, Some(state)) = (command.kind(), &self.state) {
                return erase(state, self.environment.now);
            }
            let message = "this server does not have the session's funnel; its operator has to load that version";
            return Err(Rejection::new(RejectionCode::UnknownFunnel, message));
        };
        let claim = match credential {
            Credential::Claim(digest) => Some(digest.as_str()),
            Credential::Verified | Credential::Token { .. } => None,
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
