//! The legacy cookie `upsell_session`: a JWT (RFC 7519) with HS256 and nothing else.
//!
//! Verified by hand, with the primitives that are here anyway: libraries for JWT bring algorithms that must not be accepted, and
//! whose code would then be in every server ([decision 17](../../../docs/decisions/0017-legacy-cookie.md)).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use throughline_core::SessionId;
use throughline_core::json::{JsonObject, JsonValue};
use zeroize::Zeroizing;

use crate::tenant::TenantId;

/// The cookie's name.
pub const NAME: &str = "upsell_session";

/// What the old shop signed with where its `SESSION_SECRET` was not set. It stands in that shop's source code: whoever has read that can
/// make any cookie.
pub const PUBLIC_SECRET: &str = "your-secret-key-change-in-production";

/// How long a cookie may be. Those of the old shop have some hundred bytes; a browser takes 4096.
const MAX_BYTES: usize = 4096;

/// The secrets with which cookies may be signed, and whose old shop has them.
#[derive(Clone, Default)]
pub struct LegacyCookies {
    secrets: Vec<Zeroizing<String>>,
    tenant: TenantId,
}

impl fmt::Debug for LegacyCookies {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "LegacyCookies({} secrets)", self.secrets.len())
    }
}

/// A cookie that was signed by the old shop and is good still.
#[derive(Debug, Clone, PartialEq)]
pub struct LegacyCookie {
    /// The session that it is of.
    pub session_id: SessionId,
    /// What it says.
    pub claims: JsonObject,
    /// Tells it from any other: the first half of its SHA-256, in hexadecimal digits.
    pub digest: String,
}

/// Why a cookie is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LegacyCookieError {
    /// Nobody has set a secret, or it is of another tenant's old shop.
    #[error(
        "this server takes no legacy cookies of this shop: its operator has to set the secret of the old shop, THROUGHLINE_LEGACY_COOKIE_SECRET or --legacy-cookie-secret-file, and its tenant where that is another one than `default`"
    )]
    Off,
    /// It is no such JWT.
    #[error("this is no cookie of the old shop: {0}")]
    Malformed(&'static str),
    /// Anybody can have made it.
    #[error(
        "this cookie is signed with the secret that stands in the old shop's source code ({PUBLIC_SECRET}), so anybody can have made it: set SESSION_SECRET in the old shop"
    )]
    PublicSecret,
    /// It was made by somebody else, or changed.
    #[error("this cookie is not signed with the secret that this server knows")]
    Signature,
    /// Its time is over.
    #[error("the time of this cookie is over")]
    Expired,
}

impl LegacyCookieError {
    /// The code of the problem.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Off => "legacyCookiesOff",
            Self::Malformed(_) => "legacyCookieMalformed",
            Self::PublicSecret => "legacySecretPublic",
            Self::Signature => "legacyCookieForged",
            Self::Expired => "legacyCookieExpired",
        }
    }
}

/// Why a secret is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LegacySecretError {
    /// Everybody knows it.
    #[error(
        "the secret of the legacy cookies is {PUBLIC_SECRET}, which stands in the old shop's source code: whoever has read that could take over any session. Set another SESSION_SECRET in the old shop, and that one here; buyers who have a cookie now begin again"
    )]
    Public,
    /// It could be guessed.
    #[error(
        "the secret of the legacy cookies has less than 16 bytes, so it could be guessed; set a longer SESSION_SECRET in the old shop, and that one here"
    )]
    Short,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    /// Names what a reader has to understand; here that is nothing.
    crit: Option<serde_json::Value>,
}

/// How long the old shop's cookies were good.
const LIFETIME_MS: i64 = 30 * 60_000;

/// How far ahead the old shop's clock may be.
const SKEW_MS: i64 = 60_000;

impl LegacyCookies {
    /// Those of this tenant's old shop that are signed with one of these secrets; none are taken where there is none.
    ///
    /// # Errors
    /// See [`LegacySecretError`].
    pub fn signed_with(secrets: Vec<Zeroizing<String>>, tenant: TenantId) -> Result<Self, LegacySecretError> {
        for secret in &secrets {
            if secret.as_str() == PUBLIC_SECRET {
                return Err(LegacySecretError::Public);
            }
            if secret.len() < 16 {
                return Err(LegacySecretError::Short);
            }
        }
        Ok(Self { secrets, tenant })
    }

