//! Writes Rust values as JSON text, in the browser: the counterpart of [`read`](super::read), by the same tables.

use super::JsonValue;
use super::text::Numbers;
use crate::json::FieldName;
use crate::money::{Currency, Money, Rate};
use crate::prelude::*;
use crate::time::{TimeSpan, Timestamp};

/// A type that can be written as JSON, as serde would write it.
pub trait ToJson {
    /// Writes it.
    fn write(&self, out: &mut Writer);

    /// Whether a field that is left out while it is empty is left out.
    #[doc(hidden)]
    fn is_empty(&self) -> bool {
        false
    }
}

/// JSON text that is being written.
#[derive(Debug)]
pub struct Writer {
    text: String,
    numbers: Numbers,
    /// The `type` of the object that is written next.
    tag: Option<&'static str>,
}

/// `value` as compact JSON text.
pub fn to_text(value: &dyn ToJson, numbers: Numbers) -> String {
    let mut out = Writer::new(numbers);
    value.write(&mut out);
    out.finish()
}

impl Writer {
    /// A writer that has written nothing yet.
    pub fn new(numbers: Numbers) -> Self {
        Self { text: String::new(), numbers, tag: None }
    }

    /// How many bytes were written.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.text.len()
    }

    /// What was written.
    pub fn finish(self) -> String {
        self.text
    }

    /// Begins an array or object, as the next item of what it is in.
    #[inline(never)]
    pub fn open(&mut self, bracket: char) {
        self.text.push(bracket);
    }

    /// Ends an array or object.
    #[inline(never)]
    pub fn close(&mut self, bracket: char) {
        self.text.push(bracket);
    }

    /// Has to be called before every item of an array. No value ends with an opening bracket, so the last byte tells
    /// whether this is the first.
    #[inline(never)]
    pub fn item(&mut self) {
        if !matches!(self.text.as_bytes().last(), None | Some(b'{' | b'[')) {
            self.text.push(',');
        }
    }

    /// The name of an object's next entry; its value has to follow.
    #[inline(never)]
    pub fn key(&mut self, name: &str) {
        self.item();
        self.quoted(name);
        self.text.push(':');
    }

    /// An entry of an object.
    #[inline(never)]
    pub fn field(&mut self, name: &str, value: &dyn ToJson) {
        self.key(name);
        value.write(self);
    }

    /// The object that is written next is one of several kinds, told by this `type`.
    #[inline(never)]
    pub fn tag(&mut self, tag: &'static str) {
        self.tag = Some(tag);
    }

    /// An object of the fields of the same position in `names`.
    #[inline(never)]
    pub(crate) fn fields(&mut self, names: &[FieldName], fields: &[&dyn ToJson]) {
        self.open('{');
        if let Some(tag) = self.tag.take() {
            self.field("type", &tag);
        }
        for (name, field) in names.iter().zip(fields) {
            if !(name.unless_empty && field.is_empty()) {
                self.field(name.name, *field);
            }
        }
        self.close('}');
    }

    /// JSON that is written already.
    #[inline(never)]
    pub fn raw(&mut self, json: &str) {
        self.text.push_str(json);
    }

    /// Text in quotes.
    #[inline(never)]
    pub fn quoted(&mut self, text: &str) {
        self.text.push('"');
        let mut from = 0;
        for (at, byte) in text.bytes().enumerate() {
            let short = match byte {
                b'"' | b'\\' => byte,
                0x08 => b'b',
                0x0c => b'f',
                b'\n' => b'n',
                b'\r' => b'r',
                b'\t' => b't',
                0..=0x1f => b'u',
                _ => continue,
            };
            self.text.push_str(text.get(from..at).unwrap_or_default());
            self.text.push('\\');
            self.text.push(char::from(short));
            if short == b'u' {
                self.text.push_str("00");
                for digit in [byte >> 4, byte & 15] {
                    self.text.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
                }
            }
            from = at + 1;
        }
        self.text.push_str(text.get(from..).unwrap_or_default());
        self.text.push('"');
    }

    /// A whole number.
    #[inline(never)]
    pub fn integer(&mut self, number: i64) {
        push_integer(&mut self.text, number);
    }

    fn float(&mut self, number: f64) {
        let text = (self.numbers.write)(number);
        self.text.push_str(&text);
    }
}

