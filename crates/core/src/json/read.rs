//! Reads Rust values out of JSON text, in the browser.
//!
//! Natively serde's derived code does this. Compiled to WebAssembly that code makes up more than half of the module, so
//! the browser has this instead: every type gives a table of its fields, and one function walks it. The same table
//! writes ([`write`](super::write)). Both ways are held against serde in `tests/core/reading.rs`;
//! `docs/decisions/0002-json-at-the-boundary-of-the-browser.md` has the numbers.
//!
//! A value is read in place: it starts as a blank, and its fields are filled one after the other. So nothing is moved,
//! and there is one way out on an error instead of one for each field. Whoever calls [`FromJson::from_json`] never
//! sees a blank: unless everything was filled, the answer is an error.

use core::fmt;

use super::JsonValue;
use super::text::{Numbers, Reader};
use crate::money::{Currency, Money, Rate};
use crate::prelude::*;
use crate::time::{TimeSpan, Timestamp};

/// A type that can be read from JSON text.
pub trait FromJson {
    /// Reads it.
    ///
    /// # Errors
    /// [`Mismatch`] names the field that does not fit.
    fn from_json(text: &str, numbers: Numbers) -> Result<Self, Mismatch>
    where
        Self: Sized,
    {
        let mut reader = Reader::new(text, numbers);
        let mut read = Self::blank();
        read.fill(&mut reader)?;
        reader.end()?;
        Ok(read)
    }

    /// What stands in its place until it is read. It need not be valid.
    #[doc(hidden)]
    fn blank() -> Self
    where
        Self: Sized;

    /// Reads it in place; after an error it holds anything.
    #[doc(hidden)]
    fn fill(&mut self, reader: &mut Reader<'_>) -> Result<(), Mismatch>;

    /// Whether its field may be missing; it stays blank then.
    #[doc(hidden)]
    fn may_be_missing(&self) -> bool {
        false
    }
}

/// The text is no JSON, or does not fit the type that it is read as.
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
    pub(crate) fn not_json() -> Self {
        Self::new("not JSON")
    }

    #[inline(never)]
    pub(crate) fn expected(what: &str) -> Self {
        Self::because(["expected ", what].joined())
    }

    #[inline(never)]
    pub(crate) fn within(mut self, name: &str) -> Self {
        let path = &mut self.0.path;
        *path = if path.is_empty() { name.to_owned() } else { [name, ".", path].joined() };
        self
    }

    /// The sentence that tells of it.
    #[inline(never)]
    pub fn sentence(&self) -> String {
        let Finding { path, reason } = &*self.0;
        if path.is_empty() { reason.clone() } else { [path, ": ", reason].joined() }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence())
    }
}

impl core::error::Error for Mismatch {}

/// A field in JSON.
#[derive(Clone, Copy)]
pub(crate) struct FieldName {
    /// The name as it is written: in quotes, with a colon.
    pub(crate) key: &'static str,
    /// It may be missing, whatever its type says.
    pub(crate) or_default: bool,
    /// It is not written while it is empty.
    pub(crate) unless_empty: bool,
}

impl FieldName {
    #[inline]
    pub(crate) fn name(&self) -> &'static str {
        self.key.get(1..self.key.len() - 2).unwrap_or_default()
    }
}

/// What becomes of fields that a type does not know.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unknown {
    Ignored,
    Refused,
}

/// Fills `slots` with the fields of the same position in `names`, which are at most 64.
#[inline(never)]
pub(crate) fn fill_fields(
    reader: &mut Reader<'_>,
    unknown: Unknown,
    names: &[FieldName],
    slots: &mut [&mut dyn FromJson],
) -> Result<(), Mismatch> {
    let is_tagged = reader.take_tagged();
    let mut has_tag = false;
    let mut filled = 0_u64;
    let mut next = 0;
    reader.object(&mut |reader, name| {
        // Both ends write the fields in this order.
        let index = match names.get(next) {
            Some(expected) if expected.name() == name => Some(next),
            _ => names.iter().position(|known| known.name() == name),
        };
        let Some((index, slot)) = index.and_then(|index| Some((index, slots.get_mut(index)?))) else {
            let is_tag = is_tagged && name == "type";
            if is_tag && core::mem::replace(&mut has_tag, true) {
                return Err(twice(name));
            }
            if unknown == Unknown::Ignored || is_tag {
                return reader.skip();
            }
            return Err(Mismatch::new("is not known here").within(name));
        };
        if filled >> index & 1 == 1 {
            return Err(twice(name));
        }
        filled |= 1 << index;
        next = index + 1;
        slot.fill(reader).map_err(|mismatch| mismatch.within(name))
    })?;
    for (index, (field, slot)) in names.iter().zip(slots).enumerate() {
        if filled >> index & 1 == 0 && !field.or_default && !slot.may_be_missing() {
            return Err(Mismatch::new("is missing").within(field.name()));
        }
    }
    Ok(())
}

