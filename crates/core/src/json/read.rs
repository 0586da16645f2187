//! Reads Rust values out of JSON values, in the browser.
//!
//! Natively serde's derived code does this. Compiled to WebAssembly that code makes up more than half of the module, so
//! the browser has this instead: one small function for each type that takes the fields by name. Both are held
//! against each other in `tests/reading.rs`.

use std::collections::BTreeMap;
use std::fmt;

use super::{JsonObject, JsonValue};
use crate::customer::EmailAddress;
use crate::identifier::{ClientId, FunnelId, OfferId, ProductId, SessionId, StepId};
use crate::money::{Currency, Money, Rate};
use crate::time::{TimeSpan, Timestamp};

/// A type that can be read from a JSON value.
pub trait FromJson: Sized {
    /// Reads it.
    ///
    /// # Errors
    /// [`Mismatch`] names the field that does not fit.
    fn from_json(value: JsonValue) -> Result<Self, Mismatch>;

    /// What a missing field counts as; `None` where it may not be missing.
    fn absent() -> Option<Self> {
        None
    }
}

/// A JSON value does not fit the type that it is read as.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mismatch(Box<Finding>);

#[derive(Clone, PartialEq, Eq, Debug)]
struct Finding {
    path: String,
    reason: String,
}

impl Mismatch {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        // Boxed, so that every field that is read does not carry room for it.
        Self(Box::new(Finding { path: String::new(), reason: reason.into() }))
    }

    fn expected(what: &str) -> Self {
        Self::new(["expected ", what].concat())
    }

    pub(crate) fn within(mut self, name: &str) -> Self {
        let path = &mut self.0.path;
        *path = if path.is_empty() { name.to_owned() } else { [name, ".", path].concat() };
        self
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding { path, reason } = &*self.0;
        if !path.is_empty() {
            f.write_str(path)?;
            f.write_str(": ")?;
        }
        f.write_str(reason)
    }
}

impl std::error::Error for Mismatch {}

/// The fields of an object, taken one by one.
pub(crate) struct Fields(JsonObject);

impl Fields {
    pub(crate) fn of(value: JsonValue) -> Result<Self, Mismatch> {
        match value {
            JsonValue::Object(object) => Ok(Self(object)),
            _ => Err(Mismatch::expected("an object")),
        }
    }

    pub(crate) fn take<T: FromJson>(&mut self, name: &str) -> Result<T, Mismatch> {
        match self.0.remove(name) {
            Some(value) => T::from_json(value).map_err(|mismatch| mismatch.within(name)),
            None => T::absent().ok_or_else(|| Mismatch::new("is missing").within(name)),
        }
    }

    pub(crate) fn take_or_default<T: FromJson + Default>(&mut self, name: &str) -> Result<T, Mismatch> {
        match self.0.remove(name) {
            Some(value) => T::from_json(value).map_err(|mismatch| mismatch.within(name)),
            None => Ok(T::default()),
        }
    }

    pub(crate) fn rest(self) -> JsonValue {
        JsonValue::Object(self.0)
    }

    pub(crate) fn refuse_unknown(self) -> Result<(), Mismatch> {
        match self.0.into_keys().next() {
            None => Ok(()),
            Some(name) => Err(Mismatch::new("is not known here").within(&name)),
        }
    }

    pub(crate) fn ignore_unknown(self) -> Result<(), Mismatch> {
        Ok(())
    }
}

impl FromJson for JsonValue {
    fn from_json(value: Self) -> Result<Self, Mismatch> {
        Ok(value)
    }
}

impl FromJson for String {
    fn from_json(value: JsonValue) -> Result<Self, Mismatch> {
        match value {
            JsonValue::String(text) => Ok(text),
            _ => Err(Mismatch::expected("text")),
        }
    }
}

impl FromJson for bool {
    fn from_json(value: JsonValue) -> Result<Self, Mismatch> {
        match value {
            JsonValue::Bool(value) => Ok(value),
            _ => Err(Mismatch::expected("true or false")),
        }
    }
}

impl FromJson for i64 {
    fn from_json(value: JsonValue) -> Result<Self, Mismatch> {
        match value {
            JsonValue::Integer(number) => Ok(number),
            _ => Err(Mismatch::expected("a whole number")),
        }
    }
}

impl FromJson for u64 {
    fn from_json(value: JsonValue) -> Result<Self, Mismatch> {
        i64::from_json(value)?.try_into().map_err(|_| Mismatch::expected("a whole number from 0 on"))
    }
}

impl FromJson for u32 {
    fn from_json(value: JsonValue) -> Result<Self, Mismatch> {
        i64::from_json(value)?.try_into().map_err(|_| Mismatch::expected("a whole number from 0 to 4294967295"))
    }
}