/// A whole number as text.
#[inline(never)]
pub(crate) fn digits(number: i64) -> String {
    let mut text = String::new();
    push_integer(&mut text, number);
    text
}

/// Writes a whole number without the standard library's formatting.
#[inline(never)]
pub(crate) fn push_integer(text: &mut String, number: i64) {
    let mut digits = [0_u8; 20];
    let mut rest = number.unsigned_abs();
    let mut first = digits.len();
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        first -= 1;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        text.push('-');
    }
    text.extend(digits.iter().skip(first).map(|digit| char::from(*digit)));
}

/// Types that are written by one call.
macro_rules! write_value {
    ($($name:ty, $this:ident, $out:ident => $write:expr;)+) => {$(
        impl $crate::json::ToJson for $name {
            fn write(&self, $out: &mut $crate::json::Writer) {
                let $this = self;
                $write;
            }
        }
    )+};
}

pub(crate) use write_value;

write_value! {
    str, this, out => out.quoted(this);
    i64, this, out => out.integer(*this);
    // Nothing that is written is beyond what a JavaScript number holds.
    u64, this, out => out.integer(i64::try_from(*this).unwrap_or(i64::MAX));
    u32, this, out => out.integer((*this).into());
    Money, this, out => out.integer(this.minor());
    Rate, this, out => out.integer(this.hundredths_of_percent().into());
    Timestamp, this, out => this.with_text(|text| out.quoted(text));
    TimeSpan, this, out => out.quoted(&this.text());
    Currency, this, out => out.quoted(this.as_str());
}

impl ToJson for String {
    fn write(&self, out: &mut Writer) {
        out.quoted(self);
    }

    fn is_empty(&self) -> bool {
        self.is_empty()
    }
}

impl ToJson for bool {
    fn write(&self, out: &mut Writer) {
        out.raw(if *self { "true" } else { "false" });
    }

    fn is_empty(&self) -> bool {
        !self
    }
}

impl<T: ToJson> ToJson for Option<T> {
    fn write(&self, out: &mut Writer) {
        match self {
            Some(value) => value.write(out),
            None => out.raw("null"),
        }
    }

    fn is_empty(&self) -> bool {
        self.is_none()
    }
}

impl<T: ToJson + ?Sized> ToJson for &T {
    fn write(&self, out: &mut Writer) {
        (**self).write(out);
    }

    fn is_empty(&self) -> bool {
        (**self).is_empty()
    }
}

impl<T: ToJson> ToJson for Box<T> {
    fn write(&self, out: &mut Writer) {
        (**self).write(out);
    }
}

impl<T: ToJson> ToJson for Vec<T> {
    fn write(&self, out: &mut Writer) {
        out.open('[');
        for item in self {
            out.item();
            item.write(out);
        }
        out.close(']');
    }

    fn is_empty(&self) -> bool {
        self.is_empty()
    }
}

impl<A: ToJson, B: ToJson> ToJson for (A, B) {
    fn write(&self, out: &mut Writer) {
        out.open('[');
        self.0.write(out);
        out.item();
        self.1.write(out);
        out.close(']');
    }
}

impl ToJson for JsonValue {
    fn write(&self, out: &mut Writer) {
        match self {
            Self::Null => out.raw("null"),
            Self::Bool(value) => value.write(out),
            Self::Integer(number) => out.integer(*number),
            Self::Float(number) => out.float(*number),
            Self::String(text) => out.quoted(text),
            Self::Array(items) => items.write(out),
            Self::Object(object) => object.write(out),
        }
    }
}