#[inline(never)]
fn twice(name: &str) -> Mismatch {
    Mismatch::new("is there twice").within(name)
}

#[inline(never)]
pub(crate) fn text(reader: &mut Reader<'_>) -> Result<String, Mismatch> {
    reader.string().map(|text| text.into_owned())
}

/// The position of a text among `names`.
#[inline(never)]
pub(crate) fn position(reader: &mut Reader<'_>, names: &[&str]) -> Result<usize, Mismatch> {
    let text = reader.string()?;
    match names.iter().position(|name| *name == text) {
        Some(position) => Ok(position),
        None => Err(Mismatch::because(["'", &text, "' is not possible here"].joined())),
    }
}

/// The position of the field that tells the variants of an enum apart among `names`.
#[inline(never)]
pub(crate) fn tag(reader: &mut Reader<'_>, names: &[&str]) -> Result<usize, Mismatch> {
    let tag = reader.tag()?;
    match names.iter().position(|name| *name == tag) {
        Some(position) => Ok(position),
        None => Err(Mismatch::because(["'", &tag, "' is not known here"].joined()).within("type")),
    }
}

impl FromJson for JsonValue {
    fn blank() -> Self {
        Self::Null
    }

    fn fill(&mut self, reader: &mut Reader<'_>) -> Result<(), Mismatch> {
        *self = reader.value()?;
        Ok(())
    }
}

/// Types that are read from one JSON value: what they are while blank, and how the value becomes one.
macro_rules! read_value {
    ($($name:ty, blank $blank:expr, $reader:ident => $read:expr;)+) => {$(
        impl $crate::json::FromJson for $name {
            fn blank() -> Self {
                $blank
            }

            fn fill(&mut self, $reader: &mut $crate::json::Reader<'_>) -> Result<(), $crate::json::Mismatch> {
                *self = $read?;
                Ok(())
            }
        }
    )+};
}

fn small(reader: &mut Reader<'_>) -> Result<u32, Mismatch> {
    reader.integer()?.try_into().map_err(|_| Mismatch::expected("a whole number from 0 to 4294967295"))
}

read_value! {
    String, blank Self::new(), reader => text(reader);
    bool, blank false, reader => reader.boolean();
    i64, blank 0, reader => reader.integer();
    u64, blank 0, reader =>
        reader.integer()?.try_into().map_err(|_| Mismatch::expected("a whole number from 0 on"));
    u32, blank 0, reader => small(reader);
    Money, blank Self::ZERO, reader => reader.integer().map(Self::from_minor);
    Rate, blank Self::default(), reader => small(reader).map(Self::from_hundredths_of_percent);
    Timestamp, blank Self::from_millis(0), reader =>
        reader.string()?.parse().map_err(|error: crate::time::InvalidTimestamp| Mismatch::new(error.sentence()));
    TimeSpan, blank Self::from_millis(0), reader =>
        reader.string()?.parse().map_err(|error: crate::time::InvalidTimeSpan| Mismatch::new(error.sentence()));
    Currency, blank Self::NONE, reader => Self::try_from(text(reader)?).map_err(Mismatch::new);
}

impl<T: FromJson> FromJson for Option<T> {
    fn blank() -> Self {
        None
    }

