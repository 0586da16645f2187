//! What every store must do. Each implementation runs all of it: by `suite!(open)`, where `open` is an async function
//! that gives a fresh store and what must outlive it, or by calling each with `all!(macro)`.

use std::sync::Arc;

mod audits;
mod outbox;
pub(crate) mod surveys;
mod webhooks;

pub use audits::*;
pub use outbox::*;
pub use surveys::*;
pub use webhooks::*;

use super::{
    Append, CommitError, Comparison, Deleted, Deletion, Difference, Due, EndedBefore, JournalRecord, ModeOfRoute,
    OTHERS, Operational, OutboxEvent, ParityCounts, Revocation, Rewrapped, RouteMode, RouteParity, SessionKey, Store,
    Stored, StoredServiceKey,
};
use crate::audit::{AuditEntry, AuditRecord};
use crate::clock::millis;
use crate::encryption::WrappedKey;
use crate::idempotency::{ABANDONED, Answer, Begin, IdempotencyKey, KEPT, Ticket};
use crate::keys::KeyRing;
use crate::tenant::TenantId;

/// Hands the names of all functions below to the macro `$then`, after `$argument`.
macro_rules! all {
    ($then:ident $argument:ident) => {
        $then!($argument:
            a_first_commit_creates_the_session,
            each_commit_brings_its_data_key,
            data_keys_are_wrapped_anew_where_nothing_has_changed_meanwhile,
            a_session_that_must_not_exist_yet_is_not_overwritten,
            a_stale_commit_is_told_the_current_version_and_changes_nothing,
            asvs_15_4_2_of_conflicting_writers_exactly_one_wins,
            many_writers_of_few_sessions_leave_one_unbroken_history,
            records_must_follow_on_the_expected_version,
            the_journal_is_read_in_order_and_in_pages,
            tenants_do_not_see_each_other,
            purging_empties_the_history_and_keeps_its_versions,
            versions_are_told_in_the_order_of_the_question,
            due_sessions_come_oldest_first_and_only_when_due,
            due_sessions_are_shared_without_overlap_and_given_again_after_the_lease,
            a_commit_ends_the_claim_on_its_session,
            sessions_that_are_over_are_deleted_with_all_that_tells_of_them,
            a_search_gives_the_latest_session_first_and_only_what_was_asked_for,
            a_search_goes_on_where_it_ended_although_sessions_change,
            a_summary_counts_and_measures_what_was_created_in_a_time,
            a_dropped_commit_is_whole_or_absent,
            a_closed_store_refuses_commits,
            a_first_request_is_started_and_its_repeat_is_in_progress,
            of_simultaneous_requests_under_one_key_exactly_one_is_started,
            a_finished_request_is_replayed,
            another_body_under_the_same_key_is_a_mismatch,
            an_abandoned_request_frees_its_key,
            a_late_attempt_does_not_overwrite_its_successor,
            an_answer_is_kept_for_a_day,
            answers_about_a_session_go_with_its_erasure,
            audit_records_are_written_with_their_change_or_not_at_all,
            audit_records_are_sealed_block_after_block,
            of_two_blocks_with_one_number_the_first_one_stays,
            events_are_written_with_their_change_or_not_at_all,
            events_are_read_by_tenant_kind_and_position,
            the_first_event_since_a_time_is_found,
            deleting_a_session_tells_of_it_and_leaves_what_was_told_before,
            old_events_are_forgotten_from_the_first_one_on,
            webhooks_are_added_changed_and_removed_with_what_the_audit_log_says,
            what_was_delivered_is_written_down_by_who_holds_the_webhook,
            deliveries_wait_until_they_are_delivered_or_given_up,
            the_latest_tries_of_a_webhook_are_kept,
            service_keys_are_made_once_listed_by_tenant_and_revoked_for_ever,
            changes_of_service_keys_are_told_once_and_their_use_is_none,
            of_many_changes_of_service_keys_at_once_none_is_missed,
            modes_of_routes_are_set_and_told_of_once,
            differences_of_routes_are_counted_and_the_latest_are_kept,
            routes_and_fields_are_counted_one_by_one_up_to_a_bound,
        );
    };
}
pub(crate) use all;

/// Makes one test of each function below.
macro_rules! suite {
    ($open:ident) => {
        use $crate::store::conformance::tests_of;
        $crate::store::conformance::all!(tests_of $open);
    };
}
pub(crate) use suite;

macro_rules! tests_of {
    ($open:ident: $($name:ident),+ $(,)?) => {
        $(
            #[tokio::test]
            async fn $name() {
                let (store, _outlives) = $open().await;
                $crate::store::conformance::$name(::std::sync::Arc::new(store)).await;
            }
        )+
    };
}
pub(crate) use tests_of;

fn service_key(tenant: &str, number: u8) -> StoredServiceKey {
    StoredServiceKey {
        id: format!("{number:016x}"),
        tenant: tenant.parse().unwrap(),
        name: "Back end, München".to_owned(),
        sha256: [number; 32],
        scopes: "sessions:read payments".parse().unwrap(),
        created_at_ms: 1_000 + i64::from(number),
        created_by: "cli".to_owned(),
        expires_at_ms: number.is_multiple_of(2).then_some(9_000),
        revoked_at_ms: None,
        last_used_at_ms: None,
    }
}

