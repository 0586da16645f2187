//! Webhooks in this process's memory.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::memory::MemoryStore;
use super::{
    DeliveryNote, DeliveryTry, ReadError, StoredWebhook, TRIES_KEPT, WaitingCount, WaitingDelivery, WebhookChange,
    WebhookStore,
};
use crate::audit::AuditRecord;
use crate::tenant::TenantId;

/// A webhook with all that belongs to it.
#[derive(Debug)]
pub(super) struct Webhook {
    stored: StoredWebhook,
    lease: Option<(String, i64)>,
    waiting: BTreeMap<u64, WaitingDelivery>,
    tries: Vec<DeliveryTry>,
}

fn find<'a>(webhooks: &'a mut [Webhook], tenant: &TenantId, id: &str) -> Option<&'a mut Webhook> {
    webhooks.iter_mut().find(|webhook| webhook.stored.tenant == *tenant && webhook.stored.id == id)
}

#[async_trait]
impl WebhookStore for MemoryStore {
    async fn add_webhook(&self, webhook: &StoredWebhook, audit: AuditRecord) -> Result<(), ReadError> {
        let mut tables = self.tables();
        if find(&mut tables.webhooks, &webhook.tenant, &webhook.id).is_none() {
            let stored = webhook.clone();
            tables.webhooks.push(Webhook { stored, lease: None, waiting: BTreeMap::new(), tries: Vec::new() });
            tables.webhooks.sort_by(|one, other| one.stored.tenant.cmp(&other.stored.tenant));
            tables.audit(vec![audit]);
        }
        Ok(())
    }

    async fn webhooks(&self, tenant: Option<&TenantId>) -> Result<Vec<(StoredWebhook, WaitingCount)>, ReadError> {
        let tables = self.tables();
        let of_tenant = tables.webhooks.iter().filter(|webhook| tenant.is_none_or(|of| *of == webhook.stored.tenant));
        let counted = of_tenant.map(|Webhook { stored, waiting, .. }| {
            let given_up = waiting.values().filter(|row| row.next_try_at_ms.is_none()).count() as u64;
            (stored.clone(), WaitingCount { waiting: waiting.len() as u64 - given_up, given_up })
        });
        Ok(counted.collect())
    }

    async fn change_webhook(
        &self,
        tenant: &TenantId,
        id: &str,
        change: &WebhookChange,
        audit: AuditRecord,
    ) -> Result<bool, ReadError> {
        let mut tables = self.tables();
        let Some(Webhook { stored, waiting, .. }) = find(&mut tables.webhooks, tenant, id) else { return Ok(false) };
        if matches!(change, WebhookChange::Secrets { of_revision, .. } if *of_revision != stored.revision) {
            return Ok(false);
        }
        stored.revision += 1;
        match change.clone() {
            WebhookChange::Settings { url, description, kinds, now_ms } => {
                waiting.retain(|_, row| kinds.is_empty() || kinds.contains(&row.event.kind));
                for row in waiting.values_mut().filter(|row| row.next_try_at_ms.is_some()) {
                    (row.next_try_at_ms, row.tries) = (Some(now_ms), 0);
                }
                (stored.url, stored.description, stored.kinds) = (url, description, kinds);
                let progress = &mut stored.progress;
                (progress.failing_since_ms, progress.failures, progress.next_try_at_ms) = (None, 0, None);
            }
            WebhookChange::Secrets { secrets, .. } => stored.secrets = secrets,
            WebhookChange::Enabled { disabled, now_ms } => {
                let progress = &mut stored.progress;
                (progress.disabled, progress.failing_since_ms, progress.failures) = (disabled, None, 0);
                progress.next_try_at_ms = None;
                for row in waiting.values_mut().filter(|row| row.next_try_at_ms.is_some()) {
                    (row.next_try_at_ms, row.tries) = (Some(now_ms), 0);
                }
            }
            WebhookChange::ReplayAfter(position) => {
                stored.progress.position = stored.progress.position.min(position);
                stored.progress.next_try_at_ms = None;
            }
            WebhookChange::TryAgain { at_ms } => {
                stored.progress.next_try_at_ms = None;
                for row in waiting.values_mut() {
                    (row.next_try_at_ms, row.tries) = (Some(at_ms), 0);
                }
            }
        }
        tables.audit(vec![audit]);
        Ok(true)
    }

    async fn remove_webhook(&self, tenant: &TenantId, id: &str, audit: AuditRecord) -> Result<bool, ReadError> {
        let mut tables = self.tables();
        let is_known = find(&mut tables.webhooks, tenant, id).is_some();
        if is_known {
            tables.webhooks.retain(|webhook| webhook.stored.tenant != *tenant || webhook.stored.id != id);
            tables.audit(vec![audit]);
        }
        Ok(is_known)
    }

    async fn lease_webhooks(&self, server: &str, now_ms: i64, until_ms: i64) -> Result<Vec<StoredWebhook>, ReadError> {
        let mut tables = self.tables();
        let is_free = |webhook: &Webhook| {
            let is_own_or_over = webhook.lease.as_ref().is_none_or(|(by, until)| by == server || *until <= now_ms);
            webhook.stored.progress.disabled.is_none() && is_own_or_over
        };
        let free = tables.webhooks.iter_mut().filter(|webhook| is_free(webhook));
        Ok(free
            .map(|webhook| {
                webhook.lease = Some((server.to_owned(), until_ms));
                webhook.stored.clone()
            })
            .collect())
    }

    async fn release_webhooks(&self, server: &str) -> Result<(), ReadError> {
        for webhook in &mut self.tables().webhooks {
            webhook.lease.take_if(|(by, _)| by == server);
        }
        Ok(())
    }

    async fn waiting_deliveries(
        &self,
        tenant: &TenantId,
        id: &str,
        given_up: bool,
        limit: u32,
    ) -> Result<Vec<WaitingDelivery>, ReadError> {
        let mut tables = self.tables();
        let Some(webhook) = find(&mut tables.webhooks, tenant, id) else { return Ok(Vec::new()) };
        let wanted = webhook.waiting.values().filter(|row| row.next_try_at_ms.is_none() == given_up);
        Ok(wanted.take(limit as usize).cloned().collect())
    }

    async fn delivery_tries(&self, tenant: &TenantId, id: &str) -> Result<Vec<DeliveryTry>, ReadError> {
        let mut tables = self.tables();
        let found = find(&mut tables.webhooks, tenant, id);
        Ok(found.map(|webhook| webhook.tries.iter().rev().cloned().collect()).unwrap_or_default())
    }

    async fn note_deliveries(&self, note: &DeliveryNote) -> Result<bool, ReadError> {
        let mut tables = self.tables();
        let Some(webhook) = find(&mut tables.webhooks, &note.tenant, &note.id) else { return Ok(false) };
        let is_own = webhook.lease.as_ref().is_some_and(|(by, _)| *by == note.server);
        if !is_own || webhook.stored.revision != note.revision {
            return Ok(false);
        }
        webhook.stored.progress = note.progress.clone();
        webhook.waiting.retain(|position, _| !note.delivered.contains(position));
        webhook.waiting.extend(note.waiting.iter().map(|row| (row.position, row.clone())));
        webhook.tries.extend(note.tries.iter().cloned());
        let surplus = webhook.tries.len().saturating_sub(usize::try_from(TRIES_KEPT).unwrap_or(usize::MAX));
        webhook.tries.drain(..surplus);
        tables.audit(note.audit.iter().cloned().collect());
        Ok(true)
    }
}
