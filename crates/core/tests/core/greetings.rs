//! Whom a server lets follow a session, when it does not know the latest of it, and what they hear.

use throughline_core::sync::{
    Authority, Credential, DatabaseView, Effect, Environment, ErrorCode, FixedFunnel, Hello, Loaded, PeerId, Request,
    ServerFrame, SharedView,
};
use throughline_core::{Command, Event, LentClaim, Role, State, TimeSpan};

use crate::generate::{START, Walk, client, default_funnel, session_id};

const PAGE: PeerId = PeerId(1);
const ANOTHER: PeerId = PeerId(2);

fn hello(name: &str, known_version: u64) -> Hello {
    Hello {
        protocol: 1,
        session_id: session_id(),
        client_id: client(name),
        alongside: Vec::new(),
        known_version,
        durable_version: None,
        epoch: (known_version > 0).then_some(9),
        funnel_hash: None,
        token: None,
        claim: None,
    }
}

fn lent() -> Credential {
    Credential::Claim("lent".to_owned())
}

fn email() -> Command {
    Command::SetEmail { email: "ada@example.com".to_owned() }
}

/// The states of a session at its creation, and after it was handed to another browser.
fn states() -> [State; 2] {
    let mut walk = Walk::new(default_funnel());
    let until = START.plus(TimeSpan::from_hours(1));
    let claim = LentClaim { digest: "lent".to_owned(), until, family: "family".to_owned(), issued_by: None };
    let create = (Role::Browser, Command::Create(Box::default()));
    let hand_off = (Role::System, Command::HandOff { claim: Some(claim) });
    [create, hand_off].map(|(role, command)| {
        walk.issue(role, command).outcome.unwrap();
        walk.state.clone().unwrap()
    })
}

fn database(state: &State) -> Loaded {
    Loaded { database: Some(DatabaseView { state: Some(state.clone()), journal: Vec::new() }), shared: None }
}

/// What these effects say to a peer: `welcome`, or the code of an error.
fn told(effects: &[Effect], to: PeerId) -> Vec<Result<(), ErrorCode>> {
    let answer = |effect: &Effect| match effect {
        Effect::Send { peer, frame: ServerFrame::Welcome { .. } } if *peer == to => Some(Ok(())),
        Effect::Send { peer, frame: ServerFrame::Error { code, .. } } if *peer == to => Some(Err(*code)),
        _ => None,
    };
    effects.iter().filter_map(answer).collect()
}

#[test]
fn who_comes_while_the_session_is_read_and_knows_more_is_welcomed_after_it_was_read_once_more() {
    let funnels = FixedFunnel::new(default_funnel(), "hash");
    let environment = Environment { now: START, funnels: &funnels, epoch: 9, relaxed: false };
    let [created, handed] = states();
    let mut authority = Authority::new(session_id(), Some(created.clone()));
    authority.join(PAGE, Role::Browser, Credential::Verified, &hello("page", 1), &environment).unwrap();
    assert_eq!(authority.suspect(), [Effect::Reload]);
    let late = hello("another", 2);
    assert_eq!(authority.join(ANOTHER, Role::Browser, Credential::Verified, &late, &environment), Ok(vec![]));
    let request = Request::new(client("page"), Some(1), Ok(email()));
    assert_eq!(authority.submit(PAGE, [request], &environment), []);

    // What was read may be older than what the other one was told. What waited is decided before it is read again.
    let effects = authority.reloaded(database(&created), &environment);
    assert_eq!(told(&effects, ANOTHER), []);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Commit(_))), "{effects:?}");
    assert!(!effects.contains(&Effect::Reload), "{effects:?}");
    let effects = authority.conflicted();
    assert_eq!(effects, [Effect::Reload]);
    let effects = authority.reloaded(database(&handed), &environment);
    assert_eq!(told(&effects, ANOTHER), [Ok(())]);
}

#[test]
fn one_that_is_told_of_more_than_there_is_is_welcomed_all_the_same() {
    let funnels = FixedFunnel::new(default_funnel(), "hash");
    let environment = Environment { now: START, funnels: &funnels, epoch: 9, relaxed: false };
    let [created, _] = states();
    let mut authority = Authority::new(session_id(), Some(created.clone()));
    authority.suspect();
    assert_eq!(authority.reload(), [Effect::Reload]);
    let boastful = hello("another", 1 << 53);
    assert_eq!(authority.join(ANOTHER, Role::Browser, Credential::Verified, &boastful, &environment), Ok(vec![]));
    assert_eq!(authority.reloaded(database(&created), &environment), [Effect::Reload]);
    assert_eq!(told(&authority.reloaded(database(&created), &environment), ANOTHER), [Ok(())]);
}

