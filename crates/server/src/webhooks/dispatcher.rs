//! Which webhooks this server delivers for: it takes on those that are nobody's, and keeps them for as long as it says so.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::signature::{Secrets, SecretsError, root_key_of};
use super::worker::{Tools, Worker};
use crate::audit::{AuditEntry, AuditRecord};
use crate::clock::millis;
use crate::event_feed::EventFeed;
use crate::problem::chain;
use crate::store::{ReadError, StoredWebhook, WebhookChange};
use crate::tenant::TenantId;

/// How often leases are renewed, and what changed about webhooks is seen.
pub const RENEW_EVERY: Duration = Duration::from_secs(3);

/// How long a lease lasts beyond what two tries may take.
const LEASE: Duration = Duration::from_secs(12);

/// How long what is being sent is waited for when the server stops.
const ENDED_WITHIN: Duration = Duration::from_secs(2);

/// Every how many rounds all webhooks are looked at, also the disabled ones.
const ROUNDS_PER_SURVEY: u32 = 5;

/// Has workers deliver for those webhooks that are this server's.
#[derive(Debug)]
pub struct Dispatcher {
    tools: Tools,
    workers: HashMap<(TenantId, String), Running>,
    /// Webhooks whose secrets can't be read, by their revision: told once.
    unreadable: HashMap<(TenantId, String), u64>,
    round: u32,
}

/// A worker that works.
#[derive(Debug)]
struct Running {
    revision: u64,
    leased_until_ms: Arc<AtomicI64>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    async fn end(self) {
        self.stop.cancel();
        // One that has panicked is over as well.
        let _ = self.task.await;
    }
}

impl Dispatcher {
    /// One that has nothing to do yet.
    #[must_use]
    pub fn new(tools: Tools) -> Self {
        Self { tools, workers: HashMap::new(), unreadable: HashMap::new(), round: 0 }
    }

    /// Renews leases, and has workers begin and end. To be called every [`RENEW_EVERY`], and when somebody has changed a webhook here.
    ///
    /// # Errors
    /// See [`ReadError`]. Those that deliver go on until their leases end.
    pub async fn work(&mut self, feed: &EventFeed) -> Result<(), ReadError> {
        let round = self.round;
        self.round = round.wrapping_add(1);
        if round.is_multiple_of(ROUNDS_PER_SURVEY)
            && let Err(error) = self.survey().await
        {
            tracing::debug!(error = %chain(&error), "how webhooks do is not known now");
        }
        let now_ms = self.tools.clock.now_ms();
        let until_ms = now_ms.saturating_add(millis(LEASE + 2 * self.tools.settings.timeout));
        let leased = self.tools.store.lease_webhooks(&self.tools.server, now_ms, until_ms).await?;
        let (mut before, mut new) = (std::mem::take(&mut self.workers), Vec::new());
        for webhook in leased {
            let key = (webhook.tenant.clone(), webhook.id.clone());
            let is_current = |running: &Running| running.revision == webhook.revision && !running.task.is_finished();
            match before.remove(&key) {
                Some(running) if is_current(&running) => {
                    running.leased_until_ms.store(until_ms, Ordering::Relaxed);
                    self.workers.insert(key, running);
                }
                known => {
                    // What it has sent is written down before the next one begins.
                    before.extend(known.map(|running| (key, running)));
                    new.push(webhook);
                }
            }
        }
        futures_util::future::join_all(before.into_values().map(Running::end)).await;
        for webhook in new {
            let key = (webhook.tenant.clone(), webhook.id.clone());
            let running = self.begin(webhook, until_ms, feed);
            self.workers.extend(running.map(|running| (key, running)));
        }
        Ok(())
    }

