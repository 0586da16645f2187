//! Answers and frames that are written down: they change only when somebody means to change them.
//!
//! `UPDATE_GOLDEN=1 cargo test -p throughline-core --test core golden` writes the files anew. The verdicts are also asked of the
//! WebAssembly build (`crates/wasm-client/js/test/golden.test.ts`), which has to give the same bytes; the legacy shapes are compared with
//! those of the package (`crates/wasm-client/js/test/server/legacy-shapes.test.ts`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use throughline_core::json::{JsonObject, JsonValue};
use throughline_core::legacy::{write_browser_entry, write_cookie_claims, write_row};
use throughline_core::sync::{ClientFrame, ErrorCode, Hello, ServerFrame, Submission};
use throughline_core::{
    Caller, Command, CommandKind, Context, Create, Event, Funnel, FunnelChoice, Record, Rejection, RejectionCode, Role,
    Session, SessionId, State, Timestamp, decide, evolve,
};

use crate::generate::{Dice, START, Walk, client, default_funnel, funnel, session_id};

/// How often the same kind of answer to the same kind of command is written down.
const REPEATS: usize = 1;

#[derive(Serialize, Deserialize)]
struct Verdicts {
    funnels: BTreeMap<String, Funnel>,
    verdicts: Vec<Verdict>,
}

