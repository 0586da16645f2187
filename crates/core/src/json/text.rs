//! Reads JSON text token by token.
//!
//! Small, because a browser downloads it, and without recursion that the text could drive deeper than [`MAX_DEPTH`]. What
//! it accepts is what `serde_json` accepts, so that both ends of the protocol agree on what JSON is.

use alloc::borrow::Cow;

use super::read::Mismatch;
use super::{JsonObject, JsonValue, MAX_SAFE_INTEGER};
use crate::prelude::*;

/// How deep values may be nested.
const MAX_DEPTH: usize = 127;

/// How numbers with a fraction or an exponent are read and written.
///
/// Passed in, because the browser has both, and Rust's tables for them are larger than everything else here.
#[derive(Clone, Copy, Debug)]
pub struct Numbers {
    /// The value of a JSON number.
    pub read: fn(&str) -> f64,
    /// A finite number as JSON text.
    pub write: fn(f64) -> String,
}

impl Numbers {
    /// Those of Rust's standard library.
    pub const NATIVE: Self =
        Self { read: |text| text.parse().unwrap_or(f64::NAN), write: |number| format!("{number:e}") };
}

/// JSON text, and how far it is read.
#[derive(Debug)]
pub struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    numbers: Numbers,
    /// The object that is read next is an enum's variant, told by its `type`.
    is_tagged: bool,
}

/// What is done with each entry of an object: its name in the text, and the reader at its value.
type Entry<'e, 'a> = &'e mut dyn FnMut(&mut Reader<'a>, &str) -> Result<(), Mismatch>;
/// What is done with each item of an array: the reader at it, and its position.
type Item<'e, 'a> = &'e mut dyn FnMut(&mut Reader<'a>, usize) -> Result<(), Mismatch>;

impl<'a> Reader<'a> {
    /// A reader at the beginning of `text`.
    pub fn new(text: &'a str, numbers: Numbers) -> Self {
        Self { text, at: 0, depth: 0, numbers, is_tagged: false }
    }

