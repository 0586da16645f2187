//! How records are authenticated, and how they hang together.
//!
//! | what | of what |
//! | --- | --- |
//! | record's code | HMAC-SHA256 of `record`, tenant, body |
//! | record's digest | SHA-256 of `record`, tenant, position, body |
//! | block's digest | SHA-256 of its records' digests, in the order of their positions |
//! | block's hash | SHA-256 of `block`, tenant, sequence, last position, count, count of foreign ones, time, the hash before, the block's digest |
//! | head's code | HMAC-SHA256 of `head`, tenant, sequence, last position, hash |
//!
//! Words and tenants end with a line feed, which neither holds; numbers are 8 bytes, the largest first. The HMAC key is derived
//! from a root key of the key ring. Blocks need no code: each is held by the hash in the one after it, and the last one by the
//! head, which is what has to be authentic. So is a record whose key was forgotten: its block says that it was not foreign when
//! it was sealed.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::AuditEntry;
use crate::keys::{KeyRing, RootKey};
use crate::tenant::TenantId;

/// A SHA-256 hash, or an HMAC by it.
pub type SealedHash = [u8; 32];

/// A record as it is written: its position comes from the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRecord {
    /// Whose chain it belongs to.
    pub tenant: TenantId,
    /// An [`AuditEntry`] as JSON.
    pub body: String,
    /// The code by which it is authentic.
    pub mac: SealedHash,
    /// The public name of the root key that the code was made with.
    pub key_id: String,
}

/// A record as the database has it. What it says is not believed before it was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAuditRecord {
    /// Its place in the log. Later ones are larger; some numbers are never given.
    pub position: u64,
    /// Its text.
    pub body: String,
    /// Its code, of any length.
    pub mac: Vec<u8>,
    /// The public name of the root key that the code was made with.
    pub key_id: String,
}

/// Some records of a tenant that follow each other, and what holds them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditBlock {
    /// Whose.
    pub tenant: TenantId,
    /// 1, 2, 3 and so on for each tenant.
    pub sequence: u64,
    /// It is about the records after those of the block before, up to this position.
    pub through: u64,
    /// How many records.
    pub records: u64,
    /// How many of them nobody with the key ring had written: forged ones, or such under keys that the server does not know.
    pub foreign: u64,
    /// When it was made, in milliseconds since 1970.
    pub sealed_at_ms: i64,
    /// The hash of the block before; zeros for the first.
    pub previous: SealedHash,
    /// Of its records.
    pub digest: SealedHash,
    /// Of the block.
    pub hash: SealedHash,
}

/// Which block of a tenant is the latest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditHead {
    /// Whose.
    pub tenant: TenantId,
    /// That block's number.
    pub sequence: u64,
    /// Its last position.
    pub through: u64,
    /// Its hash.
    pub hash: SealedHash,
    /// The code by which it is authentic.
    pub mac: SealedHash,
    /// The public name of the root key that the code was made with.
    pub key_id: String,
}

/// Whether something was made by who has the key ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authenticity {
    /// It was.
    Authentic,
    /// It was changed, or made by somebody else.
    Forged,
    /// Its key is in the ring no more, so its code says nothing.
    KeyGone,
}

