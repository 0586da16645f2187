//! Reads Rust values out of JSON values, in the browser.
//!
//! Natively serde's derived code does this. Compiled to WebAssembly that code makes up more than half of the module, so
//! the browser has this instead: every type gives a table of its fields, and one function walks it. Both ways of
//! reading are held against each other in `tests/core/reading.rs`; `docs/decisions/0002-reading-json-in-the-browser.md`
//! has the numbers.
//!
//! A value is read in place: it starts as a blank, and its fields are filled one after the other. So nothing is moved,
//! and there is one way out on an error instead of one for each field. Whoever calls [`FromJson::from_json`] never
//! sees a blank: unless everything was filled, the answer is an error.

use std::fmt;

use super::{JsonObject, JsonValue};
use crate::money::{Currency, Money, Rate};
use crate::time::{TimeSpan, Timestamp};

/// A type that can be read from a JSON value.
pub trait FromJson {
    /// Reads it.
    ///
    /// # Errors
    /// [`Mismatch`] names the field that does not fit.
    fn from_json(value: JsonValue) -> Result<Self, Mismatch>
    where
        Self: Sized,
    {
        let mut read = Self::blank();
        read.fill(value)?;
        Ok(read)
    }

    /// What stands in its place until it is read. It need not be valid.
    #[doc(hidden)]
    fn blank() -> Self
    where
        Self: Sized;

    /// Reads it in place; after an error it holds anything.
    #[doc(hidden)]
    fn fill(&mut self, value: JsonValue) -> Result<(), Mismatch>;

    /// Whether its field may be missing; it stays blank then.
    #[doc(hidden)]
    fn may_be_missing(&self) -> bool {
        false
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
        Self::because(reason.into())
    }

    #[inline(never)]
    fn because(reason: String) -> Self {
        // Boxed, so that every field that is read does not carry room for it.
        Self(Box::new(Finding { path: String::new(), reason }))
    }

    #[inline(never)]
    fn expected(what: &str) -> Self {
        Self::because(["expected ", what].concat())
    }

    #[inline(never)]
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

/// The name of a field in JSON, and whether it may be missing whatever its type says.
pub(crate) type FieldName = (&'static str, bool);

/// What becomes of fields that a type does not know.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unknown {
    Ignored,
    Refused,
}

/// Fills `slots` with the fields of the same position in `names`.
#[inline(never)]
pub(crate) fn fill_fields(
    mut object: JsonObject,
    unknown: Unknown,
    names: &[FieldName],
    slots: &mut [&mut dyn FromJson],
) -> Result<(), Mismatch> {
    for ((name, or_default), slot) in names.iter().zip(slots) {
        match object.remove(*name) {
            Some(value) => slot.fill(value).map_err(|mismatch| mismatch.within(name))?,
            None if *or_default || slot.may_be_missing() => {}
            None => return Err(Mismatch::new("is missing").within(name)),
        }
    }
    match object.into_keys().next() {
        Some(name) if unknown == Unknown::Refused => Err(Mismatch::new("is not known here").within(&name)),
        _ => Ok(()),
    }
}

#[inline(never)]
pub(crate) fn object(value: JsonValue) -> Result<JsonObject, Mismatch> {
    match value {
        JsonValue::Object(object) => Ok(object),
        _ => Err(Mismatch::expected("an object")),
    }
}

#[inline(never)]
pub(crate) fn text(value: JsonValue) -> Result<String, Mismatch> {
    match value {
        JsonValue::String(text) => Ok(text),
        _ => Err(Mismatch::expected("text")),
    }
}

#[inline(never)]
pub(crate) fn integer(value: JsonValue) -> Result<i64, Mismatch> {
    match value {
        JsonValue::Integer(number) => Ok(number),
        _ => Err(Mismatch::expected("a whole number")),
    }
}

fn array(value: JsonValue) -> Result<Vec<JsonValue>, Mismatch> {
    match value {
        JsonValue::Array(items) => Ok(items),
        _ => Err(Mismatch::expected("an array")),
    }
}

/// The position of a text among `names`.
#[inline(never)]
pub(crate) fn position(value: JsonValue, names: &[&str]) -> Result<usize, Mismatch> {
    let text = text(value)?;
    match names.iter().position(|name| *name == text) {
        Some(position) => Ok(position),
        None => Err(Mismatch::because(["'", &text, "' is not possible here"].concat())),
    }
}

/// Takes the field that tells the variants of an enum apart.
#[inline(never)]
pub(crate) fn take_tag(object: &mut JsonObject) -> Result<String, Mismatch> {
    match object.remove("type") {
        Some(value) => text(value).map_err(|mismatch| mismatch.within("type")),
        None => Err(Mismatch::new("is missing").within("type")),
    }
}

#[inline(never)]
pub(crate) fn unknown_tag(tag: &str) -> Mismatch {
    Mismatch::because(["'", tag, "' is not known here"].concat()).within("type")
}

#[inline(never)]
fn for_each_item(value: JsonValue, read: &mut dyn FnMut(JsonValue) -> Result<(), Mismatch>) -> Result<(), Mismatch> {
    for (index, item) in array(value)?.into_iter().enumerate() {
        read(item).map_err(|mismatch| mismatch.within(&index.to_string()))?;
    }
    Ok(())
}

/// Hands on the entries of an object, in the order of the keys.
#[inline(never)]
pub(crate) fn for_each_entry(
    value: JsonValue,
    read: &mut dyn FnMut(String, JsonValue) -> Result<(), Mismatch>,
) -> Result<(), Mismatch> {
    object(value)?.into_iter().try_for_each(|(key, value)| read(key, value))
}

impl FromJson for JsonValue {
    fn blank() -> Self {
        Self::Null
    }

