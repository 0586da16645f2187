//! Tokens and claims that end before their time: what is refused, who is sent away, and who goes on.

use throughline_core::sync::{
    Authority, Credential, DatabaseView, Effect, Environment, ErrorCode, FixedFunnel, Hello, Loaded, News, PeerId,
    Request, ServerFrame,
};
use throughline_core::{Command, Event, LentClaim, RejectionCode, Role, State, TimeSpan};

use crate::generate::{START, Walk, client, default_funnel, session_id};

const PAGE: PeerId = PeerId(1);
const ANOTHER: PeerId = PeerId(2);
const BACK_END: PeerId = PeerId(3);

fn hello(name: &str) -> Hello {
    Hello {
        protocol: 1,
        session_id: session_id(),
        client_id: client(name),
        alongside: Vec::new(),
        known_version: 0,
        durable_version: None,
        epoch: None,
        funnel_hash: None,
        token: None,
        claim: None,
    }
}

fn token(generation: u32) -> Credential {
    of_family(generation, "family")
}

fn lent_claim() -> LentClaim {
    let until = START.plus(TimeSpan::from_hours(1));
    LentClaim { digest: "lent".to_owned(), until, family: "lent family".to_owned(), issued_by: None }
}

fn of_family(generation: u32, family: &str) -> Credential {
    Credential::Token { generation, family: family.to_owned() }
}

fn claim(digest: &str) -> Credential {
    Credential::Claim(digest.to_owned())
}

/// A session that is about to be paid, and was handed to another browser.
fn before_payment() -> Walk {
    let mut walk = Walk::new(default_funnel());
    let commands = [
        (Role::Browser, Command::Create(Box::default())),
        (Role::System, Command::HandOff { claim: Some(lent_claim()) }),
    ];
    for (role, command) in commands {
        walk.issue(role, command).outcome.unwrap();
    }
    walk
}

fn state(walk: &Walk) -> State {
    walk.state.clone().unwrap()
}

fn payment(walk: &Walk) -> Command {
    let amount = state(walk).session.amount;
    let transaction_id = "canary-t1".to_owned();
    Command::RecordPayment { transaction_id, amount, vault_id: None, customer_id: None, payment_token: None }
}

