//! Making and verifying tokens with the keys of a server's key ring.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use moka::sync::Cache;
use pasetors::Local;
use pasetors::token::UntrustedToken;
use pasetors::version4::{LocalToken, V4};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use throughline_core::LentClaim;

use super::{
    AUDIENCE, CLOCK_SKEW_MS, Claims, Grant, IssueError, IssuedToken, Lifetimes, MAX_TOKEN_BYTES, Purpose, TokenError,
};
use crate::clock::{millis, parse_rfc3339, rfc3339};
use crate::keys::{KeyRing, Named, RootKey};
use crate::tenant::TenantId;

/// Bound into each token beside its footer, so that a token of another layout never verifies.
const IMPLICIT_ASSERTION: &[u8] = b"throughline-session-token-3";

/// How many tokens are remembered; each takes about half a KiB.
const OPENED_TOKENS: u64 = 10_000;

/// Makes tokens with the newest key whose time has come, and verifies those of every key in the ring.
#[derive(Debug, Clone)]
pub struct TokenIssuer {
    keys: KeyRing,
    opened: OpenedTokens,
}

/// Tokens that were opened before, by the digest of their text. Their keys may be retired since.
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
    #[serde(rename = "fam")]
    family: String,
    renewals: u32,
    ends: String,
    #[serde(rename = "gen")]
    generation: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    asked_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by: Option<String>,
}

/// What a token has of the one that it is made out of.
struct Descent {
    /// Nothing for the first of a family.
    family: Option<String>,
    asked_by: Option<String>,
    renewals: u32,
    ends_at_ms: i64,
}

impl Descent {
    /// Of none, or of one of another family.
    fn first(ends_at_ms: i64) -> Self {
        Self { family: None, asked_by: None, renewals: 0, ends_at_ms }
    }
}

impl TokenIssuer {
    /// One with the keys of this ring, whatever they are at the time.
    #[must_use]
    pub fn new(keys: KeyRing) -> Self {
        Self { keys, opened: OpenedTokens::default() }
    }

