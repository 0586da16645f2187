//! Writes JSON text with serde's derived code.
//!
//! Every derived implementation is compiled once for the serializer that it meets, so what a serializer does for one field is
//! paid for hundreds of times. This one does next to nothing for a field: it writes a key and goes on. The browser's
//! own parser makes objects of the text where objects are wanted.

use std::fmt;
use std::fmt::Write as _;

use js_sys::JSON;
use serde::ser::{self, Serialize};
use wasm_bindgen::prelude::*;

/// `value` as compact JSON text.
pub fn to_text<T: Serialize + ?Sized>(value: &T) -> String {
    let mut writer = Writer::default();
    // Fails for nothing that the core has.
    let _ = value.serialize(&mut writer);
    writer.text
}

/// The fields of a struct, each as compact JSON text.
pub fn fields<T: Serialize + ?Sized>(value: &T) -> Vec<(&'static str, String)> {
    let mut writer = Writer::default();
    let _ = value.serialize(&mut writer);
    let Writer { text, fields, .. } = writer;
    fields.into_iter().filter_map(|(name, from, to)| Some((name, text.get(from..to)?.to_owned()))).collect()
}

/// Writes `text` with quotes and escapes.
pub fn write_quoted(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => {
                out.push('\\');
                out.push(character);
            }
            '\0'..='\x1f' => {
                out.push_str("\\u00");
                for digit in [character as u32 >> 4, character as u32 & 15] {
                    out.extend(char::from_digit(digit, 16));
                }
            }
            _ => out.push(character),
        }
    }
    out.push('"');
}

#[derive(Default)]
struct Writer {
    text: String,
    depth: usize,
    /// Where the values of the outermost struct's fields lie in the text.
    fields: Vec<(&'static str, usize, usize)>,
}

impl Writer {
    #[inline(never)]
    fn open(&mut self, bracket: char) {
        self.depth += 1;
        self.text.push(bracket);
    }

    #[inline(never)]
    fn close(&mut self, bracket: char) -> Result<(), NotJson> {
        self.depth -= 1;
        self.text.push(bracket);
        Ok(())
    }

    /// A comma, unless this is the first element. A value never ends with an opening bracket, so the last byte tells.
    #[inline(never)]
    fn separate(&mut self) {
        if !matches!(self.text.as_bytes().last(), Some(b'{' | b'[')) {
            self.text.push(',');
        }
    }

    #[inline(never)]
    fn key(&mut self, name: &str) -> usize {
        self.separate();
        write_quoted(&mut self.text, name);
        self.text.push(':');
        self.text.len()
    }

    #[inline(never)]
    fn note_field(&mut self, name: &'static str, from: usize) {
        if self.depth == 1 {
            self.fields.push((name, from, self.text.len()));
        }
    }

    #[inline(never)]
    fn word(&mut self, word: &str) -> Result<(), NotJson> {
        self.text.push_str(word);
        Ok(())
    }

    #[inline(never)]
    fn integer(&mut self, negative: bool, magnitude: u64) -> Result<(), NotJson> {
        let sign = if negative { "-" } else { "" };
        write!(self.text, "{sign}{magnitude}").map_err(|_| NotJson)
    }
}

/// The value has no form in JSON.
#[derive(Debug)]
struct NotJson;

impl fmt::Display for NotJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("has no form in JSON")
    }
}

impl std::error::Error for NotJson {}

impl ser::Error for NotJson {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

impl<'a> ser::Serializer for &'a mut Writer {
    type Ok = ();
    type Error = NotJson;
    type SerializeSeq = Compound<'a>;
    type SerializeTuple = Compound<'a>;
    type SerializeTupleStruct = Compound<'a>;
    type SerializeTupleVariant = Compound<'a>;
    type SerializeMap = Compound<'a>;
    type SerializeStruct = Compound<'a>;
    type SerializeStructVariant = Compound<'a>;

    fn serialize_bool(self, value: bool) -> Result<(), NotJson> {
        self.word(if value { "true" } else { "false" })
    }

    fn serialize_i8(self, value: i8) -> Result<(), NotJson> {
        self.serialize_i64(value.into())
    }

    fn serialize_i16(self, value: i16) -> Result<(), NotJson> {
        self.serialize_i64(value.into())
    }

