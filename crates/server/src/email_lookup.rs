//! Finding a buyer's sessions by email address, without storing the address where it can be read.
//!
//! Beside each session stands a keyed hash of its address. Whoever has the database but not the key can neither read
//! addresses there nor try out which of them are in it.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::tenant::TenantId;

/// What each look-up key begins with, so that leaked ones can be searched for.
pub const PREFIX: &str = "tlk_";

/// Makes the keyed hashes of email addresses.
#[derive(Clone)]
pub struct EmailLookup {
    key: [u8; 32],
}

/// The text is not a look-up key. It is not repeated: it may be one in the wrong form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a look-up key is `{PREFIX}` and 43 letters, digits, `-` or `_`; `throughline keys generate` makes one")]
pub struct LookupKeyError;

/// No look-up key could be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the operating system's random number source failed; no look-up key was made")]
pub struct NoRandomLookupKey;

impl EmailLookup {
    /// One with a new key from the operating system's randomness.
    ///
    /// # Errors
    /// When there is no randomness to be had.
    pub fn generate() -> Result<Self, NoRandomLookupKey> {
        let mut key = [0_u8; 32];
        getrandom::fill(&mut key).map_err(|_| NoRandomLookupKey)?;
        Ok(Self { key })
    }

    /// The key as text, to be kept secret.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(self.key))
    }

    /// The hash under which sessions of `tenant` with this address are found: HMAC-SHA256 of the tenant, a line feed and
    /// the address in small letters. A tenant's name holds no line feed, so no two tenants share a hash.
    #[must_use]
    pub fn digest(&self, tenant: &TenantId, email: &str) -> Vec<u8> {
        // What HMAC itself does with a key that is shorter than a block.
        let mut block = [0_u8; 64];
        block[..self.key.len()].copy_from_slice(&self.key);
        let mut mac = Hmac::<Sha256>::new(&block.into());
        mac.update(tenant.as_str().as_bytes());
        mac.update(b"\n");
        mac.update(email.trim().to_lowercase().as_bytes());
        mac.finalize().into_bytes().to_vec()
    }
}

impl FromStr for EmailLookup {
    type Err = LookupKeyError;

    fn from_str(text: &str) -> Result<Self, LookupKeyError> {
        let encoded = text.trim().strip_prefix(PREFIX).ok_or(LookupKeyError)?;
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| LookupKeyError)?;
        Ok(Self { key: bytes.try_into().map_err(|_| LookupKeyError)? })
    }
}

impl fmt::Debug for EmailLookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EmailLookup([secret])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        name.parse().unwrap()
    }

    #[test]
    fn one_address_has_one_digest_for_each_tenant_and_key() {
        let lookup = EmailLookup::generate().unwrap();
        let digest = lookup.digest(&tenant("a"), "Ada@Example.com");
        assert_eq!(digest, lookup.digest(&tenant("a"), " ada@example.COM"));
        assert_ne!(digest, lookup.digest(&tenant("b"), "ada@example.com"));
        assert_ne!(digest, EmailLookup::generate().unwrap().digest(&tenant("a"), "ada@example.com"));
    }

    #[test]
    fn a_digest_is_the_hmac_that_is_documented() {
        let lookup: EmailLookup = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode([7; 32])).parse().unwrap();
        let digest = lookup.digest(&tenant("shop"), "Ada@Example.com");
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "1dfdb3b2b445ff3cf6e699c151d29fd60fa1dc9e5486dca5b03044962d111143");
    }

    #[test]
    fn a_key_survives_being_written_and_read_and_is_not_shown() {
        let lookup = EmailLookup::generate().unwrap();
        let read: EmailLookup = lookup.reveal().parse().unwrap();
        assert_eq!(read.reveal(), lookup.reveal());
        assert!(!format!("{lookup:?}").contains(&lookup.reveal()[PREFIX.len()..]));
    }

    #[test]
    fn other_texts_are_no_keys() {
        for text in ["", "tlk_", "tls_AAAA", "tlk_AAAA", &EmailLookup::generate().unwrap().reveal()[4..]] {
            assert_eq!(text.parse::<EmailLookup>().unwrap_err(), LookupKeyError, "{text}");
        }
    }
}