    /// Makes a first token.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub fn issue(&self, grant: &Grant, lifetimes: Lifetimes, now_ms: i64) -> Result<IssuedToken, IssueError> {
        let ends_at_ms = now_ms.saturating_add(millis(lifetimes.absolute));
        self.seal(&self.keys.current(now_ms), grant, lifetimes, Descent::first(ends_at_ms), now_ms)
    }

    /// Makes a token for a browser that comes back by a claim that was lent to it: of the family that the claim belongs to, for
    /// no longer than that is good, and made by the service key that had the browser let in.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub fn issue_for(
        &self,
        claim: &LentClaim,
        grant: &Grant,
        lifetimes: Lifetimes,
        now_ms: i64,
    ) -> Result<IssuedToken, IssueError> {
        let LentClaim { until, family, issued_by, .. } = claim.clone();
        let grant = Grant { issued_by, ..grant.clone() };
        let descent = Descent { family: Some(family), ..Descent::first(until.as_millis()) };
        self.seal(&self.keys.current(now_ms), &grant, lifetimes, descent, now_ms)
    }

    /// Makes a token for `grant` out of another one: with the same key and no longer than that can be renewed.
    ///
    /// With the same key, because it is good for no more than that: were somebody to forge one with a key that has leaked,
    /// what comes of it would outlive the key otherwise. It also counts as made by the service key that had the other one made.
    ///
    /// # Errors
    /// When the key is gone, or the operating system gives no randomness.
    pub fn issue_from(
        &self,
        claims: &Claims,
        grant: &Grant,
        lifetimes: Lifetimes,
        now_ms: i64,
    ) -> Result<IssuedToken, IssueError> {
        let key = self.key_of(claims)?;
        let grant = Grant { issued_by: claims.issued_by.clone(), ..grant.clone() };
        // A code begins a family, which the browser's tokens that it lets in are of. It ends with the one that asked for it, too.
        let family = || claims.family.clone();
        let descent = Descent {
            family: (claims.purpose == Purpose::Handoff).then(family),
            asked_by: (grant.purpose == Purpose::Handoff).then(family),
            ..Descent::first(claims.ends_at_ms)
        };
        self.seal(&key, &grant, lifetimes, descent, now_ms)
    }

    /// Whether the key with which a token was made is still good.
    #[must_use]
    pub fn holds(&self, claims: &Claims) -> bool {
        self.key_of(claims).is_ok()
    }

    fn key_of(&self, claims: &Claims) -> Result<Arc<RootKey>, IssueError> {
        match self.keys.named(&claims.key_id) {
            Named::Known(key) => Ok(key),
            Named::Retired(_) | Named::Unknown => Err(IssueError::KeyGone),
        }
    }

    /// Makes the token that follows on `claims`, with the same key and of the same family, for a session whose access is at
    /// this generation. The absolute end stays where it was. A token may become a cookie; nothing becomes of that but cookies.
    ///
    /// # Errors
    /// When the absolute end has come, the key is gone, or the operating system gives no randomness.
    pub fn renew(
        &self,
        claims: &Claims,
        purpose: Purpose,
        access_generation: u32,
        lifetimes: Lifetimes,
        now_ms: i64,
    ) -> Result<IssuedToken, IssueError> {
        if now_ms >= claims.ends_at_ms {
            return Err(IssueError::AbsoluteLimit { at_ms: claims.ends_at_ms });
        }
        let Claims { tenant, session_id, issued_by, family, .. } = claims.clone();
        let grant = Grant { purpose, tenant, session_id, access_generation, issued_by };
        let renewals = claims.renewals.saturating_add(1);
        let descent = Descent { family: Some(family), renewals, ..Descent::first(claims.ends_at_ms) };
        let key = self.key_of(claims)?;
        self.seal(&key, &grant, lifetimes, descent, now_ms)
    }

    /// Says what `text` claims, once it is proven that this server issued it for `expected`
    /// and that its time is not over.
    ///
    /// # Errors
    /// See [`TokenError`]; anything in doubt is refused.
    pub fn verify(&self, text: &str, expected: Purpose, now_ms: i64) -> Result<Arc<Claims>, TokenError> {
        let claims = self.verify_family(text, expected, now_ms)?;
        let end_ms = claims.expires_at_ms.min(claims.ends_at_ms);
        if now_ms >= end_ms {
            return Err(TokenError::Expired { at_ms: end_ms });
        }
        Ok(claims)
    }

    /// The same where the token itself may be over, as long as one could be good that was renewed out of it: to end those.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn verify_family(&self, text: &str, expected: Purpose, now_ms: i64) -> Result<Arc<Claims>, TokenError> {
        let claims = self.open(text)?;
        if claims.purpose != expected {
            return Err(TokenError::WrongPurpose { expected });
        }
        if claims.issued_at_ms > now_ms.saturating_add(CLOCK_SKEW_MS) {
            return Err(TokenError::NotYetValid { from_ms: claims.issued_at_ms });
        }
        if now_ms >= claims.ends_at_ms {
            return Err(TokenError::Expired { at_ms: claims.ends_at_ms });
        }
        Ok(claims)
    }

    fn seal(
        &self,
        key: &RootKey,
        grant: &Grant,
        lifetimes: Lifetimes,
        descent: Descent,
        now_ms: i64,
    ) -> Result<IssuedToken, IssueError> {
        let Descent { family, asked_by, renewals, ends_at_ms } = descent;
        let mut random = [0_u8; 16];
        getrandom::fill(&mut random).map_err(|_| IssueError::Randomness)?;
        let token_id = URL_SAFE_NO_PAD.encode(random);
        let claims = Claims {
            purpose: grant.purpose,
            tenant: grant.tenant.clone(),
            session_id: grant.session_id.clone(),
            key_id: key.id().to_owned(),
            issued_at_ms: now_ms,
            expires_at_ms: now_ms.saturating_add(millis(lifetimes.idle)).min(ends_at_ms),
            family: family.unwrap_or_else(|| token_id.clone()),
            token_id,
            renewals,
            ends_at_ms,
            asked_by,
            access_generation: grant.access_generation,
            issued_by: grant.issued_by.clone(),
        };
        let payload = serde_json::to_vec(&Payload {
            aud: AUDIENCE.to_owned(),
            purpose: claims.purpose,
            tenant: claims.tenant.clone(),
            sub: claims.session_id.clone(),
            iat: rfc3339(claims.issued_at_ms),
            exp: rfc3339(claims.expires_at_ms),
            jti: claims.token_id.clone(),
            family: claims.family.clone(),
            renewals: claims.renewals,
            ends: rfc3339(claims.ends_at_ms),
            generation: claims.access_generation,
            asked_by: claims.asked_by.clone(),
            by: claims.issued_by.clone(),
        })
        .map_err(|_| IssueError::Encryption)?;
        let footer = serde_json::to_vec(&Footer { kid: key.id().to_owned() }).map_err(|_| IssueError::Encryption)?;
        let text = LocalToken::encrypt(key.token(), &payload, Some(&footer), Some(IMPLICIT_ASSERTION))
            .map_err(|_| IssueError::Encryption)?;
        Ok(IssuedToken { text, claims })
    }

    fn open(&self, text: &str) -> Result<Arc<Claims>, TokenError> {
        if text.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Malformed);
        }
        let digest: [u8; 32] = Sha256::digest(text).into();
        if let Some(claims) = self.opened.0.get(&digest).filter(|claims| self.holds(claims)) {
            return Ok(claims);
        }
        let claims = Arc::new(self.decrypt(text)?);
        self.opened.0.insert(digest, Arc::clone(&claims));
        Ok(claims)
    }

    fn decrypt(&self, text: &str) -> Result<Claims, TokenError> {
        let untrusted = UntrustedToken::<Local, V4>::try_from(text).map_err(|_| TokenError::Malformed)?;
        let footer: Footer = serde_json::from_slice(untrusted.untrusted_footer()).map_err(|_| TokenError::Malformed)?;
        let key = match self.keys.named(&footer.kid) {
            Named::Known(key) => key,
            Named::Retired(_) => return Err(TokenError::RetiredKey),
            Named::Unknown => return Err(TokenError::UnknownKey),
        };
        let trusted = LocalToken::decrypt(key.token(), &untrusted, None, Some(IMPLICIT_ASSERTION))
            .map_err(|_| TokenError::Malformed)?;
        let payload: Payload = serde_json::from_str(trusted.payload()).map_err(|_| TokenError::Malformed)?;
        if payload.aud != AUDIENCE {
            return Err(TokenError::WrongAudience);
        }
        let time = |text: &str| parse_rfc3339(text).ok_or(TokenError::Malformed);
        Ok(Claims {
            purpose: payload.purpose,
            tenant: payload.tenant,
            key_id: footer.kid,
            issued_at_ms: time(&payload.iat)?,
            expires_at_ms: time(&payload.exp)?,
            ends_at_ms: time(&payload.ends)?,
            session_id: payload.sub,
            token_id: payload.jti,
            family: payload.family,
            renewals: payload.renewals,
            asked_by: payload.asked_by,
            access_generation: payload.generation,
            issued_by: payload.by,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::keys::ring_text::RingText;

    const NOW_MS: i64 = 1_700_000_000_000;

    fn ring() -> TokenIssuer {
        TokenIssuer::new(KeyRing::generate().unwrap())
    }

    fn grant() -> Grant {
        Grant {
            purpose: Purpose::Browser,
            tenant: "shop-a".parse().unwrap(),
            session_id: "ws_loyw3v28_0123456789".to_owned(),
            access_generation: 3,
            issued_by: None,
        }
    }

    fn issue(ring: &TokenIssuer) -> IssuedToken {
        ring.issue(&grant(), Lifetimes::default(), NOW_MS).unwrap()
    }

    #[test]
    fn asvs_9_2_4_a_token_says_what_it_was_issued_for() {
        let ring = ring();
        let issued = issue(&ring);
        let claims = ring.verify(&issued.text, Purpose::Browser, NOW_MS + 1).unwrap();
        assert_eq!(*claims, issued.claims);
        assert_eq!(claims.tenant.as_str(), "shop-a");
        assert_eq!(claims.session_id, "ws_loyw3v28_0123456789");
        assert_eq!(claims.access_generation, 3);
        assert_eq!(claims.expires_at_ms, NOW_MS + 30 * 60_000);
    }

    #[test]
    fn all_that_is_made_out_of_a_token_names_the_service_key_that_had_it_made() {
        let ring = ring();
        let by = Some("0123456789abcdef".to_owned());
        let asked = Grant { purpose: Purpose::Handoff, issued_by: by.clone(), ..grant() };
        let code = ring.issue(&asked, Lifetimes::default(), NOW_MS).unwrap();
        let code = ring.verify(&code.text, Purpose::Handoff, NOW_MS).unwrap();
        let token = ring.issue_from(&code, &grant(), Lifetimes::default(), NOW_MS).unwrap();
        let renewed = ring.renew(&token.claims, Purpose::Browser, 0, Lifetimes::default(), NOW_MS).unwrap();
        let renewed = ring.verify(&renewed.text, Purpose::Browser, NOW_MS).unwrap();
        assert_eq!([&code.issued_by, &token.claims.issued_by, &renewed.issued_by], [&by; 3]);
    }

    #[test]
    fn asvs_7_2_3_two_tokens_for_the_same_session_differ() {
        let ring = ring();
        let (first, second) = (issue(&ring), issue(&ring));
        assert_ne!(first.text, second.text);
        assert_ne!(first.claims.token_id, second.claims.token_id);
    }

    #[test]
    fn asvs_9_1_1_each_single_bit_change_of_a_token_is_refused() {
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
    fn asvs_7_2_1_a_token_of_another_servers_key_is_refused() {
        let text = issue(&ring()).text;
        assert_eq!(ring().verify(&text, Purpose::Browser, NOW_MS), Err(TokenError::UnknownKey));
    }

    #[test]
    fn asvs_9_1_3_a_key_id_in_the_footer_proves_nothing() {
        let (ours, theirs) = (ring(), ring());
        let forged = issue(&theirs).text;
        let real = issue(&ours).text;
        let (body, _) = forged.rsplit_once('.').unwrap();
        let (_, footer) = real.rsplit_once('.').unwrap();
        let mixed = format!("{body}.{footer}");
        assert_eq!(ours.verify(&mixed, Purpose::Browser, NOW_MS), Err(TokenError::Malformed));
    }

    #[test]
    fn asvs_9_2_1_a_token_is_refused_from_its_expiry_on() {
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
    fn asvs_9_2_2_a_browsers_token_is_refused_where_a_cookie_is_needed() {
        let ring = ring();
        assert_eq!(
            ring.verify(&issue(&ring).text, Purpose::Cookie, NOW_MS),
            Err(TokenError::WrongPurpose { expected: Purpose::Cookie })
        );
    }

    #[test]
    fn asvs_13_3_4_a_rotation_logs_no_one_out_and_a_retired_key_does() {
        let (old, new) = (RootKey::generate(None).unwrap(), RootKey::generate(Some(NOW_MS)).unwrap());
        let text = |keys: &[&RootKey], retired: &[&RootKey]| RingText {
            keys: keys.iter().map(|key| RootKey::parse(&key.reveal(), key.from_ms()).unwrap()).collect(),
            retired: retired.iter().map(|key| RootKey::parse(&key.reveal(), None).unwrap()).collect(),
        };
        let keys = KeyRing::of(text(&[&old], &[])).unwrap();
        let ring = TokenIssuer::new(keys.clone());
        let first = ring.issue(&grant(), Lifetimes::default(), NOW_MS - 1).unwrap().text;
        assert!(ring.verify(&first, Purpose::Browser, NOW_MS).is_ok());
        keys.replace(text(&[&new, &old], &[])).unwrap();
        let second = issue(&ring).text;
        assert!(ring.verify(&first, Purpose::Browser, NOW_MS).is_ok());
        let opened = ring.verify(&first, Purpose::Browser, NOW_MS).unwrap();
        let renewed = ring.renew(&opened, Purpose::Browser, 3, Lifetimes::default(), NOW_MS).unwrap();
        let handed_on = ring.issue_from(&opened, &grant(), Lifetimes::default(), NOW_MS).unwrap();
        assert_ne!(renewed.claims.key_id, ring.verify(&second, Purpose::Browser, NOW_MS).unwrap().key_id);
        keys.replace(text(&[&new], &[&old])).unwrap();
        assert!(ring.verify(&second, Purpose::Browser, NOW_MS).is_ok(), "made with the new key");
        for outlived in [&renewed, &handed_on] {
            let refused = ring.verify(&outlived.text, Purpose::Browser, NOW_MS);
            assert_eq!(refused, Err(TokenError::RetiredKey), "what comes of a token ends with its key");
        }
        assert!(!ring.holds(&opened));
        assert_eq!(ring.renew(&opened, Purpose::Browser, 3, Lifetimes::default(), NOW_MS), Err(IssueError::KeyGone));
        assert_eq!(
            ring.verify(&first, Purpose::Browser, NOW_MS),
            Err(TokenError::RetiredKey),
            "although it was opened before"
        );
    }

    #[test]
    fn renewals_never_last_beyond_the_absolute_end() {
        let ring = ring();
        let lifetimes = Lifetimes { idle: Duration::from_secs(30 * 60), absolute: Duration::from_secs(60 * 60) };
        let first = ring.issue(&grant(), lifetimes, NOW_MS).unwrap().claims;
        assert!(!first.renew_due(NOW_MS + 14 * 60_000));
        assert!(first.renew_due(NOW_MS + 15 * 60_000));
        let second = ring.renew(&first, Purpose::Browser, 3, lifetimes, NOW_MS + 20 * 60_000).unwrap().claims;
        let third = ring.renew(&second, Purpose::Browser, 4, lifetimes, NOW_MS + 40 * 60_000).unwrap().claims;
        assert_eq!((second.renewals, third.renewals), (1, 2));
        assert_eq!((second.access_generation, third.access_generation), (3, 4));
        assert_eq!(third.expires_at_ms, NOW_MS + 60 * 60_000);
        assert!(!third.renew_due(NOW_MS + 59 * 60_000), "a renewal would change nothing");
        assert_eq!(
            ring.renew(&third, Purpose::Browser, 4, lifetimes, NOW_MS + 60 * 60_000),
            Err(IssueError::AbsoluteLimit { at_ms: NOW_MS + 60 * 60_000 })
        );
    }

    #[test]
    fn an_issued_token_is_not_shown_in_debug_output() {
        let issued = issue(&ring());
        assert!(!format!("{issued:?}").contains(&issued.text));
    }
}