#[test]
fn a_server_that_may_have_missed_that_a_session_was_handed_over_reads_it_before_it_sends_anybody_away() {
    let funnels = FixedFunnel::new(default_funnel(), "hash");
    let environment = Environment { now: START, funnels: &funnels, epoch: 9, relaxed: false };
    let [created, handed] = states();
    let mut authority = Authority::new(session_id(), Some(created.clone()));
    assert!(authority.join(ANOTHER, Role::Browser, lent(), &hello("another", 0), &environment).is_err());
    for (found, answer) in [
        (database(&handed), Ok(())),
        (database(&created), Err(ErrorCode::Unauthorized)),
        (Loaded { database: None, shared: None }, Err(ErrorCode::Unavailable)),
    ] {
        let mut authority = authority.clone();
        authority.suspect();
        assert_eq!(
            authority.join(ANOTHER, Role::Browser, lent(), &hello("another", 0), &environment),
            Ok(vec![Effect::Reload])
        );
        assert_eq!(told(&authority.reloaded(found, &environment), ANOTHER), [answer]);
    }
}

#[test]
fn a_browser_that_came_back_by_a_lent_claim_hears_that_the_session_was_erased() {
    let funnels = FixedFunnel::new(default_funnel(), "hash");
    let environment = Environment { now: START, funnels: &funnels, epoch: 9, relaxed: false };
    let [_, handed] = states();
    let mut authority = Authority::new(session_id(), Some(handed));
    authority.join(ANOTHER, Role::Browser, lent(), &hello("another", 0), &environment).unwrap();
    let erase = Request::new(client("back-end"), Some(1), Ok(Command::Erase {}));
    authority.submit_once(PAGE, Role::Service, Credential::Verified, [erase], &environment);
    let effects = authority.committed(&environment);
    let hears_it = |effect: &Effect| match effect {
        Effect::Send { peer: ANOTHER, frame: ServerFrame::Events { records, .. } } => {
            records.iter().any(|record| record.event == Event::Erased {})
        }
        _ => false,
    };
    assert!(effects.iter().any(hears_it), "{effects:?}");
    assert_eq!(told(&effects, ANOTHER), []);
    // So does one that comes back later on.
    authority.leave(ANOTHER);
    let effects = authority.join(ANOTHER, Role::Browser, lent(), &hello("another", 0), &environment).unwrap();
    assert_eq!(told(&effects, ANOTHER), [Ok(())]);
}

#[test]
fn a_claim_opens_only_the_session_that_was_created_with_it() {
    let funnels = FixedFunnel::new(default_funnel(), "hash");
    let environment = Environment { now: START, funnels: &funnels, epoch: 9, relaxed: false };
    let [created, _] = states();
    let mut authority = Authority::new(session_id(), Some(created));
    let credential = |digest: &str| Credential::Claim(digest.to_owned());
    let hello = hello("page", 0);
    assert!(authority.join(PAGE, Role::Browser, credential("other"), &hello, &environment).is_err());
    assert!(authority.join(PAGE, Role::Browser, credential("digest-canary"), &hello, &environment).is_ok());
}

#[test]
fn who_knows_more_than_the_shared_tier_is_sent_away_while_the_database_can_not_be_asked() {
    let funnels = FixedFunnel::new(default_funnel(), "hash");
    let environment = Environment { now: START, funnels: &funnels, epoch: 9, relaxed: false };
    let [created, _] = states();
    let shared = || SharedView { state: created.clone(), tail: Vec::new() };
    let mut authority = Authority::from_shared(session_id(), shared()).unwrap();
    for (known_version, answer) in [(1, Ok(())), (2, Err(ErrorCode::Unavailable))] {
        let hello = hello("page", known_version);
        let mut effects = authority.join(PAGE, Role::Browser, Credential::Verified, &hello, &environment).unwrap();
        if effects == [Effect::Reload] {
            effects = authority.reloaded(Loaded { database: None, shared: Some(shared()) }, &environment);
        }
        assert_eq!(told(&effects, PAGE), [answer], "{effects:?}");
    }
}

#[test]
fn who_follows_a_session_that_is_deleted_is_sent_away() {
    let funnels = FixedFunnel::new(default_funnel(), "hash");
    let environment = Environment { now: START, funnels: &funnels, epoch: 9, relaxed: false };
    let [created, _] = states();
    let mut authority = Authority::new(session_id(), Some(created));
    authority.join(PAGE, Role::Browser, Credential::Verified, &hello("page", 0), &environment).unwrap();
    assert_eq!(authority.suspect(), [Effect::Reload]);
    let nothing = Loaded { database: Some(DatabaseView::default()), shared: None };
    let effects = authority.reloaded(nothing, &environment);
    assert_eq!(told(&effects, PAGE), [Err(ErrorCode::SessionNotFound)]);
    assert_eq!(effects.len(), 1, "once, and nothing else: {effects:?}");
}
