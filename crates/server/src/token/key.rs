//! One symmetric key for tokens, and its text form.

use pasetors::keys::{Generate, SymmetricKey};
use pasetors::paserk::{FormatAsPaserk, Id};
use pasetors::version4::V4;

/// A key for `v4.local` tokens. Its text form is PASERK `k4.local.…`.
#[derive(Clone)]
pub struct TokenKey {
    pub(super) secret: SymmetricKey<V4>,
    pub(super) id: String,
}

/// Why a text is not a token key, or none could be made. The text itself is never repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenKeyError {
    /// Not a `k4.local.…` text.
    #[error("this is not a token key (`k4.local.` and 43 characters); make one with `throughline keys generate`")]
    Format,
    /// The operating system gave no random bytes.
    #[error("the operating system's random number source failed; no key was made")]
    Randomness,
}

impl TokenKey {
    /// Makes a new key from the operating system's randomness.
    ///
    /// # Errors
    /// When there is no randomness to be had.
    pub fn generate() -> Result<Self, TokenKeyError> {
        let secret = SymmetricKey::<V4>::generate().map_err(|_| TokenKeyError::Randomness)?;
        Self::named(secret)
    }

    /// Reads a key from its text form.
    ///
    /// # Errors
    /// When the text is not a `k4.local` key.
    pub fn parse(text: &str) -> Result<Self, TokenKeyError> {
        let secret = SymmetricKey::<V4>::try_from(text.trim()).map_err(|_| TokenKeyError::Format)?;
        Self::named(secret)
    }

    /// The key's public name (`k4.lid.…`): a hash that says which key it is and nothing about it.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The secret text form, to be written where only the server can read it.
    ///
    /// # Errors
    /// When the key cannot be written as text.
    pub fn reveal(&self) -> Result<String, TokenKeyError> {
        let mut text = String::new();
        self.secret.fmt(&mut text).map_err(|_| TokenKeyError::Format)?;
        Ok(text)
    }

    fn named(secret: SymmetricKey<V4>) -> Result<Self, TokenKeyError> {
        let mut id = String::new();
        Id::from(&secret).fmt(&mut id).map_err(|_| TokenKeyError::Format)?;
        Ok(Self { secret, id })
    }
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenKey").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_being_written_and_read() {
        let key = TokenKey::generate().unwrap();
        let text = key.reveal().unwrap();
        assert!(text.starts_with("k4.local."));
        let read = TokenKey::parse(&format!("  {text}\n")).unwrap();
        assert_eq!(read.id(), key.id());
        assert!(read.secret == key.secret);
    }

    #[test]
    fn a_key_shows_its_id_but_never_its_secret() {
        let key = TokenKey::generate().unwrap();
        let shown = format!("{key:?}");
        assert!(shown.contains("k4.lid."));
        assert!(!shown.contains("k4.local."));
    }

    #[test]
    fn other_texts_are_not_keys() {
        for text in ["", "secret", "k4.local.", "k2.local.AAAA", "k4.local.AAAA"] {
            assert_eq!(TokenKey::parse(text).unwrap_err(), TokenKeyError::Format, "{text}");
        }
    }
}
