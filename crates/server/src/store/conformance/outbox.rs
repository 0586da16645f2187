//! What every store must do about lifecycle events.

use std::sync::Arc;

use throughline_core::LifecycleKind;

use super::{append, session};
use crate::audit::{AuditEntry, AuditRecord};
use crate::keys::KeyRing;
use crate::store::{Append, CommitError, Deleted, Deletion, EventQuery, OutboxEvent, Settling, Store, StoredEvent};
use crate::tenant::TenantId;

fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

fn event(kind: LifecycleKind, id: &str, version: u64, at_ms: i64) -> OutboxEvent {
    OutboxEvent { id: id.to_owned(), kind, version, at_ms, body: format!("{{\"told\":\"{id}\"}}") }
}

fn all_of(name: &str) -> EventQuery {
    EventQuery { tenant: tenant(name), after: 0, through: u64::MAX >> 1, kinds: Vec::new(), limit: 100 }
}

fn ids(events: &[StoredEvent]) -> Vec<&str> {
    events.iter().map(|event| event.event.id.as_str()).collect()
}

/// The position up to which the outbox is whole, as soon as the latest event is below it.
async fn settled(store: &Arc<impl Store>) -> u64 {
    let latest = store.event_mark(0).await.unwrap().position;
    let mut settling = Settling::default();
    for _ in 0..500 {
        match settling.settled(store.event_mark(settling.known()).await.unwrap()) {
            Some(position) if position >= latest => return position,
            // Others use the database at the same time.
            _ => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
        }
    }
    panic!("the outbox was not whole in time");
}

pub async fn events_are_written_with_their_change_or_not_at_all(store: Arc<impl Store>) {
    let key = session("a", "ws_1");
    let with = |events: Vec<OutboxEvent>, expected_version| Append { events, ..append(&key, expected_version) };
    let created = event(LifecycleKind::Created, "evt_1", 1, 10);
    store.commit(with(vec![created.clone(), event(LifecycleKind::Updated, "evt_2", 1, 10)], 0)).await.unwrap();
    store.commit(with(vec![event(LifecycleKind::Paid, "evt_3", 2, 20)], 1)).await.unwrap();
    let refused = store.commit(with(vec![event(LifecycleKind::Paid, "evt_never", 2, 20)], 1)).await.unwrap_err();
    assert!(matches!(refused, CommitError::Conflict { current_version: 2 }));
    let told = store.events(&all_of("a")).await.unwrap();
    assert_eq!(ids(&told), ["evt_1", "evt_2", "evt_3"]);
    assert!(told.is_sorted_by(|one, next| one.position < next.position), "{told:?}");
    let stored = StoredEvent { position: told[0].position, session_id: "ws_1".to_owned(), event: created };
    assert_eq!(told[0], stored);
    assert!(settled(&store).await >= told[2].position);
}

pub async fn events_are_read_by_tenant_kind_and_position(store: Arc<impl Store>) {
    let kinds = [LifecycleKind::Created, LifecycleKind::StepChanged, LifecycleKind::Paid, LifecycleKind::Paid];
    for (name, id) in [("a", "ws_1"), ("b", "ws_2")] {
        let of = |(index, kind): (usize, &LifecycleKind)| event(*kind, &format!("{name}{index}"), 1, 10);
        let events = kinds.iter().enumerate().map(of).collect();
        store.commit(Append { events, ..append(&session(name, id), 0) }).await.unwrap();
    }
    let told = store.events(&all_of("b")).await.unwrap();
    assert_eq!(ids(&told), ["b0", "b1", "b2", "b3"]);
    let paid = EventQuery { kinds: vec![LifecycleKind::Paid, LifecycleKind::Expired], ..all_of("a") };
    assert_eq!(ids(&store.events(&paid).await.unwrap()), ["a2", "a3"]);
    let first = EventQuery { limit: 1, ..paid };
    assert_eq!(ids(&store.events(&first).await.unwrap()), ["a2"]);
    let between = EventQuery { after: told[0].position, through: told[2].position, ..all_of("b") };
    assert_eq!(ids(&store.events(&between).await.unwrap()), ["b1", "b2"]);
    assert_eq!(store.events(&all_of("c")).await.unwrap(), []);
}