/// What the audit log is to say of a service key.
fn told(did: &str, key: &StoredServiceKey) -> AuditRecord {
    let entry = AuditEntry { subject: Some(key.id.clone()), ..AuditEntry::done(key.tenant.clone(), did, 0) };
    AuditRecord::new(&entry, &KeyRing::generate().unwrap(), 0).unwrap()
}

pub async fn service_keys_are_made_once_listed_by_tenant_and_revoked_for_ever(store: Arc<impl Store>) {
    let (one, other) = (service_key("shop-a", 1), service_key("shop-b", 2));
    for key in [&one, &other, &one] {
        store.add_service_key(key, told("made", key)).await.unwrap();
    }
    let (shop_a, shop_b) = (one.tenant.clone(), other.tenant.clone());
    let revoke = async |tenant, id: &str, now_ms| {
        store.revoke_service_key(tenant, id, now_ms, told("revoked", &one)).await.unwrap()
    };
    assert_eq!(store.service_keys(Some(&shop_a)).await.unwrap(), std::slice::from_ref(&one));
    assert_eq!(store.service_keys(None).await.unwrap(), [one.clone(), other.clone()]);
    assert_eq!(revoke(&shop_b, &one.id, 5_000).await, Revocation::Unknown);
    assert_eq!(revoke(&shop_a, "unknown", 5_000).await, Revocation::Unknown);
    assert_eq!(revoke(&shop_a, &one.id, 5_000).await, Revocation::Revoked);
    assert_eq!(revoke(&shop_a, &one.id, 6_000).await, Revocation::WasRevoked);
    for (tenant, acts) in [(&shop_a, &["made", "revoked"][..]), (&shop_b, &["made"])] {
        let records = store.audit_records(tenant, 0, u64::MAX >> 1, 10).await.unwrap();
        let entries = records.iter().map(|record| serde_json::from_str::<AuditEntry>(&record.body).unwrap());
        let did: Vec<String> = entries.flat_map(|entry| entry.did).collect();
        assert_eq!(did, acts, "each change is told of once, and nothing else");
    }
    let revoked = StoredServiceKey { revoked_at_ms: Some(5_000), ..one };
    assert_eq!(store.service_keys(None).await.unwrap(), [revoked, other]);
}

pub async fn modes_of_routes_are_set_and_told_of_once(store: Arc<impl Store>) {
    let (shop_a, shop_b): (TenantId, TenantId) = ("shop-a".parse().unwrap(), "shop-b".parse().unwrap());
    let set = async |tenant: &TenantId, route: &str, mode, changed_at_ms| {
        let mode = ModeOfRoute { route: route.to_owned(), mode, changed_at_ms };
        let entry = AuditEntry::done(tenant.clone(), "routeModeSet", 0);
        let audit = AuditRecord::new(&entry, &KeyRing::generate().unwrap(), 0).unwrap();
        store.set_route_mode(tenant, &mode, audit).await.unwrap();
    };
    set(&shop_a, "upsell", RouteMode::Shadow, 1).await;
    set(&shop_a, "upsell", RouteMode::Compare, 2).await;
    set(&shop_a, "upsell", RouteMode::Compare, 3).await;
    set(&shop_a, "checkout", RouteMode::Only, 4).await;
    set(&shop_b, "upsell", RouteMode::On, 5).await;
    let modes = store.route_modes(&shop_a).await.unwrap();
    let modes: Vec<_> = modes.iter().map(|mode| (mode.route.as_str(), mode.mode, mode.changed_at_ms)).collect();
    assert_eq!(modes, [("checkout", RouteMode::Only, 4), ("upsell", RouteMode::Compare, 2)]);
    let told = store.audit_records(&shop_a, 0, u64::MAX >> 1, 10).await.unwrap();
    assert_eq!(told.len(), 3, "what was so already is not told of");
}

pub async fn differences_of_routes_are_counted_and_the_latest_are_kept(store: Arc<impl Store>) {
    let (tenant, other): (TenantId, TenantId) = ("shop-a".parse().unwrap(), "shop-b".parse().unwrap());
    let differs = |field: &str, at_ms: i64| Difference {
        field: field.to_owned(),
        legacy: format!("legacy {at_ms}"),
        unified: format!("unified {at_ms}"),
        session_id: (at_ms % 2 == 0).then(|| format!("ws_{at_ms}")),
        at_ms,
    };
    let comparison = |tenant: &TenantId, route: &str, at_ms, differences| {
        let counts = ParityCounts { equal: 10, different: 1, legacy_failed: 2, unified_failed: 3 };
        Comparison { tenant: tenant.clone(), route: route.to_owned(), counts, differences, at_ms }
    };
    store.add_comparison(&comparison(&tenant, "upsell", 100, vec![])).await.unwrap();
    for at_ms in 1..=30 {
        let fields =
            if at_ms == 7 { vec![differs("email", 7), differs("status", 7)] } else { vec![differs("status", at_ms)] };
        store.add_comparison(&comparison(&tenant, "upsell", 200 + at_ms, fields)).await.unwrap();
    }
    store.add_comparison(&comparison(&tenant, "checkout", 300, vec![differs("amount", 9)])).await.unwrap();
    store.add_comparison(&comparison(&other, "upsell", 400, vec![])).await.unwrap();

    let parity = store.route_parity(&tenant).await.unwrap();
    assert_eq!(parity.iter().map(|route| route.route.as_str()).collect::<Vec<_>>(), ["checkout", "upsell"]);
    let upsell = &parity[1];
    assert_eq!(upsell.since_ms, 100);
    let expected = ParityCounts { equal: 310, different: 31, legacy_failed: 62, unified_failed: 93 };
    assert_eq!(upsell.counts, expected);
    let fields: Vec<_> = upsell.fields.iter().map(|field| (field.field.as_str(), field.times)).collect();
    assert_eq!(fields, [("status", 30), ("email", 1)], "the most frequent first");
    let status = &upsell.fields[0];
    assert_eq!((status.first_at_ms, status.last_at_ms), (1, 30));
    let kept: Vec<i64> = status.examples.iter().map(|example| example.at_ms).collect();
    assert_eq!(kept, (11..=30).rev().collect::<Vec<_>>(), "the latest twenty");
    assert_eq!(status.examples[0], differs("status", 30));

    store.forget_parity(&tenant, Some("upsell")).await.unwrap();
    assert_eq!(store.route_parity(&tenant).await.unwrap().len(), 1);
    store.forget_parity(&tenant, None).await.unwrap();
    assert_eq!(store.route_parity(&tenant).await.unwrap(), []);
    assert_eq!(store.route_parity(&other).await.unwrap().len(), 1);
}

