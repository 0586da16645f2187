//! Verification: whether the log is as it was written.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::chain::{Authenticity, RecordsDigest, SealedHash};
use super::{AuditBlock, AuditHead, StoredAuditRecord};
use crate::clock::{parse_rfc3339, rfc3339};
use crate::keys::KeyRing;
use crate::store::{ReadError, Store};
use crate::tenant::TenantId;

/// How many records, and blocks, are read at a time.
const PAGE: u32 = 2_000;

/// After how long a record has to be sealed while a server runs.
const SEALED_WITHIN_MS: i64 = 60_000;

/// Where a tenant's chain was at some time, kept outside the database: what a whole database that is put back, or a chain that is
/// cut together with its head, would hide, does not fit it. Stored as one line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Anchor {
    /// Whose chain.
    pub tenant: TenantId,
    /// The latest block's number.
    pub sequence: u64,
    /// Its hash, as hex digits.
    pub hash: String,
    /// When the anchor was made.
    pub at: String,
}

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// In whose log: a tenant's name, or what stands in its place.
    pub tenant: String,
    /// What it is.
    pub what: Fault,
}

/// What can be wrong with a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A record was changed, or made by somebody without the key.
    ForgedRecord {
        /// Its position.
        position: u64,
    },
    /// A record is there twice: somebody has put in a copy.
    RepeatedRecord {
        /// The position of the later one.
        position: u64,
    },
    /// Records were there when a block was made that nobody with the key ring had written.
    ForeignRecords {
        /// The block's number.
        sequence: u64,
        /// How many.
        records: u64,
    },
    /// There are records, blocks or a head under a name that no tenant can have.
    NoTenant,
    /// A block's records are not those that it was made of.
    OtherRecords {
        /// The block's number.
        sequence: u64,
        /// After which position its records begin.
        after: u64,
        /// Up to which one they go.
        through: u64,
        /// How many it was made of.
        expected: u64,
        /// How many there are.
        found: u64,
    },
    /// A block is not what its hash says, or was made by somebody without the key.
    ForgedBlock {
        /// Its number.
        sequence: u64,
    },
    /// A block does not follow on the one before.
    BrokenLink {
        /// Its number.
        sequence: u64,
    },
    /// Blocks are missing.
    MissingBlocks {
        /// The first one.
        from: u64,
        /// The last one.
        through: u64,
    },
    /// The head is gone, although there are blocks.
    MissingHead,
    /// The head was changed, or made by somebody without the key.
    ForgedHead,
    /// The head is under a key that the key ring does not have, so nothing in the chain can be believed.
    HeadOfUnknownKey {
        /// The key's public name, as the head says.
        key_id: String,
    },
    /// There are blocks after the one that the head names.
    BlocksAfterHead {
        /// The block that the head names.
        sequence: u64,
    },
    /// The chain is not the one that an anchor was made of.
    AnotherChain {
        /// The block that the anchor names.
        sequence: u64,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ForgedRecord { position } => write!(f, "record {position} was changed, or put in"),
            Self::RepeatedRecord { position } => write!(f, "record {position} is a copy of an earlier one"),
            Self::OtherRecords { sequence, after, through, expected, found } => write!(
                f,
                "block {sequence} was made of {expected} records after position {after} up to {through}, and of other ones: there are \
                 {found} now; records were removed, put in, changed or moved"
            ),
            Self::ForgedBlock { sequence } => write!(f, "block {sequence} was changed, or put in"),
            Self::BrokenLink { sequence } => write!(f, "block {sequence} does not follow on the one before it"),
            Self::MissingBlocks { from, through } => write!(f, "blocks {from} to {through} are missing"),
            Self::MissingHead => f.write_str("the head of the chain is missing"),
            Self::ForeignRecords { sequence, records } => {
                write!(f, "block {sequence} was sealed with {records} records that were put in")
            }
            Self::NoTenant => f.write_str("no tenant can have this name: it was put in"),
            Self::HeadOfUnknownKey { key_id } => write!(
                f,
                "the head of the chain is under the key {key_id}, which this key ring does not have: it is forged, or the ring is another one"
            ),
            Self::ForgedHead => f.write_str("the head of the chain was changed, or put in"),
            Self::BlocksAfterHead { sequence } => {
                write!(f, "there are blocks after block {sequence}, which the head names as the latest")
            }
            Self::AnotherChain { sequence } => {
                write!(
                    f,
                    "an anchor names block {sequence} with another hash, or it is gone: the chain was cut or written anew"
                )
            }
        }
    }
}

/// How much was verified.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verified {
    /// Tenants.
    pub tenants: u64,
    /// Blocks.
    pub blocks: u64,
    /// Records, sealed or not.
    pub records: u64,
    /// Records that are not sealed yet. Until they are, their removal is not found.
    pub unsealed: u64,
    /// When the oldest of them was written, where that is more than a minute ago: no server runs, or it can't seal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unsealed_since: Option<String>,
    /// Records whose own code says nothing, because their key was forgotten; their blocks hold them.
    pub under_forgotten_keys: u64,
}

