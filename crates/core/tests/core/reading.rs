//! Two ways to read and write JSON, serde's and the one of the browser build, come to the same.

use std::fmt::Debug;

use proptest::collection::vec;
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use throughline_core::json::{FromJson, JsonValue, Numbers, Reader, ToJson, to_text};
use throughline_core::sync::{Hello, ServerFrame, StoredCommand};
use throughline_core::{Command, Funnel, Record, Rejection, RejectionCode, Session, State};

use crate::generate::{Dice, START, Walk, any_command, default_funnel, funnel, json};
use crate::golden::server_frames;

/// What serde reads from this text, and what the browser build reads from it.
fn both<T: FromJson + DeserializeOwned>(text: &str) -> (Option<T>, Option<T>) {
    (serde_json::from_str(text).ok(), T::from_json(text, NUMBERS).ok())
}

/// Numbers with a fraction as serde_json has them.
const NUMBERS: Numbers = Numbers {
    read: |text| serde_json::from_str(text).unwrap_or(f64::NAN),
    write: |number| serde_json::to_string(&number).unwrap(),
};

fn reads_back<T: FromJson + ToJson + Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    let text = serde_json::to_string(value).unwrap();
    let (by_serde, by_fields) = both::<T>(&text);
    assert_eq!(by_serde.as_ref(), Some(value), "serde, {text}");
    assert_eq!(by_fields.as_ref(), Some(value), "by fields, {text}");
    assert_eq!(to_text(value, NUMBERS), text, "written");
}

/// Changes one place by chance: a field goes, or something else or something unknown stands there.
fn damage(value: &mut Value, dice: &mut Dice) {
    match value {
        Value::Object(object) if !object.is_empty() && dice.percent(85) => {
            let keys: Vec<String> = object.keys().cloned().collect();
            let key = dice.pick(&keys);
            match dice.below(6) {
                0 => drop(object.remove(&key)),
                1 => drop(object.insert("unheardOf".to_owned(), Value::Bool(true))),
                _ => damage(&mut object[&key], dice),
            }
        }
        Value::Array(items) if !items.is_empty() && dice.percent(85) => {
            let index = dice.below(items.len() as u64) as usize;
            damage(&mut items[index], dice);
        }
        other => {
            let texts = ["", "nonsense", "funnel", "2026-11-20T09:00:00.000Z", "24h", "USD", "create"];
            // No array: serde takes one for a struct, field by field; in the browser that is refused.
            *other = match dice.below(5) {
                0 => Value::Null,
                1 => Value::String(dice.pick(&texts).to_owned()),
                2 => Value::from(dice.pick(&[-1, 0, 1, 4_294_967_296_i64])),
                3 => Value::from(1.5),
                _ => Value::Object(Default::default()),
            };
        }
    }
}

fn agree_on_damage<T: FromJson + Serialize + DeserializeOwned + PartialEq + Debug>(
    value: &T,
    dice: &mut Dice,
) -> Result<(), TestCaseError> {
    let mut damaged = serde_json::to_value(value).unwrap();
    damage(&mut damaged, dice);
    let text = damaged.to_string();
    let (by_serde, by_fields) = both::<T>(&text);
    prop_assert_eq!(by_serde, by_fields, "{}", text);
    Ok(())
}