pub async fn routes_and_fields_are_counted_one_by_one_up_to_a_bound(store: Arc<impl Store>) {
    let (tenant, other): (TenantId, TenantId) = ("shop-a".parse().unwrap(), "shop-b".parse().unwrap());
    let differs = |field: usize| Difference {
        field: format!("field {field}"),
        legacy: "1".to_owned(),
        unified: "2".to_owned(),
        session_id: None,
        at_ms: 1,
    };
    let compared = |tenant: &TenantId, route: &str, fields: std::ops::Range<usize>| Comparison {
        tenant: tenant.clone(),
        route: route.to_owned(),
        counts: ParityCounts { equal: 1, ..ParityCounts::default() },
        differences: fields.map(differs).collect(),
        at_ms: 1,
    };
    store.add_comparison(&compared(&tenant, "upsell", 0..203)).await.unwrap();
    // What has a place keeps it.
    store.add_comparison(&compared(&tenant, "upsell", 199..201)).await.unwrap();
    for route in 1..=5 {
        store.add_comparison(&compared(&tenant, &format!("route {route}"), 0..200)).await.unwrap();
    }
    store.add_comparison(&compared(&other, "upsell", 0..1)).await.unwrap();
    let times = |routes: &[RouteParity], route: &str, field: &str| {
        let route = routes.iter().find(|parity| parity.route == route).unwrap();
        route.fields.iter().find(|parity| parity.field == field).map(|field| field.times)
    };
    let parity = store.route_parity(&tenant).await.unwrap();
    assert_eq!(times(&parity, "upsell", "field 199"), Some(2));
    assert_eq!((times(&parity, "upsell", "field 200"), times(&parity, "upsell", OTHERS)), (None, Some(4)));
    assert_eq!(times(&parity, "route 3", OTHERS), None);
    assert!(times(&parity, "route 5", OTHERS).is_some_and(|times| times >= 199), "the tenant has no more places");
    let of_other = store.route_parity(&other).await.unwrap();
    assert_eq!(times(&of_other, "upsell", "field 0"), Some(1), "each tenant has its own");
    for route in 6..=502 {
        store.add_comparison(&compared(&tenant, &format!("route {route}"), 0..0)).await.unwrap();
    }
    let parity = store.route_parity(&tenant).await.unwrap();
    let others = parity.iter().find(|parity| parity.route == OTHERS).unwrap();
    assert_eq!((parity.len(), others.counts.equal), (501, 3));
}

pub async fn changes_of_service_keys_are_told_once_and_their_use_is_none(store: Arc<impl Store>) {
    let nothing = store.service_key_changes(0).await.unwrap();
    assert!(nothing.keys.is_empty());
    let (one, other) = (service_key("shop-a", 1), service_key("shop-b", 2));
    store.add_service_key(&one, told("made", &one)).await.unwrap();
    let first = store.service_key_changes(nothing.version).await.unwrap();
    assert!(first.version > nothing.version && first.keys == [one.clone()]);
    store.add_service_key(&other, told("made", &other)).await.unwrap();
    let second = store.service_key_changes(first.version).await.unwrap();
    assert_eq!(second.keys, std::slice::from_ref(&other));
    for (at_ms, is_noted) in [(100_000, true), (159_999, false), (160_000, true), (100_000, false)] {
        assert_eq!(store.note_service_key_use(&one.id, at_ms).await.unwrap(), is_noted, "{at_ms}");
    }
    assert!(!store.note_service_key_use("unknown", 1).await.unwrap());
    let unchanged = store.service_key_changes(second.version).await.unwrap();
    assert_eq!((unchanged.version, unchanged.keys.len()), (second.version, 0));
    store.revoke_service_key(&one.tenant, &one.id, 5_000, told("revoked", &one)).await.unwrap();
    let third = store.service_key_changes(second.version).await.unwrap();
    let revoked = StoredServiceKey { revoked_at_ms: Some(5_000), last_used_at_ms: Some(160_000), ..one };
    assert_eq!(third.keys, [revoked]);
    assert_eq!(store.service_key_changes(0).await.unwrap().keys.len(), 2);
}

