//! The tenant: whose sessions they are. Every stored row and every credential names one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest name of a tenant, in bytes.
pub const MAX_TENANT_BYTES: usize = 64;

/// The name of one tenant: lower-case letters, digits, `-` and `_`, at most 64 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TenantId(String);

/// Why a text is not a tenant's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TenantIdError {
    /// Nothing was given.
    #[error("a tenant's name is empty; write 1 to {MAX_TENANT_BYTES} lower-case letters, digits, `-` or `_`")]
    Empty,
    /// Too many bytes.
    #[error("a tenant's name has {bytes} bytes, at most {MAX_TENANT_BYTES} are allowed")]
    TooLong {
        /// How many bytes it has.
        bytes: usize,
    },
    /// A character outside the alphabet.
    #[error("a tenant's name holds {character:?}; only lower-case letters, digits, `-` and `_` are allowed")]
    Character {
        /// The first such character.
        character: char,
    },
}

impl Default for TenantId {
    fn default() -> Self {
        Self::single()
    }
}

impl TenantId {
    /// The tenant of a server that serves only one shop.
    #[must_use]
    pub fn single() -> Self {
        Self("default".to_owned())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for TenantId {
    type Error = TenantIdError;

    fn try_from(name: String) -> Result<Self, TenantIdError> {
        if name.is_empty() {
            return Err(TenantIdError::Empty);
        }
        if name.len() > MAX_TENANT_BYTES {
            return Err(TenantIdError::TooLong { bytes: name.len() });
        }
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if let Some(character) = name.chars().find(|c| !allowed(*c)) {
            return Err(TenantIdError::Character { character });
        }
        Ok(Self(name))
    }
}

impl FromStr for TenantId {
    type Err = TenantIdError;

    fn from_str(name: &str) -> Result<Self, TenantIdError> {
        Self::try_from(name.to_owned())
    }
}

impl From<TenantId> for String {
    fn from(tenant: TenantId) -> Self {
        tenant.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenants_name_keeps_to_its_alphabet_and_length() {
        assert_eq!("shop-a_1".parse::<TenantId>().unwrap().as_str(), "shop-a_1");
        assert_eq!("".parse::<TenantId>(), Err(TenantIdError::Empty));
        assert_eq!("Shop".parse::<TenantId>(), Err(TenantIdError::Character { character: 'S' }));
        assert_eq!("a".repeat(65).parse::<TenantId>(), Err(TenantIdError::TooLong { bytes: 65 }));
    }
}
