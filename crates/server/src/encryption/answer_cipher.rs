//! Kept answers: they hold sessions as their callers saw them, and tokens.

use throughline_sealing::{NotAuthentic, SealError, open, seal};

use crate::idempotency::IdempotencyKey;
use crate::keys::KeyRing;

/// Encrypts answers that are kept to be given again, and decrypts them.
#[derive(Debug, Clone)]
pub struct AnswerCipher {
    keys: KeyRing,
}

/// Why a kept answer can't be given again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The root key is gone.
    #[error("the answer was kept under a root key that the key ring does not have any more")]
    UnknownKey,
    /// It was changed.
    #[error("the kept answer was changed, or belongs to another request")]
    NotAuthentic(#[from] NotAuthentic),
}

/// How long the root key's public name is.
const NAME: usize = 16;

impl AnswerCipher {
    /// One with the keys of this ring.
    #[must_use]
    pub fn new(keys: KeyRing) -> Self {
        Self { keys }
    }

    /// Encrypts the answer to a request: the root key's public name, then what is sealed.
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn seal(&self, request: &IdempotencyKey, answer: &[u8], now_ms: i64) -> Result<Vec<u8>, SealError> {
        let key = self.keys.current(now_ms);
        let mut sealed = key.id().as_bytes().to_vec();
        sealed.extend(seal(key.answers(), &place(request), answer)?);
        Ok(sealed)
    }

    /// Decrypts the answer to a request.
    ///
    /// # Errors
    /// See [`AnswerError`].
    pub fn open(&self, request: &IdempotencyKey, sealed: &[u8]) -> Result<Vec<u8>, AnswerError> {
        let (name, sealed) = sealed.split_first_chunk::<NAME>().ok_or(NotAuthentic)?;
        let name = std::str::from_utf8(name).map_err(|_| NotAuthentic)?;
        let key = self.keys.reads(name).ok_or(AnswerError::UnknownKey)?;
        Ok(open(key.answers(), &place(request), sealed)?)
    }
}

/// Neither a tenant's name nor a scope holds a line feed.
fn place(request: &IdempotencyKey) -> Vec<u8> {
    let IdempotencyKey { tenant, scope, key } = request;
    format!("{tenant}\n{scope}\n{key}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_700_000_000_000;

    fn request(key: &str) -> IdempotencyKey {
        IdempotencyKey { tenant: "a".parse().unwrap(), scope: "service:1 create".to_owned(), key: key.to_owned() }
    }

    #[test]
    fn an_answer_is_given_to_its_own_request_alone() {
        let cipher = AnswerCipher::new(KeyRing::generate().unwrap());
        let sealed = cipher.seal(&request("one"), b"answer", NOW_MS).unwrap();
        assert_eq!(cipher.open(&request("one"), &sealed).unwrap(), b"answer");
        assert_eq!(cipher.open(&request("other"), &sealed), Err(AnswerError::NotAuthentic(NotAuthentic)));
        let stranger = AnswerCipher::new(KeyRing::generate().unwrap());
        assert_eq!(stranger.open(&request("one"), &sealed), Err(AnswerError::UnknownKey));
    }
}