fn metadata(n: &str) -> Command {
    Command::SetMetadata { metadata: serde_json::from_str(&format!(r#"{{"n":"{n}"}}"#)).unwrap() }
}

struct Server {
    funnels: FixedFunnel,
    authority: Authority,
    /// What the other servers are told.
    news: Vec<News>,
}

impl Server {
    fn with(state: &State) -> Self {
        let funnels = FixedFunnel::new(default_funnel(), "hash");
        Self { funnels, authority: Authority::new(session_id(), Some(state.clone())), news: Vec::new() }
    }

    /// Lets the authority do something, with a database that takes and has what it is given; what peers are told.
    fn act(&mut self, act: impl FnOnce(&mut Authority, &Environment<'_>) -> Vec<Effect>) -> Vec<(PeerId, ServerFrame)> {
        let environment = Environment { now: START, funnels: &self.funnels, epoch: 9, relaxed: false };
        let mut effects = act(&mut self.authority, &environment);
        let mut frames = Vec::new();
        while let Some(effect) = (!effects.is_empty()).then(|| effects.remove(0)) {
            match effect {
                Effect::Send { peer, frame } => frames.push((peer, frame)),
                Effect::Commit(commit) => {
                    self.news.push(commit.news());
                    effects.extend(self.authority.committed(&environment));
                }
                Effect::Reload => {
                    let state = self.authority.state().map(|state| State::clone(state));
                    let loaded = Loaded { database: Some(DatabaseView { state, journal: Vec::new() }), shared: None };
                    effects.extend(self.authority.reloaded(loaded, &environment));
                }
                other => panic!("{other:?}"),
            }
        }
        frames
    }

    fn join(&mut self, peer: PeerId, credential: Credential) -> Result<(), ErrorCode> {
        let mut refused = false;
        let frames = self.act(|authority, environment| {
            let hello = hello(if peer == PAGE { "page" } else { "another" });
            authority.join(peer, Role::Browser, credential, &hello, environment).unwrap_or_else(|_| {
                refused = true;
                Vec::new()
            })
        });
        let error = ends(&frames, peer).into_iter().next();
        error.map_or(Ok(()), Err).and(if refused { Err(ErrorCode::Unauthorized) } else { Ok(()) })
    }

    fn submit_once(&mut self, role: Role, credential: Credential, command: Command) -> Vec<(PeerId, ServerFrame)> {
        self.act(|authority, environment| {
            let request = Request::new(client("api"), None, Ok(command));
            authority.submit_once(BACK_END, role, credential, [request], environment)
        })
    }
}

/// With which errors a peer was sent away.
fn ends(frames: &[(PeerId, ServerFrame)], to: PeerId) -> Vec<ErrorCode> {
    let error = |(peer, frame): &(PeerId, ServerFrame)| match frame {
        ServerFrame::Error { code, .. } if *peer == to => Some(*code),
        _ => None,
    };
    frames.iter().filter_map(error).collect()
}

fn hears_events(frames: &[(PeerId, ServerFrame)], who: PeerId) -> bool {
    frames.iter().any(|(peer, frame)| *peer == who && matches!(frame, ServerFrame::Events { .. }))
}

fn refusal(frames: &[(PeerId, ServerFrame)]) -> Option<RejectionCode> {
    frames.iter().find_map(|(_, frame)| match frame {
        ServerFrame::Rejected { reason, .. } => Some(reason.code),
        _ => None,
    })
}

#[test]
fn revoking_access_begins_a_generation_and_forgets_every_claim() {
    let mut walk = before_payment();
    let before = state(&walk);
    assert!(before.accepts(0, "family") && before.knows("digest-canary") && before.knows("lent"));
    let records = walk.issue(Role::Service, Command::RevokeAccess {}).outcome.unwrap();
    assert_eq!(records.iter().map(|record| &record.event).collect::<Vec<_>>(), [&Event::AccessRevoked {}]);
    let after = state(&walk);
    assert_eq!((after.access_generation, after.revoked_generation), (1, 1));
    assert!(!after.accepts(0, "family") && !after.keeps(0, "family"));
    assert!(after.accepts(1, "family") && after.keeps(1, "family"));
    assert!(!after.knows("digest-canary") && !after.knows("lent"));
    assert_eq!(after.session, State { session: after.session.clone(), ..before }.session, "and the session goes on");
    walk.issue(Role::Service, Command::RevokeAccess {}).outcome.unwrap();
    assert_eq!(state(&walk).access_generation, 2, "each time anew");
}

#[test]
fn access_is_revoked_also_when_the_session_is_over_and_only_by_a_service() {
    let mut walk = before_payment();
    for role in [Role::Browser, Role::Operator, Role::System] {
        let refused = walk.issue(role, Command::RevokeAccess {}).outcome.unwrap_err();
        assert_eq!(refused.code, RejectionCode::NotPermitted, "{role:?}");
    }
    walk.now = walk.now.plus(TimeSpan::from_hours(1000));
    walk.issue(Role::System, Command::Expire {}).outcome.unwrap();
    walk.issue(Role::Service, Command::RevokeAccess {}).outcome.unwrap();
    assert_eq!(state(&walk).access_generation, 1);
}

#[test]
fn a_payment_ends_tokens_and_neither_connections_nor_claims() {
    let mut walk = before_payment();
    walk.issue(Role::Service, payment(&walk)).outcome.unwrap();
    let paid = state(&walk);
    assert!(paid.session.is_paid());
    assert_eq!((paid.access_generation, paid.revoked_generation), (1, 0));
    assert!(!paid.accepts(0, "family") && paid.keeps(0, "family") && paid.knows("digest-canary") && paid.knows("lent"));
}

#[test]
fn a_stored_session_without_generations_begins_with_none() {
    let walk = before_payment();
    let json = serde_json::to_string(&state(&walk)).unwrap();
    assert!(!json.contains("Generation"), "{json}");
    let read: State = serde_json::from_str(&json).unwrap();
    assert_eq!(read, state(&walk));
    let mut revoked = walk;
    revoked.issue(Role::Service, Command::RevokeAccess {}).outcome.unwrap();
    let json = serde_json::to_string(&state(&revoked)).unwrap();
    assert!(json.contains(r#""accessGeneration":1,"revokedGeneration":1"#), "{json}");
    assert_eq!(serde_json::from_str::<State>(&json).unwrap(), state(&revoked));
}

#[test]
fn who_follows_with_a_revoked_token_or_claim_is_sent_away_and_hears_nothing_of_it() {
    let mut server = Server::with(&state(&before_payment()));
    assert_eq!(server.join(PAGE, token(0)), Ok(()));
    assert_eq!(server.join(ANOTHER, claim("lent")), Ok(()));
    let frames = server.submit_once(Role::Service, Credential::Verified, Command::RevokeAccess {});
    assert_eq!(ends(&frames, PAGE), [ErrorCode::TokenRevoked]);
    assert_eq!(ends(&frames, ANOTHER), [ErrorCode::Unauthorized]);
    assert!(!hears_events(&frames, PAGE) && !hears_events(&frames, ANOTHER), "{frames:?}");
    assert_eq!(server.join(PAGE, token(0)), Err(ErrorCode::Unauthorized));
    assert_eq!(server.join(ANOTHER, claim("digest-canary")), Err(ErrorCode::Unauthorized));
    assert_eq!(server.join(PAGE, token(1)), Ok(()));
}

#[test]
fn another_server_sends_them_away_as_soon_as_it_hears_of_it() {
    let walk = before_payment();
    let (mut here, mut there) = (Server::with(&state(&walk)), Server::with(&state(&walk)));
    assert_eq!(there.join(PAGE, token(0)), Ok(()));
    here.submit_once(Role::Service, Credential::Verified, Command::RevokeAccess {});
    let news = here.news.pop().unwrap();
    let frames = there.act(|authority, environment| authority.observed(news, environment));
    assert_eq!(ends(&frames, PAGE), [ErrorCode::TokenRevoked]);
    assert!(!hears_events(&frames, PAGE), "{frames:?}");
}

#[test]
fn a_server_that_missed_it_sends_them_away_when_it_has_read_the_session_again() {
    let mut walk = before_payment();
    let mut server = Server::with(&state(&walk));
    assert_eq!(server.join(PAGE, token(0)), Ok(()));
    walk.issue(Role::Service, payment(&walk)).outcome.unwrap();
    let read = |state: State| Loaded {
        database: Some(DatabaseView { state: Some(state), journal: Vec::new() }),
        shared: None,
    };
    assert_eq!(server.authority.suspect(), [Effect::Reload]);
    let paid = read(state(&walk));
    let frames = server.act(|authority, environment| authority.reloaded(paid, environment));
    assert_eq!(ends(&frames, PAGE), [], "a payment leaves connections as they are");
    walk.issue(Role::Service, Command::RevokeAccess {}).outcome.unwrap();
    assert_eq!(server.authority.suspect(), [Effect::Reload]);
    let revoked = read(state(&walk));
    let frames = server.act(|authority, environment| authority.reloaded(revoked, environment));
    assert_eq!(ends(&frames, PAGE), [ErrorCode::TokenRevoked]);
}

#[test]
fn who_follows_when_it_is_paid_goes_on_and_a_request_with_the_old_token_does_not() {
    let walk = before_payment();
    let mut server = Server::with(&state(&walk));
    assert_eq!(server.join(PAGE, token(0)), Ok(()));
    let frames = server.submit_once(Role::Service, Credential::Verified, payment(&walk));
    assert!(ends(&frames, PAGE).is_empty() && hears_events(&frames, PAGE), "{frames:?}");

    let request = Request::new(client("page"), Some(1), Ok(metadata("follower")));
    let frames = server.act(|authority, environment| authority.submit(PAGE, [request], environment));
    assert_eq!(refusal(&frames), None);
    let version = server.authority.version();
    let frames = server.submit_once(Role::Browser, token(0), metadata("request"));
    assert_eq!(refusal(&frames), Some(RejectionCode::TokenRevoked));
    assert_eq!(server.authority.version(), version, "and nothing is recorded");
    assert_eq!(refusal(&server.submit_once(Role::Browser, token(1), metadata("request"))), None);
    assert_eq!(server.join(ANOTHER, token(0)), Err(ErrorCode::Unauthorized));
    assert_eq!(server.join(ANOTHER, claim("digest-canary")), Ok(()));
}

#[test]
fn a_command_that_waited_while_access_was_revoked_is_refused() {
    let mut server = Server::with(&state(&before_payment()));
    assert_eq!(server.join(PAGE, token(0)), Ok(()));
    let frames = server.act(|authority, environment| {
        let revoke = Request::new(client("api"), None, Ok(Command::RevokeAccess {}));
        let mut effects = authority.submit_once(BACK_END, Role::Service, Credential::Verified, [revoke], environment);
        let late = Request::new(client("page"), Some(1), Ok(metadata("late")));
        effects.extend(authority.submit(PAGE, [late], environment));
        effects
    });
    assert_eq!(refusal(&frames), Some(RejectionCode::TokenRevoked));
    assert!(server.authority.state().unwrap().session.metadata.is_empty());
}

#[test]
fn a_token_that_is_newer_than_what_a_server_knows_makes_it_read_again() {
    let mut walk = before_payment();
    let funnels = FixedFunnel::new(default_funnel(), "hash");
    let environment = Environment { now: START, funnels: &funnels, epoch: 9, relaxed: false };
    let mut authority = Authority::new(session_id(), Some(state(&walk)));
    let effects = authority.join(PAGE, Role::Browser, token(1), &hello("page"), &environment);
    assert_eq!(effects, Ok(vec![Effect::Reload]));
    walk.issue(Role::Service, payment(&walk)).outcome.unwrap();
    let database = DatabaseView { state: walk.state, journal: Vec::new() };
    let effects = authority.reloaded(Loaded { database: Some(database), shared: None }, &environment);
    assert!(matches!(&effects[0], Effect::Send { peer: PAGE, frame: ServerFrame::Welcome { .. } }), "{effects:?}");
}

fn revoke_token(family: &str) -> Command {
    Command::RevokeToken { family: Some(family.to_owned()), claim: None, until: START.plus(TimeSpan::from_hours(1)) }
}

#[test]
fn one_token_is_revoked_with_its_family_and_the_others_go_on() {
    let mut server = Server::with(&state(&before_payment()));
    assert_eq!(server.join(PAGE, of_family(0, "stolen")), Ok(()));
    assert_eq!(server.join(ANOTHER, of_family(0, "mine")), Ok(()));
    let frames = server.submit_once(Role::System, Credential::Verified, revoke_token("stolen"));
    assert_eq!(ends(&frames, PAGE), [ErrorCode::TokenRevoked]);
    assert!(ends(&frames, ANOTHER).is_empty() && hears_events(&frames, ANOTHER), "{frames:?}");
    let told = format!("{frames:?}");
    assert!(!told.contains("stolen"), "nobody is told which one: {told}");

    let refused = server.submit_once(Role::Browser, of_family(0, "stolen"), metadata("thief"));
    assert_eq!(refusal(&refused), Some(RejectionCode::TokenRevoked));
    assert_eq!(server.join(PAGE, of_family(0, "stolen")), Err(ErrorCode::Unauthorized));
    assert_eq!(refusal(&server.submit_once(Role::Browser, of_family(0, "mine"), metadata("buyer"))), None);
    assert_eq!(server.join(PAGE, claim("digest-canary")), Ok(()), "and the claim is good");
}

#[test]
fn a_claim_ends_with_the_token_of_its_browser() {
    for (digest, other) in [("digest-canary", "lent"), ("lent", "digest-canary")] {
        let mut walk = before_payment();
        let until = START.plus(TimeSpan::from_hours(1));
        let command = Command::RevokeToken { family: Some("family".to_owned()), claim: Some(digest.to_owned()), until };
        walk.issue(Role::System, command).outcome.unwrap();
        assert!(!state(&walk).knows(digest) && state(&walk).knows(other), "{digest}");
    }
}

#[test]
fn a_revoked_family_stays_revoked_when_the_session_is_paid() {
    let mut walk = before_payment();
    walk.issue(Role::System, revoke_token("stolen")).outcome.unwrap();
    walk.issue(Role::Service, payment(&walk)).outcome.unwrap();
    let paid = state(&walk);
    assert!(!paid.accepts(1, "stolen") && !paid.keeps(0, "stolen") && paid.accepts(1, "mine"));
}

#[test]
fn a_lent_claim_ends_with_the_family_that_it_belongs_to_and_a_browser_has_one() {
    let mut walk = before_payment();
    walk.issue(Role::System, Command::LendClaim { claim: LentClaim { digest: "another".to_owned(), ..lent_claim() } })
        .outcome
        .unwrap();
    assert!(state(&walk).knows("another") && !state(&walk).knows("lent"), "it takes the place of the one before");
    let other = LentClaim { digest: "other".to_owned(), family: "other family".to_owned(), ..lent_claim() };
    walk.issue(Role::System, Command::HandOff { claim: Some(other) }).outcome.unwrap();
    walk.issue(Role::System, revoke_token("lent family")).outcome.unwrap();
    assert!(!state(&walk).knows("another") && state(&walk).knows("other") && state(&walk).knows("digest-canary"));
}

#[test]
fn revoked_families_are_remembered_until_they_are_over_and_no_more_of_them_than_fit() {
    let mut walk = before_payment();
    for index in 0..State::MAX_REVOKED_TOKENS {
        walk.issue(Role::System, revoke_token(&format!("family {index}"))).outcome.unwrap();
    }
    assert_eq!(state(&walk).revoked_tokens.len(), State::MAX_REVOKED_TOKENS);
    let mut later = walk.clone();
    later.now = later.now.plus(TimeSpan::from_hours(2));
    later.issue(Role::System, revoke_token("late")).outcome.unwrap();
    let families: Vec<_> = state(&later).revoked_tokens.into_iter().map(|(family, _)| family).collect();
    assert_eq!(families, ["late"], "the others would be over by themselves");

    let refused = walk.issue(Role::System, revoke_token("one too many")).outcome.unwrap_err();
    assert_eq!(refused.code, RejectionCode::NotPermitted);
    assert!(!state(&walk).accepts(0, "family 0") && state(&walk).accepts(0, "mine"), "nobody ends more than their own");
}
