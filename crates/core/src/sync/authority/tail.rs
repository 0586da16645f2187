//! What was accepted before the database has it.

use serde::{Deserialize, Serialize};

use super::{Credential, Request, Work};
use crate::command::{Command, CommandKind};
use crate::event::{Caller, Event, Record};
use crate::identifier::ClientId;
use crate::permission::Role;

/// A command that was accepted before the database has it, with the records that came of it.
///
/// The records are what happened, unless another history of the session wins; the command is there for that case: it is
/// decided again, on the history that won.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TailEntry {
    /// The command; missing for what a server did by itself, and where the database has the records already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued: Option<Issued>,
    /// At least one record, their versions without gaps.
    pub records: Vec<Record>,
}

/// A command as it was issued, to be decided again if need be.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Issued {
    /// The client that issued it.
    pub client_id: ClientId,
    /// Its number.
    pub seq: u64,
    /// In which role.
    pub role: Role,
    /// Digest of the claim secret, where it came with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    /// Who issued it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<Caller>,
    /// The command; missing where it could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Command>,
}

impl TailEntry {
    /// The version of its first record.
    pub fn first_version(&self) -> u64 {
        self.records.first().map_or(0, |record| record.version)
    }

    /// The version of its last record.
    pub fn last_version(&self) -> u64 {
        self.records.last().map_or(0, |record| record.version)
    }

    /// The versions of its records that do not say which command it was, and that command's kind.
    pub(super) fn unnamed_commands(&self) -> impl Iterator<Item = (u64, CommandKind)> {
        let kind = self.issued.as_ref().and_then(|issued| issued.command.as_ref()).map(Command::kind);
        let unnamed = self.records.iter().filter(|record| !record.event.changes_session());
        unnamed.filter_map(move |record| Some((record.version, kind?)))
    }

    /// The command, to be decided again.
    pub(super) fn into_work(self) -> Option<Work> {
        let Issued { client_id, seq, role, claim, caller, command } = self.issued?;
        let command = match command {
            Some(command) => Ok(command),
            None => Err(self.records.into_iter().find_map(|record| match record.event {
                Event::CommandRejected { rejection } => Some(rejection),
                _ => None,
            })?),
        };
        let request = Request { caller, ..Request::new(client_id, Some(seq), command) };
        let credential = claim.map_or(Credential::Verified, Credential::Claim);
        Some(Work { peer: None, role, credential, is_follower: false, request })
    }
}

impl Issued {
    pub(super) fn of(work: &Work, seq: u64) -> Self {
        let Work { role, credential, request, .. } = work;
        let claim = match credential {
            Credential::Claim(digest) => Some(digest.clone()),
            // What was accepted with a token was accepted while that was good.
            Credential::Verified | Credential::Token { .. } => None,
        };
        let command = request.command.as_ref().ok().cloned();
        let caller = request.caller.clone();
        Self { client_id: request.client_id.clone(), seq, role: *role, claim, caller, command }
    }
}
