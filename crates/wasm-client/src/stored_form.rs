//! The form in which records lie in the browser's storage: a number, then JSON.
//!
//! The storage itself encrypts and authenticates them, so a record that is damaged does not get here. One of an older form
//! is read as what it became; one of a newer form was written by a newer version of this package, and is left alone.

use alloc::string::String;

use throughline_core::Joined;

/// The form that is written.
const FORM: u8 = b'1';

/// What a record turns out to be.
pub enum Stored<'a> {
    /// JSON text of today's form.
    Known(&'a str),
    /// Written by a newer version of this package.
    Newer,
    /// Written by nobody.
    Damaged,
}

/// JSON text as a record.
pub fn wrap(json: &str) -> String {
    ["1:", json].joined()
}

/// The JSON text of a record.
pub fn unwrap(record: &str) -> Stored<'_> {
    match (record.as_bytes(), record.get(2..)) {
        ([FORM, b':', ..], Some(json)) => Stored::Known(json),
        ([b'2'..=b'9', ..], _) => Stored::Newer,
        _ => Stored::Damaged,
    }
}
