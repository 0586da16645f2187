//! What every store must do. Each implementation runs all of it, by `suite!(open)`, where
//! `open` is an async function that gives a fresh store and what must outlive it.

use std::sync::Arc;

use super::{Append, CommitError, JournalRecord, Operational, SessionKey, Store, Stored};
use crate::clock::millis;
use crate::idempotency::{ABANDONED, Answer, Begin, IdempotencyKey, KEPT, Ticket};
use crate::tenant::TenantId;

/// Makes one test of each function below.
macro_rules! suite {
    ($open:ident) => {
        $crate::store::conformance::suite!($open:
            a_first_commit_creates_the_session,
            a_session_that_must_not_exist_yet_is_not_overwritten,
            a_stale_commit_is_told_the_current_version_and_changes_nothing,
            of_conflicting_writers_exactly_one_wins,
            records_must_follow_on_the_expected_version,
            the_journal_is_read_in_order_and_in_pages,
            tenants_do_not_see_each_other,
            purging_empties_the_history_and_keeps_its_versions,
            due_sessions_come_oldest_first_and_only_when_due,
            a_dropped_commit_is_whole_or_absent,
            a_closed_store_refuses_commits,
            a_first_request_is_started_and_its_repeat_is_in_progress,
            a_finished_request_is_replayed,
            another_body_under_the_same_key_is_a_mismatch,
            an_abandoned_request_frees_its_key,
            a_late_attempt_does_not_overwrite_its_successor,
            an_answer_is_kept_for_a_day,
            answers_about_a_session_go_with_its_erasure,
        );
    };
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
pub(crate) use suite;

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
        deadline_at_ms: None,
        erased: false,
        currency: "EUR".to_owned(),
        amount_minor: 1_999,
    }
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
    let expected = Stored { version: 1, state: b"state 1".to_vec() };
    assert_eq!(store.load(&key).await.unwrap(), Some(expected));
    store.ping().await.unwrap();
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

pub async fn of_conflicting_writers_exactly_one_wins(store: Arc<impl Store>) {
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
    let ids = |due: Vec<super::Due>| -> Vec<String> { due.into_iter().map(|due| due.key.session_id).collect() };
    assert_eq!(ids(store.due(99, 10).await.unwrap()), [] as [&str; 0]);
    assert_eq!(ids(store.due(200, 10).await.unwrap()), ["ws_3", "ws_4"]);
    assert_eq!(ids(store.due(1_000, 2).await.unwrap()), ["ws_3", "ws_4"]);
    store.commit(append(&session("a", "ws_3"), 1)).await.unwrap();
    assert_eq!(ids(store.due(200, 10).await.unwrap()), ["ws_4"]);
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
