use std::time::Duration;

use throughline_core::{Caller, ClientId, Command, Status};

use super::*;
use crate::clock::ManualClock;
use crate::keys::KeyRing;
use crate::store::Append;
use crate::store::memory::MemoryStore;
use crate::tenant::TenantId;

const NOW_MS: i64 = 1_795_165_200_000;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

fn sessions() -> (Sessions, Arc<ManualClock>, Arc<dyn Store>) {
    let clock = Arc::new(ManualClock::at(NOW_MS));
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let funnels = Arc::new(FunnelLibrary::load(None).unwrap());
    let tiers = Tiers::single(Arc::clone(&store), KeyRing::generate().unwrap());
    (Sessions::new(tiers, SessionLimits::default(), funnels, clock.clone(), TaskTracker::new()), clock, store)
}

fn key(id: &str) -> SessionKey {
    SessionKey { tenant: TenantId::single(), session_id: id.to_owned() }
}

fn request(command: Command) -> Request {
    let client_id = ClientId::new("test").unwrap();
    Request::new(client_id, None, Ok(command))
}

#[tokio::test]
async fn commands_are_answered_after_they_are_stored() {
    let (sessions, _, store) = sessions();
    let key = key("ws_1_a");
    let requests = vec![
        request(Command::Create(Box::default())),
        request(Command::SetEmail { email: "ada@example.com".to_owned() }),
        request(Command::SetEmail { email: "not an address".to_owned() }),
    ];
    let Executed { answers, .. } = sessions.execute(&key, Role::Service, &Caller::default(), requests).await.unwrap();
    assert!(matches!(answers[1], ServerFrame::Accepted { seq: 2, version: 2, .. }), "{answers:?}");
    assert!(matches!(answers[2], ServerFrame::Rejected { seq: 3, .. }), "{answers:?}");
    assert_eq!(store.load(&key).await.unwrap().unwrap().version, 3);
}

#[tokio::test]
async fn an_overdue_session_never_looks_alive() {
    let (sessions, clock, store) = sessions();
    let key = key("ws_1_a");
    sessions
        .execute(&key, Role::Service, &Caller::default(), vec![request(Command::Create(Box::default()))])
        .await
        .unwrap();
    clock.advance(Duration::from_secs(25 * 60 * 60));
    let Current { state, .. } = sessions.current(&key).await.unwrap().unwrap();
    assert_eq!(state.session.status, Status::Expired);
    assert!(store.claim_due(clock.now_ms(), 0, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn overdue_sessions_end_without_being_asked_for() {
    let (sessions, clock, store) = sessions();
    for id in ["ws_1_a", "ws_1_b"] {
        sessions
            .execute(&key(id), Role::Service, &Caller::default(), vec![request(Command::Create(Box::default()))])
            .await
            .unwrap();
    }
    assert_eq!(sessions.end_overdue().await.unwrap(), 0);
    clock.advance(Duration::from_secs(25 * 60 * 60));
    assert_eq!(sessions.end_overdue().await.unwrap(), 2);
    assert!(store.claim_due(clock.now_ms(), 0, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_session_that_cannot_be_read_does_not_keep_the_others_from_ending() {
    let (sessions, clock, store) = sessions();
    sessions
        .execute(&key("ws_1_b"), Role::Service, &Caller::default(), vec![request(Command::Create(Box::default()))])
        .await
        .unwrap();
    let damaged = crate::store::conformance::append(&key("ws_1_a"), 0);
    let columns = crate::store::Operational { deadline_at_ms: Some(clock.now_ms()), ..damaged.columns.clone() };
    store.commit(Append { columns, ..damaged }).await.unwrap();
    clock.advance(Duration::from_secs(25 * 60 * 60));
    sessions.end_overdue().await.unwrap();
    let left = store.claim_due(clock.now_ms() + DAY_MS, 0, 10).await.unwrap();
    assert_eq!(left.into_iter().map(|due| due.key).collect::<Vec<_>>(), [key("ws_1_a")]);
}

#[tokio::test]
async fn made_up_ids_leave_nothing_in_memory() {
    let (sessions, _, _) = sessions();
    for number in 0..100 {
        assert!(sessions.current(&key(&format!("ws_1_{number}"))).await.unwrap().is_none());
    }
    assert_eq!(sessions.environment.residents.counts().0, 0);
}

#[tokio::test]
async fn a_session_that_another_process_changed_is_read_again_and_the_command_judged_anew() {
    let (sessions, clock, store) = sessions();
    let key = key("ws_1_a");
    sessions
        .execute(&key, Role::Service, &Caller::default(), vec![request(Command::Create(Box::default()))])
        .await
        .unwrap();
    let funnels = Arc::new(FunnelLibrary::load(None).unwrap());
    let tiers = Tiers::single(store, sessions.environment.keys.clone());
    let other = Sessions::new(tiers, SessionLimits::default(), funnels, clock, TaskTracker::new());
    let email = |text: &str| vec![request(Command::SetEmail { email: text.to_owned() })];
    other.execute(&key, Role::Service, &Caller::default(), email("first@example.com")).await.unwrap();
    let Executed { answers, .. } =
        sessions.execute(&key, Role::Service, &Caller::default(), email("second@example.com")).await.unwrap();
    assert!(matches!(answers[0], ServerFrame::Accepted { version: 3, .. }), "{answers:?}");
}