/// No record could be made of an entry.
#[derive(Debug, thiserror::Error)]
#[error("an entry of the audit log can't be written as JSON")]
pub struct UnwritableEntry(#[from] serde_json::Error);

impl AuditRecord {
    /// The record that says this, under the key that is used for what is new.
    ///
    /// # Errors
    /// When the entry is not to be written as JSON.
    pub fn new(entry: &AuditEntry, keys: &KeyRing, now_ms: i64) -> Result<Self, UnwritableEntry> {
        let body = serde_json::to_string(entry)?;
        let key = keys.current(now_ms);
        let mac = record_mac(&key, &entry.tenant, &body);
        Ok(Self { tenant: entry.tenant.clone(), body, mac, key_id: key.id().to_owned() })
    }
}

impl StoredAuditRecord {
    /// Whether it is as it was written, in this tenant's log.
    #[must_use]
    pub fn authenticity(&self, tenant: &TenantId, keys: &KeyRing) -> Authenticity {
        judge(keys, &self.key_id, &self.mac, |key| record_mac(key, tenant, &self.body))
    }
}

/// The digest of records, one after another.
#[derive(Debug, Clone, Default)]
pub struct RecordsDigest {
    hasher: Sha256,
    records: u64,
    foreign: u64,
}

impl RecordsDigest {
    /// Adds the next one, and whether it is foreign.
    pub fn add(&mut self, tenant: &TenantId, record: &StoredAuditRecord, is_foreign: bool) {
        self.foreign += u64::from(is_foreign);
        let mut hasher = Sha256::new();
        hasher.update(b"record\n");
        hasher.update(tenant.as_str());
        hasher.update(b"\n");
        hasher.update(record.position.to_be_bytes());
        hasher.update(&record.body);
        self.hasher.update(hasher.finalize());
        self.records += 1;
    }

    /// How many there were, and their digest.
    #[must_use]
    pub fn finish(self) -> (u64, SealedHash) {
        (self.records, self.hasher.finalize().into())
    }
}

impl AuditBlock {
    /// Seals records up to a position into the block after `head`.
    #[must_use]
    pub fn seal(tenant: &TenantId, head: Option<&AuditHead>, through: u64, digest: RecordsDigest, now_ms: i64) -> Self {
        let foreign = digest.foreign;
        let (records, digest) = digest.finish();
        let mut block = Self {
            tenant: tenant.clone(),
            sequence: head.map_or(0, |head| head.sequence) + 1,
            through,
            records,
            foreign,
            sealed_at_ms: now_ms,
            previous: head.map_or([0; 32], |head| head.hash),
            digest,
            hash: [0; 32],
        };
        block.hash = block.computed_hash();
        block
    }

    /// The hash that it has to have.
    #[must_use]
    pub fn computed_hash(&self) -> SealedHash {
        let mut hasher = Sha256::new();
        hasher.update(b"block\n");
        hasher.update(self.tenant.as_str());
        hasher.update(b"\n");
        for number in [self.sequence, self.through, self.records, self.foreign] {
            hasher.update(number.to_be_bytes());
        }
        hasher.update(self.sealed_at_ms.to_be_bytes());
        hasher.update(self.previous);
        hasher.update(self.digest);
        hasher.finalize().into()
    }
}

impl AuditHead {
    /// The head of a chain that ends with this block.
    #[must_use]
    pub fn of(block: &AuditBlock, keys: &KeyRing, now_ms: i64) -> Self {
        let AuditBlock { tenant, sequence, through, hash, .. } = block.clone();
        let key = keys.current(now_ms);
        let mut head = Self { tenant, sequence, through, hash, mac: [0; 32], key_id: key.id().to_owned() };
        head.mac = head_mac(&key, &head);
        head
    }

    /// Whether it is as it was written.
    #[must_use]
    pub fn authenticity(&self, keys: &KeyRing) -> Authenticity {
        judge(keys, &self.key_id, &self.mac, |key| head_mac(key, self))
    }
}

fn judge(keys: &KeyRing, key_id: &str, mac: &[u8], expected: impl Fn(&RootKey) -> SealedHash) -> Authenticity {
    match keys.reads(key_id) {
        None => Authenticity::KeyGone,
        Some(key) if bool::from(expected(&key).as_slice().ct_eq(mac)) => Authenticity::Authentic,
        Some(_) => Authenticity::Forged,
    }
}

fn record_mac(key: &RootKey, tenant: &TenantId, body: &str) -> SealedHash {
    mac(key, &[b"record\n", tenant.as_str().as_bytes(), b"\n", body.as_bytes()])
}

fn head_mac(key: &RootKey, head: &AuditHead) -> SealedHash {
    let numbers = [head.sequence.to_be_bytes(), head.through.to_be_bytes()];
    mac(key, &[b"head\n", head.tenant.as_str().as_bytes(), b"\n", &numbers[0], &numbers[1], &head.hash])
}

fn mac(key: &RootKey, parts: &[&[u8]]) -> SealedHash {
    // What HMAC itself does with a key that is shorter than a block.
    let mut block = [0_u8; 64];
    block[..32].copy_from_slice(key.audit().as_slice());
    let mut mac = Hmac::<Sha256>::new(&block.into());
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}
