//! The id that ties a request to its log lines and to the problem it may end in.

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;

/// The header that carries it, in and out.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

const MAX_BYTES: usize = 64;

tokio::task_local! {
    static CURRENT: String;
}

/// The id of the request that this task is answering.
#[must_use]
pub fn current() -> Option<String> {
    CURRENT.try_with(Clone::clone).ok()
}

/// Gives the request an id, tells it to everything inside, and sends it back.
pub async fn assign(mut request: Request, next: Next) -> Response {
    let id = request
        .headers()
        .get(HEADER)
        .and_then(|value| value.to_str().ok())
        .filter(|text| acceptable(text))
        .map_or_else(fresh, str::to_owned);
    let value = HeaderValue::from_str(&id).ok();
    if let Some(value) = value.clone() {
        request.headers_mut().insert(HEADER, value);
    }
    let mut response = CURRENT.scope(id, next.run(request)).await;
    if let Some(value) = value {
        response.headers_mut().insert(HEADER, value);
    }
    response
}

/// Whether a caller's id may go into logs and headers: short, and without characters that
/// could end a line or a field.
fn acceptable(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= MAX_BYTES
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

fn fresh() -> String {
    let mut random = [0_u8; 12];
    // An id grants nothing: without randomness it is merely not unique.
    let _ = getrandom::fill(&mut random);
    random.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_id_is_taken_only_if_it_is_short_and_harmless() {
        assert!(acceptable("3f2a-trace_1.2"));
        for bad in ["", "a b", "a\nb", "ä", "{x}", &"a".repeat(65)] {
            assert!(!acceptable(bad), "{bad:?}");
        }
    }

    #[test]
    fn fresh_ids_are_acceptable_and_differ() {
        let (first, second) = (fresh(), fresh());
        assert!(acceptable(&first));
        assert_ne!(first, second);
    }
}
