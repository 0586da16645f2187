//! Session tokens: what one says, and the ways in which one is refused.
//!
//! A token is a PASETO `v4.local` text: encrypted and authenticated with one algorithm that
//! the text cannot choose. The key's id stands in the footer; it only selects a key and is
//! believed by nobody until the token has been verified with that key.
//!
//! What a text can't tell is whether it was revoked: that depends on the session's state, which has to be at the generation
//! of access that the token carries. Whoever has verified a token asks the session next.

mod issuer;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use throughline_core::sync::Credential;

use crate::tenant::TenantId;

pub use issuer::TokenIssuer;

/// The audience written into each token.
pub const AUDIENCE: &str = "throughline";

/// Longer texts are refused before any work is done on them.
pub const MAX_TOKEN_BYTES: usize = 2048;

/// How far ahead of ours the issuing server's clock may be, in milliseconds.
const CLOCK_SKEW_MS: i64 = 60_000;

/// What a token is for. A token for one purpose is refused for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Purpose {
    /// A buyer's browser, for exactly one session; in a header or a frame.
    Browser,
    /// The same in a cookie, which no script can read. It is good for nothing where scripts send one.
    Cookie,
    /// Another browser, which may exchange it for a token of its own, once.
    Handoff,
}

impl Purpose {
    /// A browser's, in a cookie or not.
    #[must_use]
    pub const fn of_browser(is_in_cookie: bool) -> Self {
        if is_in_cookie { Self::Cookie } else { Self::Browser }
    }
}

/// Whom a token is issued to: one purpose, one tenant, one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// What it is for.
    pub purpose: Purpose,
    /// The tenant whose session it is.
    pub tenant: TenantId,
    /// The session.
    pub session_id: String,
    /// The generation of the session's access, as its state has it now.
    pub access_generation: u32,
    /// The public short name of the service key on whose request it is made, if it is one that asked.
    pub issued_by: Option<String>,
}

/// How long tokens live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// One token; renewed while the session is active.
    pub idle: Duration,
    /// All renewals of a token together, counted from the first one.
    pub absolute: Duration,
}

/// How long a code for another browser can be used: long enough to take up the other device, too short to be found later on.
pub const HANDOFF_LIFE: Duration = Duration::from_secs(5 * 60);

impl Default for Lifetimes {
    fn default() -> Self {
        Self { idle: Duration::from_secs(30 * 60), absolute: Duration::from_secs(24 * 60 * 60) }
    }
}

/// What a verified token says. Only [`TokenIssuer::verify`] makes one from a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// What it is for.
    pub purpose: Purpose,
    /// The tenant whose session it is.
    pub tenant: TenantId,
    /// The session it is for.
    pub session_id: String,
    /// The public name of the root key that it was made with.
    pub key_id: String,
    /// When it was issued, in milliseconds since 1970.
    pub issued_at_ms: i64,
    /// From when on it is refused.
    pub expires_at_ms: i64,
    /// A random id of this token, for the audit log. It grants nothing.
    pub token_id: String,
    /// The id of the first of the tokens that this one was renewed out of; its own where it is the first. Of those of a browser
    /// that was let in with a code it is the code's. Who revokes one of them revokes all. It grants nothing.
    pub family: String,
    /// How often it was renewed.
    pub renewals: u32,
    /// No renewal lasts beyond this time.
    pub ends_at_ms: i64,
    /// Of a code for another browser: the family of the token that asked for it. It ends with that as well.
    pub asked_by: Option<String>,
    /// At which generation of the session's access it was made. Whether that is the session's still, only its state tells.
    pub access_generation: u32,
    /// The public short name of the service key on whose request it was made, if it was one that asked. It is refused when that
    /// key is revoked, and so is all that is made out of it.
    pub issued_by: Option<String>,
}

impl Claims {
    /// What the session's rules look at to tell whether the token is good still.
    #[must_use]
    pub fn credential(&self) -> Credential {
        Credential::Token { generation: self.access_generation, family: self.family.clone() }
    }

    /// Whether more than half of the token's life is over and a renewal would prolong it.
    #[must_use]
    pub fn renew_due(&self, now_ms: i64) -> bool {
        let life = self.expires_at_ms.saturating_sub(self.issued_at_ms);
        let used = now_ms.saturating_sub(self.issued_at_ms);
        used >= life / 2 && self.expires_at_ms < self.ends_at_ms
    }
}

/// A token that was just made.
#[derive(Clone, PartialEq, Eq)]
pub struct IssuedToken {
    /// The text to hand over. A secret: whoever has it is the session's browser.
    pub text: String,
    /// What it says.
    pub claims: Claims,
}

impl std::fmt::Debug for IssuedToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuedToken").field("text", &"[secret]").field("claims", &self.claims).finish()
    }
}

/// Why a token was refused. No variant holds the token or anything it claims without proof.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a token, or changed on its way.
    #[error("the token is not one that this server issued, or it was changed")]
    Malformed,
    /// It names a key that is not, or no longer, in the ring.
    #[error("the token was issued with a key that this server does not know")]
    UnknownKey,
    /// Its key is good for nothing any more.
    #[error("the token was issued with a key that is retired")]
    RetiredKey,
    /// The service key that had it made is revoked.
    #[error("the token was made on request of a service key that is revoked; ask the shop for a new one")]
    RevokedIssuer,
    /// Its time is over.
    #[error("the token expired at {}", crate::clock::rfc3339(*at_ms))]
    Expired {
        /// When it expired, in milliseconds since 1970.
        at_ms: i64,
    },
    /// The session was paid since it was issued, or its access revoked. Only the session's state tells.
    #[error("{}", throughline_core::Rejection::token_revoked())]
    Revoked,
    /// It was issued in the future: a clock is wrong.
    #[error("the token is not valid before {}; check the servers' clocks", crate::clock::rfc3339(*from_ms))]
    NotYetValid {
        /// When it was issued, in milliseconds since 1970.
        from_ms: i64,
    },
    /// Made with our key, for something else.
    #[error("the token was not issued for {AUDIENCE}")]
    WrongAudience,
    /// A token for something else than what it was shown for.
    #[error("the token was issued for another purpose than {expected:?}")]
    WrongPurpose {
        /// What it would have to be for.
        expected: Purpose,
    },
}

impl TokenError {
    /// The stable code that the outside sees.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed => "tokenMalformed",
            Self::UnknownKey => "tokenKeyUnknown",
            Self::RetiredKey => "tokenKeyRetired",
            Self::Revoked | Self::RevokedIssuer => "tokenRevoked",
            Self::Expired { .. } => "tokenExpired",
            Self::NotYetValid { .. } => "tokenNotYetValid",
            Self::WrongAudience => "tokenWrongAudience",
            Self::WrongPurpose { .. } => "tokenWrongPurpose",
        }
    }
}

/// Why a token could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// The operating system gave no random bytes.
    #[error("the operating system's random number source failed; no token was made")]
    Randomness,
    /// The claims could not be encrypted.
    #[error("the token could not be encrypted")]
    Encryption,
    /// The key of the token before is good for nothing any more.
    #[error("the key with which the token was made is retired; authenticate again")]
    KeyGone,
    /// The session has been open for as long as it may be.
    #[error("the token cannot be renewed beyond {}; authenticate again", crate::clock::rfc3339(*at_ms))]
    AbsoluteLimit {
        /// The last moment, in milliseconds since 1970.
        at_ms: i64,
    },
}