    fn begin(&mut self, webhook: StoredWebhook, until_ms: i64, feed: &EventFeed) -> Option<Running> {
        let StoredWebhook { tenant, id, secrets, revision, .. } = &webhook;
        let revision = *revision;
        let secrets = match Secrets::open(tenant, id, secrets, &self.tools.keys) {
            Ok(secrets) => secrets,
            Err(error) => {
                let key = (tenant.clone(), id.clone());
                if self.unreadable.insert(key, revision) != Some(revision) {
                    tracing::error!(%tenant, webhook = id, error = %chain(&error), "a webhook is sent nothing");
                }
                return None;
            }
        };
        let (leased_until_ms, stop) = (Arc::new(AtomicI64::new(until_ms)), CancellationToken::new());
        let lease = (Arc::clone(&leased_until_ms), stop.clone());
        let worker = Worker::new(self.tools.clone(), webhook, secrets, feed.listen(), lease.0, lease.1);
        Some(Running { revision, leased_until_ms, stop, task: tokio::spawn(worker.run()) })
    }

    /// Looks at all webhooks: how they do, and whether their secrets are under the root key that is used for what is new.
    async fn survey(&self) -> Result<(), ReadError> {
        let now_ms = self.tools.clock.now_ms();
        let current = self.tools.keys.current(now_ms);
        let (mut working, mut failing, mut disabled, mut waiting, mut given_up) = (0_u32, 0_u32, 0_u32, 0, 0);
        for (webhook, count) in self.tools.store.webhooks(None).await? {
            match &webhook.progress {
                progress if progress.disabled.is_some() => disabled += 1,
                progress if progress.failing_since_ms.is_some() => failing += 1,
                _ => working += 1,
            }
            waiting += count.waiting;
            given_up += count.given_up;
            if root_key_of(&webhook.secrets) != Some(current.id())
                && let Err(error) = self.renew(&webhook, now_ms).await
            {
                tracing::warn!(tenant = %webhook.tenant, webhook = webhook.id, error = %chain(&error), "a webhook's secrets stay under an older key");
            }
        }
        for (state, count) in [("working", working), ("failing", failing), ("disabled", disabled)] {
            metrics::gauge!("throughline_webhooks", "state" => state).set(f64::from(count));
        }
        metrics::gauge!("throughline_webhook_waiting_events", "state" => "waiting").set(waiting as f64);
        metrics::gauge!("throughline_webhook_waiting_events", "state" => "given_up").set(given_up as f64);
        Ok(())
    }

    async fn renew(&self, webhook: &StoredWebhook, now_ms: i64) -> Result<(), RenewError> {
        let (StoredWebhook { tenant, id, .. }, keys) = (webhook, &self.tools.keys);
        let secrets = Secrets::open(tenant, id, &webhook.secrets, keys)?.seal(tenant, id, keys, now_ms)?;
        let entry = AuditEntry::done(tenant.clone(), "webhookSecretsRewrapped", now_ms);
        let entry = AuditEntry { subject: Some(id.clone()), ..entry };
        let audit = AuditRecord::new(&entry, keys, now_ms)?;
        let change = WebhookChange::Secrets { secrets, of_revision: webhook.revision };
        self.tools.store.change_webhook(tenant, id, &change, audit).await?;
        Ok(())
    }

    /// Has all workers write down what they have done, and gives their webhooks up.
    pub async fn end(mut self) {
        let ended = futures_util::future::join_all(self.workers.drain().map(|(_, running)| running.end()));
        // Who waits for a receiver that hangs sends the same again from elsewhere.
        let _ = tokio::time::timeout(ENDED_WITHIN, ended).await;
        if let Err(error) = self.tools.store.release_webhooks(&self.tools.server).await {
            tracing::debug!(error = %chain(&error), "webhooks are not given up; their leases end by themselves");
        }
    }
}

/// Why secrets were not brought under the newest root key.
#[derive(Debug, thiserror::Error)]
enum RenewError {
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    #[error(transparent)]
    Entry(#[from] crate::audit::UnwritableEntry),
    #[error(transparent)]
    Store(#[from] ReadError),
}