pub async fn of_many_changes_of_service_keys_at_once_none_is_missed(store: Arc<impl Store>) {
    const KEYS: u8 = 24;
    let adding = (0..KEYS).map(|number| {
        let store = Arc::clone(&store);
        let key = service_key("shop-a", number);
        tokio::spawn(async move { store.add_service_key(&key, told("made", &key)).await })
    });
    let adding: Vec<_> = adding.collect();
    let (mut seen, mut version) = (std::collections::BTreeSet::new(), 0);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while seen.len() < usize::from(KEYS) {
        assert!(std::time::Instant::now() < deadline, "a change was missed: {seen:?}");
        let changes = store.service_key_changes(version).await.unwrap();
        assert!(changes.version >= version);
        version = changes.version;
        for key in changes.keys {
            assert!(seen.insert(key.id.clone()), "{} was told twice", key.id);
        }
        tokio::task::yield_now().await;
    }
    for added in adding {
        added.await.unwrap().unwrap();
    }
}

pub fn session(tenant: &str, id: &str) -> SessionKey {
    SessionKey { tenant: tenant.parse().unwrap(), session_id: id.to_owned() }
}

pub fn columns() -> Operational {
    Operational {
        status: "pending".to_owned(),
        step: "checkout".to_owned(),
        funnel_id: "default".to_owned(),
        funnel_version: "1".to_owned(),
        created_at_ms: 1_000,
        updated_at_ms: 1_000,
        expires_at_ms: 9_000,
        completed_at_ms: None,
        ended_at_ms: None,
        held_until_ms: None,
        deadline_at_ms: None,
        erased: false,
        currency: "EUR".to_owned(),
        amount_minor: 1_999,
        email_digest: Some(vec![7; 32]),
    }
}

pub fn data_key(root_key_id: &str, sealed: &[u8]) -> WrappedKey {
    WrappedKey { root_key_id: root_key_id.to_owned(), sealed: sealed.to_vec() }
}

/// One more record on top of `expected_version`; the state names the version it leads to.
pub fn append(key: &SessionKey, expected_version: u64) -> Append {
    let version = expected_version + 1;
    Append {
        key: key.clone(),
        expected_version,
        records: vec![JournalRecord { version, blob: format!("event {version}").into_bytes() }],
        state: format!("state {version}").into_bytes(),
        columns: columns(),
        purge_history: false,
        data_key: Box::new(data_key("0123456789abcdef", b"data key")),
        audit: Vec::new(),
        events: Vec::new(),
        announce: false,
    }
}

fn request(key: &str) -> IdempotencyKey {
    IdempotencyKey { tenant: TenantId::single(), scope: "service:1 POST /v1/sessions".to_owned(), key: key.to_owned() }
}

fn answer(body: &str) -> Answer {
    Answer {
        status: 201,
        headers: vec![("etag".to_owned(), "\"1\"".to_owned())],
        body: body.as_bytes().to_vec(),
        session_id: None,
    }
}

async fn start(store: &Arc<impl Store>, key: &str, now_ms: i64) -> Ticket {
    match store.begin(request(key), [1; 32], now_ms).await.unwrap() {
        Begin::Started(ticket) => ticket,
        other => panic!("expected a start, got {other:?}"),
    }
}

pub async fn a_first_commit_creates_the_session(store: Arc<impl Store>) {
    let key = session("a", "ws_1");
    assert_eq!(store.load(&key).await.unwrap(), None);
    store.commit(append(&key, 0)).await.unwrap();
    let expected =
        Stored { version: 1, state: b"state 1".to_vec(), data_key: data_key("0123456789abcdef", b"data key") };
    assert_eq!(store.load(&key).await.unwrap(), Some(expected));
    store.ping().await.unwrap();
}

pub async fn each_commit_brings_its_data_key(store: Arc<impl Store>) {
    let key = session("a", "ws_1");
    store.commit(append(&key, 0)).await.unwrap();
    store.commit(append(&key, 1)).await.unwrap();
    let first = store.load(&key).await.unwrap().unwrap().data_key;
    assert_eq!(first, data_key("0123456789abcdef", b"data key"));
    let second = data_key("fedcba9876543210", b"another");
    let erasure = Append { data_key: Box::new(second.clone()), purge_history: true, ..append(&key, 2) };
    store.commit(erasure).await.unwrap();
    assert_eq!(store.load(&key).await.unwrap().unwrap().data_key, second);
}

