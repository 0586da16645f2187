//! What every store must do about webhooks.

use std::sync::Arc;

use throughline_core::LifecycleKind;

use crate::audit::{AuditEntry, AuditRecord};
use crate::keys::KeyRing;
use crate::store::{
    DeliveryNote, DeliveryTry, Disabled, OutboxEvent, Store, StoredWebhook, TRIES_KEPT, WaitingCount, WaitingDelivery,
    WebhookChange, WebhookProgress,
};
use crate::tenant::TenantId;

fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

fn audit(keys: &KeyRing, did: &str) -> AuditRecord {
    AuditRecord::new(&AuditEntry::done(tenant("a"), did, 0), keys, 0).unwrap()
}

fn webhook(of: &str, id: &str) -> StoredWebhook {
    StoredWebhook {
        tenant: tenant(of),
        id: id.to_owned(),
        url: format!("https://{id}.example/"),
        description: "for tests".to_owned(),
        kinds: vec![LifecycleKind::Created, LifecycleKind::Paid],
        secrets: b"sealed".to_vec(),
        created_at_ms: 10,
        created_by: "cli".to_owned(),
        revision: 1,
        progress: WebhookProgress { position: 7, ..WebhookProgress::default() },
    }
}

fn waiting(position: u64, next_try_at_ms: Option<i64>) -> WaitingDelivery {
    let event = OutboxEvent {
        id: format!("evt_{position}"),
        kind: LifecycleKind::Paid,
        version: position,
        at_ms: 5,
        body: "{}".to_owned(),
    };
    let (session_id, last_failure) = (format!("ws_{position}"), "it answered 500".to_owned());
    WaitingDelivery { position, session_id, event, tries: 2, next_try_at_ms, last_failure }
}

fn tried(number: u64) -> DeliveryTry {
    DeliveryTry {
        event_id: format!("evt_{number}"),
        kind: LifecycleKind::Created,
        session_id: "ws_1".to_owned(),
        at_ms: i64::try_from(number).unwrap(),
        took_ms: 3,
        status: number.is_multiple_of(2).then_some(204),
        failure: (!number.is_multiple_of(2)).then(|| "it did not answer in time".to_owned()),
    }
}

fn note(of: &StoredWebhook, server: &str, progress: WebhookProgress) -> DeliveryNote {
    DeliveryNote {
        tenant: of.tenant.clone(),
        id: of.id.clone(),
        revision: of.revision,
        server: server.to_owned(),
        progress,
        delivered: Vec::new(),
        waiting: Vec::new(),
        tries: Vec::new(),
        audit: None,
    }
}

async fn told(store: &Arc<impl Store>) -> Vec<String> {
    let records = store.audit_records(&tenant("a"), 0, u64::MAX >> 1, 100).await.unwrap();
    records.iter().flat_map(|record| serde_json::from_str::<AuditEntry>(&record.body).unwrap().did).collect()
}