/// A question without its funnel, which is named instead; and the exact text of the answer.
#[derive(Serialize, Deserialize)]
struct Verdict {
    funnel: String,
    question: Value,
    answer: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Question {
    state: Option<State>,
    command: Command,
    role: Role,
    now: Timestamp,
    session_id: SessionId,
    epoch: u64,
}

#[derive(Serialize, Default)]
struct Answer {
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<State>,
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<Vec<Event>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rejection: Option<Rejection>,
}

fn judge(question: Question, funnel: &Funnel) -> String {
    let Question { state, command, role, now, session_id, epoch } = question;
    let context = Context { now, funnel, session_id: &session_id, epoch, claim: None };
    let answer = match decide(state.as_ref(), &command, role, &context) {
        Err(rejection) => Answer { rejection: Some(rejection), ..Answer::default() },
        Ok(events) => {
            let state = events.iter().cloned().fold(state, |state, event| {
                let version = state.as_ref().map_or(0, State::version) + 1;
                evolve(state, &Record { version, at: now, by: role, origin: None, caller: None, event })
            });
            Answer { state, events: Some(events), rejection: None }
        }
    };
    serde_json::to_string(&answer).unwrap()
}

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn is_update() -> bool {
    std::env::var_os("UPDATE_GOLDEN").is_some()
}

fn type_of(value: &impl Serialize) -> String {
    serde_json::to_value(value).unwrap()["type"].as_str().unwrap().to_owned()
}

/// Walks about and keeps each kind of answer to each kind of command a few times.
fn collect_verdicts() -> Verdicts {
    let mut funnels = BTreeMap::from([("default".to_owned(), default_funnel())]);
    for seed in [3, 4] {
        funnels.insert(format!("generated-{seed}"), funnel(&mut Dice(seed)));
    }
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut verdicts = Vec::new();
    for seed in 0..300 {
        let (name, funnel) = funnels.iter().nth(if seed % 4 == 0 { 1 + seed % 2 } else { 0 }).unwrap();
        let mut walk = Walk::new(funnel.clone());
        let mut dice = Dice(seed as u64);
        for _ in 0..40 {
            let stride = walk.stride(&mut dice);
            let outcome = match &stride.outcome {
                Err(rejection) => rejection.code.as_str().to_owned(),
                Ok(records) => records.iter().map(|record| type_of(&record.event)).collect::<Vec<_>>().join(","),
            };
            let kind = format!("{} {outcome}", stride.command.kind().as_str());
            let count = seen.entry(kind).or_default();
            if *count >= REPEATS {
                continue;
            }
            *count += 1;
            let question = Question {
                state: stride.before,
                command: stride.command,
                role: stride.role,
                now: walk.now,
                session_id: session_id(),
                epoch: 9,
            };
            let value = serde_json::to_value(&question).unwrap();
            verdicts.push(Verdict { funnel: name.clone(), question: value, answer: judge(question, funnel) });
        }
    }
    // A funnel that would not pass the check: its form leads past the payment.
    let mut unchecked = default_funnel();
    unchecked.steps[0].next.push("upsell-1".to_owned().try_into().unwrap());
    let too_large = JsonObject::from([("note".to_owned(), JsonValue::String("x".repeat(17_000)))]);
    let elsewhere = FunnelChoice { id: "elsewhere".to_owned().try_into().unwrap(), version: None };
    let step = "upsell-1".to_owned().try_into().unwrap();
    let rare = [
        (false, Command::Create(Box::new(Create { funnel: Some(elsewhere), ..Create::default() }))),
        (true, Command::GoToStep { step }),
        (true, Command::SetMetadata { metadata: too_large }),
    ];
    for (exists, command) in rare {
        let mut walk = Walk::new(unchecked.clone());
        if exists {
            walk.issue(Role::Browser, Command::Create(Box::default()));
        }
        let (state, role, now) = (walk.state, Role::Browser, walk.now);
        let question = Question { state, command, role, now, session_id: session_id(), epoch: 9 };
        let value = serde_json::to_value(&question).unwrap();
        let answer = judge(question, &unchecked);
        verdicts.push(Verdict { funnel: "unchecked".to_owned(), question: value, answer });
    }
    funnels.insert("unchecked".to_owned(), unchecked);
    Verdicts { funnels, verdicts }
}

#[test]
fn verdicts_are_as_they_were_written_down() {
    let path = file("verdicts.json");
    if is_update() {
        let Verdicts { funnels, verdicts } = collect_verdicts();
        let lines: Vec<String> = verdicts.iter().map(|verdict| serde_json::to_string(verdict).unwrap()).collect();
        let funnels = serde_json::to_string(&funnels).unwrap();
        let text = format!("{{\"funnels\":{funnels},\n\"verdicts\":[\n{}\n]}}\n", lines.join(",\n"));
        fs::write(&path, text).unwrap();
    }
    let Verdicts { funnels, verdicts } = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert!(verdicts.len() >= 200, "only {} verdicts", verdicts.len());

    let mut kinds = BTreeSet::new();
    let mut codes = BTreeSet::new();
    for (index, Verdict { funnel, question, answer }) in verdicts.into_iter().enumerate() {
        let question: Question = serde_json::from_value(question).unwrap();
        kinds.insert(question.command.kind().as_str());
        assert_eq!(judge(question, &funnels[&funnel]), answer, "verdict {index}");
        if let Some(code) = serde_json::from_str::<Value>(&answer).unwrap()["rejection"]["code"].as_str() {
            codes.insert(code.to_owned());
        }
    }
    let all: BTreeSet<_> = CommandKind::ALL.iter().map(|kind| kind.as_str()).collect();
    assert_eq!(kinds, all, "every command is among them");
    // These are not decided, but found out before (the second) or by the protocol.
    codes.extend(["claimMismatch", "tokenRevoked", "malformedCommand", "staleVersion"].map(str::to_owned));
    let all: BTreeSet<String> = RejectionCode::ALL.iter().map(|code| code.as_str().to_owned()).collect();
    assert_eq!(codes, all, "every rejection is among them");
}

/// Every kind of frame from clients.
pub fn client_frames() -> Vec<ClientFrame> {
    let hello = Hello {
        protocol: 1,
        session_id: session_id(),
        client_id: client("browser"),
        alongside: Vec::new(),
        known_version: 0,
        durable_version: None,
        epoch: None,
        funnel_hash: None,
        token: None,
        claim: None,
    };
    let full = Hello {
        alongside: vec![client("another-tab")],
        known_version: 3,
        epoch: Some(9),
        funnel_hash: Some("hash".to_owned()),
        token: Some("token".to_owned()),
        claim: Some("secret".to_owned()),
        ..hello.clone()
    };
    let all = Hello { durable_version: Some(3), ..hello.clone() };
    let mut dice = Dice(5);
    let default = default_funnel();
    let commands: BTreeMap<&str, Command> = (0..2000)
        .map(|_| crate::generate::any_command(&mut dice, None, &default))
        .map(|command| (command.kind().as_str(), command))
        .collect();
    assert_eq!(commands.len(), CommandKind::ALL.len());
    let commands = commands.into_values().enumerate();
    let commands = commands.map(|(n, command)| Submission {
        client_id: client("browser"),
        seq: n as u64 + 1,
        first: n == 0,
        command,
    });
    let submit = ClientFrame::Submit { commands: commands.collect(), traceparents: Vec::new() };
    let traced = ClientFrame::Submit {
        commands: (1..=2)
            .map(|seq| Submission { client_id: client("browser"), seq, first: false, command: Command::Erase {} })
            .collect(),
        traceparents: vec![None, Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned())],
    };
    let hellos = [hello, full, all].map(ClientFrame::Hello);
    hellos.into_iter().chain([submit, traced, ClientFrame::Ping {}]).collect()
}