    fn fill(&mut self, value: JsonValue) -> Result<(), Mismatch> {
        *self = value;
        Ok(())
    }
}

/// Types that are read from one JSON value: what they are while blank, and how the value becomes one.
macro_rules! read_value {
    ($($name:ty, blank $blank:expr, $value:ident => $read:expr;)+) => {$(
        impl $crate::json::FromJson for $name {
            fn blank() -> Self {
                $blank
            }

            fn fill(&mut self, $value: $crate::json::JsonValue) -> Result<(), $crate::json::Mismatch> {
                *self = $read?;
                Ok(())
            }
        }
    )+};
}

read_value! {
    String, blank Self::new(), value => text(value);
    bool, blank false, value => match value {
        JsonValue::Bool(value) => Ok(value),
        _ => Err(Mismatch::expected("true or false")),
    };
    i64, blank 0, value => integer(value);
    u64, blank 0, value =>
        integer(value)?.try_into().map_err(|_| Mismatch::expected("a whole number from 0 on"));
    u32, blank 0, value =>
        integer(value)?.try_into().map_err(|_| Mismatch::expected("a whole number from 0 to 4294967295"));
    Money, blank Self::ZERO, value => integer(value).map(Self::from_minor);
    Rate, blank Self::default(), value => u32::from_json(value).map(Self::from_hundredths_of_percent);
    Timestamp, blank Self::from_millis(0), value =>
        text(value)?.parse().map_err(|error: crate::time::InvalidTimestamp| Mismatch::new(error.to_string()));
    TimeSpan, blank Self::from_millis(0), value =>
        text(value)?.parse().map_err(|error: crate::time::InvalidTimeSpan| Mismatch::new(error.to_string()));
    Currency, blank Self::NONE, value => Self::try_from(text(value)?).map_err(Mismatch::new);
}

impl<T: FromJson> FromJson for Option<T> {
    fn blank() -> Self {
        None
    }

    fn fill(&mut self, value: JsonValue) -> Result<(), Mismatch> {
        match value {
            JsonValue::Null => {
                *self = None;
                Ok(())
            }
            value => self.insert(T::blank()).fill(value),
        }
    }

    fn may_be_missing(&self) -> bool {
        true
    }
}

impl<T: FromJson> FromJson for Box<T> {
    fn blank() -> Self {
        Self::new(T::blank())
    }

    fn fill(&mut self, value: JsonValue) -> Result<(), Mismatch> {
        (**self).fill(value)
    }
}

impl<T: FromJson> FromJson for Vec<T> {
    fn blank() -> Self {
        Self::new()
    }

    fn fill(&mut self, value: JsonValue) -> Result<(), Mismatch> {
        self.clear();
        for_each_item(value, &mut |item| {
            let mut read = T::blank();
            let result = read.fill(item);
            self.push(read);
            result
        })
    }
}

impl<A: FromJson, B: FromJson> FromJson for (A, B) {
    fn blank() -> Self {
        (A::blank(), B::blank())
    }

    fn fill(&mut self, value: JsonValue) -> Result<(), Mismatch> {
        let Ok([a, b]) = <[JsonValue; 2]>::try_from(array(value)?) else { return Err(Mismatch::expected("a pair")) };
        self.0.fill(a)?;
        self.1.fill(b)
    }
}

impl FromJson for JsonObject {
    fn blank() -> Self {
        Self::new()
    }

