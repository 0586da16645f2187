//! Sealing: every second, what is new in the log becomes part of each tenant's chain.
//!
//! Every server does it, at its own moments. Whichever comes first writes the next block; the others find nothing left to do. A
//! block is only made of positions that can't be filled any more (see [`LogMark`](crate::store::LogMark)), so no record slips in behind one.
//!
//! The head of a chain is what everything in it hangs on. It is only sealed onto where it is authentic, fits what this server has
//! seen before, and names the latest block there is; otherwise the chain stays as it is, for somebody to look at.

use std::collections::HashMap;
use std::sync::Arc;

use super::chain::{Authenticity, RecordsDigest, UnwritableEntry};
use super::{AuditBlock, AuditHead, AuditRecord, Denials};
use crate::keys::KeyRing;
use crate::problem::chain;
use crate::store::{ReadError, Settling, Store};
use crate::tenant::TenantId;

/// How many records are read at a time.
const PAGE: u32 = 2_000;

/// Seals the log, and writes down what was denied. One for each server.
#[derive(Debug)]
pub struct Sealer {
    store: Arc<dyn Store>,
    keys: KeyRing,
    settling: Settling,
    /// Up to where everything is sealed.
    sealed_through: u64,
    /// The latest heads that were seen, so that a chain that somebody cuts or writes anew meanwhile is noticed at once.
    heads: HashMap<TenantId, AuditHead>,
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

/// What speaks against a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    /// Somebody else has written to it.
    Changed(&'static str),
    /// Another server seals it with a key that this one does not have.
    KeyUnknown,
}

impl Sealer {
    /// One that seals the log in `store` with the keys of this ring.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, keys: KeyRing) -> Self {
        Self { store, keys, settling: Settling::default(), sealed_through: 0, heads: HashMap::new() }
    }

    /// Writes what was denied, and seals what can be sealed; how many records became part of a chain. To be called every second.
    ///
    /// # Errors
    /// See [`SealingError`]. What was not done is done the next time.
    pub async fn work(&mut self, denials: &Denials, now_ms: i64) -> Result<u64, SealingError> {
        self.write_denials(denials, now_ms).await?;
        let mark = self.store.audit_mark(self.settling.known()).await?;
        let settled = self.settling.settled(mark);
        let mut broken = 0_u32;
        let mut sealed = 0;
        let heads = self.known_heads(&mut broken).await?;
        if let Some(through) = settled {
            let mut is_whole = true;
            for name in self.unsealed(through, &heads, now_ms).await? {
                let Ok(tenant) = TenantId::try_from(name.clone()) else {
                    tracing::error!(
                        name,
                        "the audit log has records of what is no tenant: somebody else has put them in"
                    );
                    broken += 1;
                    continue;
                };
                // One tenant's trouble is not the others'.
                match self.seal(&tenant, heads.get(&tenant), through, now_ms).await {
                    Ok(Some(records)) => sealed += records,
                    Ok(None) => {
                        broken += 1;
                        is_whole = false;
                    }
                    Err(error) => {
                        tracing::warn!(%tenant, error = %chain(&error), "a tenant's audit log is not sealed for now");
                        is_whole = false;
                    }
                }
            }
            if is_whole {
                self.sealed_through = through;
            }
        }
        metrics::gauge!("throughline_audit_broken_chains").set(f64::from(broken));
        metrics::gauge!("throughline_audit_unsealed_seconds")
            .set(self.settling.waiting_since(self.sealed_through).as_secs_f64());
        metrics::counter!("throughline_audit_sealed_records_total").increment(sealed);
        Ok(sealed)
    }

    async fn write_denials(&self, denials: &Denials, now_ms: i64) -> Result<(), SealingError> {
        let taken = denials.take();
        if taken.is_empty() {
            return Ok(());
        }
        let record = |(denial, times): &(super::Denial, u64)| {
            AuditRecord::new(&denial.entry(*times, now_ms), &self.keys, now_ms)
        };
        let records = taken.iter().map(record).collect::<Result<Vec<_>, _>>()?;
        let written = self.store.audit(records).await;
        // Where the outcome is not known they may be there twice: rather that than not at all.
        if written.is_err() {
            denials.put_back(taken);
        }
        Ok(written?)
    }

    /// The heads of all chains, compared with those that were seen before; also of tenants of whom nothing is new.
    async fn known_heads(&mut self, broken: &mut u32) -> Result<HashMap<TenantId, AuditHead>, ReadError> {
        let mut heads = HashMap::new();
        for (name, head) in self.store.audit_heads().await? {
            if let Ok(tenant) = TenantId::try_from(name) {
                heads.insert(tenant, head);
            }
        }
        for (tenant, known) in &self.heads {
            let is_less = match heads.get(tenant) {
                None => true,
                Some(head) => {
                    (head.sequence, head.hash) != (known.sequence, known.hash) && head.sequence <= known.sequence
                }
            };
            if is_less {
                log_changed(tenant, "the end of the chain was cut or written anew");
                *broken += 1;
            }
        }
        Ok(heads)
    }

