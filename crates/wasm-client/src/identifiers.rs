//! New ids and secrets, from the browser's cryptographic randomness.

use alloc::string::String;

use throughline_core::{ClientId, SessionId, Timestamp};
use wasm_bindgen::prelude::*;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = crypto, js_name = getRandomValues)]
    fn fill_with_random(bytes: &mut [u8]);
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill_with_random(&mut bytes);
    bytes
}

/// A new session id; `now_ms` is the time in milliseconds since the Unix epoch.
#[wasm_bindgen(js_name = newSessionId)]
pub fn new_session_id(now_ms: f64) -> String {
    SessionId::generate(Timestamp::from_millis(now_ms as i64), random()).into()
}

/// A new client id.
#[wasm_bindgen(js_name = newClientId)]
pub fn new_client_id() -> String {
    ClientId::generate(random()).into()
}

/// A new claim secret: 256 random bits as hexadecimal digits.
#[wasm_bindgen(js_name = newClaimSecret)]
pub fn new_claim_secret() -> String {
    let digit = |digit: u8| char::from(b"0123456789abcdef"[usize::from(digit & 15)]);
    random::<32>().iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}
