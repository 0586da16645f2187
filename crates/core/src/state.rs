//! The session with what the protocol needs beside it. This is what every tier stores.

use core::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};

use crate::identifier::ClientId;
use crate::json::json_struct;
use crate::ordered::OrderedMap;
use crate::prelude::*;
use crate::rejection::Rejection;
use crate::session::Session;
use crate::time::{TimeSpan, Timestamp};

/// A session and its bookkeeping: stored, replicated and sent as one.
///
/// The highest number applied for each client is in here, in the same atom as its effects, so a
/// command that is sent twice can't take effect twice.
#[derive(Clone, PartialEq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The session.
    pub session: Session,
    /// Drawn at random when the session is created. A server that lost history, or another session under
    /// the same id, has another epoch, so two histories are never mixed.
    pub epoch: u64,
    /// Digest of the secret with which a client that created it offline proves that it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    /// The claims of browsers that did not create it: it was handed to them, or they keep it in a cookie; the latest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lent: Vec<LentClaim>,
    /// How often access to the session was revoked or renewed: by `revokeAccess`, and when it was paid. A token carries the
    /// generation at which it was made, and is good only while it is the session's.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub access_generation: u32,
    /// The generation that the latest `revokeAccess` began. A connection that proved itself in this one or later goes on when
    /// the session is paid, and gets a new token; one from before it is ended.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub revoked_generation: u32,
    /// Families of tokens that were revoked one by one, and until when one of such a family could be good otherwise. No
    /// browser is told of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revoked_tokens: Vec<(String, Timestamp)>,
    /// What was applied from each client.
    #[serde(default)]
    pub clients: OrderedMap<ClientId, ClientLedger>,
    /// After how long it ends when nobody changes it, where its funnel says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<IdleLimit>,
    /// Why it may be neither erased nor deleted, where the shop has said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// When the personal data was erased. Nothing revives an erased session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erased_at: Option<Timestamp>,
    /// When a service principal last confirmed or refuted what was claimed. What a legacy system said before is not claimed again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claims_settled_at: Option<Timestamp>,
}

/// How long a session may be left alone. While it has one, its `expiresAt` moves with each change.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IdleLimit {
    /// After how long without a change it ends.
    pub span: TimeSpan,
    /// When it ends however often it is changed.
    pub latest_end: Timestamp,
}

/// A session that is kept although somebody may want it erased: the law asks for it, or a dispute is open.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct Hold {
    /// Why, for whoever asks for its erasure: 1 to 200 characters.
    pub reason: String,
    /// Until when; for as long as nobody ends it where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional))]
    pub until: Option<Timestamp>,
}

/// A claim that is good for some time, and no longer than the token by which the browser was let in.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct LentClaim {
    /// Digest of the secret.
    pub digest: String,
    /// Until when it is good.
    pub until: Timestamp,
    /// The family of the browser's tokens, also of those that it gets for this claim. It ends with them.
    pub family: String,
    /// The service key on whose request the browser was let in, if it was one that asked. What comes of it ends with the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional))]
    pub issued_by: Option<String>,
}

/// What was applied from one client.
#[derive(Clone, PartialEq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientLedger {
    /// The highest number applied; commands up to it are settled.
    pub last_seq: u64,
    /// The version at which the client was last heard.
    pub heard_at_version: u64,
    /// The rejected ones among the latest, so that a repeated question gets the first answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<(u64, Rejection)>,
}

impl ClientLedger {
    /// How many rejections are remembered for each client: as many as it may have unanswered.
    pub const MAX_REJECTED: usize = 64;
}

impl State {
    /// How many clients are remembered. The one not heard for longest gives way to a new one. Were it to come back, its
    /// numbers would not fit, and it says where they begin; what it had not heard the answer to would be applied again.
    pub const MAX_CLIENTS: usize = 256;

    /// How many other browsers may hold a claim that is good still; the one that got it first gives way to a new one.
    pub const MAX_LENT: usize = 8;

    /// How many families of tokens may be revoked and not over.
    pub const MAX_REVOKED_TOKENS: usize = 32;

    /// Whether this claim is one of the session's, good still or not.
    pub fn knows(&self, digest: &str) -> bool {
        self.claim.as_deref() == Some(digest) || self.lent_claim(digest).is_some()
    }

    /// Whether a client that comes with this claim is let in.
    pub fn admits(&self, digest: &str, now: Timestamp) -> bool {
        self.knows(digest) && self.lent_claim(digest).is_none_or(|lent| now < lent.until)
    }

    /// This claim, where it is not the one that the session was created with.
    pub fn lent_claim(&self, digest: &str) -> Option<&LentClaim> {
        self.lent.iter().rev().find(|lent| lent.digest == digest)
    }

    /// Whether a token of this generation and family is good.
    pub fn accepts(&self, generation: u32, family: &str) -> bool {
        generation == self.access_generation && !self.has_revoked(family)
    }

    /// Whether a connection that began with a token of this generation and family may go on.
    pub fn keeps(&self, generation: u32, family: &str) -> bool {
        generation >= self.revoked_generation && !self.has_revoked(family)
    }

    fn has_revoked(&self, family: &str) -> bool {
        self.revoked_tokens.iter().any(|(revoked, _)| revoked == family)
    }

    /// What keeps the session from being erased or deleted now, if anything does.
    pub fn held(&self, now: Timestamp) -> Option<&Hold> {
        self.hold.as_ref().filter(|hold| hold.until.is_none_or(|until| now < until))
    }

    /// The session's version.
    pub fn version(&self) -> u64 {
        self.session.version
    }

    /// The highest number applied for `client`.
    pub fn last_seq(&self, client: &ClientId) -> u64 {
        self.clients.get(client).map_or(0, |ledger| ledger.last_seq)
    }

    /// The mark by which servers tell whether they speak of the same state.
    pub fn mark(&self) -> StateMark {
        let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
        self.hash(&mut hasher);
        StateMark { version: self.version(), tag: hasher.finish() }
    }

    /// When the server has to look at the session again by itself: the end of its life, unless that is over.
    pub fn deadline(&self) -> Option<Timestamp> {
        (!self.session.status.is_terminal() && self.erased_at.is_none()).then_some(self.session.expires_at)
    }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Names a state: two servers can have different states of one version, when each has accepted what the other has not
/// heard of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StateMark {
    /// The version.
    pub version: u64,
    /// A digest of all of the state, the same on every server of one release. Servers of two releases may give one state
    /// two tags; they then take each other's for another history, and the database tells that it is the same.
    pub tag: u64,
}

/// FNV-1a with 64 bits: nobody gains by finding two states with one tag, and this needs no library.
struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
}

json_struct!(State, Ignored { session: "session", epoch: "epoch", claim: "claim" unless empty, lent: "lent" or default unless empty, access_generation: "accessGeneration" or default unless empty, revoked_generation: "revokedGeneration" or default unless empty, revoked_tokens: "revokedTokens" or default unless empty, clients: "clients" or default, idle: "idle" unless empty, hold: "hold" unless empty, erased_at: "erasedAt" unless empty, claims_settled_at: "claimsSettledAt" unless empty });

json_struct!(LentClaim, Refused { digest: "digest", until: "until", family: "family", issued_by: "issuedBy" unless empty });

json_struct!(Hold, Refused { reason: "reason", until: "until" unless empty });

json_struct!(IdleLimit, Ignored { span: "span", latest_end: "latestEnd" });

json_struct!(ClientLedger, Ignored { last_seq: "lastSeq", heard_at_version: "heardAtVersion", rejected: "rejected" or default unless empty });
