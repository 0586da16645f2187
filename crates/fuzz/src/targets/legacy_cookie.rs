//! The old shop's cookies. A text that begins with `{` is first signed with the shop's secret, so that what is inside is read as well; any
//! other is shown as it is, and is refused unless it is one that was issued.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use throughline_core::json::JsonValue;
use throughline_core::legacy::{LegacySystem, read};
use throughline_server::legacy_cookie::LegacyCookies;
use throughline_server::tenant::TenantId;

use super::NOW;
use crate::Outcome;

/// A secret for the targets only.
const SECRET: &str = "a secret for the targets only";

/// The only cookie that was ever issued with it.
const ISSUED: &str = include_str!("../../corpus/legacy_cookie/issued");

static COOKIES: LazyLock<LegacyCookies> =
    LazyLock::new(|| LegacyCookies::signed_with(vec![SECRET.to_owned().into()], TenantId::single()).expect("a secret"));

pub(super) fn run(input: &[u8]) -> Outcome {
    let Ok(text) = str::from_utf8(input) else { return Outcome::Refused };
    let is_signed = text.starts_with('{');
    let cookie = if is_signed { sign(text) } else { text.to_owned() };
    match COOKIES.verify(&TenantId::single(), &cookie, NOW.as_millis()) {
        Ok(cookie) => {
            assert!(is_signed || text == ISSUED, "a cookie was forged: {text}");
            assert!(cookie.session_id.is_legacy());
            let claims = JsonValue::Object(cookie.claims);
            let said = read(LegacySystem::Cookie, cookie.session_id.as_str(), &claims).expect("its id is a session's");
            assert_eq!(said.id, cookie.session_id);
            Outcome::Taken
        }
        Err(error) => {
            assert!(error.to_string().len() < 300 && !error.code().is_empty(), "{error}");
            Outcome::Refused
        }
    }
}

fn sign(claims: &str) -> String {
    let [header, claims] = ["{\"alg\":\"HS256\"}", claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
    let signed = format!("{header}.{claims}");
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("a key of any length");
    mac.update(signed.as_bytes());
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}