pub async fn the_first_event_since_a_time_is_found(store: Arc<impl Store>) {
    let of = |(index, at_ms): (usize, &i64)| event(LifecycleKind::Updated, &format!("a{index}"), 1, *at_ms);
    let events = [10, 30, 20, 40].iter().enumerate().map(of).collect();
    store.commit(Append { events, ..append(&session("a", "ws_1"), 0) }).await.unwrap();
    let told = store.events(&all_of("a")).await.unwrap();
    let since = async |at_ms| store.first_event_since(&tenant("a"), at_ms).await.unwrap();
    assert_eq!(since(0).await, Some(told[0].position));
    assert_eq!(since(15).await, Some(told[1].position), "a later one that is told to be earlier does not hide it");
    assert_eq!(since(40).await, Some(told[3].position));
    assert_eq!(since(41).await, None);
    assert_eq!(store.first_event_since(&tenant("b"), 0).await.unwrap(), None);
}

pub async fn deleting_a_session_tells_of_it_and_leaves_what_was_told_before(store: Arc<impl Store>) {
    let key = session("a", "ws_1");
    let events = vec![event(LifecycleKind::Expired, "evt_1", 1, 10)];
    store.commit(Append { events, ..append(&key, 0) }).await.unwrap();
    let keys = KeyRing::generate().unwrap();
    let deletion = |version| Deletion {
        session: Deleted { key: key.clone(), version },
        audit: AuditRecord::new(&AuditEntry::done(tenant("a"), "deleted", 0), &keys, 0).unwrap(),
        event: event(LifecycleKind::Deleted, "evt_2", version, 20),
    };
    store.delete(vec![deletion(7)]).await.unwrap();
    assert_eq!(ids(&store.events(&all_of("a")).await.unwrap()), ["evt_1"], "it was not deleted");
    store.delete(vec![deletion(1)]).await.unwrap();
    let told = store.events(&all_of("a")).await.unwrap();
    assert_eq!(ids(&told), ["evt_1", "evt_2"]);
    assert_eq!((told[1].session_id.as_str(), told[1].event.version), ("ws_1", 1));
}

pub async fn old_events_are_forgotten_from_the_first_one_on(store: Arc<impl Store>) {
    let ages = [10, 20, 30, 15, 40];
    let of = |(index, at_ms): (usize, &i64)| event(LifecycleKind::Updated, &format!("a{index}"), 1, *at_ms);
    let events = ages.iter().enumerate().map(of).collect();
    store.commit(Append { events, ..append(&session("a", "ws_1"), 0) }).await.unwrap();
    let events = vec![event(LifecycleKind::Updated, "b0", 1, 25)];
    store.commit(Append { events, ..append(&session("b", "ws_2"), 0) }).await.unwrap();
    let told = store.events(&all_of("a")).await.unwrap();
    assert_eq!(store.events_forgotten(&tenant("a")).await.unwrap(), 0);
    assert_eq!(store.forget_events(10, 10).await.unwrap(), 0);
    assert_eq!(store.forget_events(25, 1).await.unwrap(), 1, "at most as many as asked for");
    assert_eq!(store.events_forgotten(&tenant("a")).await.unwrap(), told[0].position);
    assert_eq!(store.forget_events(25, 10).await.unwrap(), 1, "what comes after one that is kept is kept");
    assert_eq!(ids(&store.events(&all_of("a")).await.unwrap()), ["a2", "a3", "a4"]);
    assert_eq!(store.events_forgotten(&tenant("a")).await.unwrap(), told[1].position);
    assert_eq!(store.events_forgotten(&tenant("b")).await.unwrap(), 0);
    assert_eq!(store.forget_events(100, 10).await.unwrap(), 4);
    assert_eq!(store.events(&all_of("a")).await.unwrap(), []);
    assert_eq!(store.events_forgotten(&tenant("a")).await.unwrap(), told[4].position);
    let latest = store.event_mark(0).await.unwrap().position;
    let events = vec![event(LifecycleKind::Updated, "b1", 2, 200)];
    store.commit(Append { events, ..append(&session("b", "ws_2"), 1) }).await.unwrap();
    assert!(store.events(&all_of("b")).await.unwrap()[0].position > latest, "a position is given once");
}
