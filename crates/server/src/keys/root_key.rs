//! One root key, and what is derived from it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hkdf::Hkdf;
use pasetors::keys::SymmetricKey;
use pasetors::version4::V4;
use sha2::Sha256;
use zeroize::{Zeroize as _, Zeroizing};

/// What each root key begins with, so that leaked ones can be searched for.
pub const PREFIX: &str = "tlr_";

pub use throughline_sealing::Secret;

/// A root key with everything that is derived from it: HKDF-SHA256 (RFC 5869) without salt, one `info` for each purpose.
pub struct RootKey {
    root: Secret,
    id: String,
    from_ms: Option<i64>,
    token: SymmetricKey<V4>,
    wrapping: Secret,
    look_up: Secret,
    answers: Secret,
    webhooks: Secret,
    audit: Secret,
}

/// Why there is no root key. The text is not repeated: it may be one in the wrong form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RootKeyError {
    /// Not a key.
    #[error(
        "this is not a root key (`{PREFIX}` and 43 letters, digits, `-` or `_`); `throughline keys generate` makes one"
    )]
    Form,
    /// No randomness.
    #[error("the operating system's random number source failed; no key was made")]
    Randomness,
    /// A library refused what it should take.
    #[error("no keys could be derived from the root key; this is a fault of the server, please report it")]
    Derivation,
}

impl RootKey {
    /// A new one, for what is new from `from_ms` on.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub fn generate(from_ms: Option<i64>) -> Result<Self, RootKeyError> {
        let mut root = Secret::default();
        getrandom::fill(root.as_mut_slice()).map_err(|_| RootKeyError::Randomness)?;
        Self::derive(root, from_ms)
    }

    /// Reads what [`RootKey::reveal`] wrote.
    ///
    /// # Errors
    /// When it is something else.
    pub fn parse(text: &str, from_ms: Option<i64>) -> Result<Self, RootKeyError> {
        let encoded = text.trim().strip_prefix(PREFIX).ok_or(RootKeyError::Form)?;
        let mut bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| RootKeyError::Form)?;
        let root = <[u8; 32]>::try_from(bytes.as_slice()).map(Secret::new).map_err(|_| RootKeyError::Form);
        bytes.zeroize();
        Self::derive(root?, from_ms)
    }

    fn derive(root: Secret, from_ms: Option<i64>) -> Result<Self, RootKeyError> {
        let hkdf = Hkdf::<Sha256>::new(None, root.as_slice());
        let expand = |purpose: &str, out: &mut [u8]| {
            let info = [b"throughline/1/", purpose.as_bytes()];
            hkdf.expand_multi_info(&info, out).map_err(|_| RootKeyError::Derivation)
        };
        let secret = |purpose| {
            let mut out = Secret::default();
            expand(purpose, out.as_mut_slice())?;
            Ok::<_, RootKeyError>(out)
        };
        let mut id = [0_u8; 8];
        expand("id", &mut id)?;
        Ok(Self {
            id: id.iter().map(|byte| format!("{byte:02x}")).collect(),
            from_ms,
            token: SymmetricKey::from(secret("token")?.as_slice()).map_err(|_| RootKeyError::Derivation)?,
            wrapping: secret("wrapping")?,
            look_up: secret("look-up")?,
            answers: secret("answers")?,
            webhooks: secret("webhooks")?,
            audit: secret("audit")?,
            root,
        })
    }

    /// Its public name: 16 hex digits that tell nothing of the secret.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// From when on it is used for what is new, in milliseconds since 1970; `None` for always.
    #[must_use]
    pub fn from_ms(&self) -> Option<i64> {
        self.from_ms
    }

    /// The key as text, to be kept secret.
    #[must_use]
    pub fn reveal(&self) -> Zeroizing<String> {
        let encoded = Zeroizing::new(URL_SAFE_NO_PAD.encode(self.root.as_slice()));
        Zeroizing::new(format!("{PREFIX}{}", encoded.as_str()))
    }

    /// Encrypts and authenticates tokens.
    pub(crate) fn token(&self) -> &SymmetricKey<V4> {
        &self.token
    }

    /// Wraps the data keys of sessions.
    pub(crate) fn wrapping(&self) -> &Secret {
        &self.wrapping
    }

    /// Makes the hashes under which sessions are found by email address.
    pub(crate) fn look_up(&self) -> &Secret {
        &self.look_up
    }

    /// Encrypts what webhooks are signed with.
    pub(crate) fn webhooks(&self) -> &Secret {
        &self.webhooks
    }

    /// Encrypts answers that are kept to be given again.
    pub(crate) fn answers(&self) -> &Secret {
        &self.answers
    }

    /// Makes the codes by which records of the audit log are authentic.
    pub(crate) fn audit(&self) -> &Secret {
        &self.audit
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootKey").field("id", &self.id).field("from_ms", &self.from_ms).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_being_written_and_read_and_is_not_shown() {
        let key = RootKey::generate(None).unwrap();
        let read = RootKey::parse(&format!("  {}\n", *key.reveal()), Some(7)).unwrap();
        assert_eq!((read.id(), read.from_ms()), (key.id(), Some(7)));
        assert_eq!(read.wrapping(), key.wrapping());
        assert!(!format!("{key:?}").contains(&key.reveal()[PREFIX.len()..]));
    }

    #[test]
    fn what_is_derived_is_pinned_and_different_for_each_purpose() {
        let key = RootKey::parse(&format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode([7; 32])), None).unwrap();
        let derived = [key.wrapping(), key.look_up(), key.answers(), key.webhooks(), key.audit()];
        for (index, one) in derived.iter().enumerate() {
            assert!(derived[..index].iter().all(|other| one != other));
            assert_ne!(one.as_slice(), key.token().as_bytes());
        }
        assert_eq!(key.id(), PINNED_ID);
    }

    /// HKDF-SHA256 of 32 bytes 7 without salt, with the info `throughline/1/id`, 8 bytes.
    const PINNED_ID: &str = "608e01ede2402b90";

    #[test]
    fn other_texts_are_no_keys_and_are_not_repeated() {
        let key = RootKey::generate(None).unwrap().reveal();
        for text in ["", "tlr_", "tls_AAAA", "tlr_AAAA", &key[4..]] {
            let error = RootKey::parse(text, None).unwrap_err();
            assert_eq!(error, RootKeyError::Form, "{text}");
            assert!(text.is_empty() || text == "tlr_" || !error.to_string().contains(text));
        }
    }
}
