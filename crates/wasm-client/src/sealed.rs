//! The form in which records lie in the browser's storage: a checksum, then JSON.
//!
//! A record that a crash cut off or something else damaged is found by its checksum and set aside, instead of being
//! read as something that nobody wrote.

use alloc::format;
use alloc::string::String;

/// The first characters of every record; another number is another form.
const FORM: &str = "1:";

/// JSON text as a record.
pub fn seal(json: &str) -> String {
    format!("{FORM}{:016x}:{json}", checksum(json))
}

/// The JSON text of a record; `None` where it is damaged.
pub fn unseal(record: &str) -> Option<&str> {
    let (sum, json) = record.strip_prefix(FORM)?.split_once(':')?;
    let expected = u64::from_str_radix(sum, 16).ok()?;
    (checksum(json) == expected).then_some(json)
}

/// FNV-1a, 64 bits: against accidents, not against an attacker.
fn checksum(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}
