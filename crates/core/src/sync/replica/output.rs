//! What a replica wants of its shell, tells it, and finds in its storage.

use alloc::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::command::Command;
use crate::event::Record;
use crate::evolve::evolve;
use crate::identifier::ClientId;
use crate::json::json_struct;
use crate::prelude::*;
use crate::rejection::Rejection;
use crate::state::State;
use crate::sync::frame::{ClientFrame, ErrorCode, Hello, ServerFrame};
use crate::time::Timestamp;

/// What the replica wants of its shell, or tells it.
#[derive(Clone, PartialEq, Debug)]
pub enum Output {
    /// Send this frame.
    Send(ClientFrame),
    /// Store these changes, all or none, after those before them.
    Store {
        /// The changes.
        changes: Vec<StorageChange>,
        /// They count only as long as no other tab has begun to lead: it has read the storage, and goes on from there.
        as_leader: bool,
    },
    /// The session, or how far it is confirmed, has changed.
    Changed,
    /// Tell the other tabs of these commands, which are stored. Where this tab follows, the leader sends them.
    Announce {
        /// The client that issued them.
        client_id: ClientId,
        /// The commands, in the order of their numbers.
        commands: Vec<StoredCommand>,
        /// Whether no other command of this client is pending.
        is_all: bool,
    },
    /// Hand these frames to other tabs, as if the server had sent them.
    Relay {
        /// The hello that they answer, whose tab they are for; all tabs where there is none.
        answers: Option<Hello>,
        /// The frames.
        frames: Vec<ServerFrame>,
    },
    /// A command went one step further.
    Confirmed {
        /// The client that issued it: this one, or another tab's.
        client_id: ClientId,
        /// Its number.
        seq: u64,
        /// How far it is.
        confirmation: Confirmation,
    },
    /// A record of the server became part of the confirmed state.
    Applied(Arc<Record>),
    /// Call [`Replica::retry`](super::Replica::retry) after this many milliseconds.
    RetryAfter(u64),
    /// The server's clock, as just heard.
    ServerTime(Timestamp),
    /// A new token; the replica uses it already, the shell keeps it.
    Token(String),
    /// The page is to ask for a new cookie.
    CookieDue,
    /// The server ends the connection.
    Refused {
        /// Why.
        code: ErrorCode,
        /// A sentence for a person.
        message: String,
        /// When to come back, in milliseconds.
        retry_after_ms: Option<u64>,
    },
    /// The server expects commands of another tab's client that are not here. Where that tab is gone, call
    /// [`Replica::skip`](super::Replica::skip); otherwise it announces all that it has.
    Missing(ClientId),
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
    /// Keep a client's command until it is durable.
    PutCommand(ClientId, StoredCommand),
    /// Forget a client's command.
    DeleteCommand(ClientId, u64),
    /// Keep a confirmed record.
    PutRecord(Arc<Record>),
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

/// What the storage has of a session.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Restored {
    /// The confirmed state.
    pub base: Option<State>,
    /// Confirmed records after it, in the order of their versions.
    pub records: Vec<Record>,
    /// The commands of all clients that are not durable yet, those of one in the order of their numbers.
    pub outbox: Vec<(ClientId, StoredCommand)>,
    /// The session's token.
    pub token: Option<String>,
    /// The secret with which the session was created offline.
    pub claim: Option<String>,
}

impl Restored {
    /// The confirmed state: what is stored of it is durable.
    pub(super) fn confirmed(&mut self) -> Option<State> {
        let mut confirmed = self.base.take();
        for record in &self.records {
            // After a hole the rest is of no use; the server sends it again.
            if record.version == confirmed.as_ref().map_or(0, State::version) + 1 {
                confirmed = evolve(confirmed, record);
            }
        }
        confirmed
    }
}

json_struct!(StoredCommand, Ignored { seq: "seq", at: "at", command: "command" });
