//! Sealing: every second, what is new in the log becomes part of each tenant's chain.
//!
//! Every server does it, at its own moments. Whichever comes first writes the next block; the others find nothing left to do. A
//! block is only made of positions that can't be filled any more (see [`AuditMark`]), so no record slips in behind one.

use std::collections::HashMap;
use std::sync::Arc;

use super::chain::{Authenticity, RecordsDigest, UnwritableEntry};
use super::{AuditBlock, AuditHead, AuditRecord, Denials};
use crate::keys::KeyRing;
use crate::store::{AuditMark, ReadError, Store};
use crate::tenant::TenantId;

/// How many records are read at a time.
const PAGE: u32 = 2_000;

/// Positions are kept with what they wait for; more than this many seconds of them are not.
const MARKS: usize = 120;

/// Seals the log, and writes down what was denied. One for each server.
#[derive(Debug)]
pub struct Sealer {
    store: Arc<dyn Store>,
    keys: KeyRing,
    /// What the log waits for: a position, and the transaction up to which all have to be over.
    marks: Vec<(u64, u64)>,
    /// The latest heads that were seen, so that a chain that somebody cuts meanwhile is noticed at once.
    heads: HashMap<TenantId, AuditHead>,
    /// Denials that could not be written yet.
    unwritten: Vec<AuditRecord>,
}

/// Why the log was not sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealingError {
    /// The database did not answer.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A denial is not to be written.
    #[error(transparent)]
    Entry(#[from] UnwritableEntry),
}

impl Sealer {
    /// One that seals the log in `store` with the keys of this ring.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, keys: KeyRing) -> Self {
        Self { store, keys, marks: Vec::new(), heads: HashMap::new(), unwritten: Vec::new() }
    }

    /// Writes what was denied, and seals what can be sealed; how many records became part of a chain. To be called every second.
    ///
    /// # Errors
    /// See [`SealingError`]. What was not done is done the next time.
    pub async fn work(&mut self, denials: &Denials, now_ms: i64) -> Result<u64, SealingError> {
        for entry in denials.take(now_ms) {
            self.unwritten.push(AuditRecord::new(&entry, &self.keys, now_ms)?);
        }
        if !self.unwritten.is_empty() {
            self.store.audit(self.unwritten.clone()).await?;
            self.unwritten.clear();
        }
        let Some(through) = self.settled(self.store.audit_mark().await?) else { return Ok(0) };
        let key = self.keys.current(now_ms);
        let mut sealed = 0;
        let mut broken = 0_u32;
        for tenant in self.store.unsealed_tenants(through, key.id()).await? {
            match self.seal(&tenant, through, now_ms).await? {
                Some(records) => sealed += records,
                None => broken += 1,
            }
        }
        metrics::gauge!("throughline_audit_broken_chains").set(f64::from(broken));
        metrics::counter!("throughline_audit_sealed_records_total").increment(sealed);
        Ok(sealed)
    }

    /// The position up to which nothing is under way any more.
    fn settled(&mut self, mark: AuditMark) -> Option<u64> {
        self.marks.push((mark.position, mark.next_transaction));
        let over = self.marks.iter().rposition(|(_, transaction)| *transaction <= mark.oldest_transaction)?;
        let (position, _) = self.marks[over];
        // The one that is settled stays: as long as nothing later is, it is what can be sealed.
        self.marks.drain(..over);
        // A transaction that lasts for minutes holds up all later ones; the newest marks say enough.
        let excess = self.marks.len().saturating_sub(MARKS);
        self.marks.drain(1..=excess);
        Some(position)
    }

    /// Makes the next block of a tenant's chain; how many records it has, or `None` where the chain's head is not to be believed.
    async fn seal(&mut self, tenant: &TenantId, through: u64, now_ms: i64) -> Result<Option<u64>, SealingError> {
        let head = self.store.audit_head(tenant).await?;
        if let Some(what) = self.doubt(tenant, head.as_ref()).await? {
            tracing::error!(
                %tenant, what,
                "the audit log was changed by somebody else; it is not sealed until an operator has looked: \
                 run `throughline audit verify`"
            );
            return Ok(None);
        }
        let before = head.as_ref().map_or(0, |head| head.through);
        // Another server has sealed more than this one knows to be settled.
        if before > through {
            return Ok(Some(0));
        }
        let mut digest = RecordsDigest::default();
        let mut after = before;
        loop {
            let page = self.store.audit_records(tenant, after, through, PAGE).await?;
            for record in &page {
                if record.authenticity(tenant, &self.keys) == Authenticity::Forged {
                    tracing::error!(%tenant, position = record.position, "a record of the audit log is forged");
                    metrics::counter!("throughline_audit_forged_records_total").increment(1);
                }
                digest.add(tenant, record);
                after = record.position;
            }
            if page.len() < PAGE as usize {
                break;
            }
        }
        let block = AuditBlock::seal(tenant, head.as_ref(), through, digest, &self.keys, now_ms);
        let head = AuditHead::of(&block, &self.keys, now_ms);
        let is_sealed = self.store.seal_audit(&block, &head).await?;
        if is_sealed {
            self.heads.insert(tenant.clone(), head);
        }
        Ok(Some(if is_sealed { block.records } else { 0 }))
    }

    /// What speaks against a head, if anything does.
    async fn doubt(
        &mut self,
        tenant: &TenantId,
        head: Option<&AuditHead>,
    ) -> Result<Option<&'static str>, SealingError> {
        let Some(head) = head else {
            let is_new = !self.heads.contains_key(tenant) && self.store.audit_blocks(tenant, 0, 1).await?.is_empty();
            return Ok((!is_new).then_some("the head of the chain is gone"));
        };
        if head.authenticity(&self.keys) == Authenticity::Forged {
            return Ok(Some("the head of the chain is forged"));
        }
        let known = self.heads.get(tenant);
        if known.is_some_and(|known| known.sequence > head.sequence) {
            return Ok(Some("the end of the chain was cut"));
        }
        let last = self.store.audit_blocks(tenant, head.sequence.saturating_sub(1), 1).await?;
        if last.first().is_none_or(|block| block.sequence != head.sequence || block.hash != head.hash) {
            return Ok(Some("the latest block is gone, or is another one"));
        }
        self.heads.insert(tenant.clone(), head.clone());
        Ok(None)
    }
}