pub async fn data_keys_are_wrapped_anew_where_nothing_has_changed_meanwhile(store: Arc<impl Store>) {
    let (old, new) = (data_key("0123456789abcdef", b"data key"), data_key("fedcba9876543210", b"wrapped anew"));
    assert!(store.root_keys().await.unwrap().is_empty());
    let ids = ["ws_1", "ws_2", "ws_3"];
    for id in ids {
        store.commit(append(&session("a", id), 0)).await.unwrap();
    }
    let found = store.wrapped_by(&old.root_key_id, None, 10).await.unwrap();
    assert_eq!(found.iter().map(|(key, _)| key.session_id.as_str()).collect::<Vec<_>>(), ids);
    assert_eq!(store.wrapped_by(&old.root_key_id, None, 2).await.unwrap(), found[..2]);
    assert_eq!(store.wrapped_by(&old.root_key_id, Some(&found[1].0), 10).await.unwrap(), found[2..]);
    assert!(store.wrapped_by("another", None, 10).await.unwrap().is_empty());
    // One of them changes, another one is wrapped anew by somebody else.
    store.commit(append(&session("a", "ws_2"), 1)).await.unwrap();
    let rewrapped = |(key, stored): (SessionKey, Stored)| Rewrapped {
        key,
        version: stored.version,
        old: stored.data_key,
        new: new.clone(),
        email_digest: Some(vec![8; 32]),
    };
    let rewrapped: Vec<Rewrapped> = found.into_iter().map(rewrapped).collect();
    assert_eq!(store.rewrap(&rewrapped[2..]).await.unwrap(), 1);
    assert_eq!(store.rewrap(&rewrapped).await.unwrap(), 1);
    let stored = store.load(&session("a", "ws_1")).await.unwrap().unwrap();
    assert_eq!((stored.version, stored.state.as_slice(), stored.data_key), (1, b"state 1".as_slice(), new.clone()));
    assert_eq!(store.load(&session("a", "ws_2")).await.unwrap().unwrap().data_key, old);
    let counts = [(old.root_key_id.clone(), 1), (new.root_key_id.clone(), 2)];
    assert_eq!(store.sessions_by_root_key().await.unwrap(), counts);
    let mut names = store.root_keys().await.unwrap();
    names.sort_unstable();
    assert_eq!(names, [old.root_key_id.clone(), new.root_key_id.clone()]);
}

pub async fn a_session_that_must_not_exist_yet_is_not_overwritten(store: Arc<impl Store>) {
    let key = session("a", "ws_1");
    store.commit(append(&key, 0)).await.unwrap();
    let error = store.commit(append(&key, 0)).await.unwrap_err();
    assert!(matches!(error, CommitError::Conflict { current_version: 1 }), "{error:?}");
}

pub async fn a_stale_commit_is_told_the_current_version_and_changes_nothing(store: Arc<impl Store>) {
    let key = session("a", "ws_1");
    for version in 0..3 {
        store.commit(append(&key, version)).await.unwrap();
    }
    let mut stale = append(&key, 1);
    stale.purge_history = true;
    let error = store.commit(stale).await.unwrap_err();
    assert!(matches!(error, CommitError::Conflict { current_version: 3 }), "{error:?}");
    let error = store.commit(append(&session("a", "ws_2"), 4)).await.unwrap_err();
    assert!(matches!(error, CommitError::Conflict { current_version: 0 }), "{error:?}");
    assert_eq!(store.load(&key).await.unwrap().unwrap().state, b"state 3");
    let journal = store.journal(&key, 0, 10).await.unwrap();
    assert!(journal.len() == 3 && journal.iter().all(|record| !record.blob.is_empty()));
}

pub async fn asvs_15_4_2_of_conflicting_writers_exactly_one_wins(store: Arc<impl Store>) {
    let key = session("a", "ws_1");
    for version in 0..5 {
        let writers: Vec<_> = (0..16)
            .map(|_| {
                let (store, change) = (Arc::clone(&store), append(&key, version));
                tokio::spawn(async move { store.commit(change).await })
            })
            .collect();
        let mut won = 0;
        for writer in writers {
            match writer.await.unwrap() {
                Ok(()) => won += 1,
                Err(CommitError::Conflict { current_version }) => {
                    assert_eq!(current_version, version + 1);
                }
                Err(other) => panic!("{other:?}"),
            }
        }
        assert_eq!(won, 1);
    }
    assert_eq!(store.journal(&key, 0, 100).await.unwrap().len(), 5);
}

pub async fn records_must_follow_on_the_expected_version(store: Arc<impl Store>) {
    let key = session("a", "ws_1");
    let mut empty = append(&key, 0);
    empty.records.clear();
    let mut gap = append(&key, 0);
    gap.records[0].version = 2;
    let mut twice = append(&key, 0);
    twice.records.push(twice.records[0].clone());
    let mut beyond = append(&key, u64::MAX - 1);
    beyond.records[0].version = u64::MAX;
    for change in [empty, gap, twice, beyond] {
        let error = store.commit(change).await.unwrap_err();
        assert!(matches!(error, CommitError::Malformed { .. }), "{error:?}");
    }
    assert_eq!(store.load(&key).await.unwrap(), None);
}

pub async fn the_journal_is_read_in_order_and_in_pages(store: Arc<impl Store>) {
    let key = session("a", "ws_1");
    let mut several = append(&key, 0);
    several.records.push(JournalRecord { version: 2, blob: b"event 2".to_vec() });
    several.records.push(JournalRecord { version: 3, blob: b"event 3".to_vec() });
    store.commit(several).await.unwrap();
    store.commit(append(&key, 3)).await.unwrap();
    let versions = |records: Vec<JournalRecord>| -> Vec<u64> { records.iter().map(|record| record.version).collect() };
    assert_eq!(versions(store.journal(&key, 0, 2).await.unwrap()), [1, 2]);
    assert_eq!(versions(store.journal(&key, 2, 10).await.unwrap()), [3, 4]);
    assert_eq!(versions(store.journal(&key, 4, 10).await.unwrap()), [] as [u64; 0]);
    assert_eq!(store.journal(&session("a", "other"), 0, 10).await.unwrap(), []);
}

