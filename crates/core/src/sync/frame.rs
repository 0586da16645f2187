//! What goes over the wire. `PROTOCOL.md` gives every field, limit and code.

use serde::{Deserialize, Serialize};

use crate::command::Command;
use crate::event::Record;
use crate::funnel::Funnel;
use crate::identifier::{ClientId, SessionId};
use crate::json::{json_enum, json_struct, json_tagged};
use crate::prelude::*;
use crate::rejection::Rejection;
use crate::state::State;
use crate::time::Timestamp;

/// The version of the protocol that this build speaks; also in the name of the WebSocket subprotocol.
pub const PROTOCOL_VERSION: u32 = 1;

/// From a client to a server.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum ClientFrame {
    /// The first frame, and again whenever the client needs to catch up.
    Hello(Hello),
    /// Commands, in the order of their numbers.
    Submit {
        /// The commands.
        commands: Vec<Submission>,
        /// For each of them the W3C `traceparent` of what caused it in the page, where the page is traced; empty where it is
        /// not. Beside the commands and not in them: servers that do not know of it read those as they are.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        traceparents: Vec<Option<String>>,
    },
    /// Asks for a `pong`, to tell a quiet connection from a dead one.
    Ping {},
}

/// Who the client is and what it has.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// [`PROTOCOL_VERSION`] of the client.
    pub protocol: u32,
    /// The session.
    pub session_id: SessionId,
    /// The client.
    pub client_id: ClientId,
    /// Other clients, at most 64, whose commands come over this connection: the other tabs of a browser.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alongside: Vec<ClientId>,
    /// The version up to which it has the session; 0 for nothing.
    pub known_version: u64,
    /// The version of which it was told that the database has it, where it has less, or something else, and wants
    /// everything: nobody is shown an older session than before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durable_version: Option<u64>,
    /// The history that this version belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// Hash of the funnel definition that it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub funnel_hash: Option<String>,
    /// The session's token, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The secret of a client that created the session offline, as long as it has no token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
}

/// A numbered command.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Submission {
    /// The client that issued it.
    pub client_id: ClientId,
    /// The client's number for it: 1, 2, 3 and so on, without gaps.
    pub seq: u64,
    /// Whether the client's commands before it are settled, or gone for good: the server need not wait for them.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub first: bool,
    /// The command.
    #[serde(flatten)]
    pub command: Command,
}

/// From a server to a client.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum ServerFrame {
    /// Answers `hello`; followed by `events` or a `snapshot` where the client lacks something.
    Welcome {
        /// [`PROTOCOL_VERSION`] of the server.
        protocol: u32,
        /// The session.
        session_id: SessionId,
        /// Its history; 0 where there is no session yet.
        epoch: u64,
        /// Its version; 0 where there is no session yet.
        version: u64,
        /// The version that the database has.
        durable_version: u64,
        /// The highest number that was applied for this client.
        last_seq: u64,
        /// The server's clock.
        server_time: Timestamp,
        /// Hash of the session's funnel definition.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        funnel_hash: Option<String>,
        /// The funnel definition, where the client has not this one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        funnel: Option<Box<Funnel>>,
    },
    /// The whole session, as the client may see it.
    Snapshot {
        /// Session and bookkeeping.
        state: Box<State>,
    },
    /// What has happened, in the order of the versions and without gaps.
    Events {
        /// The history that they belong to.
        epoch: u64,
        /// The records.
        records: Vec<Record>,
    },
    /// A command was applied.
    Accepted {
        /// The client that issued it.
        client_id: ClientId,
        /// Its number.
        seq: u64,
        /// The session's version after it (for a repeated one: now).
        version: u64,
        /// Whether it had been applied before, and was not applied again.
        #[serde(default, skip_serializing_if = "core::ops::Not::not")]
        repeated: bool,
    },
    /// A command was refused.
    Rejected {
        /// The client that issued it.
        client_id: ClientId,
        /// Its number.
        seq: u64,
        /// Why.
        reason: Rejection,
    },
    /// The database has everything up to this version.
    Durable {
        /// The version.
        version: u64,
    },
    /// A command's number does not follow the last one applied; nothing was applied.
    Gap {
        /// The client that issued it.
        client_id: ClientId,
        /// The number that is expected next.
        expected: u64,
    },
    /// Commands could not be stored just now; nothing was applied. They are to be sent again later.
    Busy {
        /// When to send them again, in milliseconds from now.
        retry_after_ms: u64,
    },
    /// A new token for the session; the former ones go on until they end or are revoked.
    Token {
        /// The token.
        token: String,
        /// When it ends.
        expires_at: Timestamp,
    },
    /// The client keeps its token in a cookie, and it is time for a new one: the page asks for it, see `PROTOCOL.md`.
    CookieDue {},
    /// Answers `ping`.
    Pong {
        /// The server's clock.
        server_time: Timestamp,
    },
    /// Something is wrong with the connection; the server closes it after this.
    Error {
        /// What is wrong.
        code: ErrorCode,
        /// A sentence for a person.
        message: String,
        /// When to come back, in milliseconds from now, where coming back helps.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
    },
}

