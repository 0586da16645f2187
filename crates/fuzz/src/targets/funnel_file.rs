//! Funnel definitions, read as TOML and as JSON. What is found sound can be drawn, sent and gone through to its end.

use std::path::Path;

use throughline_core::json::{FromJson, to_text};
use throughline_core::{Command, Context, Funnel, Record, Role, SessionId, State, Timestamp, decide, evolve};
use throughline_server::funnel_graph;
use throughline_server::funnels::read_text;

use super::{NOW, NUMBERS};
use crate::Outcome;

pub(super) fn run(input: &[u8]) -> Outcome {
    let Ok(text) = str::from_utf8(input) else { return Outcome::Refused };
    if let Ok(by_fields) = Funnel::from_json(text, NUMBERS) {
        let by_serde = serde_json::from_str::<Funnel>(text);
        assert_eq!(by_serde.ok().as_ref(), Some(&by_fields), "the browser reads another funnel");
    }
    let mut is_taken = false;
    for name in ["funnel.toml", "funnel.json"] {
        match read_text(Path::new(name), text) {
            Ok(funnel) => {
                use_funnel(&funnel);
                is_taken = true;
            }
            Err(error) => assert!(error.to_string().starts_with(name), "{error}"),
        }
    }
    Outcome::taken_if(is_taken)
}

fn use_funnel(funnel: &Funnel) {
    let text = serde_json::to_string(funnel).expect("a funnel can be written");
    assert_eq!(to_text(funnel, NUMBERS), text);
    assert_eq!(Funnel::from_json(&text, NUMBERS).as_ref(), Ok(funnel), "a browser does not get it as it is");
    assert!(funnel_graph::mermaid(funnel).lines().count() > funnel.steps.len());
    assert!(funnel_graph::svg(funnel).ends_with("</svg>\n"));
    go_through(funnel);
}

/// A buyer and the shop's back end try everything that the funnel names, as far as it lets them.
fn go_through(funnel: &Funnel) {
    let session_id = SessionId::generate(NOW, [7; 16]);
    let mut state: Option<State> = None;
    let mut now = NOW;
    let products: Vec<_> = funnel.catalogue.iter().take(8).collect();
    let items: Vec<_> =
        products.iter().map(|product| serde_json::json!({ "id": product.id, "quantity": 999 })).collect();
    let mut commands = vec![
        (
            Role::Browser,
            serde_json::json!({ "type": "create", "email": "ada@example.com", "products": items,
            "customer": { "firstName": "Ada", "lastName": "Lovelace", "phone": "555-0100", "billing": { "address": "1", "city": "1", "zipCode": "1", "state": "CA", "country": "US" } } }),
        ),
        (Role::Browser, serde_json::json!({ "type": "extend" })),
    ];
    for coupon in funnel.coupons.iter().take(8) {
        commands.push((Role::Browser, serde_json::json!({ "type": "setCoupon", "code": coupon.code })));
    }
    for step in funnel.steps.iter().take(20) {
        commands.push((Role::Browser, serde_json::json!({ "type": "goToStep", "step": step.id })));
    }
    commands.push((Role::Browser, serde_json::json!({ "type": "beginProcessing" })));
    commands.push((Role::Service, serde_json::json!({ "type": "recordPayment", "transactionId": "t" })));
    for offer in funnel.offers.iter().take(20) {
        commands.push((Role::Browser, serde_json::json!({ "type": "acceptUpsell", "offer": offer.id })));
        commands.push((
            Role::Service,
            serde_json::json!({ "type": "recordUpsellCharge", "offer": offer.id, "transactionId": offer.id }),
        ));
    }
    for step in funnel.steps.iter().take(20) {
        commands.push((Role::Browser, serde_json::json!({ "type": "goToStep", "step": step.id })));
    }
    for (role, mut command) in commands {
        if command["type"] == "recordPayment" {
            command["amount"] = serde_json::json!(state.as_ref().map(|state| state.session.amount));
        }
        let Ok(command) = serde_json::from_value::<Command>(command) else { continue };
        now = Timestamp::from_millis(now.as_millis() + 1_000);
        let context = Context { now, funnel, session_id: &session_id, epoch: 9, claim: None };
        let Ok(events) = decide(state.as_ref(), &command, role, &context) else { continue };
        for event in events {
            let version = state.as_ref().map_or(0, State::version) + 1;
            state = evolve(state, &Record { version, at: now, by: role, origin: None, caller: None, event });
        }
        if let Some(State { session, .. }) = &state {
            assert!(funnel.step(&session.current_step).is_some(), "at a step that the funnel has not");
            assert!(session.amount.minor() >= 0, "a session owes {}", session.amount.minor());
        }
    }
}