pub async fn tenants_do_not_see_each_other(store: Arc<impl Store>) {
    let (ours, theirs) = (session("a", "ws_1"), session("b", "ws_1"));
    store.commit(append(&ours, 0)).await.unwrap();
    assert_eq!(store.load(&theirs).await.unwrap(), None);
    assert_eq!(store.journal(&theirs, 0, 10).await.unwrap(), []);
    store.commit(append(&theirs, 0)).await.unwrap();
    store.commit(append(&ours, 1)).await.unwrap();
    assert_eq!(store.load(&theirs).await.unwrap().unwrap().version, 1);
}

pub async fn purging_empties_the_history_and_keeps_its_versions(store: Arc<impl Store>) {
    let (key, neighbour) = (session("a", "ws_1"), session("a", "ws_2"));
    store.commit(append(&key, 0)).await.unwrap();
    store.commit(append(&key, 1)).await.unwrap();
    store.commit(append(&neighbour, 0)).await.unwrap();
    let mut erase = append(&key, 2);
    erase.purge_history = true;
    store.commit(erase).await.unwrap();
    let blobs: Vec<_> = store.journal(&key, 0, 10).await.unwrap();
    let record = |version, blob: &[u8]| JournalRecord { version, blob: blob.to_vec() };
    assert_eq!(blobs, [record(1, b""), record(2, b""), record(3, b"event 3")]);
    assert_eq!(store.journal(&neighbour, 0, 10).await.unwrap(), [record(1, b"event 1")]);
}

pub async fn due_sessions_come_oldest_first_and_only_when_due(store: Arc<impl Store>) {
    for (id, deadline) in [("ws_1", Some(300)), ("ws_2", None), ("ws_3", Some(100)), ("ws_4", Some(200))] {
        let mut change = append(&session("a", id), 0);
        change.columns.deadline_at_ms = deadline;
        store.commit(change).await.unwrap();
    }
    assert_eq!(ids(store.claim_due(99, 0, 10).await.unwrap()), [] as [&str; 0]);
    assert_eq!(ids(store.claim_due(200, 0, 10).await.unwrap()), ["ws_3", "ws_4"]);
    assert_eq!(ids(store.claim_due(200, 0, 1).await.unwrap()), ["ws_3"]);
    store.commit(append(&session("a", "ws_3"), 1)).await.unwrap();
    assert_eq!(ids(store.claim_due(1_000, 0, 10).await.unwrap()), ["ws_4", "ws_1"]);
}

fn ids(due: Vec<Due>) -> Vec<String> {
    due.into_iter().map(|due| due.key.session_id).collect()
}

fn due_at(key: &SessionKey, expected_version: u64, deadline_at_ms: i64) -> Append {
    let mut change = append(key, expected_version);
    change.columns.deadline_at_ms = Some(deadline_at_ms);
    change
}

pub async fn due_sessions_are_shared_without_overlap_and_given_again_after_the_lease(store: Arc<impl Store>) {
    for number in 0..40 {
        let key = session("a", &format!("ws_{number}"));
        store.commit(due_at(&key, 0, 100 + number)).await.unwrap();
    }
    let claimers: Vec<_> = (0..4)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let mut claimed = Vec::new();
                // Two that claim at the same moment may leave each other nothing, so asking once is not enough.
                for _ in 0..10 {
                    claimed.extend(ids(store.claim_due(1_000, 500, 5).await.unwrap()));
                }
                claimed
            })
        })
        .collect();
    let mut claimed = Vec::new();
    for claimer in claimers {
        claimed.extend(claimer.await.unwrap());
    }
    claimed.sort();
    let mut expected: Vec<String> = (0..40).map(|number| format!("ws_{number}")).collect();
    expected.sort();
    assert_eq!(claimed, expected, "each is given once");
    assert_eq!(ids(store.claim_due(1_499, 500, 100).await.unwrap()), [] as [&str; 0]);
    assert_eq!(store.claim_due(1_500, 500, 100).await.unwrap().len(), 40, "the leases ran out");
}

pub async fn a_commit_ends_the_claim_on_its_session(store: Arc<impl Store>) {
    let key = session("a", "ws_1");
    store.commit(due_at(&key, 0, 100)).await.unwrap();
    assert_eq!(store.claim_due(200, 30_000, 10).await.unwrap().len(), 1);
    assert_eq!(store.claim_due(200, 30_000, 10).await.unwrap().len(), 0);
    store.commit(due_at(&key, 1, 150)).await.unwrap();
    let due = store.claim_due(200, 30_000, 10).await.unwrap();
    assert_eq!(due, [Due { key, deadline_at_ms: 150 }]);
}