/// Every kind of frame from servers.
pub fn server_frames() -> Vec<ServerFrame> {
    let mut records = Vec::new();
    let mut state = None;
    let mut events: BTreeMap<String, Record> = BTreeMap::new();
    for seed in 0..400 {
        let mut walk = Walk::new(default_funnel());
        let mut dice = Dice(seed);
        for _ in 0..40 {
            walk.stride(&mut dice);
        }
        for record in walk.records {
            events.entry(type_of(&record.event)).or_insert(record);
        }
        if seed == 1 {
            state = walk.state;
        }
    }
    let rejection = Rejection::new(RejectionCode::NotPaid, "the session is not paid");
    for event in [Event::CommandRejected { rejection: rejection.clone() }, Event::CommandUnneeded {}] {
        let caller = Some(Caller { key_id: Some("a3f20c3c".to_owned()), network: Some("203.0.113.0/24".to_owned()) });
        let record = Record { version: 7, at: START, by: Role::Browser, origin: None, caller, event };
        events.insert(type_of(&record.event), record);
    }
    for (kind, record) in &events {
        assert_eq!(record.event.kind(), kind);
    }
    records.extend(events.into_values());
    let welcome = |funnel: Option<Box<Funnel>>| ServerFrame::Welcome {
        protocol: 1,
        session_id: session_id(),
        epoch: 9,
        version: 12,
        durable_version: 11,
        last_seq: 4,
        server_time: START,
        funnel_hash: funnel.as_ref().map(|_| "hash".to_owned()),
        funnel,
    };
    let accepted = |repeated| ServerFrame::Accepted { client_id: client("browser"), seq: 4, version: 12, repeated };
    let mut frames = vec![
        welcome(None),
        welcome(Some(Box::new(default_funnel()))),
        ServerFrame::Snapshot { state: Box::new(state.unwrap()) },
        ServerFrame::Events { epoch: 9, records },
        accepted(false),
        accepted(true),
        ServerFrame::Rejected { client_id: client("browser"), seq: 5, reason: rejection },
        ServerFrame::Durable { version: 12 },
        ServerFrame::Gap { client_id: client("browser"), expected: 5 },
        ServerFrame::Busy { retry_after_ms: 1000 },
        ServerFrame::Token { token: "token".to_owned(), expires_at: START },
        ServerFrame::CookieDue {},
        ServerFrame::Pong { server_time: START },
    ];
    for (index, code) in ErrorCode::ALL.into_iter().enumerate() {
        let retry_after_ms = (index % 2 == 0).then_some(1000);
        frames.push(ServerFrame::Error { code, message: "A sentence.".to_owned(), retry_after_ms });
    }
    // Does not compile when a kind of frame is added, so that nobody forgets it above.
    for frame in &frames {
        match frame {
            ServerFrame::Welcome { .. }
            | ServerFrame::Snapshot { .. }
            | ServerFrame::Events { .. }
            | ServerFrame::Accepted { .. }
            | ServerFrame::Rejected { .. }
            | ServerFrame::Durable { .. }
            | ServerFrame::Gap { .. }
            | ServerFrame::Busy { .. }
            | ServerFrame::Token { .. }
            | ServerFrame::CookieDue {}
            | ServerFrame::Pong { .. }
            | ServerFrame::Error { .. } => {}
        }
    }
    frames
}

