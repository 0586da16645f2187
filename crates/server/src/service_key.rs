//! Service keys: long-lived keys for a shop's back end and for operators.
//!
//! Only hashes are stored. A key holds 256 random bits, so one round of SHA-256 is enough:
//! there is nothing to guess that a slow hash would protect.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::tenant::{TenantId, TenantIdError};

/// What each service key begins with, so that leaked ones can be searched for.
pub const PREFIX: &str = "tls_";

/// A service key in the clear. Exists only when it is made and when it is presented.
pub struct ServiceKey(String);

/// No key could be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the operating system's random number source failed; no key was made")]
pub struct ServiceKeyError;

/// What a service key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The shop's back end.
    Service,
    /// A person or a job that runs the server.
    Operator,
}

/// One known key: whose it is, what it may do, and its hash.
///
/// Text form: `sha256:<64 hex digits>` for the single tenant, `shop-a=sha256:…` for another,
/// `shop-a/operator=sha256:…` for an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownKey {
    /// Whose sessions it reaches.
    pub tenant: TenantId,
    /// What it may do.
    pub scope: Scope,
    hash: [u8; 32],
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
    /// The word after the tenant is not a scope.
    #[error("a service key's scope must be `service` or `operator`")]
    Scope,
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
    pub fn known_as(&self, tenant: TenantId, scope: Scope) -> KnownKey {
        KnownKey { tenant, scope, hash: hash(&self.0) }
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
        hex(&self.hash[..4])
    }
}

impl fmt::Display for KnownKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scope {
            Scope::Service if self.tenant == TenantId::single() => {}
            Scope::Service => write!(f, "{}=", self.tenant)?,
            Scope::Operator => write!(f, "{}/operator=", self.tenant)?,
        }
        write!(f, "sha256:{}", hex(&self.hash))
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
        let (tenant, scope) = match owner.split_once('/') {
            Some((tenant, "operator")) => (tenant, Scope::Operator),
            Some((tenant, "service")) => (tenant, Scope::Service),
            Some(_) => return Err(KnownKeyError::Scope),
            None => (owner, Scope::Service),
        };
        let tenant = if tenant.is_empty() { TenantId::single() } else { tenant.parse()? };
        let digits = hash.strip_prefix("sha256:").ok_or(KnownKeyError::Hash)?;
        let hash = unhex(digits).ok_or(KnownKeyError::Hash)?;
        Ok(Self { tenant, scope, hash })
    }
}

/// All keys that a server recognises.
#[derive(Debug, Clone, Default)]
pub struct ServiceKeys {
    known: Vec<KnownKey>,
}

impl ServiceKeys {
    /// A set of `known` keys; an empty one recognises nobody.
    #[must_use]
    pub fn new(known: Vec<KnownKey>) -> Self {
        Self { known }
    }

    /// Whether there is no key at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// The known key that `presented` is, if it is one.
    ///
    /// Every entry is compared, each in constant time, so that the answer's time says
    /// neither which entry nor how many of its bytes matched.
    #[must_use]
    pub fn recognise(&self, presented: &str) -> Option<&KnownKey> {
        if !presented.starts_with(PREFIX) || presented.len() > 256 {
            return None;
        }
        let presented = hash(presented);
        let mut found = None;
        for known in &self.known {
            if bool::from(known.hash.ct_eq(&presented)) {
                found = Some(known);
            }
        }
        found
    }
}

fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

fn hex(bytes: &[u8]) -> String {
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
    fn a_key_is_recognised_with_its_tenant_and_scope() {
        let key = ServiceKey::generate().unwrap();
        let keys = ServiceKeys::new(vec![
            ServiceKey::generate().unwrap().known_as(tenant("shop-b"), Scope::Service),
            key.known_as(tenant("shop-a"), Scope::Operator),
        ]);
        let known = keys.recognise(key.reveal()).unwrap();
        assert_eq!((known.tenant.as_str(), known.scope), ("shop-a", Scope::Operator));
    }

    #[test]
    fn other_keys_are_not_recognised() {
        let key = ServiceKey::generate().unwrap();
        let keys = ServiceKeys::new(vec![key.known_as(TenantId::single(), Scope::Service)]);
        let stranger = ServiceKey::generate().unwrap();
        assert!(keys.recognise(stranger.reveal()).is_none());
        assert!(keys.recognise(&key.reveal()[..key.reveal().len() - 1]).is_none());
        assert!(keys.recognise("").is_none());
        assert!(ServiceKeys::default().recognise(key.reveal()).is_none());
    }

    #[test]
    fn a_known_key_survives_being_written_and_read() {
        let key = ServiceKey::generate().unwrap();
        for (name, scope) in [
            ("default", Scope::Service),
            ("default", Scope::Operator),
            ("shop-a", Scope::Service),
            ("shop-a", Scope::Operator),
        ] {
            let known = key.known_as(tenant(name), scope);
            assert_eq!(known.to_string().parse::<KnownKey>().unwrap(), known);
        }
    }

    #[test]
    fn a_key_pasted_in_place_of_its_hash_is_pointed_out() {
        let key = ServiceKey::generate().unwrap();
        assert_eq!(key.reveal().parse::<KnownKey>(), Err(KnownKeyError::KeyInsteadOfHash));
        assert_eq!(format!("shop-a={}", key.reveal()).parse::<KnownKey>(), Err(KnownKeyError::KeyInsteadOfHash));
        assert_eq!("sha256:12".parse::<KnownKey>(), Err(KnownKeyError::Hash));
        assert_eq!(format!("a/root=sha256:{}", "0".repeat(64)).parse::<KnownKey>(), Err(KnownKeyError::Scope));
    }

    #[test]
    fn a_key_is_not_shown_in_debug_output() {
        let key = ServiceKey::generate().unwrap();
        assert!(!format!("{key:?}").contains(key.reveal()));
    }
}