    fn fill(&mut self, value: JsonValue) -> Result<(), Mismatch> {
        *self = object(value)?;
        Ok(())
    }
}

/// Reads a struct: its fields with their names in JSON; `or default` marks those that may be missing.
macro_rules! read_struct {
    ($name:ident, $unknown:ident { $($field:ident : $json:literal $(or $default:ident)?),* $(,)? }) => {
        impl $crate::json::FromJson for $name {
            fn blank() -> Self {
                Self { $($field: $crate::json::read_struct!(@blank $($default)?)),* }
            }

            fn fill(&mut self, value: $crate::json::JsonValue) -> Result<(), $crate::json::Mismatch> {
                let object = $crate::json::object(value)?;
                let names = &[$($crate::json::read_struct!(@name $json $($default)?)),*];
                $crate::json::fill_fields(
                    object,
                    $crate::json::Unknown::$unknown,
                    names,
                    &mut [$(&mut self.$field),*],
                )
            }
        }
    };
    (@blank) => { $crate::json::FromJson::blank() };
    (@blank default) => { Default::default() };
    (@name $json:literal) => { ($json, false) };
    (@name $json:literal default) => { ($json, true) };
}

/// Reads an enum without fields: its variants with their names in JSON.
macro_rules! read_enum {
    ($name:ident { $first:ident : $($first_json:literal)|+ $(, $variant:ident : $json:literal)* $(,)? }) => {
        impl $crate::json::FromJson for $name {
            fn blank() -> Self {
                Self::$first
            }

            fn fill(&mut self, value: $crate::json::JsonValue) -> Result<(), $crate::json::Mismatch> {
                let variants = &[$(($first_json, Self::$first)),+ $(, ($json, Self::$variant))*];
                let position = $crate::json::position(value, &[$($first_json),+ $(, $json)*])?;
                if let Some((_, variant)) = variants.get(position) {
                    *self = *variant;
                }
                Ok(())
            }
        }

        // Does not compile while a variant is missing above.
        const _: fn($name) = |variant| match variant { $name::$first => {} $($name::$variant => {})* };
    };
}

/// Reads an enum that JSON tells apart by a field `type` beside the variant's own fields.
macro_rules! read_tagged {
    ($name:ident, $unknown:ident, blank $blank:expr, { $($variant:ident : $json:literal $fields:tt),+ $(,)? }) => {
        impl $crate::json::FromJson for $name {
            fn blank() -> Self {
                $blank
            }

            fn fill(&mut self, value: $crate::json::JsonValue) -> Result<(), $crate::json::Mismatch> {
                let mut object = $crate::json::object(value)?;
                let tag = $crate::json::take_tag(&mut object)?;
                *self = match tag.as_str() {
                    $($json => $crate::json::read_tagged!(@blank $variant $fields),)+
                    unknown => return Err($crate::json::unknown_tag(unknown)),
                };
                $crate::json::read_tagged!(@fill self, object, $unknown { $($variant $fields)+ })
            }
        }
    };
    (@blank $variant:ident inner) => { Self::$variant($crate::json::FromJson::blank()) };
    (@blank $variant:ident { $($field:ident : $json:literal $(or $default:ident)?),* $(,)? }) => {
        Self::$variant { $($field: $crate::json::read_struct!(@blank $($default)?)),* }
    };
    // The first variant may be `inner`: its value reads the whole object by itself.
    (@fill $this:ident, $object:ident, $unknown:ident { $inner:ident inner $($rest:tt)* }) => {
        match $this {
            Self::$inner(inner) => inner.fill($crate::json::JsonValue::Object($object)),
            _ => $crate::json::read_tagged!(@fill_rest $this, $object, $unknown, [Self::$inner(_) => Ok(()),] { $($rest)* }),
        }
    };
    (@fill $this:ident, $object:ident, $unknown:ident { $($rest:tt)* }) => {
        $crate::json::read_tagged!(@fill_rest $this, $object, $unknown, [] { $($rest)* })
    };
    (@fill_rest $this:ident, $object:ident, $unknown:ident, [$($done:tt)*] { $($variant:ident
        { $($field:ident : $json:literal $(or $default:ident)?),* $(,)? })+ }) => {
        // Exhaustive: does not compile while a variant is missing.
        match $this {
            $($done)*
            $(Self::$variant { $($field),* } => $crate::json::fill_fields(
                $object,
                $crate::json::Unknown::$unknown,
                &[$($crate::json::read_struct!(@name $json $($default)?)),*],
                &mut [$($field),*],
            ),)+
        }
    };
}

pub(crate) use {read_enum, read_struct, read_tagged, read_value};