    /// The tenants that have something to be sealed, or a head under a key that is older than the newest one.
    async fn unsealed(
        &self,
        through: u64,
        heads: &HashMap<TenantId, AuditHead>,
        now_ms: i64,
    ) -> Result<Vec<String>, ReadError> {
        let mut names = self.store.unsealed_tenants(through).await?;
        let current = self.keys.current(now_ms);
        // Not where another server uses a newer one: two with different rings would seal after each other for ever.
        let is_older = |head: &AuditHead| {
            let key = self.keys.reads(&head.key_id);
            head.key_id != current.id() && key.is_some_and(|key| key.from_ms() <= current.from_ms())
        };
        for (tenant, _) in heads.iter().filter(|(_, head)| is_older(head)) {
            if !names.iter().any(|name| name == tenant.as_str()) {
                names.push(tenant.to_string());
            }
        }
        Ok(names)
    }

    /// Makes the next block of a tenant's chain; how many records it has, or `None` where the chain is not to be believed.
    async fn seal(
        &mut self,
        tenant: &TenantId,
        head: Option<&AuditHead>,
        through: u64,
        now_ms: i64,
    ) -> Result<Option<u64>, SealingError> {
        match self.doubt(tenant, head).await? {
            None => {}
            Some(Doubt::KeyUnknown) => {
                tracing::warn!(
                    %tenant,
                    "the audit log is sealed under a key that this server's key ring does not have; other servers have to seal it"
                );
                return Ok(Some(0));
            }
            Some(Doubt::Changed(what)) => {
                log_changed(tenant, what);
                return Ok(None);
            }
        }
        let before = head.map_or(0, |head| head.through);
        // Another server has sealed more than this one knows to be settled.
        if before > through {
            return Ok(Some(0));
        }
        let mut digest = RecordsDigest::default();
        let mut after = before;
        loop {
            let page = self.store.audit_records(tenant, after, through, PAGE).await?;
            for record in &page {
                let is_foreign = record.authenticity(tenant, &self.keys) != Authenticity::Authentic;
                if is_foreign {
                    tracing::error!(%tenant, position = record.position, "a record of the audit log is none of a server with this key ring");
                    metrics::counter!("throughline_audit_foreign_records_total").increment(1);
                }
                digest.add(tenant, record, is_foreign);
                after = record.position;
            }
            if page.len() < PAGE as usize {
                break;
            }
        }
        let block = AuditBlock::seal(tenant, head, through, digest, now_ms);
        let head = AuditHead::of(&block, &self.keys, now_ms);
        let is_sealed = self.store.seal_audit(&block, &head).await?;
        if is_sealed {
            self.heads.insert(tenant.clone(), head);
        }
        Ok(Some(if is_sealed { block.records } else { 0 }))
    }

    /// What speaks against a chain, if anything does.
    async fn doubt(&mut self, tenant: &TenantId, head: Option<&AuditHead>) -> Result<Option<Doubt>, SealingError> {
        let Some(head) = head else {
            if !self.heads.contains_key(tenant) && self.store.audit_blocks(tenant, 0, 1).await?.is_empty() {
                return Ok(None);
            }
            // Another server may just have begun the chain.
            let is_begun = self.store.audit_head(tenant).await?.is_some() && !self.heads.contains_key(tenant);
            return Ok((!is_begun).then_some(Doubt::Changed("the head of the chain is gone")));
        };
        match head.authenticity(&self.keys) {
            Authenticity::Authentic => {}
            Authenticity::KeyGone => return Ok(Some(Doubt::KeyUnknown)),
            Authenticity::Forged => return Ok(Some(Doubt::Changed("the head of the chain is forged"))),
        }
        let last = self.store.audit_blocks(tenant, head.sequence.saturating_sub(1), 2).await?;
        if last.first().is_none_or(|block| block.sequence != head.sequence || block.hash != head.hash) {
            return Ok(Some(Doubt::Changed("the latest block is gone, or is another one")));
        }
        if last.len() > 1 && self.store.audit_head(tenant).await?.as_ref() == Some(head) {
            return Ok(Some(Doubt::Changed("there is a block after the latest one")));
        }
        if let Some(known) = self.heads.get(tenant)
            && (known.sequence, known.hash) != (head.sequence, head.hash)
        {
            let then = self.store.audit_blocks(tenant, known.sequence.saturating_sub(1), 1).await?;
            let is_there =
                then.first().is_some_and(|block| (block.sequence, block.hash) == (known.sequence, known.hash));
            if known.sequence >= head.sequence || !is_there {
                return Ok(Some(Doubt::Changed("the chain was cut or written anew")));
            }
        }
        self.heads.insert(tenant.clone(), head.clone());
        Ok(None)
    }
}

fn log_changed(tenant: &TenantId, what: &'static str) {
    tracing::error!(
        %tenant, what,
        "the audit log was changed by somebody else, or put back from a backup; it is not sealed until somebody has looked: run \
         `throughline audit verify`, then start the servers again"
    );
}