/// Verifies the log of all tenants, or of one. It takes about 50 bytes of memory for each record of the largest tenant. `found` hears of each fault as it is found, `progress` how many records were looked
/// at.
///
/// # Errors
/// When the database does not answer.
pub async fn verify(
    store: &dyn Store,
    keys: &KeyRing,
    only: Option<&TenantId>,
    anchors: &[Anchor],
    now_ms: i64,
    mut found: impl FnMut(Finding),
    mut progress: impl FnMut(u64),
) -> Result<Verified, ReadError> {
    let mut names = store.audited_tenants().await?;
    let mut anchored: BTreeMap<&TenantId, Vec<&Anchor>> = BTreeMap::new();
    for anchor in anchors {
        anchored.entry(&anchor.tenant).or_default().push(anchor);
    }
    // A chain of which nothing is left is known by its anchor.
    let known: HashSet<&str> = names.iter().map(String::as_str).collect();
    let vanished: Vec<String> =
        anchored.keys().filter(|tenant| !known.contains(tenant.as_str())).map(ToString::to_string).collect();
    names.extend(vanished);
    let mut verified = Verified::default();
    for name in names {
        let Ok(tenant) = TenantId::try_from(name.clone()) else {
            found(Finding { tenant: name, what: Fault::NoTenant });
            continue;
        };
        if only.is_some_and(|only| *only != tenant) {
            continue;
        }
        verified.tenants += 1;
        let anchors = anchored.remove(&tenant).unwrap_or_default();
        let (seen, faults) = (HashSet::new(), Vec::new());
        let mut chain = ChainCheck { store, keys, tenant: &tenant, verified: &mut verified, seen, faults };
        chain.check(&anchors, now_ms, &mut progress).await?;
        for what in chain.faults {
            found(Finding { tenant: name.clone(), what });
        }
    }
    Ok(verified)
}

/// The latest blocks of all tenants, to be kept elsewhere, and the tenants whose heads are not to be believed.
///
/// # Errors
/// When the database does not answer.
pub async fn anchors(store: &dyn Store, keys: &KeyRing, now_ms: i64) -> Result<(Vec<Anchor>, Vec<String>), ReadError> {
    let (mut anchors, mut unbelievable) = (Vec::new(), Vec::new());
    for (name, head) in store.audit_heads().await? {
        match TenantId::try_from(name.clone()) {
            Ok(tenant) if head.authenticity(keys) == Authenticity::Authentic => {
                let AuditHead { sequence, hash, .. } = head;
                anchors.push(Anchor { tenant, sequence, hash: hex(&hash), at: rfc3339(now_ms) });
            }
            _ => unbelievable.push(name),
        }
    }
    Ok((anchors, unbelievable))
}

struct ChainCheck<'a> {
    store: &'a dyn Store,
    keys: &'a KeyRing,
    tenant: &'a TenantId,
    verified: &'a mut Verified,
    /// The first half of each code, which no two records share.
    seen: HashSet<[u8; 16]>,
    faults: Vec<Fault>,
}