    /// The next byte that is not white space, without taking it; zero at the end.
    #[inline(never)]
    fn peek(&mut self) -> u8 {
        let bytes = self.text.as_bytes();
        loop {
            match bytes.get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                Some(byte) => return *byte,
                None => return 0,
            }
        }
    }

    #[inline(never)]
    fn eat(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == byte;
        self.at += usize::from(is_next);
        is_next
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let is_next = self.text.as_bytes().get(self.at..).is_some_and(|rest| rest.starts_with(word.as_bytes()));
        if is_next {
            self.at += word.len();
        }
        is_next
    }

    /// Nothing but white space is left.
    pub(crate) fn end(&mut self) -> Result<(), Mismatch> {
        if self.peek() == 0 && self.at >= self.text.len() { Ok(()) } else { Err(Mismatch::not_json()) }
    }

    /// What is wrong where something else than `wanted` stands: the value, or the text as a whole.
    #[inline(never)]
    pub(crate) fn expected(&mut self, wanted: &str) -> Mismatch {
        match self.skip() {
            Ok(()) => Mismatch::expected(wanted),
            Err(broken) => broken,
        }
    }

    /// Takes `null`, where it is next.
    #[inline(never)]
    pub(crate) fn null(&mut self) -> bool {
        self.peek() == b'n' && self.eat_word("null")
    }

    #[inline(never)]
    pub(crate) fn boolean(&mut self) -> Result<bool, Mismatch> {
        match self.peek() {
            b't' if self.eat_word("true") => Ok(true),
            b'f' if self.eat_word("false") => Ok(false),
            b't' | b'f' => Err(Mismatch::not_json()),
            _ => Err(self.expected("true or false")),
        }
    }

    #[inline(never)]
    pub(crate) fn integer(&mut self) -> Result<i64, Mismatch> {
        if !matches!(self.peek(), b'-' | b'0'..=b'9') {
            return Err(self.expected("a whole number"));
        }
        let from = self.at;
        let number = self.number()?;
        let written = self.text.as_bytes().get(from..self.at).unwrap_or_default();
        match number {
            // The server takes none that is written with a fraction, an exponent or as minus zero, though it be whole.
            JsonValue::Integer(number) if written != b"-0" && !written.iter().any(|byte| b".eE".contains(byte)) => {
                Ok(number)
            }
            _ => Err(Mismatch::expected("a whole number")),
        }
    }

    /// Text without escapes is a part of what is read, and not copied.
    #[inline(never)]
    pub(crate) fn string(&mut self) -> Result<Cow<'a, str>, Mismatch> {
        if self.peek() != b'"' {
            return Err(self.expected("text"));
        }
        let from = self.at + 1;
        let to = self.plain_until(from);
        let plain = self.text.get(from..to).unwrap_or_default();
        self.at = to + 1;
        match self.text.as_bytes().get(to) {
            Some(b'"') => Ok(Cow::Borrowed(plain)),
            Some(b'\\') => self.escaped(plain.to_owned()).map(Cow::Owned),
            _ => Err(Mismatch::not_json()),
        }
    }

    /// Where text ends, or an escape or something that may not be in it begins.
    fn plain_until(&self, from: usize) -> usize {
        let mut at = from;
        while let Some(0x20..=0x21 | 0x23..=0x5b | 0x5d..) = self.text.as_bytes().get(at) {
            at += 1;
        }
        at
    }

    /// The rest of a text, from the character after a backslash on.
    #[inline(never)]
    fn escaped(&mut self, mut read: String) -> Result<String, Mismatch> {
        loop {
            let escape = self.text.as_bytes().get(self.at).copied();
            self.at += 1;
            read.push(match escape {
                Some(character @ (b'"' | b'\\' | b'/')) => char::from(character),
                Some(b'b') => '\x08',
                Some(b'f') => '\x0c',
                Some(b'n') => '\n',
                Some(b'r') => '\r',
                Some(b't') => '\t',
                Some(b'u') => self.code_point().ok_or_else(Mismatch::not_json)?,
                _ => return Err(Mismatch::not_json()),
            });
            let to = self.plain_until(self.at);
            read.push_str(self.text.get(self.at..to).unwrap_or_default());
            self.at = to + 1;
            match self.text.as_bytes().get(to) {
                Some(b'"') => return Ok(read),
                Some(b'\\') => {}
                _ => return Err(Mismatch::not_json()),
            }
        }
    }

    /// One or two units of UTF-16, from the digits of the first on.
    fn code_point(&mut self) -> Option<char> {
        let unit = self.unit()?;
        if !(0xd800..0xdc00).contains(&unit) {
            return char::from_u32(unit);
        }
        if !self.eat_word("\\u") {
            return None;
        }
        let low = self.unit()?.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
        char::from_u32(0x10000 + ((unit - 0xd800) << 10) + low)
    }

    fn unit(&mut self) -> Option<u32> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4)?;
        self.at += 4;
        digits.iter().try_fold(0, |sum, digit| Some(sum * 16 + char::from(*digit).to_digit(16)?))
    }

    /// A number, where one is next.
    #[inline(never)]
    fn number(&mut self) -> Result<JsonValue, Mismatch> {
        let from = self.at;
        let is_negative = self.eat_word("-");
        let first = self.at;
        let mut magnitude = 0_i64;
        let is_digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_digit);
        let bytes = self.text.as_bytes();
        while let Some(digit @ b'0'..=b'9') = bytes.get(self.at) {
            magnitude = magnitude.saturating_mul(10).saturating_add(i64::from(digit - b'0'));
            self.at += 1;
        }
        if self.at == first || (bytes[first] == b'0' && self.at > first + 1) {
            return Err(Mismatch::not_json());
        }
        let mut is_whole = magnitude <= MAX_SAFE_INTEGER;
        if self.eat_word(".") {
            is_whole = false;
            if !is_digit(bytes.get(self.at)) {
                return Err(Mismatch::not_json());
            }
            while is_digit(bytes.get(self.at)) {
                self.at += 1;
            }
        }
        if self.eat_word("e") || self.eat_word("E") {
            is_whole = false;
            let _ = self.eat_word("+") || self.eat_word("-");
            if !is_digit(bytes.get(self.at)) {
                return Err(Mismatch::not_json());
            }
            while is_digit(bytes.get(self.at)) {
                self.at += 1;
            }
        }
        if is_whole {
            return Ok(JsonValue::Integer(if is_negative { -magnitude } else { magnitude }));
        }
        let number = (self.numbers.read)(self.text.get(from..self.at).unwrap_or_default());
        // Beyond what a number can hold, as `serde_json` has it.
        if number.is_finite() { Ok(JsonValue::from(number)) } else { Err(Mismatch::new("a number is too large")) }
    }

    /// Any value.
    #[inline(never)]
    pub(crate) fn value(&mut self) -> Result<JsonValue, Mismatch> {
        match self.peek() {
            b'{' => self.map().map(JsonValue::Object),
            b'[' => {
                let mut items = Vec::new();
                self.array(&mut |reader, _| {
                    items.push(reader.value()?);
                    Ok(())
                })?;
                Ok(JsonValue::Array(items))
            }
            b'"' => self.string().map(|text| JsonValue::String(text.into_owned())),
            b'-' | b'0'..=b'9' => self.number(),
            b't' | b'f' => self.boolean().map(JsonValue::Bool),
            _ if self.null() => Ok(JsonValue::Null),
            _ => Err(Mismatch::not_json()),
        }
    }

    #[inline(never)]
    pub(crate) fn map(&mut self) -> Result<JsonObject, Mismatch> {
        let mut entries = Vec::new();
        self.object(&mut |reader, key| {
            entries.push((key.to_owned(), reader.value()?));
            Ok(())
        })?;
        Ok(entries.into_iter().collect())
    }

    /// Goes past a value.
    #[inline(never)]
    pub(crate) fn skip(&mut self) -> Result<(), Mismatch> {
        match self.peek() {
            b'{' => self.object(&mut |reader, _| reader.skip()),
            b'[' => self.array(&mut |reader, _| reader.skip()),
            b'"' => self.string().map(drop),
            _ => self.value().map(drop),
        }
    }

    /// Goes past a value, which is handed back as it is written.
    pub fn raw(&mut self) -> Result<&'a str, Mismatch> {
        self.peek();
        let from = self.at;
        self.skip()?;
        Ok(self.text.get(from..self.at).unwrap_or_default())
    }

    /// Takes an object, entry by entry.
    #[inline(never)]
    pub fn object(&mut self, each: Entry<'_, 'a>) -> Result<(), Mismatch> {
        if self.peek() != b'{' {
            return Err(self.expected("an object"));
        }
        self.enter()?;
        if !self.eat(b'}') {
            loop {
                if self.peek() != b'"' {
                    return Err(Mismatch::not_json());
                }
                let name = self.string()?;
                if !self.eat(b':') {
                    return Err(Mismatch::not_json());
                }
                each(self, &name)?;
                if !self.eat(b',') {
                    break;
                }
            }
            self.leave(b'}')?;
        }
        self.depth -= 1;
        Ok(())
    }

    /// Takes an array, item by item.
    #[inline(never)]
    pub fn array(&mut self, each: Item<'_, 'a>) -> Result<(), Mismatch> {
        if self.peek() != b'[' {
            return Err(self.expected("an array"));
        }
        self.enter()?;
        if !self.eat(b']') {
            let mut index = 0;
            loop {
                each(self, index)?;
                index += 1;
                if !self.eat(b',') {
                    break;
                }
            }
            self.leave(b']')?;
        }
        self.depth -= 1;
        Ok(())
    }

    fn enter(&mut self) -> Result<(), Mismatch> {
        self.at += 1;
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err(Mismatch::new("is nested too deeply")) } else { Ok(()) }
    }

    fn leave(&mut self, bracket: u8) -> Result<(), Mismatch> {
        if self.eat(bracket) { Ok(()) } else { Err(Mismatch::not_json()) }
    }

    /// The `type` of the object that is next, which is then read as one that may have a `type`.
    #[inline(never)]
    pub(crate) fn tag(&mut self) -> Result<Cow<'a, str>, Mismatch> {
        self.peek();
        let (at, depth) = (self.at, self.depth);
        let mut found = None;
        // It comes first in all that is written here; then the rest is not looked at yet.
        let looked = self.object(&mut |reader, name| {
            if name == "type" {
                found = Some(reader.string().map_err(|mismatch| mismatch.within("type"))?);
                return Err(Mismatch::new(""));
            }
            reader.skip()
        });
        match (found, looked) {
            (Some(tag), _) => {
                (self.at, self.depth, self.is_tagged) = (at, depth, true);
                Ok(tag)
            }
            (None, Err(mismatch)) => Err(mismatch),
            (None, Ok(())) => Err(Mismatch::new("is missing").within("type")),
        }
    }

    /// Whether the object that is next is one of a variant whose `type` was read; asked once.
    pub(crate) fn take_tagged(&mut self) -> bool {
        core::mem::take(&mut self.is_tagged)
    }
}
