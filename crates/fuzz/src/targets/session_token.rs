//! Session tokens. A text that begins with `{` is first sealed with the server's own key, so that what is inside is read as well;
//! any other is shown as it is, and is refused unless it is one that was issued.

use std::sync::LazyLock;

use hkdf::Hkdf;
use pasetors::keys::SymmetricKey;
use pasetors::version4::{LocalToken, V4};
use sha2::Sha256;
use throughline_server::keys::ring_text::RingText;
use throughline_server::keys::{KeyRing, RootKey};
use throughline_server::token::{Purpose, TokenIssuer};

use super::NOW;
use crate::Outcome;

/// A key for the targets only, so that kept tokens stay valid.
const KEY: &str = "tlr_YSBrZXkgZm9yIHRoZSB0YXJnZXRzIG9ubHksIGV2ZXI";

/// What the server binds into its tokens.
const ASSERTION: &[u8] = b"throughline-session-token-3";

/// All tokens that were ever issued with this key.
const ISSUED: &[&str] = &[
    include_str!("../../corpus/session_token/browser"),
    include_str!("../../corpus/session_token/cookie"),
    include_str!("../../corpus/session_token/handoff"),
];

static ISSUER: LazyLock<TokenIssuer> = LazyLock::new(|| {
    let ring = RingText::parse(KEY).expect("the key of the targets is one");
    TokenIssuer::new(KeyRing::of(ring).expect("one key makes a ring"))
});

pub(super) fn run(input: &[u8]) -> Outcome {
    let Ok(text) = str::from_utf8(input) else { return Outcome::Refused };
    let is_sealed = text.starts_with('{');
    let token = if is_sealed { seal(text) } else { text.to_owned() };
    let mut is_taken = false;
    for purpose in [Purpose::Browser, Purpose::Cookie, Purpose::Handoff] {
        match ISSUER.verify(&token, purpose, NOW.as_millis()) {
            Ok(claims) => {
                assert!(is_sealed || ISSUED.contains(&text), "a token was forged: {text}");
                assert!(!is_taken, "one token for two purposes");
                assert_eq!(claims.purpose, purpose);
                assert!(claims.expires_at_ms > NOW.as_millis() && claims.ends_at_ms > NOW.as_millis());
                let _ = claims.renew_due(NOW.as_millis());
                is_taken = true;
            }
            Err(error) => {
                let sentence = error.to_string();
                assert!(sentence.len() < 200 && !error.code().is_empty(), "{sentence}");
            }
        }
    }
    // Operators paste keys from everywhere.
    if let Ok(ring) = RingText::parse(text) {
        let again = RingText::parse(&ring.lines()).expect("what was read is written so that it can be read");
        assert_eq!(again.keys.len(), ring.keys.len());
    }
    Outcome::taken_if(is_taken)
}

fn seal(payload: &str) -> String {
    let root = RootKey::parse(KEY, None).expect("the key of the targets is one");
    let mut secret = [0; 32];
    let bytes = b"a key for the targets only, ever";
    Hkdf::<Sha256>::new(None, bytes).expand(b"throughline/1/token", &mut secret).expect("32 bytes can be derived");
    let secret = SymmetricKey::<V4>::from(&secret).expect("32 bytes are a key");
    let footer = serde_json::json!({ "kid": root.id() }).to_string();
    LocalToken::encrypt(&secret, payload.as_bytes(), Some(footer.as_bytes()), Some(ASSERTION))
        .expect("whatever is not empty can be sealed")
}
