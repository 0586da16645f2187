//! The secrets that everything else is derived from.
//!
//! A *root key* is 32 random bytes. From each one a key for tokens, one that wraps the data keys of sessions, one for
//! finding sessions by email address, one for kept answers and one for the audit log are derived, so that one secret is kept and none is used for
//! two things. A *key ring* holds several: the newest whose time has come is used for what is
//! new, all of them are good for what exists. Rotating adds one. Retiring one refuses its tokens; what was encrypted under it can
//! be read until it is forgotten.

pub mod ring_text;
mod root_key;
pub mod source;

use std::sync::Arc;

use arc_swap::ArcSwap;

use self::ring_text::{RingText, RingTextError};
pub use self::root_key::{PREFIX, RootKey, RootKeyError, Secret};

/// How many keys one ring may hold: each look-up by email address and each start derives from all of them.
pub const MAX_KEYS: usize = 16;

/// The root keys of a server. Clones share them, also after [`KeyRing::replace`].
#[derive(Debug, Clone)]
pub struct KeyRing {
    keys: Arc<ArcSwap<Keys>>,
}

#[derive(Debug)]
struct Keys {
    /// The one that is used from the latest time on comes first.
    known: Vec<Arc<RootKey>>,
    retired: Vec<Arc<RootKey>>,
}

/// Why there is no key ring.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyRingError {
    /// No key at all.
    #[error("there is no key; make one with `throughline keys generate`")]
    Empty,
    /// More than a ring holds.
    #[error(
        "there are more than {MAX_KEYS} keys; forget those that nothing needs any more (`throughline keys forget`)"
    )]
    TooMany,
    /// A key twice.
    #[error("the key {id} is listed twice; remove one of the two")]
    Repeated {
        /// The key's public name.
        id: String,
    },
    /// A key that is retired.
    #[error("the key {id} is listed and retired at once; remove the line that is wrong")]
    Retired {
        /// The key's public name.
        id: String,
    },
    /// A key is gone from a ring that is in use.
    #[error(
        "the key {id} is missing, which is neither listed nor retired; a key in use is retired before it is forgotten"
    )]
    Lost {
        /// The key's public name.
        id: String,
    },
    /// The text is not a key ring.
    #[error(transparent)]
    Text(#[from] RingTextError),
}

/// Which key a name stands for.
#[derive(Debug, Clone)]
pub enum Named {
    /// One of the ring.
    Known(Arc<RootKey>),
    /// One whose tokens are refused. What was encrypted under it can still be read.
    Retired(Arc<RootKey>),
    /// None that the ring knows of.
    Unknown,
}

impl KeyRing {
    /// The keys of `text`.
    ///
    /// # Errors
    /// See [`KeyRingError`].
    pub fn of(text: RingText) -> Result<Self, KeyRingError> {
        Ok(Self { keys: Arc::new(ArcSwap::from_pointee(Keys::of(text)?)) })
    }

    /// A ring of one new key.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub fn generate() -> Result<Self, RootKeyError> {
        let keys = Keys { known: vec![Arc::new(RootKey::generate(None)?)], retired: Vec::new() };
        Ok(Self { keys: Arc::new(ArcSwap::from_pointee(keys)) })
    }

    /// Goes over to the keys of `text`, for all clones; says whether that changes anything. On an error nothing changes.
    ///
    /// # Errors
    /// See [`KeyRingError`].
    pub fn replace(&self, text: RingText) -> Result<bool, KeyRingError> {
        let (new, old) = (Keys::of(text)?, self.keys.load());
        // A file that is half written is a ring as well, of fewer keys.
        if let Some(lost) =
            old.known.iter().find(|key| !new.known.iter().chain(&new.retired).any(|other| other.id() == key.id()))
        {
            return Err(KeyRingError::Lost { id: lost.id().to_owned() });
        }
        let is_other = new.names() != old.names();
        if is_other {
            self.keys.store(Arc::new(new));
        }
        Ok(is_other)
    }

    /// The key for what is new.
    #[must_use]
    pub fn current(&self, now_ms: i64) -> Arc<RootKey> {
        let keys = self.keys.load();
        // A ring holds at least one. Where the time of none has come yet, the earliest one has to do.
        let come = keys.known.iter().find(|key| key.from_ms().is_none_or(|from_ms| from_ms <= now_ms));
        Arc::clone(come.unwrap_or(&keys.known[keys.known.len() - 1]))
    }

    /// The key with this public name.
    #[must_use]
    pub fn named(&self, id: &str) -> Named {
        let keys = self.keys.load();
        match keys.known.iter().find(|key| key.id() == id) {
            Some(key) => Named::Known(Arc::clone(key)),
            None => match keys.retired.iter().find(|key| key.id() == id) {
                Some(key) => Named::Retired(Arc::clone(key)),
                None => Named::Unknown,
            },
        }
    }

    /// The key with this public name, with which something can be read, retired or not.
    #[must_use]
    pub fn reads(&self, id: &str) -> Option<Arc<RootKey>> {
        match self.named(id) {
            Named::Known(key) | Named::Retired(key) => Some(key),
            Named::Unknown => None,
        }
    }

    /// All keys that are not retired, the newest first.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<RootKey>> {
        self.keys.load().known.clone()
    }

    /// The retired ones.
    #[must_use]
    pub fn retired(&self) -> Vec<Arc<RootKey>> {
        self.keys.load().retired.clone()
    }
}

