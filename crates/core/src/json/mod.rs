//! JSON: any value of it, for metadata, and the browser's way of reading and writing everything else.

mod change;
mod read;
mod text;
mod write;

use core::fmt;

use crate::ordered::OrderedMap;
use crate::prelude::*;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(crate) use change::{Change, changes_by_field};
pub(crate) use read::{
    FieldName, Unknown, fill_fields, json_enum, json_struct, json_tagged, position, read_value, tag, text,
};
pub use read::{FromJson, Mismatch};
pub use text::{Numbers, Reader};
pub use write::{ToJson, Writer, to_text};
pub(crate) use write::{digits, write_value};

/// A JSON object; its keys are kept in order.
pub type JsonObject = OrderedMap<String, JsonValue>;

/// What TypeScript calls a [`JsonObject`].
#[cfg(feature = "typescript")]
pub(crate) type TypescriptObject = alloc::collections::BTreeMap<String, JsonValue>;

/// Any JSON value. Whole numbers up to 2^53 are kept as integers, so both ends write them alike.
#[derive(Clone, PartialEq, Debug)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(type = "unknown"))]
pub enum JsonValue {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A whole number that JavaScript can hold exactly.
    Integer(i64),
    /// Any other number; never NaN or infinite.
    Float(f64),
    /// Text.
    String(String),
    /// An array.
    Array(Vec<JsonValue>),
    /// An object.
    Object(JsonObject),
}

impl core::hash::Hash for JsonValue {
    fn hash<H: core::hash::Hasher>(&self, hasher: &mut H) {
        core::mem::discriminant(self).hash(hasher);
        match self {
            Self::Null => {}
            Self::Bool(value) => value.hash(hasher),
            Self::Integer(number) => number.hash(hasher),
            // Zero and minus zero are equal, and have to count as such.
            Self::Float(number) => (number + 0.0).to_bits().hash(hasher),
            Self::String(text) => text.hash(hasher),
            Self::Array(values) => values.hash(hasher),
            Self::Object(object) => object.hash(hasher),
        }
    }
}

/// What metadata may hold at most.
pub mod limits {
    /// Keys at the top level.
    pub const TOP_LEVEL_KEYS: usize = 50;
    /// Levels of nesting; the metadata object itself is the first.
    pub const DEPTH: usize = 8;
    /// Bytes when written as compact JSON.
    pub const BYTES: usize = 16 * 1024;
}

/// Which limit of [`limits`] was passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LimitExceeded {
    /// More than [`limits::TOP_LEVEL_KEYS`] keys; this many were found.
    Keys(usize),
    /// More than [`limits::DEPTH`] levels.
    Depth,
    /// More than [`limits::BYTES`] bytes; about this many were found.
    Bytes(usize),
}

impl fmt::Display for LimitExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence())
    }
}

impl LimitExceeded {
    /// What is said of it, after "the metadata has".
    pub(crate) fn sentence(&self) -> String {
        let (before, number, after, limit, end) = match self {
            Self::Keys(found) => ("", Some(found), " top-level keys, at most ", limits::TOP_LEVEL_KEYS, " are allowed"),
            Self::Depth => ("nested deeper than the ", None, "", limits::DEPTH, " levels that are allowed"),
            Self::Bytes(found) => ("about ", Some(found), " bytes, at most ", limits::BYTES, " are allowed"),
        };
        let number = number.map_or(String::new(), |number| digits(*number as i64));
        [before, &number, after, &digits(limit as i64), end].joined()
    }
}

/// Checks an object against the limits of metadata.
///
/// # Errors
/// The first limit that is exceeded.
pub fn check_limits(object: &JsonObject) -> Result<(), LimitExceeded> {
    if object.len() > limits::TOP_LEVEL_KEYS {
        return Err(LimitExceeded::Keys(object.len()));
    }
    let bytes = size_of_object(object, 1)?;
    if bytes > limits::BYTES {
        return Err(LimitExceeded::Bytes(bytes));
    }
    Ok(())
}

/// About how many bytes a value has when written; the largest number for one that is nested too deeply.
pub(crate) fn weight(value: &JsonValue) -> usize {
    size_of_value(value, 1).unwrap_or(usize::MAX)
}

fn size_of_object(object: &JsonObject, level: usize) -> Result<usize, LimitExceeded> {
    if level > limits::DEPTH {
        return Err(LimitExceeded::Depth);
    }
    object.iter().try_fold(2, |sum, (key, value)| Ok(sum + size_of_text(key) + 2 + size_of_value(value, level)?))
}

fn size_of_value(value: &JsonValue, level: usize) -> Result<usize, LimitExceeded> {
    match value {
        JsonValue::Null | JsonValue::Bool(_) => Ok(5),
        JsonValue::Integer(_) | JsonValue::Float(_) => Ok(16),
        JsonValue::String(text) => Ok(size_of_text(text)),
        JsonValue::Array(_) if level + 1 > limits::DEPTH => Err(LimitExceeded::Depth),
        JsonValue::Array(items) => items.iter().try_fold(2, |sum, item| Ok(sum + 1 + size_of_value(item, level + 1)?)),
        JsonValue::Object(object) => size_of_object(object, level + 1),
    }
}