    fn fill(&mut self, reader: &mut Reader<'_>) -> Result<(), Mismatch> {
        if reader.null() {
            *self = None;
            Ok(())
        } else {
            self.insert(T::blank()).fill(reader)
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

    fn fill(&mut self, reader: &mut Reader<'_>) -> Result<(), Mismatch> {
        (**self).fill(reader)
    }
}

impl<T: FromJson> FromJson for Vec<T> {
    fn blank() -> Self {
        Self::new()
    }

    fn fill(&mut self, reader: &mut Reader<'_>) -> Result<(), Mismatch> {
        self.clear();
        for_each_item(reader, &mut |reader, _| {
            let mut read = T::blank();
            let result = read.fill(reader);
            self.push(read);
            result
        })
    }
}

/// Like [`Reader::array`], with the position in what is said of an item that does not fit.
#[inline(never)]
fn for_each_item<'a>(
    reader: &mut Reader<'a>,
    each: &mut dyn FnMut(&mut Reader<'a>, usize) -> Result<(), Mismatch>,
) -> Result<(), Mismatch> {
    reader.array(&mut |reader, index| {
        each(reader, index).map_err(|mismatch| mismatch.within(&super::write::digits(index as i64)))
    })
}

impl<A: FromJson, B: FromJson> FromJson for (A, B) {
    fn blank() -> Self {
        (A::blank(), B::blank())
    }

    fn fill(&mut self, reader: &mut Reader<'_>) -> Result<(), Mismatch> {
        let mut count = 0;
        reader.array(&mut |reader, index| {
            count = index + 1;
            match index {
                0 => self.0.fill(reader),
                1 => self.1.fill(reader),
                _ => Err(Mismatch::expected("a pair")),
            }
        })?;
        if count == 2 { Ok(()) } else { Err(Mismatch::expected("a pair")) }
    }
}

/// Reads and writes a struct: its fields with their names in JSON. `in parts` marks those of which only the parts that
/// differ are written in a patch (see [`Change`](super::Change)), `or default` those that may be missing, `unless empty`
/// those that are not written while they are empty.
macro_rules! json_struct {
    ($name:ident, $unknown:ident {
        $($field:ident : $json:literal $(in $parts:ident)? $(or $default:ident)? $(unless $empty:ident)?),* $(,)?
    }) => {
        const _: () = {
            const NAMES: &[$crate::json::FieldName] =
                &[$($crate::json::json_struct!(@name $json, [$($default)?], [$($empty)?])),*];

            impl $crate::json::FromJson for $name {
                fn blank() -> Self {
                    Self { $($field: $crate::json::json_struct!(@blank $($default)?)),* }
                }

                fn fill(
                    &mut self,
                    reader: &mut $crate::json::Reader<'_>,
                ) -> Result<(), $crate::json::Mismatch> {
                    let unknown = $crate::json::Unknown::$unknown;
                    $crate::json::fill_fields(reader, unknown, NAMES, &mut [$(&mut self.$field),*])
                }
            }

            impl $crate::json::ToJson for $name {
                fn write(&self, out: &mut $crate::json::Writer) {
                    out.fields(NAMES, &[$(&self.$field),*]);
                }
            }

            impl $name {
                /// Writes the fields that differ from those of `last` as entries of an object, and takes them over there.
                #[allow(dead_code)]
                pub(crate) fn write_changed_fields(&self, last: &mut Self, out: &mut $crate::json::Writer) {
                    $(
                        if self.$field != last.$field {
                            $crate::json::json_struct!(@change self, last, out, $field, $json, [$($parts)?]);
                        }
                    )*
                }
            }
        };
    };
    (@change $this:ident, $last:ident, $out:ident, $field:ident, $json:literal, []) => {
        $out.field($json, &$this.$field);
        $last.$field.clone_from(&$this.$field);
    };
    (@change $this:ident, $last:ident, $out:ident, $field:ident, $json:literal, [parts]) => {
        $crate::json::Change::write_change(&$this.$field, $json, &mut $last.$field, $out);
    };
    (@blank) => { $crate::json::FromJson::blank() };
    (@blank default) => { Default::default() };
    (@name $json:literal, [$($default:ident)?], [$($empty:ident)?]) => {
        $crate::json::FieldName {
            key: concat!("\"", $json, "\":"),
            or_default: $crate::json::json_struct!(@flag $($default)?),
            unless_empty: $crate::json::json_struct!(@flag $($empty)?),
        }
    };
    (@flag) => { false };
    (@flag default) => { true };
    (@flag empty) => { true };
}

/// Reads and writes an enum without fields: its variants with their names in JSON, those from former times last.
macro_rules! json_enum {
    ($name:ident { $($variant:ident : $json:literal $(| $former:literal)?),+ $(,)? }) => {
        impl $crate::json::FromJson for $name {
            fn blank() -> Self {
                const FIRST: $name = [$($name::$variant),+][0];
                FIRST
            }

            fn fill(&mut self, reader: &mut $crate::json::Reader<'_>) -> Result<(), $crate::json::Mismatch> {
                let variants = &[$(Self::$variant),+ $($(, $crate::json::json_enum!(@second $former, Self::$variant))?)+];
                let position = $crate::json::position(reader, &[$($json),+ $($(, $former)?)+])?;
                if let Some(variant) = variants.get(position) {
                    *self = *variant;
                }
                Ok(())
            }
        }

        impl $crate::json::ToJson for $name {
            fn write(&self, out: &mut $crate::json::Writer) {
                out.plain(match self { $(Self::$variant => $json),+ });
            }
        }
    };
    (@second $first:literal, $second:expr) => { $second };
}

/// Reads and writes an enum that JSON tells apart by a field `type` beside the variant's own fields.
macro_rules! json_tagged {
    ($name:ident, $unknown:ident, blank $blank:expr, { $($variant:ident : $json:literal $fields:tt),+ $(,)? }) => {
        impl $crate::json::FromJson for $name {
            fn blank() -> Self {
                $blank
            }

            fn fill(&mut self, reader: &mut $crate::json::Reader<'_>) -> Result<(), $crate::json::Mismatch> {
                let position = $crate::json::tag(reader, &[$($json),+])?;
                // Compiled to a jump: the numbers are known.
                let mut number = 0;
                $(
                    if position == number {
                        *self = $crate::json::json_tagged!(@blank $variant $fields);
                    }
                    number += 1;
                )+
                let _ = number;
                $crate::json::json_tagged!(@fill self, reader, $unknown { $($variant $fields)+ })
            }
        }

        impl $crate::json::ToJson for $name {
            fn write(&self, out: &mut $crate::json::Writer) {
                $crate::json::json_tagged!(@write self, out { $($variant $json $fields)+ })
            }
        }
    };
    (@blank $variant:ident inner) => { Self::$variant($crate::json::FromJson::blank()) };
    (@blank $variant:ident { $($field:ident : $json:literal $(or $default:ident)? $(unless $empty:ident)?),* $(,)? }) => {
        Self::$variant { $($field: $crate::json::json_struct!(@blank $($default)?)),* }
    };
    // The first variant may be `inner`: its value reads the whole object by itself.
    (@fill $this:ident, $reader:ident, $unknown:ident { $inner:ident inner $($rest:tt)* }) => {
        match $this {
            Self::$inner(inner) => inner.fill($reader),
            _ => $crate::json::json_tagged!(@fill_rest $this, $reader, $unknown, [Self::$inner(_) => Ok(()),] { $($rest)* }),
        }
    };
    (@fill $this:ident, $reader:ident, $unknown:ident { $($rest:tt)* }) => {
        $crate::json::json_tagged!(@fill_rest $this, $reader, $unknown, [] { $($rest)* })
    };
    (@fill_rest $this:ident, $reader:ident, $unknown:ident, [$($done:tt)*] { $($variant:ident
        { $($field:ident : $json:literal $(or $default:ident)? $(unless $empty:ident)?),* $(,)? })+ }) => {
        // Exhaustive: does not compile while a variant is missing.
        match $this {
            $($done)*
            $(Self::$variant { $($field),* } => $crate::json::fill_fields(
                $reader,
                $crate::json::Unknown::$unknown,
                &[$($crate::json::json_struct!(@name $json, [$($default)?], [$($empty)?])),*],
                &mut [$($field),*],
            ),)+
        }
    };
    (@write $this:ident, $out:ident { $inner:ident $inner_tag:literal inner $($rest:tt)* }) => {
        match $this {
            Self::$inner(inner) => {
                $out.tag($inner_tag);
                inner.write($out);
            }
            _ => $crate::json::json_tagged!(@write_rest $this, $out, [Self::$inner(_) => {}] { $($rest)* }),
        }
    };
    (@write $this:ident, $out:ident { $($rest:tt)* }) => {
        $crate::json::json_tagged!(@write_rest $this, $out, [] { $($rest)* })
    };
    (@write_rest $this:ident, $out:ident, [$($done:tt)*] { $($variant:ident $tag:literal
        { $($field:ident : $json:literal $(or $default:ident)? $(unless $empty:ident)?),* $(,)? })+ }) => {
        match $this {
            $($done)*
            $(Self::$variant { $($field),* } => {
                $out.tag($tag);
                $out.fields(
                    &[$($crate::json::json_struct!(@name $json, [$($default)?], [$($empty)?])),*],
                    &[$($field),*],
                );
            })+
        }
    };
}

pub(crate) use {json_enum, json_struct, json_tagged, read_value};