fn state(seeds: &[u64]) -> (Option<State>, Vec<Record>) {
    let mut walk = Walk::new(default_funnel());
    for seed in seeds {
        walk.stride(&mut Dice(*seed));
    }
    (walk.state, walk.records)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn sessions_and_records_read_back(seeds in vec(any::<u64>(), 1..50)) {
        let (state, records) = state(&seeds);
        records.iter().for_each(reads_back::<Record>);
        if let Some(state) = state {
            reads_back::<State>(&state);
            reads_back::<Session>(&state.session);
        }
    }

    #[test]
    fn commands_and_funnels_read_back(seed in any::<u64>()) {
        let mut dice = Dice(seed);
        let funnel = funnel(&mut dice);
        reads_back::<Funnel>(&funnel);
        for seq in 0..30 {
            let command = any_command(&mut dice, None, &funnel);
            reads_back::<Command>(&command);
            reads_back(&StoredCommand { seq, at: START, command });
        }
    }

    #[test]
    fn both_refuse_the_same_damage(seeds in vec(any::<u64>(), 1..30), seed in any::<u64>()) {
        let mut dice = Dice(seed);
        let (state, records) = state(&seeds);
        for record in &records {
            agree_on_damage::<Record>(record, &mut dice)?;
        }
        if let Some(state) = state {
            agree_on_damage::<State>(&state, &mut dice)?;
        }
        let funnel = funnel(&mut dice);
        agree_on_damage::<Funnel>(&funnel, &mut dice)?;
        for _ in 0..20 {
            agree_on_damage::<Command>(&any_command(&mut dice, None, &funnel), &mut dice)?;
        }
    }

    #[test]
    fn any_json_reads_back_and_is_refused_without_a_panic(seed in any::<u64>()) {
        let value = json(&mut Dice(seed), 4);
        let text = serde_json::to_string(&value).unwrap();
        reads_back::<JsonValue>(&value);
        // Written as people write it, with white space.
        let pretty = serde_json::to_string_pretty(&value).unwrap();
        prop_assert_eq!(JsonValue::from_json(&pretty, Numbers::NATIVE), Ok(value));
        let _ = ServerFrame::from_json(&text, NUMBERS);
        let _ = Command::from_json(&text, NUMBERS);
        let _ = Funnel::from_json(&text, NUMBERS);
        let _ = State::from_json(&text, NUMBERS);
    }

    #[test]
    fn text_that_is_cut_or_spoiled_is_refused_by_both_or_by_none(
        seed in any::<u64>(),
        at in any::<prop::sample::Index>(),
        other in prop::sample::select(r#" {}[],:"\\/-+.0123456789eEnulltruefalsdD"#.chars().collect::<Vec<_>>()),
        is_cut in any::<bool>(),
    ) {
        let text = serde_json::to_string(&json(&mut Dice(seed), 4)).unwrap();
        let mut characters: Vec<char> = text.chars().collect();
        let at = at.index(characters.len());
        if is_cut { characters.truncate(at) } else { characters[at] = other }
        let spoiled: String = characters.into_iter().collect();
        let (by_serde, by_fields) = both::<JsonValue>(&spoiled);
        prop_assert_eq!(by_serde, by_fields, "{}", spoiled);
    }
}

#[test]
fn every_kind_of_frame_reads_back() {
    server_frames().iter().for_each(reads_back::<ServerFrame>);
}

#[test]
fn a_greeting_reads_back() {
    let text = r#"{"protocol":1,"sessionId":"ws_1_a","clientId":"c","knownVersion":7,"epoch":3,"claim":"secret"}"#;
    reads_back::<Hello>(&serde_json::from_str(text).unwrap());
}

#[test]
fn every_rejection_reads_back() {
    for code in RejectionCode::ALL {
        reads_back(&Rejection::new(*code, "a sentence"));
    }
}

#[test]
fn a_mismatch_names_the_field() {
    let read = |text: &str| Command::from_json(text, NUMBERS).unwrap_err().to_string();
    assert_eq!(
        read(r#"{"type":"setItems","items":[{"id":"a","quantity":-1}]}"#),
        "items.0.quantity: expected a whole number from 0 to 4294967295"
    );
    assert_eq!(read(r#"{"type":"setEmail","email":"a@b.co","amount":1}"#), "amount: is not known here");
    assert_eq!(read(r#"{"type":"setEmail"}"#), "email: is missing");
    assert_eq!(read(r#"{"type":"pay"}"#), "type: 'pay' is not known here");
    assert_eq!(read(r#"{"type":"setEmail","email":"a@b.co","email":"a@b.co"}"#), "email: is there twice");
    assert_eq!(read(r#"{"type":"setEmail","email":"a@b.co","type":"erase"}"#), "type: is there twice");
    assert_eq!(read(r#"{"email":"a@b.co"}"#), "type: is missing");
    assert_eq!(read("[]"), "expected an object");
    assert_eq!(read(r#"{"type":"setEmail","email":"#), "email: not JSON");
}

#[test]
fn the_edges_of_json_are_where_serde_has_them() {
    let deep = |levels: usize| ["[".repeat(levels), "]".repeat(levels)].concat();
    let texts = [
        "",
        " ",
        "nul",
        "nulll",
        "null null",
        "\u{feff}null",
        "tru",
        "-",
        "01",
        "-0",
        "0.",
        ".5",
        "1.e3",
        "1e",
        "1e+",
        "1E-7",
        "1e400",
        "-1e400",
        "9007199254740991",
        "9007199254740992",
        "-9007199254740993",
        "123456789012345678901234567890",
        "\"",
        "\"\\",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u00e9\\n\\/\"",
        "\"\\ud83d\\ude00\"",
        "\"\\ud83d\"",
        "\"\\ude00\"",
        "\"\\ud83dx\"",
        "\"\\ud83d\\u0041\"",
        "\"\u{1}\"",
        "\"\u{7f}\"",
        "[,]",
        "[1,]",
        "[1 2]",
        "[1,2",
        "{",
        "{,}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{\"a\":1,\"a\":2}",
        "{\"a\":1]",
        " [ 1 , { \"a\" : null } ] ",
        &deep(127),
        &deep(128),
        &deep(100_000),
    ];
    for text in texts {
        let (by_serde, by_fields) = both::<JsonValue>(text);
        let shown: String = text.chars().take(80).collect();
        assert_eq!(by_serde, by_fields, "{shown}");
        let skipped = Reader::new(text, NUMBERS).raw().is_ok_and(|raw| raw.trim() == text.trim_ascii());
        assert_eq!(skipped, by_serde.is_some(), "skipped: {shown}");
    }
}

#[test]
fn a_whole_number_is_one_that_is_written_as_such() {
    for (text, expected) in [
        ("0", Some(0)),
        ("-7", Some(-7)),
        ("-0", None),
        ("1.0", None),
        ("1e2", None),
        ("1E2", None),
        ("-0.0", None),
        ("9007199254740991", Some(9_007_199_254_740_991)),
    ] {
        assert_eq!(both::<i64>(text), (expected, expected), "{text}");
    }
}

#[test]
fn the_legacy_status_initiated_reads_as_pending() {
    let (by_serde, by_fields) = both::<throughline_core::Status>(r#""initiated""#);
    assert_eq!(by_serde, Some(throughline_core::Status::Pending));
    assert_eq!(by_fields, by_serde);
}