fn size_of_text(text: &str) -> usize {
    2 + text.chars().map(|c| if c < ' ' { 6 } else { c.len_utf8() + usize::from(c == '"' || c == '\\') }).sum::<usize>()
}

/// Applies an RFC 7396 merge patch: `null` removes a key, objects merge, anything else replaces.
pub fn merge_patch(target: &mut JsonObject, patch: &JsonObject) {
    merge_within(target, patch, limits::DEPTH);
}

fn merge_within(target: &mut JsonObject, patch: &JsonObject, levels: usize) {
    target.update(patch, &mut |here, there| match there {
        JsonValue::Null => None,
        JsonValue::Object(inner) if levels > 0 => {
            let mut object = match here {
                Some(JsonValue::Object(object)) => object,
                _ => JsonObject::new(),
            };
            merge_within(&mut object, inner, levels - 1);
            Some(JsonValue::Object(object))
        }
        other => Some(other.clone()),
    });
}

const MAX_SAFE_INTEGER: i64 = (1 << 53) - 1;

impl From<f64> for JsonValue {
    /// Whole numbers become integers; what JSON can't say (NaN, infinities) becomes `null`.
    fn from(number: f64) -> Self {
        if !number.is_finite() {
            Self::Null
        } else if number as i64 as f64 == number && number.abs() <= MAX_SAFE_INTEGER as f64 {
            Self::Integer(number as i64)
        } else {
            Self::Float(number)
        }
    }
}

impl From<&str> for JsonValue {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl Serialize for JsonValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Integer(number) => serializer.serialize_i64(*number),
            Self::Float(number) => serializer.serialize_f64(*number),
            Self::String(text) => serializer.serialize_str(text),
            Self::Array(items) => serializer.collect_seq(items),
            Self::Object(object) => serializer.collect_map(object),
        }
    }
}

impl<'de> Deserialize<'de> for JsonValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = JsonValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<JsonValue, E> {
        Ok(JsonValue::Null)
    }

    fn visit_none<E>(self) -> Result<JsonValue, E> {
        Ok(JsonValue::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<JsonValue, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<JsonValue, E> {
        Ok(JsonValue::Bool(value))
    }

    fn visit_i64<E>(self, number: i64) -> Result<JsonValue, E> {
        let is_safe = number.unsigned_abs() <= MAX_SAFE_INTEGER.unsigned_abs();
        Ok(if is_safe { JsonValue::Integer(number) } else { JsonValue::Float(number as f64) })
    }

    fn visit_u64<E>(self, number: u64) -> Result<JsonValue, E> {
        Ok(i64::try_from(number).map_or(JsonValue::Float(number as f64), |whole| match whole {
            ..=MAX_SAFE_INTEGER => JsonValue::Integer(whole),
            _ => JsonValue::Float(number as f64),
        }))
    }

    fn visit_f64<E>(self, number: f64) -> Result<JsonValue, E> {
        Ok(number.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<JsonValue, E> {
        Ok(text.into())
    }

    fn visit_string<E>(self, text: String) -> Result<JsonValue, E> {
        Ok(JsonValue::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<JsonValue, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(JsonValue::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<JsonValue, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(JsonValue::Object(entries.into_iter().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str) -> JsonObject {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn merge_patch_follows_the_examples_of_rfc_7396() {
        let cases = [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, r#"{}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
            (r#"{"a":"foo"}"#, r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
        ];
        for (target, patch, expected) in cases {
            let mut merged = object(target);
            merge_patch(&mut merged, &object(patch));
            assert_eq!(merged, object(expected), "{target} + {patch}");
        }
    }

    #[test]
    fn each_limit_holds_at_its_edge() {
        let keys = |count: usize| (0..count).map(|n| (n.to_string(), JsonValue::Null)).collect::<JsonObject>();
        assert_eq!(check_limits(&keys(50)), Ok(()));
        assert_eq!(check_limits(&keys(51)), Err(LimitExceeded::Keys(51)));

        let nested = |levels: usize| object(&format!("{}1{}", r#"{"a":"#.repeat(levels), "}".repeat(levels)));
        assert_eq!(check_limits(&nested(8)), Ok(()));
        assert_eq!(check_limits(&nested(9)), Err(LimitExceeded::Depth));

        let text = |bytes: usize| object(&format!(r#"{{"a":"{}"}}"#, "x".repeat(bytes)));
        assert_eq!(check_limits(&text(limits::BYTES - 9)), Ok(()));
        assert!(matches!(check_limits(&text(limits::BYTES)), Err(LimitExceeded::Bytes(_))));
    }

    #[test]
    fn whole_numbers_are_written_without_a_fraction() {
        assert_eq!(serde_json::to_string(&object(r#"{"a":2.0,"b":1e300}"#)).unwrap(), r#"{"a":2,"b":1e+300}"#);
    }
}
