//! The keys that a server knows: the first signs, all of them verify.

use std::collections::HashSet;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use moka::sync::Cache;
use pasetors::Local;
use pasetors::token::UntrustedToken;
use pasetors::version4::{LocalToken, V4};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    AUDIENCE, CLOCK_SKEW_MS, Claims, Grant, IssueError, IssuedToken, Lifetimes, MAX_TOKEN_BYTES, Purpose, TokenError,
    TokenKey,
};
use crate::clock::{millis, parse_rfc3339, rfc3339};
use crate::tenant::TenantId;

/// Bound into each token beside its footer, so that a token of another layout never verifies.
const IMPLICIT_ASSERTION: &[u8] = b"throughline-session-token-1";

/// How many tokens are remembered; each takes about half a KiB.
const OPENED_TOKENS: u64 = 10_000;

/// Token keys in order: the first one signs new tokens, the others still verify old ones.
///
/// To rotate, put the new key first and drop the old one once the longest token lifetime
/// has passed.
#[derive(Debug, Clone)]
pub struct TokenKeyRing {
    keys: Vec<TokenKey>,
    opened: OpenedTokens,
}

/// What tokens say that were found to be ours, by the SHA-256 of their texts. To open a token takes longer than all else
/// that a cached read does, and a browser shows the same one again and again. Whether its time is over, and what it is
/// for, is looked at each time.
#[derive(Clone)]
struct OpenedTokens(Cache<[u8; 32], Arc<Claims>>);

impl Default for OpenedTokens {
    fn default() -> Self {
        Self(Cache::new(OPENED_TOKENS))
    }
}

impl std::fmt::Debug for OpenedTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenedTokens").finish_non_exhaustive()
    }
}

/// Why keys do not make a ring.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyRingError {
    /// There is no key to sign with.
    #[error("there is no token key; make one with `throughline keys generate`")]
    Empty,
    /// The same key twice: most likely a rotation that pasted the old key again.
    #[error("the token key {id} is listed twice; remove one of the two")]
    Repeated {
        /// The key's public id.
        id: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Footer {
    kid: String,
}

/// The claims as they stand inside the token; times are RFC 3339, as PASETO asks.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    aud: String,
    purpose: Purpose,
    tenant: TenantId,
    sub: String,
    iat: String,
    exp: String,
    jti: String,
    renewals: u32,
    ends: String,
}

impl TokenKeyRing {
    /// A ring of `keys`; the first one signs.
    ///
    /// # Errors
    /// When there is none, or one twice.
    pub fn new(keys: Vec<TokenKey>) -> Result<Self, KeyRingError> {
        if keys.is_empty() {
            return Err(KeyRingError::Empty);
        }
        let mut seen = HashSet::new();
        for key in &keys {
            if !seen.insert(key.id()) {
                return Err(KeyRingError::Repeated { id: key.id().to_owned() });
            }
        }
        Ok(Self { keys, opened: OpenedTokens::default() })
    }

