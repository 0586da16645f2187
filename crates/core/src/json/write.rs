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

/// How many bytes a writer has room for at first: a small patch fits.
const FIRST_BYTES: usize = 256;

/// JSON text that is being written.
#[derive(Debug)]
pub struct Writer {
    text: Vec<u8>,
    numbers: Numbers,
    /// The `type` of the object that is written next.
    tag: Option<&'static str>,
    /// Points in time are written as milliseconds since the Unix epoch.
    has_numeric_times: bool,
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
        Self { text: Vec::with_capacity(FIRST_BYTES), numbers, tag: None, has_numeric_times: false }
    }

    /// Writes points in time as milliseconds since the Unix epoch, or as text again: for a reader on the same machine, which
    /// has no use for text.
    pub fn set_numeric_times(&mut self, is_numeric: bool) {
        self.has_numeric_times = is_numeric;
    }

    /// Takes back what was written after the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.text.truncate(len);
    }

    fn time(&mut self, time: Timestamp) {
        if self.has_numeric_times {
            self.integer(time.as_millis());
        } else {
            time.with_text(|text| self.plain(text));
        }
    }

    /// How many bytes were written.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.text.len()
    }

    /// What was written.
    pub fn finish(self) -> String {
        // Nothing but whole texts is put in.
        String::from_utf8(self.text).unwrap_or_default()
    }

    /// Copies short pieces byte by byte: most are, and for those the machine's way of copying takes longer to begin.
    #[inline(never)]
    fn put(&mut self, text: &str) {
        const SHORT: usize = 12;
        if text.len() > SHORT {
            self.text.extend_from_slice(text.as_bytes());
        } else {
            text.bytes().for_each(|byte| self.text.push(byte));
        }
    }

    /// Begins an array or object: an opening bracket.
    #[inline(never)]
    pub fn open(&mut self, bracket: &str) {
        self.put(bracket);
    }

    /// Ends an array or object: a closing bracket.
    #[inline(never)]
    pub fn close(&mut self, bracket: &str) {
        self.put(bracket);
    }

    /// Has to be called before every item of an array. No value ends with an opening bracket, so the last byte tells
    /// whether this is the first.
    #[inline(never)]
    pub fn item(&mut self) {
        if !matches!(self.text.last(), None | Some(b'{' | b'[')) {
            self.text.push(b',');
        }
    }

    /// The name of an object's next entry, which needs no escapes; its value has to follow.
    #[inline(never)]
    pub fn key(&mut self, name: &str) {
        self.item();
        self.plain(name);
        self.text.push(b':');
    }

    /// An entry of an object, with a name that needs no escapes.
    #[inline(never)]
    pub fn field(&mut self, name: &str, value: &dyn ToJson) {
        self.key(name);
        value.write(self);
    }

    /// An entry of an object, with any name.
    #[inline(never)]
    pub(crate) fn entry(&mut self, name: &str, value: &dyn ToJson) {
        self.item();
        self.quoted(name);
        self.text.push(b':');
        value.write(self);
    }

    /// Text in quotes that needs no escapes.
    #[inline(never)]
    pub(crate) fn plain(&mut self, text: &str) {
        self.text.push(b'"');
        self.put(text);
        self.text.push(b'"');
    }

    /// The object that is written next is one of several kinds, told by this `type`.
    #[inline(never)]
    pub fn tag(&mut self, tag: &'static str) {
        self.tag = Some(tag);
    }

    /// An object of the fields of the same position in `names`.
    #[inline(never)]
    pub(crate) fn fields(&mut self, names: &[FieldName], fields: &[&dyn ToJson]) {
        self.open("{");
        if let Some(tag) = self.tag.take() {
            self.field("type", &tag);
        }
        for (name, field) in names.iter().zip(fields) {
            if !(name.unless_empty && field.is_empty()) {
                self.item();
                self.put(name.key);
                field.write(self);
            }
        }
        self.close("}");
    }

    /// JSON that is written already.
    #[inline(never)]
    pub fn raw(&mut self, json: &str) {
        self.put(json);
    }

    /// Text in quotes.
    #[inline(never)]
    pub fn quoted(&mut self, text: &str) {
        self.text.push(b'"');
        self.escaped(text);
        self.text.push(b'"');
    }

    fn escaped(&mut self, text: &str) {
        let mut rest = text;
        while let Some(at) = rest.bytes().position(|byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
            let (plain, from) = rest.split_at_checked(at).unwrap_or_default();
            self.put(plain);
            self.escape(from.as_bytes().first().copied().unwrap_or_default());
            rest = from.get(1..).unwrap_or_default();
        }
        self.put(rest);
    }

    #[inline(never)]
    fn escape(&mut self, byte: u8) {
        let short = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            0x08 => "\\b",
            0x0c => "\\f",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            _ => {
                self.put("\\u00");
                for digit in [byte >> 4, byte & 15] {
                    self.text.push(if digit < 10 { b'0' + digit } else { b'a' - 10 + digit });
                }
                return;
            }
        };
        self.put(short);
    }

    /// A whole number.
    #[inline(never)]
    pub fn integer(&mut self, number: i64) {
        push_integer(&mut self.text, number);
    }

    fn float(&mut self, number: f64) {
        let text = (self.numbers.write)(number);
        self.put(&text);
    }
}

/// A whole number as text.
#[inline(never)]
pub(crate) fn digits(number: i64) -> String {
    let mut text = Vec::new();
    push_integer(&mut text, number);
    String::from_utf8(text).unwrap_or_default()
}

/// Writes a whole number without the standard library's formatting.
#[inline(never)]
fn push_integer(text: &mut Vec<u8>, number: i64) {
    if number < 0 {
        text.push(b'-');
    }
    let magnitude = number.unsigned_abs();
    let mut place = 1;
    while magnitude / place >= 10 {
        place *= 10;
    }
    while place > 0 {
        text.push(b'0' + (magnitude / place % 10) as u8);
        place /= 10;
    }
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
    Money, this, out => out.integer(this.minor());
    Rate, this, out => out.integer(this.hundredths_of_percent().into());
    Timestamp, this, out => out.time(*this);
    TimeSpan, this, out => out.plain(&this.text());
    Currency, this, out => out.plain(this.as_str());
}

impl ToJson for String {
    fn write(&self, out: &mut Writer) {
        out.quoted(self);
    }

    fn is_empty(&self) -> bool {
        self.is_empty()
    }
}

impl ToJson for u32 {
    fn write(&self, out: &mut Writer) {
        out.integer((*self).into());
    }

    fn is_empty(&self) -> bool {
        *self == 0
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
        out.open("[");
        for item in self {
            out.item();
            item.write(out);
        }
        out.close("]");
    }

    fn is_empty(&self) -> bool {
        self.is_empty()
    }
}

impl<A: ToJson, B: ToJson> ToJson for (A, B) {
    fn write(&self, out: &mut Writer) {
        out.open("[");
        self.0.write(out);
        out.item();
        self.1.write(out);
        out.close("]");
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