impl ChainCheck<'_> {
    async fn check(
        &mut self,
        anchors: &[&Anchor],
        now_ms: i64,
        progress: &mut impl FnMut(u64),
    ) -> Result<(), ReadError> {
        // The head first: what is sealed meanwhile comes after it.
        let head = self.store.audit_head(self.tenant).await?;
        let (mut sequence, mut through, mut previous) = (0, 0, [0; 32]);
        let mut anchors: Vec<&Anchor> = anchors.to_vec();
        let is_past_head = |sequence: u64| head.as_ref().is_none_or(|head| sequence >= head.sequence);
        'blocks: while !is_past_head(sequence) {
            let blocks = self.store.audit_blocks(self.tenant, sequence, PAGE).await?;
            if blocks.is_empty() {
                break;
            }
            for block in blocks {
                if block.sequence > sequence + 1 {
                    self.faults.push(Fault::MissingBlocks { from: sequence + 1, through: block.sequence - 1 });
                }
                if block.sequence == sequence + 1 && block.previous != previous {
                    self.faults.push(Fault::BrokenLink { sequence: block.sequence });
                }
                self.block(&block, through, progress).await?;
                let hash = hex(&block.hash);
                if anchors.iter().any(|anchor| anchor.sequence == block.sequence && anchor.hash != hash) {
                    self.faults.push(Fault::AnotherChain { sequence: block.sequence });
                }
                anchors.retain(|anchor| anchor.sequence != block.sequence);
                (sequence, through, previous) = (block.sequence, block.through, block.hash);
                if is_past_head(sequence) {
                    break 'blocks;
                }
            }
        }
        let gone: BTreeSet<u64> = anchors.iter().map(|anchor| anchor.sequence).collect();
        self.faults.extend(gone.into_iter().map(|sequence| Fault::AnotherChain { sequence }));
        self.end(head.as_ref(), (sequence, through, previous)).await?;
        self.unsealed(through, now_ms, progress).await
    }

    /// Whether the chain ends as its head says. All blocks hang on that: each is held by the hash in the one after it.
    async fn end(&mut self, head: Option<&AuditHead>, last: (u64, u64, SealedHash)) -> Result<(), ReadError> {
        let (sequence, through, hash) = last;
        let Some(head) = head else {
            // The first block may have been made just now, and then there is a head as well.
            let has_blocks = !self.store.audit_blocks(self.tenant, 0, 1).await?.is_empty();
            if has_blocks && self.store.audit_head(self.tenant).await?.is_none() {
                self.faults.push(Fault::MissingHead);
            }
            return Ok(());
        };
        match head.authenticity(self.keys) {
            Authenticity::Authentic => {}
            Authenticity::Forged => {
                self.faults.push(Fault::ForgedHead);
                return Ok(());
            }
            Authenticity::KeyGone => {
                self.faults.push(Fault::HeadOfUnknownKey { key_id: head.key_id.clone() });
                return Ok(());
            }
        }
        if head.sequence > sequence {
            self.faults.push(Fault::MissingBlocks { from: sequence + 1, through: head.sequence });
        } else if (head.hash, head.through) != (hash, through) {
            self.faults.push(Fault::ForgedHead);
        } else {
            // A server may have sealed more meanwhile, and then the head has moved on as well.
            let is_later = !self.store.audit_blocks(self.tenant, head.sequence, 1).await?.is_empty();
            if is_later && self.store.audit_head(self.tenant).await?.as_ref() == Some(head) {
                self.faults.push(Fault::BlocksAfterHead { sequence: head.sequence });
            }
        }
        Ok(())
    }

    async fn block(&mut self, block: &AuditBlock, after: u64, progress: &mut impl FnMut(u64)) -> Result<(), ReadError> {
        self.verified.blocks += 1;
        if block.computed_hash() != block.hash {
            self.faults.push(Fault::ForgedBlock { sequence: block.sequence });
        }
        if block.foreign > 0 {
            self.faults.push(Fault::ForeignRecords { sequence: block.sequence, records: block.foreign });
        }
        let mut digest = RecordsDigest::default();
        let mut position = after;
        loop {
            let page = self.store.audit_records(self.tenant, position, block.through, PAGE).await?;
            for record in &page {
                position = record.position;
                self.judge(record);
                digest.add(self.tenant, record, false);
            }
            self.verified.records += page.len() as u64;
            progress(self.verified.records);
            if page.len() < PAGE as usize {
                break;
            }
        }
        let (records, digest) = digest.finish();
        if (records, digest) != (block.records, block.digest) {
            let (sequence, through, expected) = (block.sequence, block.through, block.records);
            self.faults.push(Fault::OtherRecords { sequence, after, through, expected, found: records });
        }
        Ok(())
    }

    fn judge(&mut self, record: &StoredAuditRecord) -> Authenticity {
        let (authenticity, position) = (record.authenticity(self.tenant, self.keys), record.position);
        let half = record.mac.first_chunk().copied().unwrap_or_default();
        if authenticity != Authenticity::Forged && !self.seen.insert(half) {
            self.faults.push(Fault::RepeatedRecord { position });
        }
        match authenticity {
            Authenticity::Authentic => {}
            Authenticity::Forged => self.faults.push(Fault::ForgedRecord { position }),
            Authenticity::KeyGone => self.verified.under_forgotten_keys += 1,
        }
        authenticity
    }

    /// What comes after the last block.
    async fn unsealed(&mut self, after: u64, now_ms: i64, progress: &mut impl FnMut(u64)) -> Result<(), ReadError> {
        let (mut position, mut oldest) = (after, None::<i64>);
        loop {
            let page = self.store.audit_records(self.tenant, position, u64::MAX >> 1, PAGE).await?;
            for record in &page {
                position = record.position;
                match self.judge(record) {
                    Authenticity::Authentic => {
                        let entry = serde_json::from_str::<super::AuditEntry>(&record.body).ok();
                        let at_ms = entry.and_then(|entry| parse_rfc3339(&entry.at)).unwrap_or(now_ms);
                        oldest = Some(oldest.map_or(at_ms, |oldest| oldest.min(at_ms)));
                    }
                    // No block says that it was none when it was sealed.
                    Authenticity::KeyGone => self.faults.push(Fault::ForgedRecord { position }),
                    Authenticity::Forged => {}
                }
            }
            self.verified.records += page.len() as u64;
            self.verified.unsealed += page.len() as u64;
            progress(self.verified.records);
            if page.len() < PAGE as usize {
                break;
            }
        }
        if let Some(oldest) = oldest.filter(|at_ms| *at_ms < now_ms.saturating_sub(SEALED_WITHIN_MS)) {
            let since = rfc3339(oldest);
            let is_older = self.verified.unsealed_since.as_ref().is_none_or(|known| since < *known);
            if is_older {
                self.verified.unsealed_since = Some(since);
            }
        }
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
