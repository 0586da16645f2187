//! What is kept of what a back end says of differences. It masks what a buyer's data is in; what it has forgotten, and can be told
//! from anything else, does not come into the database by this way. The SDK looks for the same.

use throughline_core::{SessionId, Timestamp};

/// How long a masked value may be, in characters; the rest is cut off.
pub(super) const MAX_VALUE_CHARS: usize = 200;

/// From how many digits in a row on, whatever is between them, a number may be one of a card or a phone.
const LONG_DIGITS: usize = 9;

/// The same of a value that is nothing but a number.
const LONG_NUMBER: f64 = 1e9;

/// Milliseconds since 1970, between the years 2001 and 2065.
const TIMES_MS: std::ops::Range<f64> = 1e12..3e12;

/// What is kept of a masked value of a field.
pub(super) fn kept(field: &str, value: &str) -> String {
    let masked = match number(value) {
        Some(number) if is_short(field, number) => None,
        _ if value.parse::<Timestamp>().is_ok() => None,
        _ => harm_in(value),
    };
    masked.map_or_else(|| value.chars().take(MAX_VALUE_CHARS).collect(), |harm| format!("({harm})"))
}

/// The id of a session, unless it is something else.
pub(super) fn session_id(text: String) -> Option<String> {
    let is_id = text.starts_with("ws_") && SessionId::new(text.as_str()).is_ok() && harm_in(&text).is_none();
    is_id.then_some(text)
}

/// What a text has that nobody has an interest to show, whatever it is said of.
pub(super) fn harm_in(text: &str) -> Option<&'static str> {
    let text = decoded(&decoded(text));
    if has_address(&text) {
        Some("an email address")
    } else if has_token(&text) {
        Some("a token")
    } else if has_long_number(&text) {
        Some("a long number")
    } else {
        None
    }
}

fn number(value: &str) -> Option<f64> {
    let is_number = value.trim_start_matches('-').starts_with(|c: char| c.is_ascii_digit());
    value.parse().ok().filter(|_| is_number)
}

fn is_short(field: &str, number: f64) -> bool {
    let name = field.trim_end_matches("[]");
    let is_time = ["At", "_at", "Time", "_time", "Ms", "_ms"].iter().any(|end| name.ends_with(end));
    number.abs() < LONG_NUMBER || is_time && TIMES_MS.contains(&number)
}

/// Without percent signs, as far as those are written so.
fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut decoded = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let byte = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte.filter(u8::is_ascii) {
            Some(byte) => {
                decoded.push(char::from(byte));
                decoded.push_str(&part[2..]);
            }
            None => {
                decoded.push('%');
                decoded.push_str(part);
            }
        }
    }
    decoded
}

/// One that is masked (`a***@example.com`) is none.
fn has_address(text: &str) -> bool {
    let is_masked = |local: &str| local.contains('*') && local.chars().skip(1).all(|c| c == '*');
    text.split(|c: char| c.is_whitespace() || "\"'<>,;()[]{}/".contains(c))
        .filter_map(|word| word.split_once('@'))
        .any(|(local, domain)| !local.is_empty() && !domain.is_empty() && !is_masked(local))
}

fn has_token(text: &str) -> bool {
    text.match_indices("eyJ").any(|(at, _)| !text[..at].ends_with(is_word_char))
}

fn has_long_number(text: &str) -> bool {
    let mut digits = 0;
    let mut rest = text;
    let mut is_within_word = false;
    while let Some(c) = rest.chars().next() {
        if !is_within_word && let Some(length) = made_at(rest) {
            rest = &rest[length..];
            is_within_word = true;
            continue;
        }
        if c.is_numeric() {
            digits += 1;
            if digits == LONG_DIGITS {
                return true;
            }
        } else if !(c.is_whitespace() || "().:+/_-".contains(c)) {
            digits = 0;
        }
        is_within_word = is_word_char(c);
        rest = &rest[c.len_utf8()..];
    }
    false
}

/// How long the id is that a text begins with: of a session, or a UUID. Those are made, not given, and may have many digits.
fn made_at(text: &str) -> Option<usize> {
    let run = |text: &str, is_part: fn(&u8) -> bool, most: usize| {
        let length = text.bytes().take_while(is_part).count();
        (1..=most).contains(&length).then_some(length)
    };
    let session = || {
        let first = run(text.strip_prefix("ws_")?, u8::is_ascii_alphanumeric, 20)?;
        let second = run(text.get(3 + first..)?.strip_prefix('_')?, u8::is_ascii_alphanumeric, 40)?;
        Some(3 + first + 1 + second)
    };
    let uuid = || {
        let bytes = text.as_bytes().get(..36)?;
        let is_uuid = bytes.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
        is_uuid.then_some(36)
    };
    session().or_else(uuid).filter(|length| !text[*length..].starts_with(is_word_char))
}

fn is_word_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_back_end_forgot_to_mask_is_left_out() {
        for value in [
            "ada@example.com",
            "\"ada@example.com\"",
            "to: <ada@shop.example>",
            "a b@c.de f",
            "a@b",
            "A@localhost",
            "user*x@example.com",
            "jane%40example.com",
            "jane%2540example.com",
            "/buyer/jane@example.com",
        ] {
            assert_eq!(kept("note", value), "(an email address)", "{value}");
        }
        for value in [
            "4111 1111 1111 1111",
            "4111-1111-1111-1111",
            "4111111111111111",
            "card_4111111111111111",
            "555-010-1000 Jane Doe, 1 Main St",
            "+49 (170) 123 45.67",
            "+491701234567",
            "1764340000000",
            "4%3111111111",
        ] {
            assert_eq!(kept("note", value), "(a long number)", "{value}");
        }
        assert_eq!(kept("note", "eyJhbGciOiJIUzI1NiJ9.e30.x"), "(a token)");
        for value in [
            "a***@example.com",
            "upsell-1",
            "79.00",
            "79.10000000000001",
            "-12",
            "@",
            "text of 12 characters (#3fa2)",
            "a number (#1234)",
            "/upsell-1 (#1234)",
            "2026-11-20T09:00:00.123456Z",
            "ws_mwor0dc0_0ez6uz7hcaq7bct63a1rip2iv",
            "ws_1234567890_123456789012",
            "/checkout/12345678-1234-4234-9234-123456789012",
            "100 %",
            "100 %ü",
            "",
        ] {
            assert_eq!(kept("note", value), value);
        }
        assert_eq!(kept("session.createdAtMs", "1764340000000"), "1764340000000");
        assert_eq!(kept("timesMs[]", "4111111111111111"), "(a long number)");
        assert_eq!(kept("note", &"x".repeat(300)).len(), MAX_VALUE_CHARS);
    }

    #[test]
    fn the_id_of_a_session_is_one() {
        for id in ["ws_1_a", "ws_manual_1", "ws_1234567890_123456789012", "ws_mwor0dc0_0ez6uz7hcaq7bct63a1rip2iv"] {
            assert_eq!(session_id(id.to_owned()).as_deref(), Some(id));
        }
        for text in ["", "jane@example.com", "ws_jane@example.com", "Jane", "ws_4111111111111111", "ws_a b"] {
            assert_eq!(session_id(text.to_owned()), None, "{text}");
        }
    }
}
