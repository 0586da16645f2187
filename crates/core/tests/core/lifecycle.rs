//! What other systems are told of a session's life.

use proptest::prelude::*;
use serde_json::{Value, json};
use throughline_core::{
    ChangedPart, LifecycleEvent, LifecycleKind as Kind, Role, State, Status, TimeSpan, lifecycle_events,
};

use crate::generate::{CANARY, Dice, Walk, default_funnel, funnel};

/// A session, and what is told of it. Each command is a commit of its own.
struct Story {
    walk: Walk,
    events: Vec<LifecycleEvent>,
}

impl Story {
    fn of(commands: &[(Role, Value)]) -> Self {
        let mut story = Self { walk: Walk::new(default_funnel()), events: Vec::new() };
        for (role, command) in commands {
            story = story.then(*role, command);
        }
        story
    }

    fn then(mut self, role: Role, command: &Value) -> Self {
        self.walk.now = self.walk.now.plus(TimeSpan::from_millis(1_000));
        let stride = self.walk.issue(role, serde_json::from_value(command.clone()).unwrap());
        let records = stride.outcome.unwrap_or_else(|rejection| panic!("{command}: {rejection:?}"));
        self.events.extend(lifecycle_events(stride.before.as_ref(), &records));
        self
    }

    fn kinds(&self) -> Vec<Kind> {
        self.events.iter().map(|event| event.kind).collect()
    }

    fn last(&self, kind: Kind) -> &LifecycleEvent {
        self.events.iter().rfind(|event| event.kind == kind).unwrap()
    }
}

fn filled() -> Vec<(Role, Value)> {
    vec![
        (Role::Browser, json!({"type": "create"})),
        (Role::Browser, json!({"type": "setEmail", "email": "ada@example.com"})),
        (Role::Browser, json!({"type": "setItems", "items": [{"id": "fitspresso-1-pack", "quantity": 1}]})),
        (
            Role::Browser,
            json!({"type": "setCustomer", "customer":
                {"firstName": "Ada", "lastName": "Lovelace", "billing": {"state": "CA"}}}),
        ),
    ]
}

fn bought() -> Vec<(Role, Value)> {
    let mut commands = filled();
    commands.extend([
        (Role::Browser, json!({"type": "beginProcessing"})),
        (Role::Service, json!({"type": "recordPayment", "transactionId": "canary-t1", "amount": 8473})),
        (Role::Browser, json!({"type": "acceptUpsell", "offer": "RC6"})),
        (Role::Browser, json!({"type": "goToStep", "step": "upsell-2"})),
        (Role::Browser, json!({"type": "goToStep", "step": "success"})),
    ]);
    commands
}

#[test]
fn a_purchase_is_told_in_the_order_in_which_it_happened() {
    let story = Story::of(&bought());
    let expected = [
        Kind::Created,
        Kind::Updated,
        Kind::Updated,
        Kind::Updated,
        Kind::StatusChanged,
        Kind::StepChanged,
        Kind::Paid,
        Kind::StepChanged,
        Kind::OfferAccepted,
        Kind::OfferLapsed,
        Kind::StepChanged,
        Kind::OfferLapsed,
        Kind::StepChanged,
        Kind::Completed,
        Kind::StatusChanged,
    ];
    assert_eq!(story.kinds(), expected);
    assert!(story.events.is_sorted_by_key(|event| event.data.version));
}

#[test]
fn each_kind_says_what_there_is_to_say_of_it() {
    let story = Story::of(&bought());
    let session = story.last(Kind::Paid).data.session.clone().unwrap();
    assert_eq!((session.status, session.step.as_str()), (Status::Processing, "processing"));
    assert_eq!(story.last(Kind::Paid).data.paid.unwrap().minor(), 8473);
    let accepted = serde_json::to_value(story.last(Kind::OfferAccepted)).unwrap();
    assert_eq!(accepted["type"], "session.offerAccepted");
    assert_eq!(accepted["data"]["by"], "browser");
    assert_eq!(accepted["data"]["offer"]["id"], "RC6");
    assert_eq!(accepted["data"]["offer"]["step"], "upsell-1");
    let step = story.last(Kind::StepChanged).data.clone();
    assert_eq!(step.previous_step.unwrap().as_str(), "upsell-2");
    assert_eq!(step.stayed_ms, Some(1_000));
    let status = story.last(Kind::StatusChanged).data.clone();
    assert_eq!((status.previous_status, status.session.unwrap().status), (Some(Status::Processing), Status::Completed));
    let created = serde_json::to_value(&story.events[0]).unwrap();
    assert_eq!(created["data"]["source"], "client");
    assert_eq!(created["data"]["version"], 1);
}

#[test]
fn changes_that_are_committed_together_are_told_together() {
    let story = Story::of(&filled());
    let told = lifecycle_events(None, &story.walk.records);
    let kinds: Vec<Kind> = told.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [Kind::Created, Kind::Updated]);
    // The last of them is the tax that the address asks for.
    let changed = [ChangedPart::Email, ChangedPart::Items, ChangedPart::Customer, ChangedPart::Adjustments];
    assert_eq!(told[1].data.changed, changed);
    assert_eq!(told[1].data.version, story.walk.state.as_ref().map_or(0, State::version));
}

#[test]
fn an_erased_session_is_told_to_be_over_and_erased() {
    let story = Story::of(&filled()).then(Role::Service, &json!({"type": "erase"}));
    assert_eq!(story.kinds()[4..], [Kind::Erased, Kind::StatusChanged]);
}

#[test]
fn every_kind_is_called_the_same_in_json() {
    for kind in Kind::ALL {
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        assert_eq!(Kind::of_name(kind.as_str()), Some(kind));
    }
    assert_eq!(Kind::of_name("session.unheardOf"), None);
}

proptest! {
    /// What buyers type and what the gateway calls them stays out of it, whatever happens; and what is told fits the session.
    #[test]
    fn nothing_personal_is_told_and_nothing_that_did_not_happen(seed: u64) {
        let mut dice = Dice(seed);
        let mut walk = Walk::new(funnel(&mut dice));
        for _ in 0..60 {
            let stride = walk.stride(&mut dice);
            let Ok(records) = stride.outcome else { continue };
            let events = lifecycle_events(stride.before.as_ref(), &records);
            let json = serde_json::to_string(&events).unwrap();
            for personal in [CANARY, "ada@example.com", "Lovelace", "555-0100", "O'Brien", "Łukasz", "utm"] {
                prop_assert!(!json.contains(personal), "{} is told: {}", personal, json);
            }
            let (before, after) = (stride.before.as_ref(), walk.state.as_ref());
            let status = |state: Option<&State>| state.map(|state| state.session.status);
            if before.is_some() && status(before) != status(after) {
                let told = events.iter().rfind(|event| event.kind == Kind::StatusChanged);
                prop_assert_eq!(told.and_then(|event| event.data.session.as_ref()).map(|session| session.status), status(after));
            }
            let is_paid = |state: Option<&State>| state.is_some_and(|state| state.session.is_paid());
            let told_paid = events.iter().filter(|event| event.kind == Kind::Paid).count();
            prop_assert_eq!(told_paid, usize::from(is_paid(after) && !is_paid(before)));
        }
    }
}
