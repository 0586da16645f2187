//! The form in which records lie in the browser's storage: a checksum, then JSON.
//!
//! A record that a crash cut off or something else damaged is found by its checksum and set aside, instead of being
//! read as something that nobody wrote.

use alloc::string::String;

use throughline_core::Joined;

/// The first characters of every record; another number is another form.
const FORM: &str = "1:";

/// JSON text as a record.
pub fn seal(json: &str) -> String {
    [FORM, &checksum(json), ":", json].joined()
}

/// The JSON text of a record; `None` where it is damaged.
pub fn unseal(record: &str) -> Option<&str> {
    const BEFORE: usize = FORM.len() + 16 + 1;
    let json = record.get(BEFORE..)?;
    (seal(json) == record).then_some(json)
}

/// FNV-1a, 64 bits, in hexadecimal digits: against accidents, not against an attacker.
fn checksum(text: &str) -> String {
    let sum =
        text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    (0..16).rev().filter_map(|place| char::from_digit((sum >> (place * 4) & 15) as u32, 16)).collect()
}