    /// Reads a cookie, where it is the old shop's and good at this time.
    ///
    /// # Errors
    /// See [`LegacyCookieError`].
    pub fn verify(&self, tenant: &TenantId, text: &str, now_ms: i64) -> Result<LegacyCookie, LegacyCookieError> {
        use LegacyCookieError as E;
        if self.secrets.is_empty() || *tenant != self.tenant {
            return Err(E::Off);
        }
        if text.len() > MAX_BYTES {
            return Err(E::Malformed("it is too long"));
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(E::Malformed("it has no signature"))?;
        let (header, payload) = signed.split_once('.').ok_or(E::Malformed("it has no payload"))?;
        let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| E::Malformed("a part is no base64url"));
        let header: Header =
            serde_json::from_slice(&decoded(header)?).map_err(|_| E::Malformed("its header is no JSON"))?;
        // Before the signature: with `none` there would be none.
        if header.alg != "HS256" {
            return Err(E::Malformed("its algorithm is another one than HS256"));
        }
        if header.crit.is_some() {
            return Err(E::Malformed("it asks for extensions (`crit`)"));
        }
        let signature = decoded(signature)?;
        if !self.secrets.iter().any(|secret| is_signed_with(secret, signed, &signature)) {
            return Err(if is_signed_with(PUBLIC_SECRET, signed, &signature) { E::PublicSecret } else { E::Signature });
        }
        let claims: JsonObject =
            serde_json::from_slice(&decoded(payload)?).map_err(|_| E::Malformed("its payload is no JSON object"))?;
        let number = |name: &str| match claims.get(name) {
            Some(JsonValue::Integer(number)) => Some(*number),
            _ => None,
        };
        let expires_at_s = number("exp").ok_or(E::Malformed("it has no `exp`"))?;
        // The old shop looked at both.
        let ends_at_ms = number("expiresAt").unwrap_or(i64::MAX).min(expires_at_s.saturating_mul(1000));
        let begins = [number("iat"), number("nbf")].into_iter().flatten().map(|seconds| seconds.saturating_mul(1000));
        if begins.max().is_some_and(|begins_at_ms| begins_at_ms > now_ms.saturating_add(SKEW_MS)) {
            return Err(E::Malformed("its time has not begun"));
        }
        let signed_at_ms = number("iat").map(|seconds| seconds.saturating_mul(1000));
        let latest_ms =
            signed_at_ms.map_or(i64::MAX, |signed_at_ms| signed_at_ms.saturating_add(LIFETIME_MS + SKEW_MS));
        if ends_at_ms.min(latest_ms) <= now_ms {
            return Err(E::Expired);
        }
        let id = match claims.get("id") {
            Some(JsonValue::String(id)) => SessionId::new(id.as_str()).ok().filter(SessionId::is_legacy),
            _ => None,
        };
        let session_id = id.ok_or(E::Malformed("its `id` is no session's"))?;
        let digest = Sha256::digest(text.as_bytes());
        let digest = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        Ok(LegacyCookie { session_id, claims, digest })
    }
}