pub async fn webhooks_are_added_changed_and_removed_with_what_the_audit_log_says(store: Arc<impl Store>) {
    let keys = KeyRing::generate().unwrap();
    let (one, other) = (webhook("a", "wh_1"), webhook("b", "wh_2"));
    store.add_webhook(&one, audit(&keys, "added")).await.unwrap();
    store.add_webhook(&one, audit(&keys, "added twice")).await.unwrap();
    store.add_webhook(&other, audit(&keys, "other")).await.unwrap();
    let of_a = store.webhooks(Some(&tenant("a"))).await.unwrap();
    assert_eq!(of_a, [(one.clone(), WaitingCount::default())]);
    assert_eq!(store.webhooks(None).await.unwrap().len(), 2);
    let disabled = Some(Disabled { at_ms: 20, because: "somebody wants it".to_owned() });
    let changes = [
        WebhookChange::Settings {
            url: "https://new.example/".to_owned(),
            description: "new".to_owned(),
            kinds: Vec::new(),
            now_ms: 15,
        },
        WebhookChange::ReplayAfter(1_000_000),
        WebhookChange::Secrets { secrets: b"new".to_vec(), of_revision: 3 },
        WebhookChange::ReplayAfter(3),
        WebhookChange::Enabled { disabled: disabled.clone(), now_ms: 20 },
    ];
    for change in &changes {
        assert!(
            store.change_webhook(&one.tenant, "wh_1", change, audit(&keys, "changed")).await.unwrap(),
            "{change:?}"
        );
    }
    let outdated = WebhookChange::Secrets { secrets: b"older".to_vec(), of_revision: 2 };
    assert!(!store.change_webhook(&one.tenant, "wh_1", &outdated, audit(&keys, "never")).await.unwrap());
    assert!(!store.change_webhook(&one.tenant, "wh_2", &changes[0], audit(&keys, "never")).await.unwrap());
    let expected = StoredWebhook {
        url: "https://new.example/".to_owned(),
        description: "new".to_owned(),
        kinds: Vec::new(),
        secrets: b"new".to_vec(),
        revision: 6,
        progress: WebhookProgress { position: 3, disabled, ..WebhookProgress::default() },
        ..one.clone()
    };
    assert_eq!(store.webhooks(Some(&one.tenant)).await.unwrap()[0].0, expected);
    assert!(store.remove_webhook(&one.tenant, "wh_1", audit(&keys, "removed")).await.unwrap());
    assert!(!store.remove_webhook(&one.tenant, "wh_1", audit(&keys, "never")).await.unwrap());
    assert!(!store.remove_webhook(&one.tenant, "wh_2", audit(&keys, "never")).await.unwrap());
    let changed = "changed";
    assert_eq!(told(&store).await, ["added", "other", changed, changed, changed, changed, changed, "removed"]);
}

pub async fn what_was_delivered_is_written_down_by_who_holds_the_webhook(store: Arc<impl Store>) {
    let keys = KeyRing::generate().unwrap();
    let one = webhook("a", "wh_1");
    store.add_webhook(&one, audit(&keys, "added")).await.unwrap();
    assert_eq!(store.lease_webhooks("here", 100, 200).await.unwrap(), std::slice::from_ref(&one));
    let progress = WebhookProgress {
        position: 9,
        failing_since_ms: Some(90),
        failures: 2,
        next_try_at_ms: Some(120),
        delivered: 4,
        tries: 6,
        disabled: None,
    };
    assert!(store.note_deliveries(&note(&one, "here", progress.clone())).await.unwrap());
    assert_eq!(store.webhooks(None).await.unwrap()[0].0.progress, progress);
    // Somebody wants something else: what is under way is not written over it.
    let change = WebhookChange::ReplayAfter(1);
    assert!(store.change_webhook(&one.tenant, "wh_1", &change, audit(&keys, "replayed")).await.unwrap());
    assert!(!store.note_deliveries(&note(&one, "here", progress.clone())).await.unwrap());
    let known = store.webhooks(None).await.unwrap()[0].0.clone();
    assert_eq!(known.progress.position, 1);
    let because = "it answered 410 Gone".to_owned();
    let ended = WebhookProgress { disabled: Some(Disabled { at_ms: 130, because }), ..progress };
    let disabling = DeliveryNote { audit: Some(audit(&keys, "disabled")), ..note(&known, "here", ended.clone()) };
    assert!(store.note_deliveries(&disabling).await.unwrap());
    assert_eq!(store.webhooks(None).await.unwrap()[0].0.progress, ended);
    assert_eq!(told(&store).await, ["added", "replayed", "disabled"]);
    assert_eq!(store.lease_webhooks("here", 140, 240).await.unwrap(), [], "nothing is sent to it");
    let behind = WebhookChange::ReplayAfter(1_000);
    assert!(store.change_webhook(&one.tenant, "wh_1", &behind, audit(&keys, "replayed")).await.unwrap());
    let position = store.webhooks(None).await.unwrap()[0].0.progress.position;
    assert_eq!(position, 9, "what was not sent yet is not passed by");
    let enabled = WebhookChange::Enabled { disabled: None, now_ms: 150 };
    assert!(store.change_webhook(&one.tenant, "wh_1", &enabled, audit(&keys, "enabled")).await.unwrap());
    let again = store.lease_webhooks("here", 160, 260).await.unwrap();
    assert_eq!((again[0].progress.failing_since_ms, again[0].progress.failures), (None, 0));
    store.release_webhooks("here").await.unwrap();
}

