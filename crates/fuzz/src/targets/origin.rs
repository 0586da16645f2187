//! The `Origin` header. The first line is the list of allowed origins; each further one is a header of its own.

use http::header::ORIGIN;
use http::{HeaderMap, HeaderValue};
use throughline_server::http::origin::{AllowedOrigin, AllowedOrigins};

use crate::Outcome;

pub(super) fn run(input: &[u8]) -> Outcome {
    let mut lines = input.split(|byte| *byte == b'\n');
    let list = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let mut origins = Vec::new();
    for text in list.split(' ') {
        match text.parse::<AllowedOrigin>() {
            Ok(origin) => {
                let written = origin.to_string();
                assert_eq!(written, text.trim().trim_end_matches("=default"), "an origin is kept as it was written");
                assert_eq!(written.parse().as_ref(), Ok(&origin));
                assert!(!text.contains('*'), "a wildcard is allowed: {text}");
                origins.push(origin);
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    let listed = |origin: &AllowedOrigin| origin.to_string().split('=').map(str::to_owned).next().unwrap_or_default();
    let texts: Vec<String> = origins.iter().map(listed).collect();
    let Ok(allowed) = AllowedOrigins::new(origins) else { return Outcome::Refused };
    assert_eq!(allowed.values().count(), texts.len());
    let mut headers = HeaderMap::new();
    for line in lines.take(10) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(ORIGIN, value);
        }
    }
    let sent: Vec<&HeaderValue> = headers.get_all(ORIGIN).iter().collect();
    let is_listed = |value: &HeaderValue| texts.iter().any(|text| text.as_bytes() == value.as_bytes());
    let expected = match sent.as_slice() {
        [] => true,
        [value] => is_listed(value),
        _ => false,
    };
    let is_let_in = allowed.judge(&headers).is_ok();
    assert_eq!(is_let_in, expected, "{sent:?} with {texts:?}");
    Outcome::taken_if(is_let_in && !sent.is_empty())
}