pub async fn sessions_that_are_over_are_deleted_with_all_that_tells_of_them(store: Arc<impl Store>) {
    let tenant = TenantId::single();
    let all = [
        ("ws_1", "expired", Some(10), None),
        ("ws_2", "pending", None, None),
        ("ws_3", "expired", Some(20), None),
        ("ws_4", "expired", Some(30), None),
        ("ws_5", "completed", Some(10), None),
        ("ws_6", "failed", Some(10), None),
        ("ws_7", "expired", Some(10), Some(1_000)),
    ];
    for (id, status, ended_at_ms, held_until_ms) in all {
        let mut change = append(&session(tenant.as_str(), id), 0);
        status.clone_into(&mut change.columns.status);
        change.columns.ended_at_ms = ended_at_ms;
        change.columns.held_until_ms = held_until_ms;
        store.commit(change).await.unwrap();
        let ticket = start(&store, id, 0).await;
        store.finish(ticket, Answer { session_id: Some(id.to_owned()), ..answer("about it") }).await.unwrap();
    }
    let deleted = |id: &str| Deleted { key: session(tenant.as_str(), id), version: 1 };
    let expired = |before_ms| EndedBefore { expired_ms: Some(before_ms), ..EndedBefore::default() };
    assert_eq!(store.ended(EndedBefore::default(), 500, 10).await.unwrap(), [], "without a time all are kept");
    assert_eq!(store.ended(expired(10), 500, 10).await.unwrap(), []);
    let oldest = store.ended(expired(30), 500, 1).await.unwrap();
    assert_eq!(oldest, [deleted("ws_1")], "at most as many as asked for, the oldest first");
    assert_eq!(store.ended(expired(30), 500, 10).await.unwrap(), [deleted("ws_1"), deleted("ws_3")]);
    let let_go = store.ended(expired(11), 1_000, 10).await.unwrap();
    assert!(let_go.contains(&deleted("ws_7")), "its hold is over: {let_go:?}");
    let by_status = EndedBefore { completed_ms: Some(11), failed_ms: Some(10), expired_ms: None };
    assert_eq!(store.ended(by_status, 500, 10).await.unwrap(), [deleted("ws_5")]);

    let keys = KeyRing::generate().unwrap();
    let deletion = |id: &str, version| Deletion {
        session: Deleted { version, ..deleted(id) },
        audit: AuditRecord::new(&AuditEntry::done(tenant.clone(), id, 0), &keys, 0).unwrap(),
        event: OutboxEvent {
            id: id.to_owned(),
            kind: throughline_core::LifecycleKind::Deleted,
            version,
            at_ms: 0,
            body: String::new(),
        },
    };
    let gone = store.delete(vec![deletion("ws_1", 1), deletion("ws_2", 7), deletion("ws_3", 1)]).await.unwrap();
    let mut ids: Vec<&str> = gone.iter().map(|gone| gone.key.session_id.as_str()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["ws_1", "ws_3"], "only what is at the version that it was found at");
    let told = store.audit_records(&tenant, 0, u64::MAX >> 1, 10).await.unwrap();
    assert_eq!(told.len(), 2, "nothing is told of what stays: {told:?}");
    assert_eq!(store.ended(expired(30), 500, 10).await.unwrap(), []);
    for (id, gone) in [("ws_1", true), ("ws_2", false), ("ws_3", true), ("ws_4", false)] {
        let key = session(tenant.as_str(), id);
        assert_eq!(store.load(&key).await.unwrap().is_none(), gone, "{id}");
        assert_eq!(store.journal(&key, 0, 10).await.unwrap().is_empty(), gone, "{id}");
        let again = store.begin(request(id), [1; 32], 1).await.unwrap();
        assert_eq!(matches!(again, Begin::Started(_)), gone, "{id}: {again:?}");
    }
    store.commit(append(&session(tenant.as_str(), "ws_1"), 0)).await.unwrap();
}

pub async fn versions_are_told_in_the_order_of_the_question(store: Arc<impl Store>) {
    let (once, twice) = (session("a", "ws_1"), session("a", "ws_2"));
    store.commit(append(&twice, 0)).await.unwrap();
    store.commit(append(&once, 0)).await.unwrap();
    store.commit(append(&twice, 1)).await.unwrap();
    let keys = [twice.clone(), session("b", "ws_1"), once, twice];
    assert_eq!(store.versions(&keys).await.unwrap(), [Some(2), None, Some(1), Some(2)]);
    assert_eq!(store.versions(&[]).await.unwrap(), []);
}

pub async fn many_writers_of_few_sessions_leave_one_unbroken_history(store: Arc<impl Store>) {
    const SESSIONS: usize = 4;
    let keys: Arc<Vec<_>> = Arc::new((0..SESSIONS).map(|number| session("a", &format!("ws_{number}"))).collect());
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let (store, keys) = (Arc::clone(&store), Arc::clone(&keys));
            tokio::spawn(async move {
                let mut known = [0; SESSIONS];
                let mut won = [0; SESSIONS];
                for round in 0..24 {
                    let index = (writer + round) % SESSIONS;
                    match store.commit(append(&keys[index], known[index])).await {
                        Ok(()) => {
                            known[index] += 1;
                            won[index] += 1;
                        }
                        Err(CommitError::Conflict { current_version }) => known[index] = current_version,
                        Err(other) => panic!("{other:?}"),
                    }
                }
                won
            })
        })
        .collect();
    let mut won = [0; SESSIONS];
    for writer in writers {
        for (all, some) in won.iter_mut().zip(writer.await.unwrap()) {
            *all += some;
        }
    }
    for (key, won) in keys.iter().zip(won) {
        let journal = store.journal(key, 0, 1_000).await.unwrap();
        let versions: Vec<u64> = journal.iter().map(|record| record.version).collect();
        assert_eq!(versions, (1..=won).collect::<Vec<_>>());
        assert_eq!(store.load(key).await.unwrap().unwrap().version, won);
    }
}

