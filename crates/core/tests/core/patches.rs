//! Patches by which a page's snapshot of the session is mended.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Map, Value};
use throughline_core::Session;
use throughline_core::json::{Numbers, Writer};

use crate::generate::{Dice, Walk, default_funnel};

/// What `js/src/snapshot.ts` does with a patch.
fn apply(base: &mut Value, patch: Map<String, Value>) {
    for (key, value) in patch {
        let (name, value) = match (key.strip_prefix('>'), value) {
            (None, value) => (key.as_str(), value),
            (Some(name), Value::Object(patch)) => {
                let mut inner = match &*base {
                    Value::Array(items) => items[name.parse::<usize>().unwrap()].clone(),
                    other => other[name].clone(),
                };
                apply(&mut inner, patch);
                (name, inner)
            }
            (Some(_), other) => panic!("{key} is no patch: {other}"),
        };
        match base {
            Value::Array(items) => {
                let position = name.parse::<usize>().unwrap();
                // Several may be new, and "10" comes before "9" here.
                items.resize(items.len().max(position + 1), Value::Null);
                items[position] = value;
            }
            Value::Object(fields) => drop(fields.insert(name.to_owned(), value)),
            other => panic!("{key} of {other}"),
        }
    }
}

fn patch(session: &Session, published: &mut Option<Session>) -> Option<Map<String, Value>> {
    let mut out = Writer::new(Numbers::NATIVE);
    session.write_patch(published, &mut out).then(|| serde_json::from_str(&out.finish()).unwrap())
}

proptest! {
    #[test]
    fn patches_one_after_the_other_make_the_session(seeds in vec(any::<u64>(), 1..80), skipped in any::<u64>()) {
        let mut walk = Walk::new(default_funnel());
        let (mut published, mut shown) = (None, Value::Object(Map::new()));
        let mut dice = Dice(skipped);
        for seed in seeds {
            walk.stride(&mut Dice(seed));
            // A page may be told of several changes at once.
            let Some(state) = walk.state.as_ref().filter(|_| dice.percent(70)) else { continue };
            if let Some(patch) = patch(&state.session, &mut published) {
                apply(&mut shown, patch);
            }
            prop_assert_eq!(&shown, &serde_json::to_value(&state.session).unwrap());
            prop_assert_eq!(patch(&state.session, &mut published), None);
        }
    }

    #[test]
    fn a_patch_from_any_session_to_any_other_makes_that_one(seeds in vec(any::<u64>(), 2..60), at in any::<prop::sample::Index>()) {
        let mut walk = Walk::new(default_funnel());
        let mut sessions = Vec::new();
        for seed in seeds {
            walk.stride(&mut Dice(seed));
            sessions.extend(walk.state.as_ref().map(|state| state.session.clone()));
        }
        // Back in time as well: a rebase takes back what was refused.
        if let (Some(last), false) = (sessions.last(), sessions.is_empty()) {
            let earlier = &sessions[at.index(sessions.len())];
            let (mut published, mut shown) = (Some(last.clone()), serde_json::to_value(last).unwrap());
            if let Some(patch) = patch(earlier, &mut published) {
                apply(&mut shown, patch);
            }
            prop_assert_eq!(&shown, &serde_json::to_value(earlier).unwrap());
            prop_assert_eq!(published.as_ref(), Some(earlier));
        }
    }
}