impl ServerFrame {
    /// Whether a browser's leading tab hands it on to the others as it is. The rest is about the connection; what follows
    /// from it the others are told by the leader itself.
    pub fn is_for_all_tabs(&self) -> bool {
        match self {
            Self::Snapshot { .. }
            | Self::Events { .. }
            | Self::Accepted { .. }
            | Self::Rejected { .. }
            | Self::Durable { .. }
            | Self::Gap { .. } => true,
            Self::Welcome { .. }
            | Self::Busy { .. }
            | Self::Token { .. }
            | Self::CookieDue {}
            | Self::Pong { .. }
            | Self::Error { .. } => false,
        }
    }
}

/// Why a server ends a connection. The WebSocket close code follows from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ErrorCode {
    /// A frame can't be read, or came out of turn.
    MalformedFrame,
    /// The server does not speak the client's protocol.
    UnsupportedProtocol,
    /// Token or claim are missing, wrong or for another session.
    Unauthorized,
    /// The token has ended; get a new one and come back.
    TokenExpired,
    /// The token was made before the session was paid or its access revoked; prove the session anew.
    TokenRevoked,
    /// There is no such session.
    SessionNotFound,
    /// Too much of something; come back later.
    RateLimited,
    /// The client does not read fast enough; come back and catch up.
    SlowReader,
    /// The server can't serve the session just now; come back later.
    Unavailable,
    /// The server is shutting down; come back at once.
    Restarting,
}

impl ErrorCode {
    /// Every code.
    pub const ALL: [Self; 10] = [
        Self::MalformedFrame,
        Self::UnsupportedProtocol,
        Self::Unauthorized,
        Self::TokenExpired,
        Self::TokenRevoked,
        Self::SessionNotFound,
        Self::RateLimited,
        Self::SlowReader,
        Self::Unavailable,
        Self::Restarting,
    ];

    /// The WebSocket close code: RFC 6455 and the IANA registry where one fits, else of the private range.
    pub const fn close_code(self) -> u16 {
        match self {
            Self::MalformedFrame => 1007,
            Self::UnsupportedProtocol => 4400,
            Self::Unauthorized => 4401,
            Self::TokenExpired => 4403,
            Self::TokenRevoked => 4405,
            Self::SessionNotFound => 4404,
            Self::RateLimited => 4429,
            Self::SlowReader => 1008,
            Self::Unavailable => 1013,
            Self::Restarting => 1012,
        }
    }

    /// Whether the client should come back by itself.
    pub const fn is_passing(self) -> bool {
        match self {
            Self::RateLimited | Self::SlowReader | Self::Unavailable | Self::Restarting => true,
            Self::MalformedFrame
            | Self::UnsupportedProtocol
            | Self::Unauthorized
            | Self::TokenExpired
            | Self::TokenRevoked
            | Self::SessionNotFound => false,
        }
    }
}

json_tagged!(ServerFrame, Ignored, blank Self::Durable { version: 0 }, {
    Welcome: "welcome" { protocol: "protocol", session_id: "sessionId", epoch: "epoch", version: "version", durable_version: "durableVersion", last_seq: "lastSeq", server_time: "serverTime", funnel_hash: "funnelHash" unless empty, funnel: "funnel" unless empty },
    Snapshot: "snapshot" { state: "state" },
    Events: "events" { epoch: "epoch", records: "records" },
    Accepted: "accepted" { client_id: "clientId", seq: "seq", version: "version", repeated: "repeated" or default unless empty },
    Rejected: "rejected" { client_id: "clientId", seq: "seq", reason: "reason" },
    Durable: "durable" { version: "version" },
    Gap: "gap" { client_id: "clientId", expected: "expected" },
    Busy: "busy" { retry_after_ms: "retryAfterMs" },
    Token: "token" { token: "token", expires_at: "expiresAt" },
    CookieDue: "cookieDue" {},
    Pong: "pong" { server_time: "serverTime" },
    Error: "error" { code: "code", message: "message", retry_after_ms: "retryAfterMs" unless empty },
});

json_struct!(Hello, Ignored { protocol: "protocol", session_id: "sessionId", client_id: "clientId", alongside: "alongside" or default unless empty, known_version: "knownVersion", durable_version: "durableVersion" unless empty, epoch: "epoch" unless empty, funnel_hash: "funnelHash" unless empty, token: "token" unless empty, claim: "claim" unless empty });

json_enum!(ErrorCode {
    MalformedFrame: "malformedFrame",
    UnsupportedProtocol: "unsupportedProtocol",
    Unauthorized: "unauthorized",
    TokenExpired: "tokenExpired",
    TokenRevoked: "tokenRevoked",
    SessionNotFound: "sessionNotFound",
    RateLimited: "rateLimited",
    SlowReader: "slowReader",
    Unavailable: "unavailable",
    Restarting: "restarting"
});
