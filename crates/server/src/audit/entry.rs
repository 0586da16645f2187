//! What one record of the audit log says.

use serde::{Deserialize, Serialize};
use throughline_core::sync::Commit;
use throughline_core::{Caller, Event, Record, Role};

use crate::clock::rfc3339;
use crate::store::SessionKey;
use crate::tenant::TenantId;

/// One thing that somebody did, or was not allowed to do. Stored as JSON with these names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// A random name of this entry: one that is written down twice was put in by somebody.
    pub id: String,
    /// When, in RFC 3339 with milliseconds.
    pub at: String,
    /// Whose sessions it is about; the single tenant where nobody could tell.
    pub tenant: TenantId,
    /// The session that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The session's version after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// What it is about where that is no session: the public name of a service key, or of a root key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// In which role: `browser`, `service`, `operator`, `system` (the server itself), or `nobody` where no credential held.
    pub by: String,
    /// The public name of the service key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// The network of the address that it came from: the first 24 bits of an IPv4 address, 48 of an IPv6 one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// What was done: kinds of events of the session, or the name of another act.
    pub did: Vec<String>,
    /// The kind of the command, where that does not say it: of one that was refused, or that changed nothing. Missing where it could
    /// not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// What became of it.
    pub outcome: Outcome,
    /// The code of the refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// How often, where several that are the same were counted together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
}

/// What became of what somebody wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// It was done.
    Done,
    /// The funnel's rules forbid it.
    Refused,
    /// Whoever wanted it may not, or did not prove who they are.
    Denied,
}

impl AuditEntry {
    /// Something that was done, at a time in milliseconds since 1970, by the server itself unless somebody else is named.
    #[must_use]
    pub fn done(tenant: TenantId, did: &str, at_ms: i64) -> Self {
        Self {
            id: format!("{:016x}", fastrand::u64(..)),
            at: rfc3339(at_ms),
            tenant,
            session: None,
            version: None,
            subject: None,
            by: Role::System.as_str().to_owned(),
            key_id: None,
            network: None,
            did: vec![did.to_owned()],
            command: None,
            outcome: Outcome::Done,
            code: None,
            times: None,
        }
    }

    /// The same, done by this caller.
    #[must_use]
    pub fn by(mut self, role: &str, caller: Caller) -> Self {
        let Caller { key_id, network } = caller;
        self.by = role.to_owned();
        self.key_id = key_id;
        self.network = network;
        self
    }
}

/// What a commit does, one entry for each command and for each thing that the server did by itself.
pub(crate) fn entries_of(key: &SessionKey, commit: &Commit) -> Vec<AuditEntry> {
    let mut entries: Vec<AuditEntry> = Vec::new();
    let mut before: Option<&Record> = None;
    for record in &commit.records {
        let goes_on = before.is_some_and(|before| {
            (before.by, &before.origin, before.at) == (record.by, &record.origin, record.at) && record.origin.is_some()
        });
        match entries.last_mut().filter(|_| goes_on) {
            Some(entry) => entry.did.push(record.event.kind().to_owned()),
            None => entries.push(
                AuditEntry {
                    session: Some(key.session_id.clone()),
                    ..AuditEntry::done(key.tenant.clone(), record.event.kind(), record.at.as_millis())
                }
                .by(record.by.as_str(), record.caller.clone().unwrap_or_default()),
            ),
        }
        if let Some(entry) = entries.last_mut() {
            entry.version = Some(record.version);
            let kind = commit.commands.iter().find(|(version, _)| *version == record.version);
            if let Some((_, kind)) = kind {
                entry.command = Some(kind.as_str().to_owned());
            }
            if let Event::CommandRejected { rejection } = &record.event {
                entry.outcome = Outcome::Refused;
                entry.code = Some(rejection.code.as_str().to_owned());
            }
        }
        before = Some(record);
    }
    entries
}
