//! Finding a buyer's sessions by email address, without storing the address where it can be read.
//!
//! Beside each session stands a keyed hash of its address. Whoever has the database but not the key can neither read
//! addresses there nor try out which of them are in it.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::keys::{KeyRing, Secret};
use crate::tenant::TenantId;

/// Makes the keyed hashes of email addresses.
#[derive(Debug, Clone)]
pub struct EmailLookup {
    keys: KeyRing,
}

impl EmailLookup {
    /// One with the keys of this ring.
    #[must_use]
    pub fn new(keys: KeyRing) -> Self {
        Self { keys }
    }

    /// The hash to be stored beside a session of `tenant` with this address: HMAC-SHA256 of the tenant, a line feed and
    /// the address in small letters. A tenant's name holds no line feed, so no two tenants share a hash.
    #[must_use]
    pub fn digest(&self, tenant: &TenantId, email: &str, now_ms: i64) -> Vec<u8> {
        digest(self.keys.current(now_ms).look_up(), tenant, email)
    }

    /// All hashes beside which sessions with this address may stand: one for each key of the ring.
    #[must_use]
    pub fn digests(&self, tenant: &TenantId, email: &str) -> Vec<Vec<u8>> {
        self.keys.all().iter().chain(&self.keys.retired()).map(|key| digest(key.look_up(), tenant, email)).collect()
    }
}

fn digest(key: &Secret, tenant: &TenantId, email: &str) -> Vec<u8> {
    // What HMAC itself does with a key that is shorter than a block.
    let mut block = [0_u8; 64];
    block[..32].copy_from_slice(key.as_slice());
    let mut mac = Hmac::<Sha256>::new(&block.into());
    mac.update(tenant.as_str().as_bytes());
    mac.update(b"\n");
    mac.update(email.trim().to_lowercase().as_bytes());
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_700_000_000_000;

    fn tenant(name: &str) -> TenantId {
        name.parse().unwrap()
    }

    #[test]
    fn one_address_has_one_digest_for_each_tenant_and_key() {
        let lookup = EmailLookup::new(KeyRing::generate().unwrap());
        let digest = lookup.digest(&tenant("a"), "Ada@Example.com", NOW_MS);
        assert_eq!(digest, lookup.digest(&tenant("a"), " ada@example.COM", NOW_MS));
        assert_eq!(lookup.digests(&tenant("a"), "ada@example.com"), std::slice::from_ref(&digest));
        assert_ne!(digest, lookup.digest(&tenant("b"), "ada@example.com", NOW_MS));
        let other = EmailLookup::new(KeyRing::generate().unwrap());
        assert_ne!(digest, other.digest(&tenant("a"), "ada@example.com", NOW_MS));
    }

    #[test]
    fn a_digest_is_the_hmac_that_is_documented() {
        let digest = digest(&Secret::new([7; 32]), &tenant("shop"), "Ada@Example.com");
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "1dfdb3b2b445ff3cf6e699c151d29fd60fa1dc9e5486dca5b03044962d111143");
    }
}
