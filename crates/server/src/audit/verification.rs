//! Verification: whether the log is as it was written.

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::chain::{Authenticity, RecordsDigest};
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
    /// In whose log.
    pub tenant: TenantId,
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
    /// A record was not sealed for too long: no server runs, or it can't.
    Unsealed {
        /// How many records.
        records: u64,
        /// Since when the oldest one waits.
        since: String,
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
            Self::Unsealed { records, since } => write!(
                f,
                "{records} records are not sealed, the oldest since {since}: no server runs, it can't seal, or they were put in"
            ),
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
    /// Records whose own code says nothing, because their key was forgotten; their blocks hold them.
    pub under_forgotten_keys: u64,
}

/// Verifies the log of all tenants, or of one. It takes about 20 bytes of memory for each record of the largest tenant. `found` hears of each fault as it is found, `progress` how many records were looked
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
    let mut tenants = store.audited_tenants().await?;
    // A chain of which nothing is left is known by its anchor.
    for anchor in anchors {
        if !tenants.contains(&anchor.tenant) {
            tenants.push(anchor.tenant.clone());
        }
    }
    let mut verified = Verified::default();
    for tenant in tenants.into_iter().filter(|tenant| only.is_none_or(|only| only == tenant)) {
        verified.tenants += 1;
        let anchors: HashMap<u64, &str> =
            anchors.iter().filter(|anchor| anchor.tenant == tenant).map(|a| (a.sequence, a.hash.as_str())).collect();
        let mut chain = ChainCheck {
            store,
            keys,
            tenant: &tenant,
            verified: &mut verified,
            seen: HashSet::new(),
            faults: Vec::new(),
        };
        chain.check(anchors, now_ms, &mut progress).await?;
        for what in chain.faults {
            found(Finding { tenant: tenant.clone(), what });
        }
    }
    Ok(verified)
}

/// The latest blocks of all tenants, to be kept elsewhere.
///
/// # Errors
/// When the database does not answer.
pub async fn anchors(store: &dyn Store, now_ms: i64) -> Result<Vec<Anchor>, ReadError> {
    let mut anchors = Vec::new();
    for tenant in store.audited_tenants().await? {
        if let Some(AuditHead { sequence, hash, .. }) = store.audit_head(&tenant).await? {
            anchors.push(Anchor { tenant, sequence, hash: hex(&hash), at: rfc3339(now_ms) });
        }
    }
    Ok(anchors)
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
        mut anchors: HashMap<u64, &str>,
        now_ms: i64,
        progress: &mut impl FnMut(u64),
    ) -> Result<(), ReadError> {
        // The head first: what is sealed meanwhile comes after it.
        let head = self.store.audit_head(self.tenant).await?;
        let (mut sequence, mut through, mut previous) = (0, 0, [0; 32]);
        let is_past_head = |sequence: u64| head.as_ref().is_some_and(|head| sequence >= head.sequence);
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
                if anchors.remove(&block.sequence).is_some_and(|hash| hash != hex(&block.hash)) {
                    self.faults.push(Fault::AnotherChain { sequence: block.sequence });
                }
                (sequence, through, previous) = (block.sequence, block.through, block.hash);
                if is_past_head(sequence) {
                    break 'blocks;
                }
            }
        }
        self.faults.extend(anchors.into_keys().map(|sequence| Fault::AnotherChain { sequence }));
        match &head {
            None if sequence > 0 => self.faults.push(Fault::MissingHead),
            None => {}
            Some(head) if head.authenticity(self.keys) == Authenticity::Forged => self.faults.push(Fault::ForgedHead),
            Some(head) if head.sequence > sequence => {
                self.faults.push(Fault::MissingBlocks { from: sequence + 1, through: head.sequence });
            }
            Some(head) if (head.hash, head.through) != (previous, through) => self.faults.push(Fault::ForgedHead),
            Some(head) => {
                // A server may have sealed more meanwhile, and then the head has moved on as well.
                let later = !self.store.audit_blocks(self.tenant, head.sequence, 1).await?.is_empty();
                let is_still = self.store.audit_head(self.tenant).await?.as_ref() == Some(head);
                if later && is_still {
                    self.faults.push(Fault::BlocksAfterHead { sequence: head.sequence });
                }
            }
        }
        self.unsealed(through, now_ms, progress).await
    }

    async fn block(&mut self, block: &AuditBlock, after: u64, progress: &mut impl FnMut(u64)) -> Result<(), ReadError> {
        self.verified.blocks += 1;
        if block.computed_hash() != block.hash || block.authenticity(self.keys) == Authenticity::Forged {
            self.faults.push(Fault::ForgedBlock { sequence: block.sequence });
        }
        let mut digest = RecordsDigest::default();
        let mut position = after;
        loop {
            let page = self.store.audit_records(self.tenant, position, block.through, PAGE).await?;
            for record in &page {
                position = record.position;
                self.judge(record);
                digest.add(self.tenant, record);
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
        let (mut position, mut late, mut oldest) = (after, 0, None::<i64>);
        loop {
            let page = self.store.audit_records(self.tenant, position, u64::MAX >> 1, PAGE).await?;
            for record in &page {
                position = record.position;
                let authenticity = self.judge(record);
                // Only what is authentic says when it was written.
                let entry = serde_json::from_str::<super::AuditEntry>(&record.body).ok();
                let at_ms = entry.and_then(|entry| parse_rfc3339(&entry.at)).unwrap_or(0);
                if authenticity != Authenticity::Forged && at_ms < now_ms.saturating_sub(SEALED_WITHIN_MS) {
                    late += 1;
                    oldest = Some(oldest.map_or(at_ms, |oldest| oldest.min(at_ms)));
                }
            }
            self.verified.records += page.len() as u64;
            self.verified.unsealed += page.len() as u64;
            progress(self.verified.records);
            if page.len() < PAGE as usize {
                break;
            }
        }
        if let Some(oldest) = oldest {
            self.faults.push(Fault::Unsealed { records: late, since: rfc3339(oldest) });
        }
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
