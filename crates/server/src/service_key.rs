//! Service keys: long-lived keys for a shop's back end and for operators. Here is what one looks like, and the bootstrap keys
//! whose hashes stand in the configuration; `service_keys.rs` has those of the database, and recognises both.
//!
//! Only hashes are stored. A key holds 256 random bits, so one round of SHA-256 is enough:
//! there is nothing to guess that a slow hash would protect.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use crate::scope::{Scope, Scopes};
use crate::tenant::{TenantId, TenantIdError};

/// What each service key begins with, so that leaked ones can be searched for.
pub const PREFIX: &str = "tls_";

/// A service key in the clear. Exists only when it is made and when it is presented.
pub struct ServiceKey(String);

/// No key could be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the operating system's random number source failed; no key was made")]
pub struct ServiceKeyError;

/// What a bootstrap key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BootstrapRole {
    /// The shop's back end.
    Service,
    /// A person or a job that runs the server.
    Operator,
}

impl BootstrapRole {
    /// What such a key may do: all that a shop needs, or everything.
    #[must_use]
    pub fn scopes(self) -> Scopes {
        match self {
            Self::Service => Scope::ALL.into_iter().filter(|scope| *scope != Scope::Operator).collect(),
            Self::Operator => Scopes::all(),
        }
    }
}

/// One bootstrap key, as it stands in the configuration: whose it is, what it is for, and its hash.
///
/// Text form: `sha256:<64 hex digits>` for the single tenant, `shop-a=sha256:…` for another,
/// `shop-a/operator=sha256:…` for an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownKey {
    /// Whose sessions it reaches.
    pub tenant: TenantId,
    /// What it is for.
    pub role: BootstrapRole,
    /// Its hash.
    pub sha256: [u8; 32],
}

/// Why a text does not name a known key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KnownKeyError {
    /// The hash is not one.
    #[error("a service key's hash must be `sha256:` and 64 hex digits; `throughline keys generate` prints one")]
    Hash,
    /// The tenant's name is not one.
    #[error(transparent)]
    Tenant(#[from] TenantIdError),
    /// The word after the tenant is neither.
    #[error("a service key in the configuration is for `service` or `operator`")]
    Role,
    /// Someone pasted the key where its hash belongs.
    #[error("this is a service key itself, not its hash; store only the `sha256:…` line and treat the key as exposed")]
    KeyInsteadOfHash,
}

impl ServiceKey {
    /// Makes a new key from the operating system's randomness.
    ///
    /// # Errors
    /// When there is no randomness to be had.
    pub fn generate() -> Result<Self, ServiceKeyError> {
        let mut random = [0_u8; 32];
        getrandom::fill(&mut random).map_err(|_| ServiceKeyError)?;
        Ok(Self(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random))))
    }

    /// The secret text, to be handed to its owner once.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The entry that lets a server recognise this key.
    #[must_use]
    pub fn known_as(&self, tenant: TenantId, role: BootstrapRole) -> KnownKey {
        KnownKey { tenant, role, sha256: sha256_of(&self.0) }
    }
}

impl fmt::Debug for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServiceKey([secret])")
    }
}

impl KnownKey {
    /// A short public name for logs and the audit trail: the first 8 hex digits of the hash.
    #[must_use]
    pub fn id(&self) -> String {
        hex(&self.sha256[..4])
    }
}

impl fmt::Display for KnownKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.role {
            BootstrapRole::Service if self.tenant == TenantId::single() => {}
            BootstrapRole::Service => write!(f, "{}=", self.tenant)?,
            BootstrapRole::Operator => write!(f, "{}/operator=", self.tenant)?,
        }
        write!(f, "sha256:{}", hex(&self.sha256))
    }
}

impl FromStr for KnownKey {
    type Err = KnownKeyError;

    fn from_str(text: &str) -> Result<Self, KnownKeyError> {
        let text = text.trim();
        let (owner, hash) = text.split_once('=').unwrap_or(("", text));
        if hash.starts_with(PREFIX) || owner.starts_with(PREFIX) {
            return Err(KnownKeyError::KeyInsteadOfHash);
        }
        let (tenant, role) = match owner.split_once('/') {
            Some((tenant, "operator")) => (tenant, BootstrapRole::Operator),
            Some((tenant, "service")) => (tenant, BootstrapRole::Service),
            Some(_) => return Err(KnownKeyError::Role),
            None => (owner, BootstrapRole::Service),
        };
        let tenant = if tenant.is_empty() { TenantId::single() } else { tenant.parse()? };
        let digits = hash.strip_prefix("sha256:").ok_or(KnownKeyError::Hash)?;
        let sha256 = unhex(digits).ok_or(KnownKeyError::Hash)?;
        Ok(Self { tenant, role, sha256 })
    }
}

/// The hash by which a key is known.
pub(crate) fn sha256_of(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// Bytes as hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(digits: &str) -> Option<[u8; 32]> {
    if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0_u8; 32];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(index * 2..index * 2 + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        name.parse().unwrap()
    }

    #[test]
    fn a_known_key_survives_being_written_and_read() {
        let key = ServiceKey::generate().unwrap();
        for (name, role) in [
            ("default", BootstrapRole::Service),
            ("default", BootstrapRole::Operator),
            ("shop-a", BootstrapRole::Service),
            ("shop-a", BootstrapRole::Operator),
        ] {
            let known = key.known_as(tenant(name), role);
            assert_eq!(known.to_string().parse::<KnownKey>().unwrap(), known);
        }
    }

    #[test]
    fn a_key_pasted_in_place_of_its_hash_is_pointed_out() {
        let key = ServiceKey::generate().unwrap();
        assert_eq!(key.reveal().parse::<KnownKey>(), Err(KnownKeyError::KeyInsteadOfHash));
        assert_eq!(format!("shop-a={}", key.reveal()).parse::<KnownKey>(), Err(KnownKeyError::KeyInsteadOfHash));
        assert_eq!("sha256:12".parse::<KnownKey>(), Err(KnownKeyError::Hash));
        assert_eq!(format!("a/root=sha256:{}", "0".repeat(64)).parse::<KnownKey>(), Err(KnownKeyError::Role));
    }

    #[test]
    fn a_key_is_not_shown_in_debug_output() {
        let key = ServiceKey::generate().unwrap();
        assert!(!format!("{key:?}").contains(key.reveal()));
    }
}
