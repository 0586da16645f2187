//! A key ring as text: what a variable, a file or the output of a command holds.
//!
//! ```text
//! # comments and empty lines
//! tlr_<43 characters>@2026-11-28T10:00:00.000Z     used for what is new from that time on
//! tlr_<43 characters>                              used since ever
//! retired:tlr_<43 characters>                      its tokens are refused; what is encrypted under it can still be read
//! ```
//!
//! Entries stand on lines of their own, or are separated by commas.

use std::fmt::Write as _;

use zeroize::Zeroizing;

use super::root_key::{RootKey, RootKeyError};
use crate::clock::{parse_rfc3339, rfc3339};

/// With what the entry of a retired key begins.
const RETIRED: &str = "retired:";

/// The variable that a line may begin with, as `throughline keys generate` prints it.
pub const VARIABLE: &str = "THROUGHLINE_KEYS";

/// What the text says.
#[derive(Debug)]
pub struct RingText {
    /// The keys, in their order.
    pub keys: Vec<RootKey>,
    /// Retired ones.
    pub retired: Vec<RootKey>,
}

/// What is wrong with the text. No variant repeats a part of it: it may be a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RingTextError {
    /// An entry is no key.
    #[error("entry {number} of the key ring is wrong")]
    Key {
        /// Which one, from 1.
        number: usize,
        /// What is wrong with it.
        #[source]
        source: RootKeyError,
    },
    /// What follows the `@` is no time.
    #[error("entry {number} of the key ring has no time after its `@`; write for example 2026-11-28T10:00:00Z")]
    Time {
        /// Which one, from 1.
        number: usize,
    },
}

impl RingText {
    /// Reads a key ring.
    ///
    /// # Errors
    /// See [`RingTextError`].
    pub fn parse(text: &str) -> Result<Self, RingTextError> {
        let entries = text
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'))
            .map(|line| {
                let line = line.trim();
                line.strip_prefix(VARIABLE).and_then(|rest| rest.strip_prefix('=')).unwrap_or(line)
            })
            .flat_map(|line| line.split(','))
            .map(str::trim)
            .filter(|entry| !entry.is_empty());
        let mut ring = Self { keys: Vec::new(), retired: Vec::new() };
        for (number, entry) in (1..).zip(entries) {
            let read =
                |key, from_ms| RootKey::parse(key, from_ms).map_err(|source| RingTextError::Key { number, source });
            if let Some(key) = entry.strip_prefix(RETIRED) {
                ring.retired.push(read(key, None)?);
                continue;
            }
            let (key, time) = entry.split_once('@').map_or((entry, None), |(key, time)| (key, Some(time)));
            let from_ms = match time {
                Some(time) => Some(parse_rfc3339(time).ok_or(RingTextError::Time { number })?),
                None => None,
            };
            ring.keys.push(read(key, from_ms)?);
        }
        Ok(ring)
    }

    /// The text, one entry a line.
    #[must_use]
    pub fn lines(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(128 * (self.keys.len() + self.retired.len() + 1)));
        text.push_str("# Throughline's key ring. Whoever has it can read every session.\n");
        for key in &self.keys {
            text.push_str(&key.reveal());
            if let Some(from_ms) = key.from_ms() {
                // Writing to a `String` cannot fail.
                let _ = write!(*text, "@{}", rfc3339(from_ms));
            }
            text.push('\n');
        }
        for key in &self.retired {
            text.push_str(RETIRED);
            text.push_str(&key.reveal());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_survives_being_written_and_read() {
        let keys = vec![RootKey::generate(Some(1_700_000_000_000)).unwrap(), RootKey::generate(None).unwrap()];
        let ring = RingText { keys, retired: vec![RootKey::generate(None).unwrap()] };
        let read = RingText::parse(&ring.lines()).unwrap();
        let names =
            |ring: &RingText| -> Vec<_> { ring.keys.iter().map(|key| (key.id().to_owned(), key.from_ms())).collect() };
        assert_eq!(names(&read), names(&ring));
        assert_eq!(read.retired[0].id(), ring.retired[0].id());
    }

    #[test]
    fn a_variable_holds_it_in_one_line() {
        let [one, other, third] = [(); 3].map(|()| RootKey::generate(None).unwrap());
        let line = format!(
            "{VARIABLE}={}@2026-11-28T10:00:00Z, {},retired:{}",
            *one.reveal(),
            *other.reveal(),
            *third.reveal()
        );
        let ring = RingText::parse(&line).unwrap();
        assert_eq!(ring.keys.iter().map(RootKey::id).collect::<Vec<_>>(), [one.id(), other.id()]);
        assert_eq!(ring.retired[0].id(), third.id());
    }

    #[test]
    fn what_is_wrong_is_counted_and_not_repeated() {
        let key = RootKey::generate(None).unwrap().reveal();
        let good = key.as_str();
        let error = RingText::parse(&format!("# ring\n{good}\nhunter2")).unwrap_err();
        assert_eq!(error, RingTextError::Key { number: 2, source: RootKeyError::Form });
        assert!(!crate::problem::chain(&error).contains("hunter2"));
        assert_eq!(RingText::parse(&format!("{good}@tomorrow")).unwrap_err(), RingTextError::Time { number: 1 });
        let error = RingText::parse("retired:hunter2").unwrap_err();
        assert_eq!(error, RingTextError::Key { number: 1, source: RootKeyError::Form });
    }
}