impl<T: FromJson> FromJson for Option<T> {
    fn from_json(value: JsonValue) -> Result<Self, Mismatch> {
        match value {
            JsonValue::Null => Ok(None),
            value => T::from_json(value).map(Some),
        }
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl<T: FromJson> FromJson for Box<T> {
    fn from_json(value: JsonValue) -> Result<Self, Mismatch> {
        T::from_json(value).map(Self::new)
    }
}

impl<T: FromJson> FromJson for Vec<T> {
    fn from_json(value: JsonValue) -> Result<Self, Mismatch> {
        let JsonValue::Array(items) = value else { return Err(Mismatch::expected("an array")) };
        let mut read = Self::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            read.push(T::from_json(item).map_err(|mismatch| mismatch.within(&index.to_string()))?);
        }
        Ok(read)
    }
}

impl<A: FromJson, B: FromJson> FromJson for (A, B) {
    fn from_json(value: JsonValue) -> Result<Self, Mismatch> {
        match value {
            JsonValue::Array(items) => match <[JsonValue; 2]>::try_from(items) {
                Ok([a, b]) => Ok((A::from_json(a)?, B::from_json(b)?)),
                Err(_) => Err(Mismatch::expected("a pair")),
            },
            _ => Err(Mismatch::expected("a pair")),
        }
    }
}

impl<K: TryFrom<String, Error: fmt::Display> + Ord, V: FromJson> FromJson for BTreeMap<K, V> {
    fn from_json(value: JsonValue) -> Result<Self, Mismatch> {
        let JsonValue::Object(object) = value else { return Err(Mismatch::expected("an object")) };
        let mut read = Self::new();
        for (key, value) in object {
            let value = V::from_json(value).map_err(|mismatch| mismatch.within(&key))?;
            read.insert(K::try_from(key).map_err(|error| Mismatch::new(error.to_string()))?, value);
        }
        Ok(read)
    }
}

macro_rules! from_text {
    ($($name:ty),+ $(,)?) => {$(
        impl FromJson for $name {
            fn from_json(value: JsonValue) -> Result<Self, Mismatch> {
                Self::try_from(String::from_json(value)?).map_err(|error| Mismatch::new(error.to_string()))
            }
        }
    )+};
}

from_text!(
    SessionId,
    ClientId,
    StepId,
    OfferId,
    ProductId,
    FunnelId,
    EmailAddress,
    Currency,
    crate::funnel::Requirement
);

macro_rules! from_parsed_text {
    ($($name:ty),+ $(,)?) => {$(
        impl FromJson for $name {
            fn from_json(value: JsonValue) -> Result<Self, Mismatch> {
                String::from_json(value)?.parse().map_err(|error| Mismatch::new(format!("{error}")))
            }
        }
    )+};
}

from_parsed_text!(Timestamp, TimeSpan);

impl FromJson for Money {
    fn from_json(value: JsonValue) -> Result<Self, Mismatch> {
        i64::from_json(value).map(Self::from_minor)
    }
}

impl FromJson for Rate {
    fn from_json(value: JsonValue) -> Result<Self, Mismatch> {
        u32::from_json(value).map(Self::from_hundredths_of_percent)
    }
}

/// Reads a struct: its fields with their names in JSON; `or default` marks those that may be missing.
macro_rules! read_struct {
    ($name:ident, $unknown:ident { $($field:ident : $json:literal $(or $default:ident)?),* $(,)? }) => {
        impl $crate::json::FromJson for $name {
            fn from_json(value: $crate::json::JsonValue) -> Result<Self, $crate::json::Mismatch> {
                let mut fields = $crate::json::Fields::of(value)?;
                let read = Self { $($field: $crate::json::read_struct!(@take fields $json $($default)?)),* };
                fields.$unknown()?;
                Ok(read)
            }
        }
    };
    (@take $fields:ident $json:literal) => { $fields.take($json)? };
    (@take $fields:ident $json:literal default) => { $fields.take_or_default($json)? };
}

/// Reads an enum without fields: its variants with their names in JSON.
macro_rules! read_enum {
    ($name:ident { $($variant:ident : $($json:literal)|+),+ $(,)? }) => {
        impl $crate::json::FromJson for $name {
            fn from_json(value: $crate::json::JsonValue) -> Result<Self, $crate::json::Mismatch> {
                let names: &[(&str, Self)] = &[$($(($json, Self::$variant)),+),+];
                let text = <String as $crate::json::FromJson>::from_json(value)?;
                match names.iter().find(|(name, _)| *name == text) {
                    Some((_, variant)) => Ok(*variant),
                    None => Err($crate::json::Mismatch::new(["'", &text, "' is not possible here"].concat())),
                }
            }
        }

        // Does not compile while a variant is missing above.
        const _: fn($name) = |variant| match variant { $($name::$variant => {})+ };
    };
}

/// Reads an enum that JSON tells apart by a field `type` beside the variant's own fields.
macro_rules! read_tagged {
    ($name:ident, $unknown:ident { $($variant:ident : $json:literal $fields:tt),+ $(,)? }) => {
        $crate::json::read_tagged!(@impl $name, $unknown { $($variant : $json $fields),+ });
    };
    (@impl $name:ident, $unknown:ident { $($variant:ident : $json:literal $fields:tt),+ }) => {
        impl $crate::json::FromJson for $name {
            fn from_json(value: $crate::json::JsonValue) -> Result<Self, $crate::json::Mismatch> {
                let mut fields = $crate::json::Fields::of(value)?;
                let tag: String = fields.take("type")?;
                $(
                    if tag == $json {
                        return $crate::json::read_tagged!(@variant $name, $unknown, $variant, fields, $fields);
                    }
                )+
                Err($crate::json::Mismatch::new(["'", &tag, "' is not known here"].concat()).within("type"))
            }
        }
    };
    (@variant $name:ident, $unknown:ident, $variant:ident, $taken:ident, inner) => {
        $crate::json::FromJson::from_json($taken.rest()).map($name::$variant)
    };
    (@variant $name:ident, $unknown:ident, $variant:ident, $taken:ident,
        { $($field:ident : $json:literal $(or $default:ident)?),* $(,)? }) => {{
        let read = $name::$variant {
            $($field: $crate::json::read_struct!(@take $taken $json $($default)?)),*
        };
        $taken.$unknown()?;
        Ok(read)
    }};
}

pub(crate) use {read_enum, read_struct, read_tagged};