pub async fn a_dropped_commit_is_whole_or_absent(store: Arc<impl Store>) {
    for round in 0..20 {
        let key = session("a", &format!("ws_{round}"));
        let task = {
            let (store, change) = (Arc::clone(&store), append(&key, 0));
            tokio::spawn(async move { store.commit(change).await })
        };
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        task.abort();
        let _ = task.await;
        // Whatever became of it, the next writer finds out and goes on.
        match store.commit(append(&key, 0)).await {
            Ok(()) | Err(CommitError::Conflict { current_version: 1 }) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(store.journal(&key, 0, 10).await.unwrap().len(), 1);
        assert_eq!(store.load(&key).await.unwrap().unwrap().version, 1);
    }
}

pub async fn a_closed_store_refuses_commits(store: Arc<impl Store>) {
    store.close().await;
    let error = store.commit(append(&session("a", "ws_1"), 0)).await.unwrap_err();
    assert!(matches!(error, CommitError::Unavailable { .. }), "{error:?}");
}

pub async fn a_first_request_is_started_and_its_repeat_is_in_progress(store: Arc<impl Store>) {
    start(&store, "k", 0).await;
    assert_eq!(store.begin(request("k"), [1; 32], 10).await.unwrap(), Begin::InProgress);
    start(&store, "other", 10).await;
}

pub async fn of_simultaneous_requests_under_one_key_exactly_one_is_started(store: Arc<impl Store>) {
    for now_ms in [0, millis(ABANDONED)] {
        let requests = (0..8).map(|_| store.begin(request("k"), [1; 32], now_ms));
        let known = futures_util::future::join_all(requests).await;
        let started = known.iter().filter(|known| matches!(known, Ok(Begin::Started(_)))).count();
        let running = known.iter().filter(|known| matches!(known, Ok(Begin::InProgress))).count();
        assert_eq!((started, running), (1, 7), "at {now_ms}");
    }
}

pub async fn a_finished_request_is_replayed(store: Arc<impl Store>) {
    let ticket = start(&store, "k", 0).await;
    store.finish(ticket, answer("first")).await.unwrap();
    let again = store.begin(request("k"), [1; 32], 10).await.unwrap();
    assert_eq!(again, Begin::Replay(answer("first")));
}

pub async fn another_body_under_the_same_key_is_a_mismatch(store: Arc<impl Store>) {
    let ticket = start(&store, "k", 0).await;
    assert_eq!(store.begin(request("k"), [2; 32], 10).await.unwrap(), Begin::Mismatch);
    store.finish(ticket, answer("first")).await.unwrap();
    assert_eq!(store.begin(request("k"), [2; 32], 10).await.unwrap(), Begin::Mismatch);
}

pub async fn an_abandoned_request_frees_its_key(store: Arc<impl Store>) {
    let ticket = start(&store, "k", 0).await;
    store.abandon(ticket).await.unwrap();
    start(&store, "k", 10).await;
}

pub async fn a_late_attempt_does_not_overwrite_its_successor(store: Arc<impl Store>) {
    let first = start(&store, "k", 0).await;
    let later_ms = millis(ABANDONED);
    assert_eq!(store.begin(request("k"), [1; 32], later_ms - 1).await.unwrap(), Begin::InProgress);
    let second = start(&store, "k", later_ms).await;
    store.finish(first.clone(), answer("late")).await.unwrap();
    store.abandon(first).await.unwrap();
    assert_eq!(store.begin(request("k"), [1; 32], later_ms + 1).await.unwrap(), Begin::InProgress);
    store.finish(second, answer("second")).await.unwrap();
    let again = store.begin(request("k"), [1; 32], later_ms + 2).await.unwrap();
    assert_eq!(again, Begin::Replay(answer("second")));
}

pub async fn an_answer_is_kept_for_a_day(store: Arc<impl Store>) {
    let ticket = start(&store, "k", 0).await;
    store.finish(ticket, answer("first")).await.unwrap();
    assert_eq!(store.sweep(millis(KEPT) - 1).await.unwrap(), 0);
    let replay = store.begin(request("k"), [1; 32], millis(KEPT) - 1).await.unwrap();
    assert_eq!(replay, Begin::Replay(answer("first")));
    assert_eq!(store.sweep(millis(KEPT)).await.unwrap(), 1);
    start(&store, "k", millis(KEPT)).await;
}

pub async fn answers_about_a_session_go_with_its_erasure(store: Arc<impl Store>) {
    let key = session(TenantId::single().as_str(), "ws_1");
    store.commit(append(&key, 0)).await.unwrap();
    let about = |id: &str| Answer { session_id: Some(id.to_owned()), ..answer("ada@example.com") };
    let (kept, gone) = (start(&store, "kept", 0).await, start(&store, "gone", 0).await);
    store.finish(kept, about("ws_2")).await.unwrap();
    store.finish(gone, about("ws_1")).await.unwrap();
    let late = start(&store, "late", 0).await;
    let mut erasure = append(&key, 1);
    erasure.purge_history = true;
    erasure.columns.erased = true;
    store.commit(erasure).await.unwrap();
    store.finish(late, about("ws_1")).await.unwrap();
    assert!(matches!(store.begin(request("kept"), [1; 32], 1).await.unwrap(), Begin::Replay(_)));
    assert!(matches!(store.begin(request("gone"), [1; 32], 1).await.unwrap(), Begin::Started(_)));
    assert_eq!(store.begin(request("late"), [1; 32], 1).await.unwrap(), Begin::InProgress, "it is not kept");
}