    /// Makes a first token.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub fn issue(&self, grant: &Grant, lifetimes: Lifetimes, now_ms: i64) -> Result<IssuedToken, IssueError> {
        let ends_at_ms = now_ms.saturating_add(millis(lifetimes.absolute));
        self.seal(grant, lifetimes, 0, ends_at_ms, now_ms)
    }

    /// Makes a first token whose renewals end when those of another one do.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub fn issue_until(
        &self,
        grant: &Grant,
        lifetimes: Lifetimes,
        ends_at_ms: i64,
        now_ms: i64,
    ) -> Result<IssuedToken, IssueError> {
        self.seal(grant, lifetimes, 0, ends_at_ms, now_ms)
    }

    /// Makes the token that follows on `claims`. The absolute end stays where it was.
    ///
    /// # Errors
    /// When the absolute end has come, or the operating system gives no randomness.
    pub fn renew(&self, claims: &Claims, lifetimes: Lifetimes, now_ms: i64) -> Result<IssuedToken, IssueError> {
        if now_ms >= claims.ends_at_ms {
            return Err(IssueError::AbsoluteLimit { at_ms: claims.ends_at_ms });
        }
        let grant =
            Grant { purpose: claims.purpose, tenant: claims.tenant.clone(), session_id: claims.session_id.clone() };
        let renewals = claims.renewals.saturating_add(1);
        self.seal(&grant, lifetimes, renewals, claims.ends_at_ms, now_ms)
    }

    /// Says what `text` claims, once it is proven that this server issued it for `expected`
    /// and that its time is not over.
    ///
    /// # Errors
    /// See [`TokenError`]; anything in doubt is refused.
    pub fn verify(&self, text: &str, expected: Purpose, now_ms: i64) -> Result<Arc<Claims>, TokenError> {
        let claims = self.open(text)?;
        if claims.purpose != expected {
            return Err(TokenError::WrongPurpose { expected });
        }
        if claims.issued_at_ms > now_ms.saturating_add(CLOCK_SKEW_MS) {
            return Err(TokenError::NotYetValid { from_ms: claims.issued_at_ms });
        }
        let end_ms = claims.expires_at_ms.min(claims.ends_at_ms);
        if now_ms >= end_ms {
            return Err(TokenError::Expired { at_ms: end_ms });
        }
        Ok(claims)
    }

    fn seal(
        &self,
        grant: &Grant,
        lifetimes: Lifetimes,
        renewals: u32,
        ends_at_ms: i64,
        now_ms: i64,
    ) -> Result<IssuedToken, IssueError> {
        let mut random = [0_u8; 16];
        getrandom::fill(&mut random).map_err(|_| IssueError::Randomness)?;
        let claims = Claims {
            purpose: grant.purpose,
            tenant: grant.tenant.clone(),
            session_id: grant.session_id.clone(),
            issued_at_ms: now_ms,
            expires_at_ms: now_ms.saturating_add(millis(lifetimes.idle)).min(ends_at_ms),
            token_id: URL_SAFE_NO_PAD.encode(random),
            renewals,
            ends_at_ms,
        };
        let payload = serde_json::to_vec(&Payload {
            aud: AUDIENCE.to_owned(),
            purpose: claims.purpose,
            tenant: claims.tenant.clone(),
            sub: claims.session_id.clone(),
            iat: rfc3339(claims.issued_at_ms),
            exp: rfc3339(claims.expires_at_ms),
            jti: claims.token_id.clone(),
            renewals: claims.renewals,
            ends: rfc3339(claims.ends_at_ms),
        })
        .map_err(|_| IssueError::Encryption)?;
        // `new` refuses an empty ring.
        let key = self.keys.first().ok_or(IssueError::Encryption)?;
        let footer = serde_json::to_vec(&Footer { kid: key.id.clone() }).map_err(|_| IssueError::Encryption)?;
        let text = LocalToken::encrypt(&key.secret, &payload, Some(&footer), Some(IMPLICIT_ASSERTION))
            .map_err(|_| IssueError::Encryption)?;
        Ok(IssuedToken { text, claims })
    }

    fn open(&self, text: &str) -> Result<Arc<Claims>, TokenError> {
        if text.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Malformed);
        }
        let digest: [u8; 32] = Sha256::digest(text).into();
        if let Some(claims) = self.opened.0.get(&digest) {
            return Ok(claims);
        }
        let claims = Arc::new(self.decrypt(text)?);
        self.opened.0.insert(digest, Arc::clone(&claims));
        Ok(claims)
    }

    fn decrypt(&self, text: &str) -> Result<Claims, TokenError> {
        let untrusted = UntrustedToken::<Local, V4>::try_from(text).map_err(|_| TokenError::Malformed)?;
        let footer: Footer = serde_json::from_slice(untrusted.untrusted_footer()).map_err(|_| TokenError::Malformed)?;
        let key = self.keys.iter().find(|key| key.id == footer.kid).ok_or(TokenError::UnknownKey)?;
        let trusted = LocalToken::decrypt(&key.secret, &untrusted, None, Some(IMPLICIT_ASSERTION))
            .map_err(|_| TokenError::Malformed)?;
        let payload: Payload = serde_json::from_str(trusted.payload()).map_err(|_| TokenError::Malformed)?;
        if payload.aud != AUDIENCE {
            return Err(TokenError::WrongAudience);
        }
        let time = |text: &str| parse_rfc3339(text).ok_or(TokenError::Malformed);
        Ok(Claims {
            purpose: payload.purpose,
            tenant: payload.tenant,
            issued_at_ms: time(&payload.iat)?,
            expires_at_ms: time(&payload.exp)?,
            ends_at_ms: time(&payload.ends)?,
            session_id: payload.sub,
            token_id: payload.jti,
            renewals: payload.renewals,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW_MS: i64 = 1_700_000_000_000;

    fn ring() -> TokenKeyRing {
        TokenKeyRing::new(vec![TokenKey::generate().unwrap()]).unwrap()
    }

    fn grant() -> Grant {
        Grant {
            purpose: Purpose::Browser,
            tenant: "shop-a".parse().unwrap(),
            session_id: "ws_loyw3v28_0123456789".to_owned(),
        }
    }

    fn issue(ring: &TokenKeyRing) -> IssuedToken {
        ring.issue(&grant(), Lifetimes::default(), NOW_MS).unwrap()
    }

    #[test]
    fn a_token_says_what_it_was_issued_for() {
        let ring = ring();
        let issued = issue(&ring);
        let claims = ring.verify(&issued.text, Purpose::Browser, NOW_MS + 1).unwrap();
        assert_eq!(*claims, issued.claims);
        assert_eq!(claims.tenant.as_str(), "shop-a");
        assert_eq!(claims.session_id, "ws_loyw3v28_0123456789");
        assert_eq!(claims.expires_at_ms, NOW_MS + 30 * 60_000);
    }

    #[test]
    fn two_tokens_for_the_same_session_differ() {
        let ring = ring();
        let (first, second) = (issue(&ring), issue(&ring));
        assert_ne!(first.text, second.text);
        assert_ne!(first.claims.token_id, second.claims.token_id);
    }

    #[test]
    fn each_single_bit_change_of_a_token_is_refused() {
        let ring = ring();
        let text = issue(&ring).text;
        let mut accepted = 0;
        for index in 0..text.len() {
            for bit in 0..8 {
                let mut bytes = text.clone().into_bytes();
                bytes[index] ^= 1 << bit;
                // What is not UTF-8 never gets as far as a verification.
                let Ok(changed) = String::from_utf8(bytes) else { continue };
                if ring.verify(&changed, Purpose::Browser, NOW_MS).is_ok() {
                    accepted += 1;
                }
            }
        }
        assert_eq!(accepted, 0);
    }

    #[test]
    fn each_truncation_of_a_token_is_refused() {
        let ring = ring();
        let text = issue(&ring).text;
        for end in 0..text.len() {
            assert!(ring.verify(&text[..end], Purpose::Browser, NOW_MS).is_err(), "{end}");
            assert!(ring.verify(&text[text.len() - end..], Purpose::Browser, NOW_MS).is_err());
        }
    }

    #[test]
    fn a_token_of_another_servers_key_is_refused() {
        let text = issue(&ring()).text;
        assert_eq!(ring().verify(&text, Purpose::Browser, NOW_MS), Err(TokenError::UnknownKey));
    }

    #[test]
    fn a_key_id_in_the_footer_proves_nothing() {
        let (ours, theirs) = (ring(), ring());
        let forged = issue(&theirs).text;
        let real = issue(&ours).text;
        let (body, _) = forged.rsplit_once('.').unwrap();
        let (_, footer) = real.rsplit_once('.').unwrap();
        let mixed = format!("{body}.{footer}");
        assert_eq!(ours.verify(&mixed, Purpose::Browser, NOW_MS), Err(TokenError::Malformed));
    }

    #[test]
    fn a_token_is_refused_from_its_expiry_on() {
        let ring = ring();
        let IssuedToken { text, claims } = issue(&ring);
        let end = claims.expires_at_ms;
        assert!(ring.verify(&text, Purpose::Browser, end - 1).is_ok());
        assert_eq!(ring.verify(&text, Purpose::Browser, end), Err(TokenError::Expired { at_ms: end }));
    }

    #[test]
    fn a_token_from_the_future_is_refused_beyond_a_minute_of_clock_skew() {
        let ring = ring();
        let text = issue(&ring).text;
        assert!(ring.verify(&text, Purpose::Browser, NOW_MS - 60_000).is_ok());
        assert_eq!(
            ring.verify(&text, Purpose::Browser, NOW_MS - 60_001),
            Err(TokenError::NotYetValid { from_ms: NOW_MS })
        );
    }

    #[test]
    fn a_browsers_token_is_refused_where_a_services_is_needed() {
        let ring = ring();
        assert_eq!(
            ring.verify(&issue(&ring).text, Purpose::Service, NOW_MS),
            Err(TokenError::WrongPurpose { expected: Purpose::Service })
        );
    }

    #[test]
    fn a_rotation_logs_no_one_out_and_a_retired_key_does() {
        let (old, new) = (TokenKey::generate().unwrap(), TokenKey::generate().unwrap());
        let before = TokenKeyRing::new(vec![old.clone()]).unwrap();
        let during = TokenKeyRing::new(vec![new.clone(), old]).unwrap();
        let after = TokenKeyRing::new(vec![new]).unwrap();
        let (first, second) = (issue(&before).text, issue(&during).text);
        assert!(during.verify(&first, Purpose::Browser, NOW_MS).is_ok());
        assert!(after.verify(&second, Purpose::Browser, NOW_MS).is_ok());
        assert_eq!(after.verify(&first, Purpose::Browser, NOW_MS), Err(TokenError::UnknownKey));
    }

    #[test]
    fn renewals_never_last_beyond_the_absolute_end() {
        let ring = ring();
        let lifetimes = Lifetimes { idle: Duration::from_secs(30 * 60), absolute: Duration::from_secs(60 * 60) };
        let first = ring.issue(&grant(), lifetimes, NOW_MS).unwrap().claims;
        assert!(!first.renew_due(NOW_MS + 14 * 60_000));
        assert!(first.renew_due(NOW_MS + 15 * 60_000));
        let second = ring.renew(&first, lifetimes, NOW_MS + 20 * 60_000).unwrap().claims;
        let third = ring.renew(&second, lifetimes, NOW_MS + 40 * 60_000).unwrap().claims;
        assert_eq!((second.renewals, third.renewals), (1, 2));
        assert_eq!(third.expires_at_ms, NOW_MS + 60 * 60_000);
        assert!(!third.renew_due(NOW_MS + 59 * 60_000), "a renewal would change nothing");
        assert_eq!(
            ring.renew(&third, lifetimes, NOW_MS + 60 * 60_000),
            Err(IssueError::AbsoluteLimit { at_ms: NOW_MS + 60 * 60_000 })
        );
    }

    #[test]
    fn a_ring_needs_a_key_and_holds_each_only_once() {
        assert_eq!(TokenKeyRing::new(vec![]).unwrap_err(), KeyRingError::Empty);
        let key = TokenKey::generate().unwrap();
        let id = key.id().to_owned();
        assert_eq!(TokenKeyRing::new(vec![key.clone(), key]).unwrap_err(), KeyRingError::Repeated { id });
    }

    #[test]
    fn an_issued_token_is_not_shown_in_debug_output() {
        let issued = issue(&ring());
        assert!(!format!("{issued:?}").contains(&issued.text));
    }
}