pub async fn deliveries_wait_until_they_are_delivered_or_given_up(store: Arc<impl Store>) {
    let keys = KeyRing::generate().unwrap();
    let one = webhook("a", "wh_1");
    store.add_webhook(&one, audit(&keys, "added")).await.unwrap();
    store.lease_webhooks("here", 100, 200).await.unwrap();
    let rows = vec![waiting(9, Some(50)), waiting(8, Some(60)), waiting(10, None)];
    let first = DeliveryNote { waiting: rows, ..note(&one, "here", one.progress.clone()) };
    assert!(store.note_deliveries(&first).await.unwrap());
    let of = async |given_up| store.waiting_deliveries(&one.tenant, "wh_1", given_up, 10).await.unwrap();
    assert_eq!(of(false).await, [waiting(8, Some(60)), waiting(9, Some(50))]);
    assert_eq!(of(true).await, [waiting(10, None)]);
    assert_eq!(store.waiting_deliveries(&one.tenant, "wh_1", false, 1).await.unwrap(), [waiting(8, Some(60))]);
    assert_eq!(store.webhooks(None).await.unwrap()[0].1, WaitingCount { waiting: 2, given_up: 1 });
    let longer = WaitingDelivery { tries: 3, ..waiting(9, Some(70)) };
    let second =
        DeliveryNote { delivered: vec![8], waiting: vec![longer.clone()], ..note(&one, "here", one.progress.clone()) };
    assert!(store.note_deliveries(&second).await.unwrap());
    assert_eq!(of(false).await, [longer]);
    let change = WebhookChange::TryAgain { at_ms: 80 };
    assert!(store.change_webhook(&one.tenant, "wh_1", &change, audit(&keys, "again")).await.unwrap());
    let due = |position| WaitingDelivery { tries: 0, ..waiting(position, Some(80)) };
    assert_eq!(of(false).await, [due(9), due(10)]);
    assert_eq!(of(true).await, []);
    let settings =
        |kinds| WebhookChange::Settings { url: one.url.clone(), description: String::new(), kinds, now_ms: 90 };
    let change = settings(vec![LifecycleKind::Created, LifecycleKind::Paid]);
    assert!(store.change_webhook(&one.tenant, "wh_1", &change, audit(&keys, "changed")).await.unwrap());
    let due = |position| WaitingDelivery { tries: 0, ..waiting(position, Some(90)) };
    assert_eq!(of(false).await, [due(9), due(10)]);
    let change = settings(vec![LifecycleKind::Created]);
    assert!(store.change_webhook(&one.tenant, "wh_1", &change, audit(&keys, "changed")).await.unwrap());
    assert_eq!(of(false).await, [], "what is not wanted any more does not wait");
    store.remove_webhook(&one.tenant, "wh_1", audit(&keys, "removed")).await.unwrap();
    assert_eq!(of(false).await, [], "what waits goes with its webhook");
}

pub async fn the_latest_tries_of_a_webhook_are_kept(store: Arc<impl Store>) {
    let keys = KeyRing::generate().unwrap();
    let one = webhook("a", "wh_1");
    store.add_webhook(&one, audit(&keys, "added")).await.unwrap();
    store.lease_webhooks("here", 100, 200).await.unwrap();
    let mut made = 0;
    for many in [3, 1, 64, 64, TRIES_KEPT + 5] {
        let tries: Vec<DeliveryTry> = (made..made + many).map(tried).collect();
        made += many;
        let progress = WebhookProgress { tries: made, ..one.progress.clone() };
        assert!(store.note_deliveries(&DeliveryNote { tries, ..note(&one, "here", progress) }).await.unwrap());
        let kept = store.delivery_tries(&one.tenant, "wh_1").await.unwrap();
        let expected: Vec<DeliveryTry> = (made.saturating_sub(TRIES_KEPT)..made).rev().map(tried).collect();
        assert_eq!(kept, expected);
    }
}