#[derive(Serialize, Deserialize)]
struct Frames {
    client: Vec<String>,
    server: Vec<String>,
}

#[test]
fn frames_are_as_they_were_written_down() {
    let path = file("frames.json");
    let text = |frame: &dyn Fn() -> serde_json::Result<String>| frame().unwrap();
    if is_update() {
        let frames = Frames {
            client: client_frames().iter().map(|frame| text(&|| serde_json::to_string(frame))).collect(),
            server: server_frames().iter().map(|frame| text(&|| serde_json::to_string(frame))).collect(),
        };
        fs::write(&path, serde_json::to_string_pretty(&frames).unwrap() + "\n").unwrap();
    }
    let Frames { client, server } = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    for text in client {
        let frame: ClientFrame = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&frame).unwrap(), text);
    }
    let mut events = BTreeSet::new();
    let mut kinds = BTreeSet::new();
    for text in server {
        let frame: ServerFrame = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&frame).unwrap(), text);
        kinds.insert(type_of(&frame));
        if let ServerFrame::Events { records, .. } = frame {
            events.extend(records.iter().map(|record| type_of(&record.event)));
        }
    }
    assert_eq!(kinds.len(), 12, "{kinds:?}");
    assert_eq!(events.len(), 32, "{events:?}");
}

/// A session, and what the legacy systems would have of it; the package writes the same rows and cookies.
#[derive(Serialize, Deserialize)]
struct Shapes {
    session: Session,
    now: Timestamp,
    row: JsonObject,
    cookie: Option<JsonObject>,
    browser: JsonObject,
}

impl Shapes {
    fn of(session: Session, now: Timestamp) -> Self {
        let cookie = write_cookie_claims(&session, now);
        Self { row: write_row(&session), cookie, browser: write_browser_entry(&session), session, now }
    }
}

/// Walks about and keeps sessions that differ in what the legacy shapes tell.
fn shapes() -> Vec<Shapes> {
    let mut kept = BTreeMap::new();
    for seed in 0..60 {
        let mut dice = Dice(seed);
        let mut walk = Walk::new(default_funnel());
        for _ in 0..40 {
            walk.stride(&mut dice);
            let Some(state) = &walk.state else { continue };
            let session = &state.session;
            let offers: BTreeSet<String> = session.upsells.iter().map(|upsell| format!("{:?}", upsell.state)).collect();
            let is_complete = session.customer.billing.is_some() && !session.products.is_empty();
            let kind = format!(
                "{:?} {} {offers:?} {is_complete} {}",
                session.status,
                session.is_paid(),
                session.claims.is_some()
            );
            kept.entry(kind).or_insert_with(|| Shapes::of(session.clone(), walk.now));
        }
    }
    kept.into_values().collect()
}

#[test]
fn the_legacy_shapes_are_as_they_were_written_down() {
    let path = file("legacy-shapes.json");
    if is_update() {
        let lines: Vec<String> = shapes().iter().map(|shapes| serde_json::to_string(shapes).unwrap()).collect();
        fs::write(&path, format!("[\n{}\n]\n", lines.join(",\n"))).unwrap();
    }
    let kept: Vec<Shapes> = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert!(kept.len() >= 20, "{}", kept.len());
    for shapes in kept {
        let again = Shapes::of(shapes.session.clone(), shapes.now);
        assert_eq!(serde_json::to_value(&again).unwrap(), serde_json::to_value(&shapes).unwrap());
    }
}
