//! The localStorage value of the old session manager, as the browser takes it over. Nothing of it is believed.

use throughline_core::json::{FromJson, JsonObject, check_limits, to_text};
use throughline_core::legacy::take_over;
use throughline_core::{Command, Context, PriceSource, Record, Role, State, Status, decide, evolve};

use super::{NOW, NUMBERS, built_in_funnel};
use crate::Outcome;

pub(super) fn run(input: &[u8]) -> Outcome {
    let Ok(text) = str::from_utf8(input) else { return Outcome::Refused };
    let Ok(entries) = JsonObject::from_json(text, NUMBERS) else { return Outcome::Refused };
    let mut is_taken = false;
    for (key, entry) in entries.iter().take(20) {
        match take_over(key, entry) {
            Ok(taken) => {
                assert!(taken.id.is_legacy());
                assert_eq!(check_limits(&taken.create.metadata), Ok(()), "its metadata can't be stored");
                let command = Command::Create(Box::new(taken.create));
                let written = to_text(&command, NUMBERS);
                assert_eq!(serde_json::from_str::<Command>(&written).ok().as_ref(), Some(&command), "{written}");
                let context =
                    Context { now: NOW, funnel: built_in_funnel(), session_id: &taken.id, epoch: 9, claim: None };
                if let Ok(events) = decide(None, &command, Role::Browser, &context) {
                    begun(events);
                    is_taken = true;
                }
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    Outcome::taken_if(is_taken)
}

fn begun(events: Vec<throughline_core::Event>) {
    let mut state: Option<State> = None;
    for (index, event) in events.into_iter().enumerate() {
        let record =
            Record { version: index as u64 + 1, at: NOW, by: Role::Browser, origin: None, caller: None, event };
        state = evolve(state, &record);
    }
    let session = state.expect("a session was created").session;
    assert!(!session.is_paid(), "an old browser's word was taken for a payment");
    assert!(matches!(session.status, Status::Pending | Status::Processing | Status::Expired), "{:?}", session.status);
    for item in &session.products {
        let price = built_in_funnel().product(&item.id).map(|product| product.price);
        assert!(item.price_source != PriceSource::Funnel || price == Some(item.price), "its price was believed");
        assert!(item.price_source != PriceSource::Service, "a browser set a price");
    }
}