fn is_signed_with(secret: &str, signed: &str, signature: &[u8]) -> bool {
    // A key of any length is one.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return false };
    mac.update(signed.as_bytes());
    mac.verify_slice(signature).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDED: &str = include_str!("../../../tests/fixtures/legacy/cookie-sessions.json");

    fn recorded(name: &str) -> String {
        let all: serde_json::Value = serde_json::from_str(RECORDED).unwrap();
        all[name].as_str().unwrap().to_owned()
    }

    fn cookies() -> LegacyCookies {
        LegacyCookies::signed_with(vec![Zeroizing::new(recorded("secret"))], TenantId::single()).unwrap()
    }

    fn verify(text: &str, now_ms: i64) -> Result<LegacyCookie, LegacyCookieError> {
        cookies().verify(&TenantId::single(), text, now_ms)
    }

    const NOW_MS: i64 = 1_795_166_200_000;

    fn signed(header: &str, payload: &str, secret: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
    }

    #[test]
    fn a_recorded_cookie_is_good_until_its_time_is_over() {
        let cookie = verify(&recorded("valid"), NOW_MS).unwrap();
        assert_eq!(cookie.session_id.as_str(), "ws_mwor2zh3_m66byt1rr");
        assert_eq!(cookie.claims.get("transactionId"), Some(&"9745512093".into()));
        assert_eq!(verify(&recorded("valid"), 1_795_167_936_000), Err(LegacyCookieError::Expired));
    }

    #[test]
    fn the_secret_of_the_source_code_is_refused_by_name() {
        let error = verify(&recorded("signedWithTheHardCodedFallback"), NOW_MS).unwrap_err();
        assert_eq!(error, LegacyCookieError::PublicSecret);
        assert!(error.to_string().contains("your-secret-key-change-in-production"));
        let secret = || vec![Zeroizing::new(PUBLIC_SECRET.to_owned())];
        let refused = |secrets| LegacyCookies::signed_with(secrets, TenantId::single()).unwrap_err();
        assert_eq!(refused(secret()), LegacySecretError::Public);
        let short = vec![Zeroizing::new("fifteen bytes..".to_owned())];
        assert_eq!(refused(short), LegacySecretError::Short);
        let off = LegacyCookies::default().verify(&TenantId::single(), &recorded("valid"), NOW_MS);
        assert_eq!(off, Err(LegacyCookieError::Off));
        let of_another_shop = cookies().verify(&"other".parse().unwrap(), &recorded("valid"), NOW_MS);
        assert_eq!(of_another_shop, Err(LegacyCookieError::Off));
    }

    #[test]
    fn no_cookie_is_good_for_longer_than_the_old_shops_were() {
        let now_s = NOW_MS / 1000;
        for (signed_at, not_before, expected) in [
            (now_s, now_s, true),
            (now_s + 30, now_s, true),
            (now_s - 29 * 60, now_s, true),
            (now_s - 32 * 60, now_s, false),
            (now_s + 3600, now_s, false),
            (now_s, now_s + 3600, false),
        ] {
            let payload = format!(r#"{{"id":"ws_1_a","exp":11795167936,"iat":{signed_at},"nbf":{not_before}}}"#);
            let cookie = signed(r#"{"alg":"HS256"}"#, &payload, &recorded("secret"));
            assert_eq!(verify(&cookie, NOW_MS).is_ok(), expected, "{payload}");
        }
    }

    #[test]
    fn another_algorithm_is_refused_also_with_a_good_signature() {
        let payload = r#"{"id":"ws_1_a","exp":1795167936}"#;
        let secret = recorded("secret");
        assert!(verify(&signed(r#"{"alg":"HS256","typ":"JWT"}"#, payload, &secret), NOW_MS).is_ok());
        for header in [
            r#"{"alg":"none"}"#,
            r#"{"alg":"hs256"}"#,
            r#"{"alg":"HS512"}"#,
            r#"{"alg":"HS256","crit":["b64"]}"#,
            "{}",
            "no",
        ] {
            let error = verify(&signed(header, payload, &secret), NOW_MS).unwrap_err();
            assert!(matches!(error, LegacyCookieError::Malformed(_)), "{header}: {error}");
        }
        for payload in [r#"{"id":"ws_1_a"}"#, r#"{"exp":1795167936}"#, r#"{"id":"x","exp":1795167936}"#, "[]", "7"] {
            let error = verify(&signed(r#"{"alg":"HS256"}"#, payload, &secret), NOW_MS).unwrap_err();
            assert!(matches!(error, LegacyCookieError::Malformed(_)), "{payload}: {error}");
        }
    }

    #[test]
    fn every_changed_bit_and_every_cut_is_refused() {
        let good = recorded("valid");
        for length in 0..good.len() {
            assert!(verify(&good[..length], NOW_MS).is_err(), "cut at {length}");
        }
        let digest = verify(&good, NOW_MS).unwrap().digest;
        for place in 0..good.len() {
            for bit in 0..7 {
                let mut bytes = good.clone().into_bytes();
                bytes[place] ^= 1 << bit;
                let changed = String::from_utf8(bytes).unwrap();
                assert!(verify(&changed, NOW_MS).is_err(), "bit {bit} of {place}");
            }
        }
        assert_eq!(digest.len(), 32);
    }
}