impl Keys {
    fn of(text: RingText) -> Result<Self, KeyRingError> {
        let RingText { keys, retired } = text;
        let mut known: Vec<Arc<RootKey>> = keys.into_iter().map(Arc::new).collect();
        if known.is_empty() {
            return Err(KeyRingError::Empty);
        }
        let retired: Vec<Arc<RootKey>> = retired.into_iter().map(Arc::new).collect();
        if known.len() + retired.len() > MAX_KEYS {
            return Err(KeyRingError::TooMany);
        }
        for (index, key) in known.iter().enumerate() {
            let id = || key.id().to_owned();
            if known[..index].iter().any(|other| other.id() == key.id()) {
                return Err(KeyRingError::Repeated { id: id() });
            }
            if retired.iter().any(|retired| retired.id() == key.id()) {
                return Err(KeyRingError::Retired { id: id() });
            }
        }
        // Stable: of those with the same time the first one listed wins. `None` comes last.
        known.sort_by_key(|key| std::cmp::Reverse(key.from_ms()));
        Ok(Self { known, retired })
    }

    fn names(&self) -> (Vec<(&str, Option<i64>)>, Vec<&str>) {
        let known = self.known.iter().map(|key| (key.id(), key.from_ms())).collect();
        (known, self.retired.iter().map(|key| key.id()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_700_000_000_000;

    fn ring(keys: Vec<RootKey>) -> KeyRing {
        KeyRing::of(RingText { keys, retired: Vec::new() }).unwrap()
    }

    #[test]
    fn the_newest_key_whose_time_has_come_is_used_for_what_is_new() {
        let (old, new) = (RootKey::generate(None).unwrap(), RootKey::generate(Some(NOW_MS)).unwrap());
        let (old_id, new_id) = (old.id().to_owned(), new.id().to_owned());
        let ring = ring(vec![old, new]);
        assert_eq!(ring.current(NOW_MS - 1).id(), old_id);
        assert_eq!(ring.current(NOW_MS).id(), new_id);
        assert!(matches!(ring.named(&new_id), Named::Known(_)), "before its time as well");
        assert!(matches!(ring.named("0000000000000000"), Named::Unknown));
    }

    #[test]
    fn a_ring_is_replaced_for_all_its_clones_or_stays_as_it_is() {
        let (one, other) = (RootKey::generate(None).unwrap(), RootKey::generate(None).unwrap());
        let (one_id, other_id) = (one.id().to_owned(), other.id().to_owned());
        let copy = |key: &RootKey| RootKey::parse(&key.reveal(), None).unwrap();
        let first = ring(vec![copy(&one)]);
        let clone = first.clone();
        let half_written = RingText { keys: vec![copy(&other)], retired: Vec::new() };
        assert_eq!(first.replace(half_written), Err(KeyRingError::Lost { id: one_id.clone() }));
        assert!(first.replace(RingText { keys: vec![copy(&other)], retired: vec![one] }).unwrap());
        assert_eq!(clone.current(NOW_MS).id(), other_id);
        assert!(matches!(clone.named(&one_id), Named::Retired(_)) && clone.reads(&one_id).is_some());
        assert!(
            first.replace(RingText { keys: vec![other], retired: Vec::new() }).unwrap(),
            "a retired one is forgotten"
        );
        assert!(matches!(clone.named(&one_id), Named::Unknown) && clone.reads(&one_id).is_none());
        let empty = RingText { keys: Vec::new(), retired: Vec::new() };
        assert_eq!(first.replace(empty), Err(KeyRingError::Empty));
        assert_eq!(clone.current(NOW_MS).id(), other_id);
    }

    #[test]
    fn a_key_is_in_a_ring_once_and_not_retired() {
        let key = RootKey::generate(None).unwrap();
        let again = RootKey::parse(&key.reveal(), None).unwrap();
        let id = key.id().to_owned();
        let text = RingText { keys: vec![key, again], retired: Vec::new() };
        assert_eq!(KeyRing::of(text).unwrap_err(), KeyRingError::Repeated { id });
        let key = RootKey::generate(None).unwrap();
        let (again, id) = (RootKey::parse(&key.reveal(), None).unwrap(), key.id().to_owned());
        let text = RingText { keys: vec![key], retired: vec![again] };
        assert_eq!(KeyRing::of(text).unwrap_err(), KeyRingError::Retired { id });
    }
}