    fn serialize_i32(self, value: i32) -> Result<(), NotJson> {
        self.serialize_i64(value.into())
    }

    fn serialize_i64(self, value: i64) -> Result<(), NotJson> {
        self.integer(value < 0, value.unsigned_abs())
    }

    fn serialize_u8(self, value: u8) -> Result<(), NotJson> {
        self.integer(false, value.into())
    }

    fn serialize_u16(self, value: u16) -> Result<(), NotJson> {
        self.integer(false, value.into())
    }

    fn serialize_u32(self, value: u32) -> Result<(), NotJson> {
        self.integer(false, value.into())
    }

    fn serialize_u64(self, value: u64) -> Result<(), NotJson> {
        self.integer(false, value)
    }

    fn serialize_f32(self, value: f32) -> Result<(), NotJson> {
        self.serialize_f64(value.into())
    }

    /// As the browser writes it: Rust's tables for that are larger than everything else here.
    fn serialize_f64(self, value: f64) -> Result<(), NotJson> {
        let text = JSON::stringify(&JsValue::from_f64(value)).map(String::from).map_err(|_| NotJson)?;
        self.word(&text)
    }

    fn serialize_char(self, value: char) -> Result<(), NotJson> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), NotJson> {
        write_quoted(&mut self.text, value);
        Ok(())
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<(), NotJson> {
        Err(NotJson)
    }

    fn serialize_none(self) -> Result<(), NotJson> {
        self.word("null")
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), NotJson> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), NotJson> {
        self.word("null")
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), NotJson> {
        self.word("null")
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), NotJson> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), NotJson> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), NotJson> {
        self.open('{');
        self.key(variant);
        value.serialize(&mut *self)?;
        self.close('}')
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Compound<'a>, NotJson> {
        self.open('[');
        Ok(Compound { writer: self, close: ']' })
    }

    fn serialize_tuple(self, _: usize) -> Result<Compound<'a>, NotJson> {
        self.serialize_seq(None)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Compound<'a>, NotJson> {
        self.serialize_seq(None)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Compound<'a>, NotJson> {
        Err(NotJson)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Compound<'a>, NotJson> {
        self.open('{');
        Ok(Compound { writer: self, close: '}' })
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Compound<'a>, NotJson> {
        self.serialize_map(None)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Compound<'a>, NotJson> {
        Err(NotJson)
    }
}

/// An array or object that is being written.
struct Compound<'a> {
    writer: &'a mut Writer,
    close: char,
}

impl Compound<'_> {
    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NotJson> {
        self.writer.separate();
        value.serialize(&mut *self.writer)
    }

    fn field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), NotJson> {
        let from = self.writer.key(name);
        value.serialize(&mut *self.writer)?;
        self.writer.note_field(name, from);
        Ok(())
    }
}

/// The kinds of array, which differ in names only.
macro_rules! arrays {
    ($($kind:ident . $element:ident),+) => {$(
        impl ser::$kind for Compound<'_> {
            type Ok = ();
            type Error = NotJson;

            fn $element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NotJson> {
                self.element(value)
            }

            fn end(self) -> Result<(), NotJson> {
                self.writer.close(self.close)
            }
        }
    )+};
}

arrays!(
    SerializeSeq.serialize_element,
    SerializeTuple.serialize_element,
    SerializeTupleStruct.serialize_field,
    SerializeTupleVariant.serialize_field
);

/// The kinds of struct, which differ in names only.
macro_rules! structs {
    ($($kind:ident),+) => {$(
        impl ser::$kind for Compound<'_> {
            type Ok = ();
            type Error = NotJson;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), NotJson> {
                self.field(name, value)
            }

            fn end(self) -> Result<(), NotJson> {
                self.writer.close(self.close)
            }
        }
    )+};
}

structs!(SerializeStruct, SerializeStructVariant);

impl ser::SerializeMap for Compound<'_> {
    type Ok = ();
    type Error = NotJson;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), NotJson> {
        self.element(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NotJson> {
        self.writer.text.push(':');
        value.serialize(&mut *self.writer)
    }

    fn end(self) -> Result<(), NotJson> {
        self.writer.close(self.close)
    }
}
